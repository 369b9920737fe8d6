"""The paper's whole pipeline on traffic signs: labels x selection, and simple rivals under the same treatment."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures import pipeline
from figures.inputs import Files

TABLE = "gtsrb-pipeline/sweep.csv"
FIGURE = Figure(
    "What labels, selection and guidance are worth together, on traffic signs",
    pipeline.READ + "The paper relabels and keeps the most confident on CIFAR-10, not on this data set.",
    (TABLE,),
    "GTSRB at 16x16, 1,000 real and 2,000 synthetic images chosen from 3,000, l_inf 8/255, 1,000 test images, 10 seeds",
)


def numbers(files: Files) -> Numbers:
    return pipeline.numbers_of(TABLE, files)


def draw(numbers: Numbers) -> Any:
    return pipeline.draw(numbers)


def finding(files: Files) -> str:
    """What keeping the most confident costs, what guidance wins back, and what does best."""
    return pipeline.finding_of(TABLE, "GTSRB", files)
