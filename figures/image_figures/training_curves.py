"""Training on photographs: losses of the diffusion models, robust accuracy of the classifiers on validation images."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import new_grid
from command_line.words import WORDS, in_words, place_of
from figures.figure import Figure, Numbers, Row, joined, line, points
from figures.image_figures.photographs import BOTH
from figures.inputs import Files

METHODS = {
    "gtsrb-report": ("real", "unguided", "anchored-reversed-auto", "infonce-0.3", "hard-negative-0.3", "anchored-0.1"),
    "cifar10-report": ("real", "unguided", "anchored-reversed-auto", "anchored-0.1"),
}
SEEDS = {"gtsrb-report": range(110, 114), "cifar10-report": range(120, 123)}
TITLES = {"gtsrb-report": "GTSRB", "cifar10-report": "CIFAR-10 (JPEG copy)"}
DIFFUSION, CLASSIFIERS = "diffusion", "classifiers"


def curves(design: str, kind: str) -> list[str]:
    """The files of all seeds."""
    return [f"{design}/runs/main/curves/{kind}-seed{seed}.csv" for seed in SEEDS[design]]


FIGURE = Figure(
    "How diffusion models and classifiers train on photographs",
    "Left of each pair: training loss of the diffusion models, which predict v, a line a seed. Right: robust accuracy on 200 validation "
    "images under PGD-10 while classifiers are trained on real and synthetic images, mean over seeds; all methods take the same number of "
    "steps with batches of the same size.",
    tuple(file for design, methods in METHODS.items() for kind in (DIFFUSION, *methods) for file in curves(design, kind)),
    BOTH,
)


def numbers(files: Files) -> Numbers:
    rows: list[Row] = []
    for design, methods in METHODS.items():
        for seed, file in zip(SEEDS[design], curves(design, DIFFUSION), strict=True):
            curve = files.columns(file, "step loss")
            rows += points(f"{TITLES[design]}: {DIFFUSION}", f"seed {seed}", curve["step"], curve["loss"])
        for method in methods:
            of = [files.columns(file, "step robust_accuracy") for file in curves(design, method)]
            mean = np.mean([curve["robust_accuracy"] for curve in of], axis=0)
            rows += points(f"{TITLES[design]}: {CLASSIFIERS}", in_words(method), of[0]["step"], mean)
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_grid(len(panels), 2, 7.2, 2.7)
    for axis, panel in zip(axes, panels, strict=True):
        losses = panel.endswith(DIFFUSION)
        for i, one in numbers.all(panel):
            if losses:
                line(axis, i, one, one.name, lw=0.9)
            else:
                real = {"color": "0.25", "marker": "x", "ls": "-"} if one.name == WORDS["real"] else {}
                joined(axis, place_of(one.name), one, one.name, **real)
        axis.set(xlabel="step", ylabel="loss" if losses else "robust accuracy, validation", title=panel)
        axis.legend(fontsize=7)
    return figure
