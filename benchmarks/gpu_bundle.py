"""One folder with what a bare GPU machine lacks: `python benchmarks/gpu_bundle.py FOLDER --data ARCHIVE`.

    python benchmarks/gpu_bundle.py /tmp/bundle --data cifar10-jpeg.tar.xz

The machine has Python 3.12 and torch, and no network. FOLDER/site gets the pure Python packages that it lacks, in the versions of
constraints.txt and without what only their examples need; FOLDER/data the data. gpu_check.py and gpu_cifar10.py take the folder with
--bundle. Refuses to leave more than --most MiB.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from command_line.command import Help, run_command
from command_line.output import UserError

ROOT = Path(__file__).resolve().parents[1]
HELP = Help("Packages and data for a machine without network.")
WANTED = (
    *("diffusers", "tyro", "pyautoattack", "pooch", "docstring_parser", "typeguard", "shtab", "platformdirs"),
    *("importlib_metadata", "zipp", "lazy-importer", "threadpoolctl", "joblib", "lightning-utilities"),
)
NOT_NEEDED = (
    *("examples", "example", "notebooks", "tests", "__pycache__"),
    *("*.dist-info/licenses", "*.png", "*.jpg", "*.pt", "*.pth", "*.ipynb"),
)


@dataclass(frozen=True)
class Settings:
    """What is put together."""

    folder: tyro.conf.Positional[Path]
    """Folder to make; must not exist."""
    packages: tuple[str, ...] = WANTED
    """Packages that the machine lacks; those without a pin in constraints.txt are left out."""
    data: tuple[Path, ...] = ()
    """Files of data to take along."""
    most: float = 50.0
    """Largest size in MiB."""


def pinned(packages: tuple[str, ...], text: str) -> list[str]:
    """NAME==VERSION of those packages that constraints.txt pins."""
    versions = {
        name.lower().replace("_", "-"): f"{name}=={version}" for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.M)
    }
    return [versions[key] for name in packages if (key := name.lower().replace("_", "-")) in versions]


def run(settings: Settings) -> int:
    """Make the folder; returns the exit status."""
    if settings.folder.exists():
        raise UserError(f"{settings.folder}: exists already; name a new folder")
    for file in settings.data:
        if not file.is_file():
            raise UserError(f"--data {file}: no such file; check the path")
    site, wanted = settings.folder / "site", pinned(settings.packages, (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    where = ["--target", str(site), "--no-deps", "--no-compile", "--only-binary", ":all:", "--python-version", "3.12", "--quiet"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *where, *wanted], check=False)
    if done.returncode:
        shutil.rmtree(settings.folder, ignore_errors=True)
        raise UserError(f"pip could not install {' '.join(wanted)}; see above")
    for pattern in NOT_NEEDED:
        for path in site.rglob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for file in settings.data:
        (settings.folder / "data").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, settings.folder / "data" / file.name)
    size = sum(path.stat().st_size for path in settings.folder.rglob("*") if path.is_file()) / 2**20
    if size > settings.most:
        shutil.rmtree(settings.folder)
        raise UserError(f"--most {settings.most:g}: the folder would hold {size:.1f} MiB; take less data along, or fewer packages")
    print(f"wrote {settings.folder}: {', '.join(wanted)} and {len(settings.data)} files of data, {size:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(Settings, run, HELP, None))
