"""Merges shards of generated images into one file: `python image_experiments/merge_shards.py FOLDER... --to FILE.npz`.

Shards are made by `run_cifar.py --part K/N` on any number of machines. They are verified (one set, none missing, none altered) and merged
in order, in constant memory. The file is bit-identical to that of a single process. FILE.json lists the shards with their checksums.
Exit status: 0 fine; 1 bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, from a clone that is not installed

from command_line.missing import needs_packages

with needs_packages(__name__):
    import tyro

    from command_line.command import Help, run_command, settings_line
    from command_line.output import UserError, prepare_folder
    from image_experiments.data.shards import check_replaced, find_shards, merge

HELP = Help("Verify shards of generated images and put them together in one npz file.")


@dataclass(frozen=True)
class Settings:
    """What to merge."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders with shards (shard-NUMBER.npz with its .json), in any order; subfolders are searched too."""
    to: Path = Path("merged.npz")
    """File to write."""


def run(settings: Settings) -> int:
    """Merge; returns the exit status."""
    print(settings_line(settings))
    if settings.to.suffix != ".npz":
        raise UserError(f"--to {settings.to}: give a name that ends in .npz")
    manifest = settings.to.with_suffix(".json")
    if settings.to.name.startswith("shard-"):
        raise UserError(f"--to {settings.to}: would replace a shard; choose another name")
    if settings.to.exists() and not manifest.is_file():
        raise UserError(f"--to {settings.to}: is there already, without a manifest, so it was not made here; choose another name")
    if not settings.folders:
        raise UserError("no folders: give the folders of shards")
    prepare_folder(settings.to.parent)
    from tqdm import tqdm

    paths = find_shards(settings.folders)
    check_replaced(settings.to, manifest, paths[0])
    with tqdm(total=len(paths), unit="shard") as bar:
        merged = merge(paths, settings.to, manifest, lambda _done: bar.update(1))
    print(f"wrote {settings.to}: {merged['count']} images of {len(merged['shards'])} shards, sha256 {merged['sha256']}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    return run_command(Settings, run, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
