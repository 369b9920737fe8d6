"""T15: what sharpening does to classes that are mixtures of sub-populations."""

from __future__ import annotations

from typing import Any

from command_line.drawing import new_figure
from command_line.words import learner_place
from figures.figure import Figure, Numbers, line, points
from figures.inputs import Files, where

TABLE = "gaussian_mixture/subpopulations.csv"
FIGURE = Figure(
    "What sharpening does to classes that are mixtures depends on the learner",
    "Four fifths of each class lie far from the boundary, one fifth near it and in another direction; guidance draws from "
    "p(x | y) exp(γ y v·x / σ), v towards the large part. Left: class SNR of the synthetic data, and ten times the share of the small "
    "part. Middle: robust accuracy on the real mixture from ever more samples (l_2, ε = 0.3 σ). Right: relative sample need V. γ = 0 is "
    "real data, γ < 0 softens (T15).",
    (TABLE,),
    "exact, n/d large",
)
PANELS = {"synthetic data": ("class_snr", "share_near"), "ceiling": ("ceiling",), "relative sample need V": ("variance",)}
DATA = {"class_snr": "class SNR", "share_near": "10 × share of the small part"}


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "training_eps strength class_snr share_near ceiling variance", text="learner")
    kinds = list(dict.fromkeys(zip(data["learner"].tolist(), data["training_eps"].tolist(), strict=True)))
    rows = []
    for panel, columns in PANELS.items():
        for column in columns:
            for learner, eps in kinds[:1] if column in DATA else kinds:
                of = where(data, learner=learner, training_eps=eps)
                name = DATA.get(column, learner + (f", adversarial, ε = {eps:g}" if eps else ""))
                rows += points(panel, name, data["strength"][of], data[column][of] * (10 if column == "share_near" else 1))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(3, height=3.0)
    for axis, panel in zip(axes, PANELS, strict=True):
        for i, name in enumerate(numbers.names(panel)):
            line(axis, learner_place(name, i), numbers.series(panel, name), name)
        axis.axvline(0, color="0.7", lw=1, gid="guide")
        axis.set(xlabel="strength γ of the sharpening", title=panel[0].upper() + panel[1:])
        axis.legend(fontsize=7, loc={"synthetic data": "upper center", "ceiling": "lower right"}.get(panel, "upper left"))
    axes[0].set_ylim(0, None)
    axes[1].set_ylabel("robust accuracy")
    axes[2].set_yscale("log")
    return figure
