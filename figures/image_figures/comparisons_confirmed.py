"""What the searches on digits and MNIST found, against everything cheap."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures import comparisons
from figures.image_figures.comparisons import (
    CONFIRM,
    DEFAULT,
    GTSRB_CONFIRM,
    GTSRB_DEFAULT,
    GTSRB_RIVALS,
    MNIST_CONFIRM,
    MNIST_DEFAULT,
    MNIST_RIVALS,
    READ,
    RIVALS_OF_DEFAULT,
)
from figures.inputs import Files

FIGURE = Figure(
    "The guidance that a search found, against unguided images and simple rivals, with soft labels and as drawn",
    READ
    + "Under APGD-CE. Each search used validation images alone; these are other seeds and the test images. On GTSRB: particle guidance as "
    "digits chose it, InfoNCE 0.3 without the k-means choice, and twice as many unguided images. Below: the default, with the strongest "
    "guidance that raises the label error by at most five percentage points.",
    (CONFIRM, MNIST_CONFIRM, GTSRB_CONFIRM, DEFAULT, RIVALS_OF_DEFAULT, MNIST_DEFAULT, MNIST_RIVALS, GTSRB_DEFAULT, GTSRB_RIVALS),
    "300 real and 2,000 synthetic images; scikit-learn's digits, 1,197 test images; MNIST at 10x10 pixels, 2,000, against rivals 5,000; "
    "GTSRB at 16x16, 1,000 real and test images",
)
PANELS = {
    "digits": (CONFIRM, "apgd-ce"),
    "MNIST": (MNIST_CONFIRM, "apgd-ce"),
    "GTSRB, where nothing was searched": (GTSRB_CONFIRM, "apgd-ce"),
    "digits, strength by the rule auto": (DEFAULT, "apgd-ce"),
    "digits, the same against its rivals, other seeds": (RIVALS_OF_DEFAULT, "apgd-ce"),
    "MNIST, strength by the rule auto": (MNIST_DEFAULT, "apgd-ce"),
    "MNIST, the same against its rivals, other seeds": (MNIST_RIVALS, "apgd-ce"),
    "GTSRB, strength by the rule auto": (GTSRB_DEFAULT, "apgd-ce"),
    "GTSRB, the same against its rivals, other seeds": (GTSRB_RIVALS, "apgd-ce"),
}


def numbers(files: Files) -> Numbers:
    return comparisons.numbers_of(PANELS, files)


def draw(numbers: Numbers) -> Any:
    return comparisons.draw(numbers)
