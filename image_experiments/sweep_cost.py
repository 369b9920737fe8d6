"""What a design would cost: what its runs do not share, timed like the dry run of one run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from command_line.output import UserError
from image_experiments.engine.checks import Facts, known_facts
from image_experiments.engine.cost import Rates, Work, calibrated, estimate
from image_experiments.engine.presets import settings_from
from image_experiments.engine.run_stage import to_make
from image_experiments.engine.settings import Settings
from image_experiments.engine.stages import Place, Stage, plain
from image_experiments.experiment import checked_stages, place_of, prepared
from image_experiments.synthesis.selection import SelectionSettings


def cost_of_sweep(calls: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The cost of runs that follow each other, each reusing what earlier ones made. calls: name and command line of each.

    Runs that differ only in their methods, in how many images they take and in which ones are timed together. Raises UserError.
    """
    begin, made, out = time.perf_counter(), set[str](), []
    runs: list[tuple[Settings, list[Stage], Place]] = []
    workers = 1
    for name, arguments in calls:
        try:
            settings = prepared(settings_from(arguments))
            stages = checked_stages(settings)
        except UserError as error:  # images that an earlier run will make, or the run would have been refused before
            out.append(f"run {name} is not counted: {error}")
            continue
        place, workers = place_of(settings)
        marks, left = Marks(), to_make(stages, place)
        made |= {marks.of(stage) for stage in stages if stage not in left}
        runs.append((settings, [stage for stage in left if marks.of(stage) not in made], place))
        made |= {marks.of(stage) for stage in left}
    works = _measured(runs, workers)
    out.append(estimate(works, workers, time.perf_counter() - begin))
    return "\n".join(out)


def _measured(runs: Sequence[tuple[Settings, list[Stage], Place]], workers: int) -> list[Work]:
    """Measure once for all runs that are alike."""
    groups: dict[Settings, list[tuple[Settings, list[Stage], Place]]] = {}
    for run in runs:
        groups.setdefault(alike(run[0]), []).append(run)
    found: dict[Settings, tuple[list[Rates], Facts]] = {}
    for key, group in groups.items():
        _, facts = known_facts(key)
        stages = [stage for _, left, _ in group for stage in left]
        methods = tuple(dict.fromkeys(method for settings, _, _ in group for method in settings.methods))
        together = replace(group[0][0], methods=methods)
        found[key] = calibrated(together, stages, facts, group[0][2], workers), facts
    return [Work(settings, left, *found[alike(settings)]) for settings, left, _ in runs]


def alike(settings: Settings) -> Settings:
    """The settings without those that leave the time of every step as it is."""
    return replace(settings, methods=(), synthetic=0, selection=SelectionSettings(), out=Path())


class Marks:
    """What a stage makes, known before it is made: equal for stages of two runs that will make the same."""

    def __init__(self) -> None:
        self._of: dict[int, str] = {}

    def of(self, stage: Stage) -> str:
        if id(stage) not in self._of:
            content: list[Any] = [stage.name, plain(stage.arguments, paths=False), stage.outside]
            content.append({role: self.of(needed) for role, needed in stage.inputs.items()})
            self._of[id(stage)] = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self._of[id(stage)]
