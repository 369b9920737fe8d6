"""How far learners are from the robust optimum after n generated samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import DASHES, new_figure
from command_line.statistics import half_width
from command_line.words import place_of
from figures.diffusion_figures.settings import SETTING, SETTING_TEXT, edge_of, in_design, named
from figures.figure import Figure, Numbers, band, joined, points
from figures.inputs import Files

TABLE = "guided_diffusion/accuracy.csv"
FIGURE = Figure(
    "Learners on guided samples: gap to the robust optimum",
    "Robust optimum minus robust accuracy against the number n of generated samples, for averaging, logistic regression and its "
    "adversarial training; bands are 95 % over seeds (Student).",
    (TABLE,),
    "two Gaussian classes in the plane, ‖μ‖ = 1, σ = 1, l_2 attack ε = 0.3, exact attack",
)

MISSING = "optimum − accuracy"


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"{SETTING} n seeds accuracy accuracy_error optimum", text=f"{SETTING_TEXT} learner")
    shown = in_design(data, "curves")
    lost = bool(np.isfinite(data["optimum"][shown][0]))
    rows = []
    for learner in dict.fromkeys(name for name in data["learner"].tolist() if name != "lda"):
        for label, scale in dict.fromkeys(zip(data["label"][shown].tolist(), data["scale"][shown].tolist(), strict=True)):
            of = shown & (data["learner"] == learner) & (data["label"] == label) & (data["scale"] == scale)
            y = data["optimum"][of] - data["accuracy"][of] if lost else data["accuracy"][of]
            reach = half_width(data["seeds"][of]) * np.nan_to_num(data["accuracy_error"][of])
            rows += points(
                f"{learner}: {MISSING if lost else 'accuracy'}", named(label, scale), data["n"][of], y, y - reach, y + reach
            )
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), max(2.35 * len(panels), 3.5), 3.3)
    for axis, panel in zip(axes, panels, strict=True):
        for i, series in numbers.all(panel):
            place = place_of(series.name)
            joined(axis, place, series, series.name, ls=DASHES[i % 6], **edge_of(series.name))
            band(axis, place, series)
        axis.set(xscale="log", xlabel="generated samples n", title=f"{panel.split(':')[0]} learner")
        if panel.endswith(MISSING):
            axis.set_yscale("log")
    axes[0].set_ylabel(f"robust {panels[0].split(': ')[1]}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, handlelength=3)
    return figure
