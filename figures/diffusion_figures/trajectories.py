"""Paths of samples from noise to the final sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from figures.diffusion_figures.samples import two_lines
from figures.figure import Figure, Numbers, points
from figures.inputs import Files, where

TABLE = "guided_diffusion/trajectories.csv"
FIGURE = Figure(
    "Trajectories from noise to the classes",
    "Paths of 24 samples through the 50 steps of DDIM, coloured by class; the end marks also show the class.",
    (TABLE,),
    "DDIM, 50 steps, exact score, samples of the first seed",
)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "sample step x1 x2 label", text="name")
    rows = []
    for panel in dict.fromkeys(data["name"].tolist()):
        for j in np.unique(data["sample"]):
            of = where(data, name=panel, sample=j)
            rows += points(panel, f"class {data['label'][of][0]:g}, sample {j:g}", data["x1"][of], data["x2"][of])
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), max(1.9 * len(panels), 3.5), 2.2)
    reach = 1.05 * max(np.abs(numbers.columns[name]).max() for name in ("x", "y"))
    for axis, panel in zip(axes, panels, strict=True):
        for _, series in numbers.all(panel):
            k = int(series.name.split()[1].rstrip(",")) % 6
            axis.plot(series.x, series.y, color=COLOURS[k], lw=0.6, alpha=0.7)
            axis.plot(series.x[-1:], series.y[-1:], MARKERS[k], color=COLOURS[k], ms=3)
        axis.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        axis.set_title(two_lines(panel), fontsize=7)
    return figure
