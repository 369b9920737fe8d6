"""Predicted and measured robust accuracy on a real table."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from command_line.drawing import COLOURS, MARKERS, PANEL_WIDTH, new_grid
from command_line.words import LEARNER_PLACES, learner_in_words, learner_place
from figures.figure import Figure, Numbers, band, diagonal, line, marks, points, ticks
from figures.inputs import Files, where

TABLE, CURVE = "gaussian_mixture/real_data.csv", "gaussian_mixture/real_data_learning_curve.csv"
CERTAINTY = "gaussian_mixture/real_data_certainty.csv"
FIGURE = Figure(
    "Predictions on real data",
    "Robust accuracy that theory predicts from one half of a real table (lines) and that fitted classifiers reach on the other half, "
    "attacked exactly (marks of the same colour, ± 2 standard errors): against the attack radius, all attacks pooled, and averaging by "
    "sample size. Thin line and band: estimate and 95 % interval of the best classifier's robust accuracy if the "
    "classes are Gaussian; it ends where the interval cannot be had. "
    "Real classes are not Gaussian: most predictions are too high.",
    (TABLE, CURVE, CERTAINTY),
    "breast-cancer (569 rows, 30 features), one split",
)
ALL, LEARNING = "all attacks", "averaging against its samples"
PREDICTED = ", predicted"
BEST = "best possible"
OPTIMUM = LEARNER_PLACES["robust optimum"]


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "p eps predicted measured standard_error", text="data classifier")
    curve = files.columns(CURVE, "p eps n predicted measured standard_error", text="data")
    sure = files.columns(CERTAINTY, "p eps low estimate high", text="quantity")
    norms = np.unique(data["p"])
    rows = []
    for p in norms:
        panel = f"{norm_name(p)} attack"
        for name in dict.fromkeys(data["classifier"].tolist()):
            of = where(data, p=p, classifier=name)
            rows += points(panel, learner_in_words(name) + PREDICTED, data["eps"][of], data["predicted"][of])
            rows += _measured(panel, learner_in_words(name), data["eps"][of], data, of)
        of = where(sure, p=p, quantity="optimum, Gaussian")
        rows += points(panel, BEST, sure["eps"][of], sure["estimate"][of], sure["low"][of], sure["high"][of])
    for name in dict.fromkeys(data["classifier"].tolist()):
        of = where(data, classifier=name)
        rows += points(ALL, learner_in_words(name), data["predicted"][of], data["measured"][of])
    for p, eps in dict.fromkeys(zip(curve["p"].tolist(), curve["eps"].tolist(), strict=True)):
        of, name = where(curve, p=p, eps=eps), f"{norm_name(p)}, ε = {eps:.2g}" if eps else "no attack"
        if eps or p == curve["p"][0]:  # eps = 0 is the same in every norm, so it is shown once
            rows += points(LEARNING, name + PREDICTED, curve["n"][of], curve["predicted"][of])
            rows += _measured(LEARNING, name, curve["n"][of], curve, of)
    return Numbers.of(rows)


def _measured(panel: str, name: str, x: Any, data: Any, of: Any) -> list[Any]:
    y, reach = data["measured"][of], 2 * data["standard_error"][of]
    return points(panel, name, x, y, y - reach, y + reach)


def norm_name(p: float) -> str:
    return f"l_{p:g}"


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_grid(len(panels), 2, 2 * PANEL_WIDTH, 2.9)
    for axis, panel in zip(axes, panels, strict=True):
        if panel == ALL:
            for i, series in numbers.all(ALL):
                place = learner_place(series.name, i)
                axis.plot(series.x, series.y, MARKERS[place], color=COLOURS[place], ms=3.5)
            diagonal(axis, 0, 1)
            axis.set(xlabel="predicted robust accuracy", ylabel="measured", title=panel)
            continue
        if BEST in numbers.names(panel):
            band(axis, OPTIMUM, numbers.series(panel, BEST))
            line(axis, OPTIMUM, numbers.series(panel, BEST), linewidth=0.8, linestyle=":")
        for i, name in enumerate(name for name in numbers.names(panel) if name != BEST and not name.endswith(PREDICTED)):
            place = learner_place(name, i)
            line(axis, place, numbers.series(panel, name + PREDICTED))
            marks(axis, place, numbers.series(panel, name), name, ms=3.5)
        axis.set(ylabel="robust accuracy", xlabel="attack radius ε (feature standard deviations)")
        axis.set_title(panel)
    if LEARNING in panels:
        last = axes[-1]
        last.set(xlabel="training samples n", xscale="log", ylabel="balanced robust accuracy")
        ticks(last, "x", np.unique(numbers.columns["x"][numbers.columns["panel"] == LEARNING]).tolist())
        last.legend(fontsize=7, loc="lower right")
    handles, labels = axes[0].get_legend_handles_labels()
    handles += [Line2D([], [], color="0.3"), Line2D([], [], color="0.3", ls="", marker="o", ms=3.5)]
    figure.legend(handles, [*labels, "lines: predicted", "marks: measured"], loc="outside upper center", ncols=4)
    return figure
