"""Samples of classes in the plane over the real classes: the rows and the panel that two figures share."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS
from figures.figure import Numbers, Row, points

TURN = np.linspace(0, 2 * np.pi, 61)


def cloud_rows(panel: str, real: dict[str, Any], label: Any, x1: Any, x2: Any) -> list[Row]:
    """Rows of one panel. real: columns class mean1 mean2 std1 std2 of its real classes; label, x1, x2: its samples."""
    rows: list[Row] = []
    for j, k in enumerate(real["class"].astype(int)):
        for reach in (1, 2):
            x, y = (real[f"mean{i}"][j] + reach * real[f"std{i}"][j] * f(TURN) for i, f in ((1, np.cos), (2, np.sin)))
            rows += points(panel, f"class {k}, real, {reach} σ", x, y)
        members = label == k
        rows += points(panel, f"class {k}", x1[members], x2[members])
        rows.append((panel, f"class {k}, mean", float(x1[members].mean()), float(x2[members].mean())))
    return rows


def reach_of(numbers: Numbers) -> float:
    """Half the width of a panel that holds all but one in a thousand points of the figure."""
    cloud = np.abs(np.concatenate([numbers.columns["x"], numbers.columns["y"]]))
    return 1.02 * float(np.quantile(cloud, 0.999))


def draw_cloud(axis: Any, numbers: Numbers, panel: str, reach: float) -> None:
    """Samples (small marks), class means (large) and the real classes (rings) of one panel."""
    for i, series in enumerate(s for _, s in numbers.all(panel) if "," not in s.name):
        colour = COLOURS[i % 6]
        for level in (1, 2):
            ring = numbers.series(panel, f"{series.name}, real, {level} σ")
            axis.plot(ring.x, ring.y, color=colour, lw=0.8)
        axis.plot(series.x, series.y, MARKERS[i % 6], color=colour, ms=2, alpha=0.5, mew=0)
        centre = numbers.series(panel, f"{series.name}, mean")
        axis.plot(centre.x, centre.y, "XP"[i % 2], color=colour, ms=7, mec="black")
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
