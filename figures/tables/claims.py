"""Comparisons that were fixed before they were run, and the result of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.figure import Figure
from figures.image_figures.comparisons import CONFIRM, DEFAULT, EVIDENCE, FACTORS, MNIST, MNIST_CONFIRM, PIPELINE, REPORT, shown
from figures.inputs import Files
from figures.table import Spread
from figures.words import ATTACKS, radius_in_words

APGD = "digits-apgd/comparisons.csv"
FIGURE = Figure(
    "Comparisons fixed beforehand, and their verdicts",
    "Robust accuracy of a minus b, equal training, paired by seed: mean, 95 % interval of this comparison alone (Student); the 95 % "
    "interval of all comparisons of its design together (Bonferroni); Holm's p. The verdict uses the interval of all.",
    (EVIDENCE, REPORT, MNIST, APGD, FACTORS, PIPELINE, CONFIRM, MNIST_CONFIRM, DEFAULT),
    "small real images, 300 real and 2,000 synthetic unless said otherwise",
)
HEADER = ("design", "attack", "a", "b", "seeds", "a minus b", "low of all", "high of all", "p (Holm)", "verdict")


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
            attack = f"{ATTACKS.get(one['attack'], one['attack'])}, {radius_in_words(one['norm'], float(one['eps']))}"
            spread = Spread(one["difference"], low=one["low"], high=one["high"])
            ends = [float(one["low_of_all"]), float(one["high_of_all"])]
            about = [table.partition("/")[0], attack, shown(one["a"]), shown(one["b"]), int(one["seeds"])]
            found.append([*about, spread, *ends, float(one["p_holm"]), verdict(*ends)])
    return found


def verdict(low: float, high: float) -> str:
    """What an interval says about a difference."""
    if np.isnan(low):
        return "no interval"
    return "a higher" if low > 0 else "a lower" if high < 0 else "no difference detected"


def finding(files: Files) -> str:
    """The verdicts in words."""
    return sentences(rows(files))


def sentences(table: list[list[Any]]) -> str:
    """One line per design."""
    found = []
    for design in dict.fromkeys(row[0] for row in table):
        of = [row for row in table if row[0] == design]
        said = [
            f"{row[2]} {row[-1].removeprefix('a ')} than {row[3]} ({row[1]})" for row in of if row[-1] in ("a higher", "a lower")
        ]
        told = "; ".join(said) if said else "nothing"
        found.append(f"{design}, {len(of)} comparisons fixed beforehand. Detected, by the intervals of all: {told}.")
    return "\n".join(found)
