"""Loss and scale on digits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from command_line.drawing import new_figure
from figures.figure import Figure, Numbers, guide, line, marks, ticks
from figures.image_figures.ablations import FIRST, SETTINGS, TABLE, gain, read_sweep
from figures.inputs import Files, where

FIGURE = Figure(
    "Loss and scale: what guidance gains on images",
    "Robust accuracy minus that with unguided images, against the guidance norm as a share of the noise prediction's (for noise: "
    "the standard deviation added to unguided images); mean and 95 % interval over paired seeds. Left: losses that spread samples"
    " out, and noise. Right: losses that separate the classes. Marks at one scale stand side by side.",
    (TABLE,),
    SETTINGS,
)
SPREADING = ("infonce", "hard-negative", "anchored-reversed", "noise")


def numbers(files: Files) -> Numbers:
    data = read_sweep(files)
    found = []
    for method in dict.fromkeys(data["method"][where(data, run=FIRST)].tolist()):
        scale = re.fullmatch(r"(.+)-([\d.]+)", method)
        if scale:
            panel = "spreading" if scale[1] in SPREADING else "separating"
            found.append((panel, scale[1], float(scale[2]), *gain(data, FIRST, method)))
    return Numbers.of(sorted(found, key=lambda row: (row[0] != "spreading", row[1], row[2])))


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2, height=3.0)
    for axis, panel in zip(axes, ("spreading", "separating"), strict=True):
        for i, series in numbers.all(panel):
            line(axis, i, series)
            marks(axis, i, series, series.name, shift=3 * i)
        guide(axis, 0, "unguided" if axis is axes[-1] else "", x=0.7)
        axis.set(
            xscale="log",
            xlim=(0.045, 1.25),
            ylim=(np.nanmin(numbers.columns["low"]) - 0.01, np.nanmax(numbers.columns["high"]) + 0.01),
            xlabel="scale",
            title=f"Losses {panel} the samples" if panel == "spreading" else "Losses separating the classes",
        )
        ticks(axis, "x", (0.05, 0.1, 0.2, 0.3, 0.6, 1))
        if numbers.names(panel):
            axis.legend()
    axes[0].set_ylabel("robust accuracy gained over unguided")
    return figure
