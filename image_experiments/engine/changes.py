"""Says what a run will make again though no setting has changed: for other versions, another device, or other code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command_line.folder_claim import held_settings
from command_line.output import UserError
from image_experiments.engine.fingerprint import fingerprint, made_with
from image_experiments.engine.stages import Place, Stage, flat_name, of_fingerprint, read_stamp


def told_of_changes(stages: Sequence[Stage], place: Place) -> list[str]:
    """One line if there are such stages, otherwise none. Stages that follow from them are not counted."""
    reasons, outdated = dict[str, None](), 0
    for stage in stages:
        before = (read_stamp(place.out, stage.name) or {}).get("made with")
        now = made_with(stage, place.kind)
        if before is not None and before != now:
            outdated += 1
            reasons |= dict.fromkeys(_differences(before, now))
    if not outdated:
        return []
    return [
        f"{place.out}: {outdated} finished stage{'s' * (outdated > 1)} and what follows from them will be made again, because "
        f"{', '.join(reasons)}; to keep them, stop now and choose another --out"
    ]


DEVICE = "made on"
"""The entry of a run's claim that names its kind of device."""


def check_device(stages: Sequence[Stage], place: Place, force: bool) -> None:
    """Raise UserError if what a folder holds was made on another device: a job that is queued again elsewhere would make it all again."""
    held = [(read_stamp(place.out, stage.name) or {}).get("made with", {}).get("where") for stage in stages]
    if any((place.out / "unfinished").glob("*/*")):
        held.append(held_settings(place.out).get(DEVICE))
    elsewhere = [where for where in held if where and where != place.kind]
    if elsewhere and not force:
        raise UserError(
            f"--out {place.out}: was made on {elsewhere[0]}, not on {place.kind}, so what is there would be made again and overwritten; "
            "go on where it was made, choose another --out, or give --force"
        )


def told_of_shards(stages: Sequence[Stage], place: Place) -> list[str]:
    """One line for each set of images of which there are shards that this run does not use: they were made by another recipe."""
    told = []
    for stage in stages:
        own = own_shards(stage, place)
        if own is None:
            continue
        for folder in sorted(own.parent.glob(f"{flat_name(stage.name)}-????????????")):
            number = len(shards_in(folder))
            if number and folder != own:
                told.append(
                    f"{folder}: {number} shard{'s' * (number > 1)} of other settings, weights, code, versions or another device, not used; "
                    "delete the folder, or, if the set is whole, merge it by merge_shards.py"
                )
    return told


def own_shards(stage: Stage, place: Place) -> Path | None:
    """The folder of the shards of a stage that makes images; None for others, and while its inputs are missing."""
    made_from = fingerprint(stage, place.out, place.kind) if "manifest" in stage.outputs else None
    return None if made_from is None else place.out / "shards" / of_fingerprint(stage.name, made_from)


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.npz"))


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed, in words."""
    old, new = before["versions"], now["versions"]
    told = [f"{name} was {old[name]} and is {new[name]}" for name in new if name in old and old[name] != new[name]]
    if before["where"] != now["where"]:
        told.append(f"the device was {before['where'] or 'any'} and is {now['where'] or 'any'}")
    if before["code"] != now["code"] or set(old) != set(new):
        told.append("the project's code has changed")
    return told
