"""T7: the most distinguishable classes within a Wasserstein distance of the real ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import new_figure
from figures.figure import Figure, Numbers, line, points, ticks
from figures.inputs import Files, where

TABLE = "gaussian_mixture/frontier.csv"
FIGURE = Figure(
    "Fidelity against distinguishability",
    "Left: the worth to averaging, in real samples, of one sample of the most distinguishable classes within Wasserstein-2 distance r "
    "of the real ones. Right: where those classes lie: their mean and their standard deviation over the real ones (T7).",
    (TABLE,),
    "for three ratios ‖μ‖/(√d σ)",
)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "mean_over_total_std radius_over_total_std mean_scale std_scale sample_multiplier")
    rows = []
    for snr in np.unique(data["mean_over_total_std"]):
        of = where(data, mean_over_total_std=snr)
        x = data["radius_over_total_std"][of]
        rows += points(0, f"{snr:g}", x, data["sample_multiplier"][of])
        rows += points(1, f"{snr:g} mean", x, data["mean_scale"][of]) + points(1, f"{snr:g} std", x, data["std_scale"][of])
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, (left, right) = new_figure(2)
    for i, series in numbers.all(0):
        line(left, i, series, f"‖μ‖/(√d σ) = {series.name}")
        line(right, i, numbers.series(1, f"{series.name} mean"))
        line(right, i, numbers.series(1, f"{series.name} std"), lw=3, alpha=0.5)
    left.set(yscale="log", ylabel="sample multiplier", title="Real samples that one is worth")
    ticks(left, "y", (1, 2, 5, 10))
    left.legend()
    right.set(ylabel="scale of mean (thin), of std (thick)", title="Where the frontier puts the classes")
    for axis in (left, right):
        axis.set_xlabel(r"Wasserstein-2 distance r / ($\sqrt{d}\,\sigma$)")
    return figure
