"""The checksum of everything that determines a stage's output: when it changes, the stage runs again."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from command_line import used_code
from command_line.output import UserError, file_digest, is_hidden, listed, walk_links
from contrastive_dp.processes import Processes
from image_experiments.engine.stages import Stage, plain, read_stamp

PACKAGES = ("image_experiments", "contrastive_dp", "command_line")
Function = tuple[Callable[..., Any], tuple[type, ...]]
"""A function, and types of its arguments."""
Digest = tuple[str, tuple[str, ...]]
"""(checksum of the project's code that it uses, other packages that it uses)."""
Times = dict[str, tuple[int, int]]
"""{source file: (time of its last change in ns, size)}."""

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
    content = {
        "name": stage.name,
        "arguments": plain(stage.arguments, paths=False),
        "inputs": made,
        "outside": stage.outside,
        **made_with(stage, where),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def made_with(stage: Stage, where: str) -> dict[str, Any]:
    """The part of a fingerprint that no setting determines: the project's code, versions of packages, and device with threads."""
    code, packages = code_digest(*_code_of(stage))
    versions = {package: version(package) for package in packages}
    return {"code": code, "versions": versions, "where": where if stage.on_device else ""}


def _code_of(stage: Stage) -> Function:
    """A stage's function and the types of its arguments; with several processes at work, also how they talk to each other."""
    types = _types_in(stage.arguments) | ({Processes} if stage.shared else set())
    return stage.function, tuple(sorted(types, key=str))


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
    try:
        return _source_digest(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}: {error.filename}); check the path and its permissions, or leave it out"
        ) from None


def _source_digest(path: Path) -> str:
    if path.is_file():
        return digest_once(path)
    path.stat()  # raises for what is not there, which is no empty folder
    files = _files_below(path)
    return _folder_digest(path, tuple((str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


def _files_below(folder: Path) -> list[Path]:
    """All files in a folder and below it, sorted, without hidden ones, which file managers make. Links are followed, as when the files are
    read; only one that leads back is not."""
    found: list[Path] = []
    for place, folders, files in walk_links(folder, lambda _path: None):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [place / name for name in files if not is_hidden(name)]
    return sorted(path for path in found if path.is_file())


def digest_once(path: Path) -> str:
    """The digest of a file. While its time and size are the same the program does not read it again, by whichever link to it."""
    told = path.stat()
    known = (told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns)
    if known not in _of_files:
        _of_files[known] = file_digest(path)
    return _of_files[known]


_of_files: dict[tuple[int, ...], str] = {}


@functools.cache
def _folder_digest(folder: Path, listing: tuple[tuple[str, int, int], ...]) -> str:
    """listing: names, sizes and times. While these are unchanged, the program does not read the files again."""
    whole = hashlib.sha256()
    for name, _, _ in listing:
        whole.update(f"{name} {file_digest(folder / name)}\n".encode(errors="surrogateescape"))  # a name may not be UTF-8
    return whole.hexdigest()


def source_times() -> Times:
    """When the source files of the project were last changed."""
    folders = [Path(spec.origin).parent for spec in map(importlib.util.find_spec, PACKAGES) if spec is not None and spec.origin]
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for folder in folders for p in sorted(folder.rglob("*.py"))}


IMPORTED = source_times()
"""As Python imported them: a file that has changed since is not the code that runs. (A few ms, but later would be too late.)"""
_digests: dict[Function, Digest] = {}


def code_digest(function: Callable[..., Any], types: tuple[type, ...] = ()) -> Digest:
    """What code a function and the types of its arguments use. It is read once: the code that runs is that of the import.

    Raises UserError if a source file has changed since.
    """
    if (function, types) not in _digests:
        code = used_code.code_of_function(function, PACKAGES, types)
        now = source_times()
        paths = {name: str(used_code.module_path(name)) for name in code.modules}
        changed = [name for name, path in sorted(paths.items()) if now.get(path) != IMPORTED.get(path)]
        if changed:
            raise UserError(
                f"{listed(changed)}: changed on disk after Python imported it; start Python again, so that the new code runs"
            )
        packages = tuple(sorted(DECIDING[name] for name in code.foreign if name in DECIDING))
        _digests[function, types] = code.digest(), packages
    return _digests[function, types]


def forget_code() -> None:
    """Read the code again when it is needed next: a run from Python begins with what is on disk, or is refused."""
    _digests.clear()
    used_code.forget()


def check_code(stages: Iterable[Stage]) -> None:
    """Read the code of stages that was not read yet. Raises UserError if it has changed since Python imported it."""
    for stage in stages:
        code_digest(*_code_of(stage))


@dataclass(frozen=True)
class CodeOfRun:
    """The code of a stage as the run's first process knows it, for its workers."""

    times: Times
    digest: Digest


def code_for_worker(stage: Stage) -> CodeOfRun:
    return CodeOfRun(IMPORTED, code_digest(*_code_of(stage)))


def check_worker(stage: Stage, code: CodeOfRun) -> None:
    """On a worker: use the run's digest. Raises UserError if this process imported other code: sources changed after the run began."""
    if code.times == IMPORTED:
        _digests[_code_of(stage)] = code.digest
    elif code_digest(*_code_of(stage)) != code.digest:
        raise UserError("its code changed on disk while the run was under way; run the same command again")
