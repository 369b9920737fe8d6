"""Takes from other runs what they have made already: a stage with the same fingerprint is the same work."""

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
    """Give a run every stage that one of the others has made from the same settings, code and inputs; returns how many.

    others: OUT of other runs, the first that has it gives. Hard links, which run_stage parts before it writes; copies where there are none.
    A stage after one that is made anew is left out, as its inputs are not known yet.
    """
    taken, anew = 0, set[str]()
    for stage in stages if others else ():
        if any(needed.name in anew for needed in stage.inputs.values()):
            anew.add(stage.name)
        elif not is_current(stage, place.out, place.kind):
            made_from = fingerprint(stage, place.out, place.kind)
            source = next((folder for folder in others if _has(stage, folder, place.kind, made_from)), None)
            if source is None:
                anew.add(stage.name)
            else:
                _link(stage, source, place.out)
                taken += 1
    return taken


def check_reuse(others: Sequence[Path]) -> None:
    """Raises UserError for a folder that holds no run."""
    for folder in others:
        if not (folder / "stages").is_dir():
            raise UserError(f"--reuse {folder}: holds no run, there is no {folder / 'stages'}; name the --out of a run on images")


def _has(stage: Stage, folder: Path, where: str, made_from: str | None) -> bool:
    """Whether a folder holds this stage, made from what it would be made from here, and whole."""
    stamp = read_stamp(folder, stage.name)
    return stamp is not None and stamp["fingerprint"] == made_from and is_current(stage, folder, where)


def _link(stage: Stage, source: Path, out: Path) -> None:
    """The files first, the stamp last."""
    for path in [*(Path(path) for path in stage.outputs.values()), stamp_path(source, stage.name).relative_to(source)]:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(out / path, partial(_link_or_copy, source / path))


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # left by a process that was killed: perhaps a link, through which a copy would be written
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
