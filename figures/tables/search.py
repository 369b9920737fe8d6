"""Every guidance, strength and treatment that a search on validation images tried, and how far each came."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.words import in_words
from figures.figure import Figure
from figures.inputs import Files
from figures.table import Spread

TABLES = {"digits": "digits-search/search.csv", "MNIST": "mnist-search/search.csv"}
FIGURE = Figure(
    "Which guidance, how strong, with which labels: two searches by successive halving",
    "Each candidate on two seeds, the best third on four, the best third of those on eight: robust accuracy under PGD-20 on validation "
    "images, mean and standard deviation over the seeds of its last rung. The winner was chosen by this number, so a search is no "
    "evidence for it; a new design on other seeds and test images is.",
    tuple(TABLES.values()),
    "300 real and 2,000 synthetic images, l_inf 0.15; digits: 300 validation images, seeds from 400; MNIST at 10x10 pixels: 1,000, seeds "
    "from 420",
)
TREATMENTS = {
    "drawn": "labels as drawn",
    "soft": "soft labels of four",
    "agreeing": "as drawn, if four agree",
    "rounds": "soft labels, three rounds",
    "hot": "hotter noise",
    "near": "target half the distance",
    "same": "negatives of the same class",
    "other": "negatives of other classes",
    "late": "guided at t < 400",
    "cover": "k-means choice",
    "boundary": "nearest the boundary",
}
"""What the parts of a run's name stand for."""
HEADER = ("candidate", "data", "robust accuracy", "seeds", "rung", "place")


def rows(files: Files) -> list[list[Any]]:
    """One row a candidate, at its last rung, from the best of each data set."""
    return [[candidate, name, *row] for name, table in TABLES.items() for candidate, *row in _rows_of(files, table)]


def _rows_of(files: Files, table: str) -> list[list[Any]]:
    data = files.columns(table, "rung seeds robust_accuracy standard_deviation place", text="run method")
    last: dict[tuple[str, str], int] = {}
    for i in np.argsort(data["rung"], kind="stable"):
        last[data["run"][i], data["method"][i]] = int(i)
    order = sorted(last.values(), key=lambda i: (-data["rung"][i], data["place"][i]))
    return [
        [
            f"{in_words(data['method'][i])} ({treatment_of(data['run'][i])})",
            Spread(float(data["robust_accuracy"][i]), float(data["standard_deviation"][i])),
            *(int(data[column][i]) for column in ("seeds", "rung", "place")),
        ]
        for i in order
    ]


def treatment_of(run: str) -> str:
    """A treatment by the name of its run."""
    return ", ".join(TREATMENTS.get(part, part) for part in run.split("-"))
