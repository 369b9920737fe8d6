"""Sample grids of traffic signs: real images and those of every method."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures import digit_samples
from figures.image_figures.photographs import GTSRB
from figures.inputs import Files

METHODS = digit_samples.titles("real", "unguided", "anchored-reversed-auto", "infonce-0.3", "hard-negative-0.3", "anchored-0.1")
SIGNS = (
    "limit of 50",
    "no passing, lorries",
    "priority road",
    "yield",
    "stop",
    "no entry",
    "caution",
    "road work",
    "ahead only",
    "keep right",
)
FIGURE = Figure(
    "Traffic signs: samples of every method",
    "Eight images of each class, a row a class: real signs, and what the diffusion model makes from the same noise unguided and with four "
    "guidances.",
    digit_samples.mosaics("gtsrb-report/runs/main", METHODS),
    f"{GTSRB}; DDIM 16 steps, samples of the first seed",
)


def numbers(files: Files) -> Numbers:
    return digit_samples.numbers_of(dict(zip(METHODS.values(), FIGURE.inputs, strict=True)), files)


def draw(numbers: Numbers) -> Any:
    return digit_samples.draw(numbers, classes=SIGNS)
