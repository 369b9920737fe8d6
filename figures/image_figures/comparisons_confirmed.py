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
    + "Under APGD-CE. First the default, particle guidance of the strength that the rule auto finds: the strongest that raises the label "
    "error by at most five percentage points. Below, what the searches on digits and MNIST found on validation images, on other seeds and "
    "the test images. On GTSRB nothing was searched: particle guidance as digits chose it, InfoNCE 0.3 without the k-means choice, and "
    "twice as many unguided images.",
    (CONFIRM, MNIST_CONFIRM, GTSRB_CONFIRM, DEFAULT, RIVALS_OF_DEFAULT, MNIST_DEFAULT, MNIST_RIVALS, GTSRB_DEFAULT, GTSRB_RIVALS),
    "300 real and 2,000 synthetic images; scikit-learn's digits, 1,197 test images; MNIST at 10x10 pixels, 2,000, against rivals 5,000; "
    "GTSRB at 16x16, 1,000 real and test images",
)
PANELS = {
    "digits, the default against its rivals": (RIVALS_OF_DEFAULT, "apgd-ce"),
    "MNIST, the default against its rivals": (MNIST_RIVALS, "apgd-ce"),
    "GTSRB, the default against its rivals": (GTSRB_RIVALS, "apgd-ce"),
    "digits, the default on earlier seeds": (DEFAULT, "apgd-ce"),
    "MNIST, the default on earlier seeds": (MNIST_DEFAULT, "apgd-ce"),
    "GTSRB, the default on earlier seeds": (GTSRB_DEFAULT, "apgd-ce"),
    "digits, found by the search": (CONFIRM, "apgd-ce"),
    "MNIST, found by the search": (MNIST_CONFIRM, "apgd-ce"),
    "GTSRB, as digits chose it": (GTSRB_CONFIRM, "apgd-ce"),
}


def numbers(files: Files) -> Numbers:
    return comparisons.numbers_of(PANELS, files)


def draw(numbers: Numbers) -> Any:
    return comparisons.draw(numbers)
