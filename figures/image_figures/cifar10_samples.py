"""Sample grids of CIFAR-10: real images and those of every method."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures import digit_samples
from figures.image_figures.photographs import CIFAR10
from figures.inputs import Files

METHODS = digit_samples.titles("real", "unguided", "anchored-reversed-auto", "anchored-0.1")
FIGURE = Figure(
    "Objects: samples of every method",
    "Eight images of each class, a row a class: real photographs, and what the same diffusion model "
    "makes from the same noise without guidance and with two.",
    digit_samples.mosaics("cifar10-report/runs/main", METHODS),
    f"{CIFAR10}; DDIM 16 steps, samples of the first seed",
)


def numbers(files: Files) -> Numbers:
    return digit_samples.numbers_of(dict(zip(METHODS.values(), FIGURE.inputs, strict=True)), files)


def draw(numbers: Numbers) -> Any:
    return digit_samples.draw(numbers, classes=("airplane", "automobile", "frog", "horse"))
