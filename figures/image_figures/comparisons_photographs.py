"""The comparisons on photographs: GTSRB and CIFAR-10, reduced."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures import comparisons
from figures.image_figures.comparisons import CIFAR10, GTSRB, MORE, READ
from figures.image_figures.photographs import BOTH
from figures.inputs import Files

FIGURE = Figure(
    "Synthetic images beside real ones, and guidance, on photographs",
    READ
    + "Under APGD-CE, l_inf 8/255. Where it says auto, scale and window come from the rule auto; the other strengths are those "
    "of the digits. Ten seeds of GTSRB, with what digits chose and with the default: figure comparisons_confirmed.",
    (GTSRB, MORE, CIFAR10),
    f"{BOTH}, 1,000 test images",
)
PANELS = {
    "GTSRB, four seeds": (GTSRB, "apgd-ce"),
    "GTSRB, six further seeds": (MORE, "apgd-ce"),
    "CIFAR-10 (JPEG copy), three seeds": (CIFAR10, "apgd-ce"),
}


def numbers(files: Files) -> Numbers:
    return comparisons.numbers_of(PANELS, files)


def draw(numbers: Numbers) -> Any:
    return comparisons.draw(numbers)
