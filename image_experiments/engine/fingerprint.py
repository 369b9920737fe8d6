"""The checksum of everything that determines a stage's output: when it changes, the stage runs again."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command_line.output import file_digest
from command_line.used_code import code_of_function
from image_experiments.engine.stages import Stage, plain, read_stamp

PACKAGES = ("image_experiments", "contrastive_dp", "command_line")


DECIDING = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "diffusers": "diffusers",
    "pyautoattack": "pyautoattack",
    "torchmetrics": "torchmetrics",
}
"""Packages whose versions affect numbers, by import name and by name of the distribution."""


def fingerprint(stage: Stage, out: Path, where: str) -> str | None:
    """Checksum of everything that determines what a stage makes; None while an input is missing.

    It covers the code that the function uses (command_line/used_code.py), its arguments, the contents of its inputs and of outside files,
    the versions of the packages it uses and, where they matter, device and threads (`where`). File locations and the "about" part of
    results do not count.
    """
    made: dict[str, Any] = {}
    for role, needed in stage.inputs.items():
        stamp = read_stamp(out, needed.name)
        if stamp is None:
            return None
        results = {name: value for name, value in stamp["results"].items() if name != "about"}
        made[role] = {name: entry["sha256"] for name, entry in stamp["outputs"].items()} | {"results": results}
    code, packages = code_digest(stage.function, tuple(sorted(_types_in(stage.arguments), key=str)))
    content = {
        "name": stage.name,
        "code": code,
        "arguments": plain(stage.arguments, paths=False),
        "inputs": made,
        "outside": stage.outside,
        "versions": {package: version(package) for package in packages},
        "where": where if stage.on_device else "",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _types_in(value: Any) -> set[type]:
    """Types of all dataclasses in the arguments, because their methods are code too."""
    if isinstance(value, Mapping):
        return set[type]().union(*map(_types_in, value.values()))
    if isinstance(value, list | tuple):
        return set[type]().union(*map(_types_in, value))
    if not is_dataclass(value) or isinstance(value, type):
        return set()
    return {type(value)}.union(*(_types_in(getattr(value, entry.name)) for entry in fields(value)))


def source_digest(path: Path) -> str:
    """Checksum of a file's content, or of the names and contents of all files in a folder."""
    if path.is_file():
        return file_digest(path)
    files = [p for p in sorted(path.rglob("*")) if p.is_file()]
    return _folder_digest(path, tuple((str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@functools.cache
def _folder_digest(folder: Path, listing: tuple[tuple[str, int, int], ...]) -> str:
    """listing: names, sizes and times. While these are unchanged, the program does not read the files again."""
    whole = hashlib.sha256()
    for name, _, _ in listing:
        whole.update(f"{name} {file_digest(folder / name)}\n".encode())
    return whole.hexdigest()


@functools.cache
def code_digest(function: Callable[..., Any], types: tuple[type, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """(checksum of the project's code that a function and the types of its arguments use, packages that they use)."""
    code = code_of_function(function, PACKAGES, types)
    return code.digest(), tuple(sorted(DECIDING[name] for name in code.foreign if name in DECIDING))
