"""Keep results as the reference results that are committed: `python figures/keep_reference.py`.

    python figures/keep_reference.py                              # every experiment that results/ has
    python figures/keep_reference.py gaussian_mixture digits-cpu  # these

Copies the small files that figures read from RESULTS/EXPERIMENT to figures/reference/EXPERIMENT, and notes command, seeds, versions, date,
lengths and checksums in figures/reference/provenance.json. For those who change the experiments; drawing needs none of it.
Exit status: 0 fine; 1 bad input; 2 unknown flag; 130 interrupted.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone that was not installed, from any folder

from command_line.missing import needs_packages

with needs_packages(__name__):
    import tyro

    from command_line.command import Help, run_command, settings_line
    from command_line.folder_claim import differences
    from command_line.output import UserError, did_you_mean, file_digest, listed, temporary_name, write_json
    from figures.experiments import EXPERIMENTS, REFERENCE, Experiment, experiment_of
    from figures.inputs import Files, seeds_of
    from figures.registry import entries

MOST_BYTES = 10_000_000
MAY_DIFFER = ("seed", "seeds", "out", "workers", "cluster", "threads", "verbose", "force", "dry_run", "reuse", "gather", "data_dir")
"""Settings that figures and captions say nothing of, or that are noted."""
HELP = Help("Keep results as reference results.")


@dataclass(frozen=True)
class Settings:
    """What is kept, and where."""

    experiments: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Experiments to keep (default: those that are there)."""
    results: Path = Path("results")
    """Folder with a folder of results an experiment."""
    out: Path | None = None
    """Folder for the reference results (default: figures/reference)."""


def run(settings: Settings) -> int:
    """Copy and note; returns the exit status. Raises UserError before anything is copied where something is missing or too large."""
    print(settings_line(settings))
    out = settings.out or REFERENCE
    if out.resolve() == settings.results.resolve():
        raise UserError(f"--results {settings.results}: is where they are kept; name the folder that the experiments wrote")
    for name in settings.experiments:
        if name not in EXPERIMENTS:
            raise UserError(f"{name}: unknown{did_you_mean(name, EXPERIMENTS)}; use one of {', '.join(EXPERIMENTS)}")
    names = settings.experiments or tuple(name for name in EXPERIMENTS if (settings.results / name / "summary.json").is_file())
    if not names:
        raise UserError(f"--results {settings.results}: holds no results; run an experiment first, for example make demo")
    kept = {name: files_of(EXPERIMENTS[name], settings.results / name) for name in names}
    for name in names:
        check_settings(name, settings.results / name, out / name)
    others = [path for name in EXPERIMENTS if name not in kept for path in (out / name).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in [*others, *(path for paths in kept.values() for path in paths)])
    if size > MOST_BYTES:
        raise UserError(f"{size} bytes of reference results: more than {MOST_BYTES}; let the experiments write less for figures")
    noted = out / "provenance.json"
    notes = dict(Files(out).provenance())
    notes |= {name: note_of(name, settings.results / name, paths) for name, paths in kept.items()}
    for name, paths in kept.items():
        replace_folder(out / name, settings.results / name, paths)
    write_json(noted, notes)
    print(f"kept {', '.join(kept)}: {size / 1e6:.2f} MB in {out}")
    return 0


def replace_folder(target: Path, source: Path, paths: list[Path]) -> None:
    """The folder `target` with these files of `source` and no others: copied beside it, then put in its place."""
    making = target.with_name(temporary_name(target.name))
    for path in paths:
        copy = making / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.rmtree(target, ignore_errors=True)
    making.rename(target)


def files_of(experiment: Experiment, folder: Path) -> list[Path]:
    """The files of a run that figures may read, its summary among them. Raises UserError."""
    summary = folder / "summary.json"
    if not summary.is_file():
        raise UserError(f"{summary}: is missing; run {experiment.command()} first")
    for name in dict.fromkeys(name for entry in entries() for name in entry.figure.inputs if experiment_of(name) is experiment):
        if not (folder / name.partition("/")[2]).is_file():
            raise UserError(f"{folder / name.partition('/')[2]}: is missing, a figure reads it; run {experiment.command()} again")
    found = [summary, *(path for pattern in experiment.kept for path in sorted(folder.glob(pattern)))]
    return [path for path in found if path.is_file() and not any(fnmatch(path.name, pattern) for pattern in experiment.left_out)]


def check_settings(name: str, made: Path, held: Path) -> None:
    """Raise UserError if a run had other settings than the one that is kept: figures and their captions would say what is not so."""
    if not (held / "summary.json").is_file():
        return
    now, then = (Files(folder, single=name).summary(name)["settings"] for folder in (made, held))
    different = differences({key: value for key, value in then.items() if key not in MAY_DIFFER}, now)
    if different:
        what = listed(different, 3, "; ")
        raise UserError(f"{made}: was made with other settings than {held} ({what}); run {EXPERIMENTS[name].command()}")


def note_of(name: str, folder: Path, paths: list[Path]) -> dict[str, Any]:
    """Command, seeds, versions, date, lengths of tables and checksums."""
    summary = folder / "summary.json"
    content = Files(folder, single=name).summary(name)
    for part in ("settings", "versions"):
        if not isinstance(content.get(part), dict) or (part == "settings" and "seed" not in content[part]):
            raise UserError(f"{summary}: line 1: does not tell {part} with seed; run {EXPERIMENTS[name].command()} again")
    seconds = [one.get("seconds", {}) for one in content.get("gathered", [content])]
    return {
        "command": EXPERIMENTS[name].command(bool(content["settings"].get("quick"))) + seed_flag(name, content["settings"]["seed"]),
        "date": datetime.fromtimestamp(summary.stat().st_mtime, UTC).date().isoformat(),
        "seed": content["settings"]["seed"],
        "seeds": seeds_of(content) or 1,
        "seconds": sum(one.get("total", one.get("this call", 0.0)) for one in seconds),
        "versions": content["versions"],
        "rows": {str(path.relative_to(folder)): rows_of(path) for path in paths if path.suffix == ".csv"},
        "sha256": {str(path.relative_to(folder)): file_digest(path) for path in paths},
    }


def seed_flag(name: str, seed: int) -> str:
    """The flag for a seed that the command does not have by itself."""
    experiment = EXPERIMENTS[name]
    return "" if experiment.own_seed or experiment.reads or not seed else f" --seed {seed}"


def rows_of(path: Path) -> int:
    """Lines of a csv below its header: with fewer than these it is known to be cut off."""
    with path.open(newline="", encoding="utf-8") as stream:
        return sum(1 for _ in csv.reader(stream)) - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    return run_command(Settings, run, HELP, arguments)


if __name__ == "__main__":
    sys.exit(main())
