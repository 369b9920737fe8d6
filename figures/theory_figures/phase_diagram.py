"""T16: for which numbers of samples per dimension does separation help?"""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import new_figure
from figures.figure import Figure, Numbers, Row, line, points, ticks
from figures.inputs import Files, where

TABLE = "gaussian_mixture/phase_diagram.csv"
BORDER = "gaussian_mixture/separability.csv"
FIGURE = Figure(
    "Very far classes are best with few samples per dimension or a ridge, not with many and no ridge",
    "Left and middle: error of logistic regression (tan of its angle to μ), divided by that curve's smallest, so 1 is best, against how "
    "far apart the training classes are (class SNR: distance of a class mean from the boundary over the standard deviation). One curve per "
    "number of samples per dimension n/d. Without a ridge there is a best separation in the middle, and another at the edge of the search; "
    "with more samples the first becomes the better. With a ridge of 0.001 the edge always wins. Right: the best class SNR of up to 10 "
    "against n/d, also for training against attacks of half a standard deviation; left of the dotted line a hyperplane separates the "
    "samples (T16). Steps on the right lie halfway between the n/d computed. The middle frame ends at 20; the dotted line goes on below "
    "the right one.",
    (TABLE, BORDER),
    "isotropic, aligned classes, d large",
)
LEFT, MIDDLE, RIGHT = "without ridge", "ridge 0.001", "best class SNR up to 10"
PANELS = {LEFT: (0.0, 0.0), MIDDLE: (0.0, 1e-3)}
SHOWN = (1.0, 10.0, 20.0, 50.0, 3000.0)
KINDS = {**PANELS, "adversarial, ε/σ = 0.5": (0.5, 0.0)}
"""(training eps over sigma, ridge)."""
SEPARABLE = "separable left of this line"


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "training_eps_over_sigma ridge samples_per_dim class_snr tan_angle")
    border = files.columns(BORDER, "class_snr samples_per_dim")
    rows: list[Row] = []

    def curve(eps: float, ridge: float, ratio: float) -> tuple[Any, Any]:
        of = where(data, training_eps_over_sigma=eps, ridge=ridge, samples_per_dim=ratio)
        return data["class_snr"][of], data["tan_angle"][of]

    ratios = list(dict.fromkeys(data["samples_per_dim"].tolist()))
    for panel, (eps, ridge) in PANELS.items():
        for ratio in (ratio for ratio in ratios if ratio in SHOWN):
            snr, tangent = curve(eps, ridge, ratio)
            rows += points(panel, f"n/d = {ratio:g}", snr, tangent / tangent.min())
    for name, (eps, ridge) in KINDS.items():
        best = [snr[np.argmin(tangent)] for snr, tangent in (curve(eps, ridge, ratio) for ratio in ratios)]
        rows += points(RIGHT, name, ratios, best)
    reached = border["samples_per_dim"] <= max(ratios)
    rows += points(RIGHT, SEPARABLE, border["samples_per_dim"][reached], border["class_snr"][reached])
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(3, height=3.2)
    for axis, panel in zip(axes, (*PANELS, RIGHT), strict=True):
        for i, series in numbers.all(panel):
            look = {"drawstyle": "steps-mid"} if panel == RIGHT and series.name != SEPARABLE else {}
            line(axis, i, series, series.name, **look)
        axis.set(title=panel[0].upper() + panel[1:], xscale="log")
        axis.legend(fontsize=7)
    for axis in axes[:2]:
        axis.set(yscale="log", ylim=(0.95, 20), xlabel="class SNR of one sample")
        ticks(axis, "x", (0.3, 1, 3, 10))
        ticks(axis, "y", (1, 2, 5, 10, 20))
    axes[0].set_ylabel("tan(angle) over its smallest")
    axes[2].set(xlabel="samples per dimension n/d", ylabel="class SNR", yscale="log", ylim=(0.3, 12))
    ticks(axes[2], "y", (0.3, 1, 3, 10))
    return figure
