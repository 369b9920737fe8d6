"""Writes samples.csv and trajectories.csv of `guided_diffusion.py`: points of one run per setting, for figures/."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command_line.output import write_csv
from contrastive_dp import NoiseSchedule
from simulations.guided.designs import CURVES
from simulations.guided.models import Setting, problem_named
from simulations.guided.runs import Effort, generate

SHOWN_SAMPLES, SHOWN_TRAJECTORIES = 512, 24


def write_points(
    folder: Path, seed: int, schedule: NoiseSchedule, cells: Sequence[Setting], training_steps: int = Effort.training_steps
) -> None:
    """Write samples.csv and trajectories.csv: points of one run, one panel per setting (of the study, or of a single run in the plane)."""
    panels = CURVES if len(cells) > 2 else [cell for cell in cells if problem_named(cell.problem).mixture.dim == 2]
    points: list[tuple[Any, ...]] = []
    paths: list[tuple[Any, ...]] = []
    for i, setting in enumerate(panels):
        visited: list[tuple[int, Any]] = []
        x, y = generate(
            setting, seed, SHOWN_SAMPLES, schedule, training_steps, on_step=lambda t, x, visited=visited: visited.append((t, x))
        )
        name = setting.label if setting.guidance == "none" else f"{setting.label}, λ = {setting.scale:.3g}"
        points += [(i, name, setting.problem, int(k), *digits(p)) for p, k in zip(x, y, strict=True)]
        first = visited[: len(visited) // 2]  # from the first of the two groups
        for step, (_, state) in enumerate(first):
            t = first[step + 1][0] if step + 1 < len(first) else -1  # the state after a step is at the next timestep, -1 is clean
            level = round(math.sqrt(schedule[t]), 6)
            paths += [(i, name, j, step, t, level, *digits(state[j]), int(y[j])) for j in range(SHOWN_TRAJECTORIES)]
    write_csv(folder / "samples.csv", ("panel", "name", "problem", "label", "x1", "x2"), points)
    write_csv(folder / "trajectories.csv", ("panel", "name", "sample", "step", "t", "signal", "x1", "x2", "label"), paths)


def digits(point: Any) -> tuple[float, float]:
    """Coordinates to six decimals, enough for a picture."""
    return round(float(point[0]), 6), round(float(point[1]), 6)
