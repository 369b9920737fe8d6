"""Resumable stages: files in, files out, skipped while settings, code and inputs are unchanged.

A stage is a plain function of (run, arguments) that reads the files of earlier stages and writes its own. When it is done, a stamp
(OUT/stages/NAME.json) records the fingerprint of what it was made from and the checksums of what it made. While it is under way its
checkpoints lie in OUT/unfinished/NAME-FINGERPRINT, so a checkpoint can never meet other settings, code or inputs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from command_line.output import UserError, file_digest, write_json
from command_line.sources import code_of_function
from contrastive_dp.processes import ALONE, Processes

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
"""Packages whose versions decide numbers, as imported and as installed."""
Report = Callable[[str, int, int], None]
"""report(stage, done, total)."""


@dataclass(frozen=True, eq=False)
class Stage:
    """name: also that of its stamp. function: function(run, **arguments, **paths) -> results, of a module's top level. outputs: role ->
    path within OUT. inputs: role -> earlier stage. advice: the same for stages that decide how fast it is done and not what is made. paths:
    arguments that say where files from outside lie; outside: checksums of what they hold. shared: several processes can do it together,
    each its share; else one does it alone. on_device: whether the device and the number of threads decide its last digits."""

    name: str
    function: Callable[..., dict[str, Any] | None]
    arguments: dict[str, Any]
    outputs: dict[str, str]
    inputs: dict[str, Stage] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    shared: bool = False
    advice: dict[str, Stage] = field(default_factory=dict)
    paths: dict[str, Path | None] = field(default_factory=dict)
    on_device: bool = True

    @property
    def needs(self) -> dict[str, Stage]:
        """Stages that must be done before."""
        return {**self.inputs, **self.advice}


@dataclass(frozen=True)
class Place:
    """Where stages are run. out: the folder of the run. kind: what else decides results (the GPU's model, or threads of the CPU). device:
    this process's. threads: of this process. part: (k, n): only every n-th shard of generated images, from the k-th on."""

    out: Path
    kind: str
    device: str
    threads: int
    part: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class StageRun:
    """What a stage's function is handed: paths by role, the results of earlier stages, folders for checkpoints and for shards, the device,
    which process this is, and the stage's fingerprint. Only the first process writes outputs."""

    inputs: dict[str, dict[str, Path]]
    results: dict[str, dict[str, Any]]
    outputs: dict[str, Path]
    scratch: Path
    shards: Path
    device: torch.device
    report: Callable[[int, int], None]
    fingerprint: str = ""
    part: tuple[int, int] | None = None
    processes: Processes = ALONE


def fingerprint(stage: Stage, out: Path, where: str) -> str | None:
    """Checksum of everything that decides what a stage makes; None while an input is not made.

    The code that its function uses (command_line/sources.py), its arguments, the contents of its inputs and of files from outside, versions
    of the packages that it uses, and where they matter device and threads (`where`). Where files lie, and what results say "about"
    themselves, decides nothing.
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


def is_current(stage: Stage, out: Path, where: str) -> bool:
    """Whether a stage is done, from the same settings, code and inputs, and its files are as it left them."""
    stamp = read_stamp(out, stage.name)
    if stamp is None or stamp["fingerprint"] != fingerprint(stage, out, where) or set(stamp["outputs"]) != set(stage.outputs):
        return False
    return all(
        entry["path"] == stage.outputs[role]
        and (out / entry["path"]).is_file()
        and file_digest(out / entry["path"]) == entry["sha256"]
        for role, entry in stamp["outputs"].items()
    )


def run_stage(stage: Stage, place: Place, report: Report, processes: Processes = ALONE) -> None:
    """Run a stage, going on from its checkpoints if there are any for the same fingerprint; the first process stamps it last.

    A function that returns None has done its part of the stage, which is not finished.
    """
    out = place.out
    made_from = fingerprint(stage, out, place.kind)
    if made_from is None:
        raise RuntimeError(f"stage {stage.name} was started before its inputs were made")
    scratch, shards = (out / kind / f"{flat_name(stage.name)}-{made_from[:12]}" for kind in ("unfinished", "shards"))
    outputs = {role: out / path for role, path in stage.outputs.items()}
    for folder in (scratch, stamp_path(out, stage.name).parent, *(path.parent for path in outputs.values())):
        folder.mkdir(parents=True, exist_ok=True)
    if processes.first:
        _part_from_other_runs(outputs.values())
    run = StageRun(
        {role: {name: out / path for name, path in needed.outputs.items()} for role, needed in stage.inputs.items()},
        {role: (read_stamp(out, needed.name) or {})["results"] for role, needed in stage.needs.items()},
        outputs,
        scratch,
        shards,
        torch.device(place.device),
        lambda done, total: report(stage.name, done, total),
        made_from,
        place.part,
        processes,
    )
    begin = time.perf_counter()
    results = stage.function(run, **stage.arguments, **stage.paths)
    if results is None or not processes.first:
        return
    write_json(
        stamp_path(out, stage.name),
        {
            "fingerprint": made_from,
            "results": results,
            "outputs": {role: {"path": stage.outputs[role], "sha256": file_digest(path)} for role, path in outputs.items()},
            "seconds": round(time.perf_counter() - begin, 2),
            "processes": processes.count,
        },
    )
    for kind in ("unfinished", "shards"):
        for left in (out / kind).glob(f"{flat_name(stage.name)}-????????????"):  # of this run, and of other settings
            shutil.rmtree(left, ignore_errors=True)


def _part_from_other_runs(paths: Iterable[Path]) -> None:
    """Remove files that other runs hold too (reuse.py links them), so that nothing that is written here is written there."""
    for path in paths:
        if path.is_file() and path.stat().st_nlink > 1:
            path.unlink()


def read_stamp(out: Path, name: str) -> dict[str, Any] | None:
    """The stamp of a finished stage, or None. Raises UserError for a damaged one."""
    path = stamp_path(out, name)
    if not path.is_file():
        return None
    try:
        stamp: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"fingerprint", "results", "outputs", "seconds"} <= set(stamp):
            return stamp
    except (ValueError, OSError):
        pass
    raise UserError(f"{path} is damaged; delete it to run the stage again")


def stamp_path(out: Path, name: str) -> Path:
    return out / "stages" / f"{name}.json"


def flat_name(name: str) -> str:
    return name.replace("/", "_")


def plain(value: Any, paths: bool = True) -> Any:
    """Settings as JSON: dataclasses as dictionaries with their type's name. paths: else "a path" stands for each."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {key: plain(entry, paths) for key, entry in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(entry, paths) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, paths) for entry in value]
    if isinstance(value, Path):
        return str(value) if paths else "a path"
    return value


def _types_in(value: Any) -> set[type]:
    """Types of all dataclasses in arguments: their methods are code too."""
    if isinstance(value, Mapping):
        return set[type]().union(*map(_types_in, value.values()))
    if isinstance(value, list | tuple):
        return set[type]().union(*map(_types_in, value))
    if not is_dataclass(value) or isinstance(value, type):
        return set()
    return {type(value)}.union(*(_types_in(getattr(value, entry.name)) for entry in fields(value)))


def source_digest(path: Path) -> str:
    """Checksum of what a file or folder holds: of a folder the names and contents of all files in it."""
    if path.is_file():
        return file_digest(path)
    files = [p for p in sorted(path.rglob("*")) if p.is_file()]
    return _folder_digest(path, tuple((str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files))


@functools.cache
def _folder_digest(folder: Path, listing: tuple[tuple[str, int, int], ...]) -> str:
    """listing: names, sizes and times: what was read is not read again in the same program while they stand."""
    whole = hashlib.sha256()
    for name, _, _ in listing:
        whole.update(f"{name} {file_digest(folder / name)}\n".encode())
    return whole.hexdigest()


@functools.cache
def code_digest(function: Callable[..., Any], types: tuple[type, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """(checksum of the project's code that a function uses, instances of these types among its arguments; packages that it uses)."""
    code = code_of_function(function, PACKAGES, types)
    return code.digest(), tuple(sorted(DECIDING[name] for name in code.foreign if name in DECIDING))
