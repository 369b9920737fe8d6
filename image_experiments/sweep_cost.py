"""What a design would cost: what its runs do not share, timed like the dry run of one run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from command_line.output import UserError
from image_experiments.engine.checks import Facts, check_beforehand, known_facts
from image_experiments.engine.cost import Rates, Work, calibrated, estimate
from image_experiments.engine.devices import here, not_deducted, place_of
from image_experiments.engine.presets import settings_from
from image_experiments.engine.run_stage import to_make
from image_experiments.engine.settings import Settings
from image_experiments.engine.stages import Place, Stage, plain
from image_experiments.engine.unused import told_of_unread
from image_experiments.evaluation.features import DescriptionSettings
from image_experiments.experiment import checked_stages, prepared
from image_experiments.sweeps import Run, SweepSettings, waits_for_images
from image_experiments.synthesis.selection import SelectionSettings


@dataclass(frozen=True)
class Planned:
    """A run. left: its stages that neither an earlier run nor this one has made."""

    settings: Settings
    left: list[Stage]
    place: Place
    workers: int
    facts: Facts


def cost_of_sweep(sweep: SweepSettings, calls: Sequence[tuple[Run, list[str]]]) -> str:
    """The cost of runs that follow each other, each reusing what earlier ones made. calls: each with its command line.

    Runs whose steps take the same time are timed together. Raises UserError, naming the run that would be refused.
    """
    begin, told, runs = time.perf_counter(), [], []
    made: set[str] = set()
    known: dict[tuple[Any, ...], Facts] = {}
    for one, arguments in calls:
        if waits_for_images(sweep, one):
            told.append(f"run {one.name} is not counted: an earlier run makes its images")
            continue
        try:
            runs.append(planned(arguments, made, known))
        except UserError as error:
            raise UserError(f"run {one.name}: {error}") from None
        told += [f"run {one.name}: {line}" for line in [*told_of_unread(runs[-1].settings), *not_deducted(runs[-1].settings)]]
    if runs:
        told.append(estimate(measured([run for run in runs if run.left]), time.perf_counter() - begin))
    return "\n".join(told)


def planned(arguments: Sequence[str], made: set[str], known: dict[tuple[Any, ...], Facts]) -> Planned:
    """A run. made: marks of what earlier ones make, to which its own are added. known: facts by data set, read once. Raises UserError."""
    settings = prepared(settings_from(arguments))
    stages = checked_stages(settings)
    place, workers = place_of(settings)
    data = (settings.dataset, settings.data_dir, settings.image_size, settings.group_pattern, settings.classes)
    if data not in known:
        known[data] = known_facts(settings)[1]
    check_beforehand(settings, known[data])
    marks, left = Marks(place.kind), to_make(stages, place)
    made |= {marks.of(stage) for stage in stages if stage not in left}
    fresh = [stage for stage in left if marks.of(stage) not in made]
    made |= {marks.of(stage) for stage in left}
    return Planned(settings, fresh, place, workers, known[data])


def measured(runs: Sequence[Planned]) -> list[Work]:
    """The runs with their times, measured once for all that are alike."""
    groups: dict[tuple[Any, ...], list[Planned]] = {}
    for run in runs:
        groups.setdefault((alike(run.settings), run.place.kind, run.workers), []).append(run)
    works = []
    for group in groups.values():
        first, stages = group[0], [stage for run in group for stage in run.left]
        methods = tuple(dict.fromkeys(method for run in group for method in run.settings.methods))
        count = min(first.workers, max(len(run.left) for run in group))
        rates: list[Rates] = calibrated(replace(first.settings, methods=methods), stages, first.facts, here(first.place), count)
        works += [Work(run.settings, run.left, rates, run.facts, min(run.workers, len(run.left))) for run in group]
    return works


def alike(settings: Settings) -> Settings:
    """The settings without those that leave the time of every step as it is."""
    free: dict[str, Any] = {"initial_std": 1.0, "window": None, "windows": ((0, 1),), "every": 1, "head": 0, "pilot": 1}
    generation = replace(settings.generation, **free, label_error=0.5, negatives="all", target=1.0)
    return replace(
        settings,
        methods=(),
        synthetic=0,
        rounds=1,
        train=0,
        validation=0,
        seed=0,
        seeds=1,
        eps=None,
        out=None,
        reuse=(),
        selection=SelectionSettings(),
        description=DescriptionSettings(),
        generation=generation,
        diffusion=replace(settings.diffusion, steps=1),
    )


class Marks:
    """What a stage makes, known before it is made: equal for stages of two runs that will make the same. where: see Place.kind."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._of: dict[int, str] = {}

    def of(self, stage: Stage) -> str:
        if id(stage) not in self._of:
            where = self._where if stage.on_device else ""
            content: list[Any] = [stage.name, plain(stage.arguments, paths=False), stage.outside, where]
            content.append({role: self.of(needed) for role, needed in stage.inputs.items()})
            self._of[id(stage)] = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self._of[id(stage)]
