"""Comparisons that were fixed before they were run, and the result of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.words import attack_in_words
from figures.figure import Figure
from figures.image_figures.comparisons import (
    CONFIRM,
    DEFAULT,
    EVIDENCE,
    FACTORS,
    MINUS,
    MNIST,
    MNIST_CONFIRM,
    MNIST_DEFAULT,
    MNIST_PIPELINE,
    MNIST_RIVALS,
    PAPER,
    PIPELINE,
    REPORT,
    RIVALS_OF_DEFAULT,
    compared,
)
from figures.inputs import Files
from figures.table import Spread

APGD = "digits-apgd/comparisons.csv"
FIGURE = Figure(
    "Comparisons fixed beforehand, and their verdicts",
    "Difference in robust accuracy, equal training, paired by seed: mean and 95 % interval of all comparisons of its design together "
    "(Bonferroni), by which the verdict goes; ends of the 95 % interval of this comparison alone (Student); Holm's p.",
    (
        EVIDENCE,
        REPORT,
        MNIST,
        APGD,
        FACTORS,
        PIPELINE,
        PAPER,
        MNIST_PIPELINE,
        CONFIRM,
        MNIST_CONFIRM,
        DEFAULT,
        MNIST_DEFAULT,
        RIVALS_OF_DEFAULT,
        MNIST_RIVALS,
    ),
    "small real images, 300 real and 2,000 synthetic unless said otherwise",
)
HEADER = ("comparison", "design", "difference", "verdict", "attack", "low alone", "high alone", "p (Holm)", "seeds")


def rows(files: Files) -> list[list[Any]]:
    return rows_of(FIGURE.inputs, files)


def rows_of(tables: tuple[str, ...], files: Files) -> list[list[Any]]:
    """The comparisons of these designs."""
    found: list[list[Any]] = []
    for table in tables:
        numbers = "eps seeds difference low high low_of_all high_of_all p_holm"
        data = files.columns(table, numbers, text="a b attack norm")
        for i in range(len(data["a"])):
            one = {name: values[i] for name, values in data.items()}
            attack = attack_in_words(one["attack"], one["norm"], float(one["eps"]))
            of_all = Spread(one["difference"], low=float(one["low_of_all"]), high=float(one["high_of_all"]))
            alone = [float(one["low"]), float(one["high"]), float(one["p_holm"])]
            said = [compared(one["a"], one["b"]), table.partition("/")[0], of_all, verdict(of_all.low, of_all.high), attack]
            found.append([*said, *alone, int(one["seeds"])])
    return found


def verdict(low: float, high: float) -> str:
    """What an interval says about the first side."""
    if np.isnan(low):
        return "no interval"
    return "higher" if low > 0 else "lower" if high < 0 else "not detected"


def finding(files: Files) -> str:
    """The verdicts in words."""
    return sentences(rows(files))


def sentences(table: list[list[Any]]) -> str:
    """One line per design."""
    found = []
    for design in dict.fromkeys(row[1] for row in table):
        of = [row for row in table if row[1] == design]
        detected = [(row[0].split(MINUS), row[3], row[4]) for row in of if row[3] in ("higher", "lower")]
        told = "; ".join(f"{a} {verdict} than {b} ({attack})" for (a, b), verdict, attack in detected) or "nothing"
        found.append(
            f"{design}, {len(of)} comparison{'s' * (len(of) != 1)} fixed beforehand. Detected, by the intervals of all: {told}."
        )
    return "\n".join(found)
