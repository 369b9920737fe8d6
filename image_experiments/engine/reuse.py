"""Reuses the finished stages of other runs: stages with the same fingerprint make the same files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from command_line.output import UserError, write_whole
from image_experiments.engine.fingerprint import fingerprint
from image_experiments.engine.run_stage import is_current
from image_experiments.engine.stages import Place, Stage, read_stamp, stamp_path


def take_over(stages: Sequence[Stage], place: Place, others: Sequence[Path]) -> int:
    """Take over every stage that another run has made from the same settings, code and inputs; returns how many.

    others: OUT of other runs; one that has a stage is used. Files become hard links, which run_stage breaks before it writes, or
    copies where links are not possible. A stage whose inputs must be made anew is not taken, because they are not known yet.
    """
    taken, anew = 0, set[str]()
    nearest = sorted(others, key=lambda folder: folder.name != place.out.name)  # the run of the same name has most of it
    for stage in stages if others else ():
        if any(needed.name in anew for needed in stage.inputs.values()):
            anew.add(stage.name)
        elif not is_current(stage, place.out, place.kind):
            made_from = fingerprint(stage, place.out, place.kind)
            source = next((folder for folder in nearest if _has(stage, folder, place.kind, made_from)), None)
            if source is None:
                anew.add(stage.name)
            else:
                _link(stage, source, place.out)
                taken += 1
    return taken


def check_reuse(others: Sequence[Path]) -> None:
    """Raise UserError for a folder that holds no run."""
    for folder in others:
        if not (folder / "stages").is_dir():
            raise UserError(f"--reuse {folder}: holds no run, there is no {folder / 'stages'}; name the --out of a run on images")


def _has(stage: Stage, folder: Path, where: str, made_from: str | None) -> bool:
    """Whether a folder holds this stage, complete and made from the same inputs as it would be here."""
    stamp = read_stamp(folder, stage.name)
    return stamp is not None and stamp["fingerprint"] == made_from and is_current(stage, folder, where)


def _link(stage: Stage, source: Path, out: Path) -> None:
    """Link the files first, the stamp last."""
    for path in [*(Path(path) for path in stage.outputs.values()), stamp_path(source, stage.name).relative_to(source)]:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(out / path, partial(_link_or_copy, source / path))


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # left by a killed process; it may be a link, and a copy would be written through it
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
