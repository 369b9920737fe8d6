"""Robust accuracy gained by guidance, against the class SNR it reaches, for each learner."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import new_figure
from command_line.words import learner_in_words
from figures.diffusion_figures.settings import SETTING, SETTING_TEXT
from figures.figure import Figure, Numbers, guide, marks, points
from figures.inputs import Files

TABLE = "guided_diffusion/accuracy.csv"
FIGURE = Figure(
    "What guidance gains, by learner and class SNR",
    "Gain in robust accuracy over as many unguided samples, paired by seed, with 95 % intervals; one mark per guidance setting. Left "
    "out: settings that rotate the classes (unanchored at the noisy state, strong) and class SNRs above 5.",
    (TABLE,),
    "two Gaussian classes in the plane, ‖μ‖ = 1, σ = 1, l_2 attack ε = 0.3",
)
SIZES = (20, 200)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"{SETTING} n gain gain_low gain_high class_snr", text=f"{SETTING_TEXT} learner")
    rotates = (data["guidance"] == "supervised") & (data["at"] == "xt") & (data["high"] > 400) & (data["scale"] > 0.3)
    plane = np.array(["guidance" in text.split() for text in data["designs"]]) & (data["guidance"] != "none")
    rows = []
    for learner in dict.fromkeys(data["learner"].tolist()):
        for n in SIZES:
            of = plane & ~rotates & (data["class_snr"] < 5) & (data["learner"] == learner) & (data["n"] == n)
            rows += points(
                learner_in_words(learner),
                f"n = {n}",
                data["class_snr"][of],
                *(data[c][of] for c in ("gain", "gain_low", "gain_high")),
            )
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), 1.8 * len(panels), 2.7)
    ends = [numbers.columns[name] for name in ("y", "low", "high")]  # a single seed has no interval
    reach = (np.nanmin(ends), np.nanmax(ends))
    for axis, panel in zip(axes, panels, strict=True):
        for i, series in numbers.all(panel):
            marks(axis, i, series, series.name, ms=3)
        guide(axis, 0)
        axis.set(ylim=(1.05 * reach[0], 1.05 * reach[1]), xlabel="class SNR", title=panel)
        axis.label_outer()
    axes[0].set_ylabel("robust accuracy gained over unguided")
    axes[0].legend()
    return figure
