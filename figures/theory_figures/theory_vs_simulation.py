"""All comparisons of theory with simulation: their z values against a standard normal."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from command_line.drawing import new_figure
from figures.figure import Figure, Numbers, diagonal, marks, points
from figures.inputs import Files

TABLE = "gaussian_mixture/theory_vs_simulation.csv"
FIGURE = Figure(
    "Every formula against simulation",
    "Each mark compares a number of the theory (T1 to T16) with a simulation that samples data, trains learners and attacks them "
    "exactly: z = (simulation − theory)/standard error, sorted, against the quantiles of a standard normal. On the line: no more "
    "than chance.",
    (TABLE,),
)


def numbers(files: Files) -> Numbers:
    z = np.sort(files.columns(TABLE, "z")["z"])
    return Numbers.of(points(0, "comparisons", ndtri((np.arange(len(z)) + 0.5) / len(z)), z))


def draw(numbers: Numbers) -> Any:
    figure, (axis,) = new_figure(1, height=3.2)
    marks(axis, 0, numbers.series(0, "comparisons"), ms=2.5)
    diagonal(axis, -3.5, 3.5)
    axis.set(xlabel="standard normal quantile", ylabel="z = (simulation − theory) / standard error")
    axis.set_title(f"{len(numbers.rows())} comparisons with simulation")
    return figure
