"""The comparisons of guidance on a second data set."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures import comparisons
from figures.image_figures.comparisons import MNIST, READ
from figures.inputs import Files

FIGURE = Figure(
    "The same on a second data set, where nothing was tuned",
    READ + "Scale and window of the guidance come from the rule auto; under APGD-CE.",
    (MNIST,),
    "MNIST (test file, split) at 10x10 pixels, 300 real and 2,000 synthetic images, 2,000 test images",
)
PANELS = {"MNIST, 21 comparisons": (MNIST, "apgd-ce")}


def numbers(files: Files) -> Numbers:
    return comparisons.numbers_of(PANELS, files)


def draw(numbers: Numbers) -> Any:
    return comparisons.draw(numbers, height=4.4)
