"""Loss and scale on digits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from command_line.drawing import new_figure
from command_line.words import in_words, place_of
from figures.figure import Figure, Numbers, guide, line, marks, ticks
from figures.image_figures.ablations import FIRST, SETTINGS, TABLE, gain, read_sweep
from figures.inputs import Files, where

FIGURE = Figure(
    "Loss and scale: what guidance gains on images",
    "Robust accuracy minus that with unguided images; mean and 95 % interval over paired seeds. Left: InfoNCE and away from the "
    "anchors, which spread a class, "
    "against the guidance norm as a share of the noise prediction's. Middle: losses that separate the classes, against the same. Right: "
    "noise added to unguided images, against its standard deviation.",
    (TABLE,),
    SETTINGS,
)
SPREADING = ("infonce", "anchored-reversed")
PANELS = {
    "spreading": "InfoNCE, away from the anchors",
    "separating": "Losses that separate classes",
    "noise": "Noise on unguided images",
}


def numbers(files: Files) -> Numbers:
    data = read_sweep(files)
    found = []
    for method in dict.fromkeys(data["method"][where(data, run=FIRST)].tolist()):
        scale = re.fullmatch(r"(.+)-([\d.]+)", method)
        if scale:
            panel = "spreading" if scale[1] in SPREADING else "noise" if scale[1] == "noise" else "separating"
            found.append((panel, in_words(scale[1]), float(scale[2]), *gain(data, FIRST, method)))
    return Numbers.of(sorted(found, key=lambda row: (list(PANELS).index(row[0]), row[1], row[2])))


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(3, 9.6, height=3.0)
    for axis, (panel, title) in zip(axes, PANELS.items(), strict=True):
        for _, series in numbers.all(panel):
            line(axis, place_of(series.name), series, lw=0.8)
            marks(axis, place_of(series.name), series, series.name)
        guide(axis, 0, "unguided" if axis is axes[-1] else "", x=0.7)
        axis.set(
            xscale="log",
            xlim=(0.045, 1.25),
            ylim=(np.nanmin(numbers.columns["low"]) - 0.01, np.nanmax(numbers.columns["high"]) + 0.01),
            xlabel="standard deviation" if panel == "noise" else "scale",
            title=title,
        )
        ticks(axis, "x", (0.05, 0.1, 0.2, 0.3, 0.6, 1))
        if len(numbers.names(panel)) > 1:
            axis.legend(fontsize=7)
    axes[0].set_ylabel("robust accuracy gained over unguided")
    return figure
