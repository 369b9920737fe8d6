"""Runs one stage, or finds that it is already done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from command_line.output import file_digest, write_json
from contrastive_dp.processes import ALONE, Processes
from image_experiments.engine.fingerprint import digest_once, fingerprint, made_with
from image_experiments.engine.stages import Place, Report, Stage, StageRun, flat_name, of_fingerprint, read_stamp, stamp_path
from image_experiments.models.precision import gpu_arithmetic


def is_current(stage: Stage, out: Path, where: str) -> bool:
    """Whether a stage was made from the same settings, code and inputs, and its files are unchanged since."""
    stamp = read_stamp(out, stage.name)
    if stamp is None or stamp["fingerprint"] != fingerprint(stage, out, where) or set(stamp["outputs"]) != set(stage.outputs):
        return False
    return all(
        entry["path"] == stage.outputs[role]
        and (out / entry["path"]).is_file()
        and digest_once(out / entry["path"]) == entry["sha256"]
        for role, entry in stamp["outputs"].items()
    )


def to_make(stages: Iterable[Stage], place: Place) -> list[Stage]:
    """The stages that are not current, and those whose inputs would be made anew."""
    stale: dict[str, Stage] = {}
    for stage in stages:
        if any(needed.name in stale for needed in stage.inputs.values()) or not is_current(stage, place.out, place.kind):
            stale[stage.name] = stage
    return list(stale.values())


def run_stage(stage: Stage, place: Place, report: Report, processes: Processes = ALONE) -> None:
    """Run a stage, resuming from its checkpoints if there are any for the same fingerprint; at the end the first process writes its stamp.

    If the function returns None, it has done its part, but the stage is not finished. Where it replaces what was made with other settings
    or code, OUT/summary.json, which says that the run is finished, is removed first.
    """
    out = place.out
    made_from = fingerprint(stage, out, place.kind)
    if made_from is None:
        raise RuntimeError(f"stage {stage.name} was started before its inputs were made")
    scratch, shards = (out / kind / of_fingerprint(stage.name, made_from) for kind in ("unfinished", "shards"))
    outputs = {role: out / path for role, path in stage.outputs.items()}
    for folder in (scratch, stamp_path(out, stage.name).parent, *(path.parent for path in outputs.values())):
        folder.mkdir(parents=True, exist_ok=True)
    if processes.first:
        _part_from_other_runs(outputs.values())
        if stamp_path(out, stage.name).is_file():  # the summary tells of what is now made anew
            (out / "summary.json").unlink(missing_ok=True)
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
    make_current(run.device)
    if getattr(stage.arguments.get("settings"), "compile", "no") != "no":
        torch.compiler.reset()  # or networks of earlier stages count towards the few graphs that torch compiles for one function
    with gpu_arithmetic(place.tf32, place.cudnn_benchmark):
        results = stage.function(run, **stage.arguments, **stage.paths)
    if results is None or not processes.first:
        return
    write_json(
        stamp_path(out, stage.name),
        {
            "fingerprint": made_from,
            "made with": made_with(stage, place.kind),
            "results": results,
            "outputs": {role: {"path": stage.outputs[role], "sha256": file_digest(path)} for role, path in outputs.items()},
            "seconds": round(time.perf_counter() - begin, 2),
            "processes": processes.count,
        },
    )
    shutil.rmtree(shards, ignore_errors=True)  # those of another fingerprint may have come from another machine
    for left in (out / "unfinished").glob(f"{flat_name(stage.name)}-????????????"):  # of this fingerprint and of others
        shutil.rmtree(left, ignore_errors=True)


def make_current(device: torch.device) -> None:
    """Make a card the one on which memory is pinned and contexts are opened, or every worker would also use the first card."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def _part_from_other_runs(paths: Iterable[Path]) -> None:
    """Remove files that are shared with other runs (hard links by reuse.py), so that writing here does not change them there."""
    for path in paths:
        if path.is_file() and path.stat().st_nlink > 1:
            path.unlink()
