"""Robust accuracy against the number of synthetic images."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import new_figure
from command_line.statistics import mean_interval
from command_line.words import in_words, place_of
from figures.figure import Figure, Numbers, guide, line, marks, points, ticks
from figures.image_figures.ablations import FIRST, TABLE, by_seed, read_sweep
from figures.inputs import Files

FIGURE = Figure(
    "Robust accuracy against the number of synthetic images",
    "Robust accuracy of a classifier trained adversarially on 300 real images and n synthetic ones; mean and 95 % interval over "
    "seeds (Student). The line below is real images alone.",
    (TABLE,),
    "scikit-learn's digits, l_inf attack eps 0.15, PGD-20 on 1,197 test images",
)
METHODS = {method: in_words(method) for method in ("unguided", "infonce-0.3", "noise-0.1")}


def numbers(files: Files) -> Numbers:
    data = read_sweep(files)
    rows = []
    for method, name in METHODS.items():
        runs = [run for run in dict.fromkeys(data["run"].tolist()) if run == FIRST or run.startswith("synthetic-")]
        found = []
        for run in runs:
            values = list(by_seed(data, run, method).values())
            if values:
                found.append((by_seed(data, run, method, "n_synthetic").popitem()[1], *mean_interval(values)))
        if found:
            rows += points(0, name, *np.array(sorted(found)).T)
    real = mean_interval(list(by_seed(data, FIRST, "real").values()))
    return Numbers.of([*rows, (0, "real images alone", 0.0, *real)])


def draw(numbers: Numbers) -> Any:
    figure, (axis,) = new_figure(1, 4.2, 3.0)
    for name in METHODS.values():
        series = numbers.series(0, name)
        if len(series.x):
            line(axis, place_of(name), series)
            marks(axis, place_of(name), series, name)
    guide(axis, float(numbers.series(0, "real images alone").y[0]), "real images alone", x=0.65)
    axis.set(xscale="log", xlabel="synthetic images n", ylabel="robust accuracy (PGD-20)")
    shown = [x for x in np.unique(numbers.columns["x"]).tolist() if x > 0]
    ticks(axis, "x", shown)
    axis.set_title("What more synthetic images bring")
    axis.legend()
    return figure
