"""T8: what few DDIM steps do to a class."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import MARKERS, new_figure
from figures.figure import Figure, Numbers, guide, line, points, ticks
from figures.inputs import Files, where

TABLE = "gaussian_mixture/ddim_shrinkage.csv"
FIGURE = Figure(
    "Few DDIM steps shrink the classes",
    "Generated over true standard deviation of a Gaussian class of mean 1 and standard deviation σ, and generated over true class"
    " SNR, against the number of DDIM steps with the exact score: acceleration alone raises distinguishability (T8).",
    (TABLE,),
    "linear schedule, 1000 timesteps",
)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "std steps std_ratio class_snr_ratio")
    rows = []
    for panel, column in enumerate(("std_ratio", "class_snr_ratio")):
        for std in np.unique(data["std"]):
            of = where(data, std=std)
            rows += points(panel, f"σ = {std:g}", data["steps"][of], data[column][of])
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2)
    for panel, axis in enumerate(axes):
        for i, series in numbers.all(panel):
            line(axis, i, series, series.name, marker=MARKERS[i], ms=3.5)
        guide(axis, 1)
        axis.set(xscale="log", xlabel="DDIM steps (exact score)")
        axis.legend()
    axes[0].set(ylabel="generated / true standard deviation", title="Few steps shrink a class ...")
    axes[1].set(yscale="log", ylabel="generated / true class SNR", title="... and raise its class SNR")
    ticks(axes[1], "y", (1, 2, 5, 10, 20, 50))
    return figure
