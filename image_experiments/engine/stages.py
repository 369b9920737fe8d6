"""Resumable stages: files in, files out, skipped while settings, code and inputs are unchanged.

A stage is a plain function of (run, arguments) that reads the files of earlier stages and writes its own. When it is done, a stamp
(OUT/stages/NAME.json) records the fingerprint of what it was made from and the checksums of what it made. While it is under way its
checkpoints lie in OUT/unfinished/NAME-FINGERPRINT, so a checkpoint can never meet other settings, code or inputs.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import shutil
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from command_line.output import UserError, file_digest, write_json
from command_line.sources import digest_of
from contrastive_dp.processes import ALONE, Processes

ROOT = Path(__file__).resolve().parents[1]
OURS = ("image_experiments", "contrastive_dp")
DECIDING = ("torch", "numpy", "scipy", "scikit-learn", "pillow", "diffusers", "pyautoattack", "torchmetrics")
"""Packages whose versions decide numbers."""
Report = Callable[[str, int, int], None]
"""report(stage, done, total)."""


@dataclass(frozen=True, eq=False)
class Stage:
    """name: also that of its stamp. function: function(run, **arguments) -> results, of a module's top level. outputs: role -> path within
    OUT. inputs: role -> earlier stage. outside: checksums of files from outside that the function reads. shared: several processes can do
    it together, each its share; else one does it alone."""

    name: str
    function: Callable[..., dict[str, Any] | None]
    arguments: dict[str, Any]
    outputs: dict[str, str]
    inputs: dict[str, Stage] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    shared: bool = False


@dataclass(frozen=True)
class Place:
    """Where stages are run. out: the folder of the run. kind: what else decides results (type of device, threads). device: this process's.
    threads: of this process. part: (k, n): only every n-th shard of generated images, from the k-th on."""

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

    Its function's code and that of all modules of the project which it imports, its arguments, the contents of its inputs, files from
    outside, versions of torch and numpy, device and threads (`where`).
    """
    made: dict[str, Any] = {}
    for role, needed in stage.inputs.items():
        stamp = read_stamp(out, needed.name)
        if stamp is None:
            return None
        made[role] = {name: entry["sha256"] for name, entry in stamp["outputs"].items()} | {"results": stamp["results"]}
    content = {
        "name": stage.name,
        "code": code_digest(stage.function),
        "arguments": plain(stage.arguments),
        "inputs": made,
        "outside": stage.outside,
        "versions": {package: version(package) for package in DECIDING},
        "where": where,
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
        {role: (read_stamp(out, needed.name) or {})["results"] for role, needed in stage.inputs.items()},
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
    results = stage.function(run, **stage.arguments)
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


def plain(value: Any) -> Any:
    """Settings as JSON: dataclasses as dictionaries with their type's name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{key: plain(entry) for key, entry in asdict(value).items()}}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def source_digest(path: Path) -> str:
    """Checksum of a file; of a folder names, sizes and times of change of all files in it."""
    if path.is_file():
        return file_digest(path)
    listing = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.rglob("*")) if p.is_file()]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


@functools.cache
def code_digest(function: Callable[..., Any]) -> str:
    """Checksum of a function's source and of every module of the project that it imports, directly or through others."""
    source = textwrap.dedent(inspect.getsource(function))
    return digest_of(source, OURS)
