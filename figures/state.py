"""Records what a figure was made from; it is made again only if that changes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command_line.output import file_digest, write_json
from command_line.used_code import code_of_modules
from figures.inputs import Files
from figures.registry import Entry

PACKAGES = ("figures", "command_line")
DECIDING = ("matplotlib", "seaborn", "numpy", "scipy", "pillow")
MISSING = "missing"
_version = functools.cache(version)


def made_from(entry: Entry, files: Files) -> dict[str, Any]:
    """Checksums of everything that determines a figure: result files, its own source and that of all modules it imports, versions."""
    writer = "figures.table" if entry.is_table else "figures.figure"
    return {
        "inputs": digests_of(entry.figure.inputs, files),
        "code": code_digest(f"figures.{entry.section}.{entry.name}", writer),
        "settings": asdict(entry.figure),
        "versions": {package: _version(package) for package in DECIDING},
    }


def digests_of(names: Iterable[str], files: Files) -> dict[str, str]:
    """Checksums of result files, MISSING for those that are not there."""
    return {name: file_digest(path) if (path := files.folder / name).is_file() else MISSING for name in names}


def code_digest(*modules: str) -> str:
    """Checksum of these modules of the project and of the code they use from others."""
    return code_of_modules(modules, PACKAGES).digest()


def what_changed(name: str, now: dict[str, Any], folder: Path) -> str:
    """Why a figure is not current, in words; empty if it is current."""
    missing = [path for path, digest in now.get("inputs", {}).items() if digest == MISSING]
    if missing:
        return f"lacks {missing[0]}"
    try:
        then = json.loads(_path(name, folder).read_text(encoding="utf-8"))
        outputs = then["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return "not made yet"
    for part, value in now.items():
        if then.get(part) != json.loads(json.dumps(value)):
            return f"{part} changed"
    for file, digest in outputs.items():
        path = folder / file
        if not path.is_file() or file_digest(path) != digest:
            return f"{file} changed or is gone"
    return ""


def remember(name: str, now: dict[str, Any], folder: Path, written: Sequence[Path]) -> None:
    path = _path(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**now, "outputs": {str(file.relative_to(folder)): file_digest(file) for file in written}})


def forget(name: str, folder: Path) -> None:
    """Forget what a figure was made from, so that it no longer counts as current."""
    _path(name, folder).unlink(missing_ok=True)


def _path(name: str, folder: Path) -> Path:
    return folder / ".state" / f"{name}.json"
