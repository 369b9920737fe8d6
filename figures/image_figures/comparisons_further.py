"""The comparisons of guidance on a second data set."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures import comparisons
from figures.image_figures.comparisons import FACTORS, MNIST, READ
from figures.inputs import Files

FIGURE = Figure(
    "The same on a second data set, where nothing was tuned, and with other features, fewer real images, no classifier",
    READ
    + "Above: scale and window of the guidance come from the rule auto, but for class-anchored, at 0.1; under APGD-CE. Below: guidance in "
    "the features of other "
    "encoders minus that in the default one's, with 100 real images in place of 300, and classifier-free guidance; under PGD-20.",
    (MNIST, FACTORS),
    "MNIST (test file, split) at 10x10 pixels, 2,000 test images; scikit-learn's digits, 1,197; 300 real and 2,000 synthetic images",
)
PANELS = {"MNIST, 21 comparisons": (MNIST, "apgd-ce"), "digits, 18 comparisons": (FACTORS, "pgd-20")}


def numbers(files: Files) -> Numbers:
    return comparisons.numbers_of(PANELS, files)


def draw(numbers: Numbers) -> Any:
    return comparisons.draw(numbers)
