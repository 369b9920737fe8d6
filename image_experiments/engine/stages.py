"""Resumable stages: files in, files out, skipped while settings, code and inputs are unchanged.

A stage is a plain function of (run, arguments) that reads the files of earlier stages and writes its own. When it is done, a stamp
(OUT/stages/NAME.json) records the fingerprint of what it was made from and the checksums of what it made. While it runs, its checkpoints
are in OUT/unfinished/NAME-FINGERPRINT, so a checkpoint is never used with other settings, code or inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch

from command_line.output import UserError
from contrastive_dp.processes import ALONE, Processes

Report = Callable[[str, int, int], None]
"""report(stage, done, total)."""


@dataclass(frozen=True, eq=False)
class Stage:
    """name: also that of its stamp. function: function(run, **arguments, **paths) -> results, at a module's top level. outputs: role ->
    path within OUT. inputs: role -> earlier stage. advice: the same, for stages that affect only the speed, not the results. paths:
    arguments with the paths of outside files; outside: checksums of their content. shared: whether several processes can work on it
    together; otherwise one does it alone. on_device: whether device and number of threads affect its last digits."""

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
        """Stages that must be done first."""
        return {**self.inputs, **self.advice}


@dataclass(frozen=True)
class Place:
    """Where stages run. out: the run's folder. kind: what else affects results (the GPU model, or the number of CPU threads). device,
    threads: those of this process. part: (k, n): make only every n-th shard of generated images, starting with the k-th. tf32,
    cudnn_benchmark: see gpu_arithmetic."""

    out: Path
    kind: str
    device: str
    threads: int
    part: tuple[int, int] | None = None
    tf32: bool = False
    cudnn_benchmark: bool = False


@dataclass(frozen=True, eq=False)
class StageRun:
    """What a stage's function receives: paths by role, the results of earlier stages, folders for checkpoints and for shards, the device,
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


def of_round(number: int, rounds: int) -> str:
    """What the names of what a round makes end in; nothing if there is one round."""
    return "" if rounds == 1 else f"-round{number}"


def flat_name(name: str) -> str:
    return name.replace("/", "_")


def of_fingerprint(name: str, made_from: str) -> str:
    """Name of the folder of what a stage has under way with this fingerprint."""
    return f"{flat_name(name)}-{made_from[:12]}"


def plain(value: Any, paths: bool = True) -> Any:
    """Settings as JSON: dataclasses as dictionaries with their type's name. paths: if False, "a path" replaces each path."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {key: plain(entry, paths) for key, entry in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(entry, paths) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, paths) for entry in value]
    if isinstance(value, Path):
        return str(value) if paths else "a path"
    return value
