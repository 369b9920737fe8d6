"""How many unguided images is a guided one worth?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from command_line.drawing import Columns, new_grid, shape
from command_line.statistics import exchange_rate, mean_interval
from command_line.words import place_of
from figures.figure import GUIDE, Figure, Numbers, Row, band, line, ticks
from figures.image_figures.ablations import by_seed
from figures.inputs import Files

ATTACK, COUNT = "apgd-ce", 2000
PLAIN = "unguided, soft labels"
SHARED = {
    "hotter noise, soft labels": ("soft-hot", "unguided"),
    "hotter noise, labels as drawn": ("drawn-hot", "unguided"),
    "unguided, labels as drawn": ("drawn", "unguided"),
}


@dataclass(frozen=True)
class Study:
    """A confirming design. counts: numbers of unguided images with soft labels, each in a run of its own; sets: of 2,000 images, run and
    method each; about: the data, in words."""

    table: str
    counts: tuple[int, ...]
    sets: Mapping[str, tuple[str, str]]
    about: str

    def curve(self) -> dict[int, str]:
        """Number of unguided images with soft labels, and the run that trained on them."""
        return {n: "soft" if n == COUNT else f"soft-{n}" for n in self.counts}

    def limits(self) -> tuple[float, float]:
        """The least and the largest worth that can be measured."""
        return self.counts[0] / COUNT, self.counts[-1] / COUNT


STUDIES = {
    "digits": Study(
        "digits-confirm/sweep.csv",
        (250, 500, 1000, 2000, 4000, 8000, 16000),
        {
            "particle 0.1, soft labels": ("soft", "particle-0.1"),
            "InfoNCE 0.3, k-means choice, soft labels": ("soft-cover", "infonce-0.3"),
            "k-means choice, soft labels": ("soft-cover", "unguided"),
            "model without labels, pseudo-labels": ("unlabelled", "unguided"),
            "particle 0.1, labels as drawn": ("drawn", "particle-0.1"),
            **SHARED,
        },
        "scikit-learn's digits, 1,197 test images",
    ),
    "MNIST": Study(
        "mnist-confirm/sweep.csv",
        (500, 1000, 2000, 4000, 8000),
        {
            "particle 0.05, soft labels": ("soft", "particle-0.05"),
            "feedback 0.05, soft labels": ("soft", "feedback-0.05"),
            "nearest the boundary, soft labels": ("soft-near", "unguided"),
            "particle 0.05, labels as drawn": ("drawn", "particle-0.05"),
            **SHARED,
        },
        "MNIST at 10x10 pixels, 2,000 test images",
    ),
    "GTSRB": Study(
        "gtsrb-confirm/sweep.csv",
        (500, 2000, 4000, 8000),
        {
            "particle 0.1, soft labels": ("soft", "particle-0.1"),
            "InfoNCE 0.3, soft labels": ("soft", "infonce-0.3"),
            "k-means choice, soft labels": ("soft-cover", "unguided"),
            "particle 0.1, labels as drawn": ("drawn", "particle-0.1"),
            **SHARED,
        },
        "GTSRB at 16x16 pixels, 1,000 test images",
    ),
}
SETTINGS = "300 real images, l_inf 0.15, 16 seeds; GTSRB: 1,000, 8/255, 10 seeds"
FIGURE = Figure(
    "What a guided image is worth in unguided ones",
    "Left: robust accuracy under APGD-CE against the number of unguided images with soft labels (line, 95 % interval over seeds), and of "
    "sets of 2,000 images made in other ways. Dotted: to the number of unguided images with equal accuracy, or to the fewest or most "
    "that were tried where none is equal, along each seed's line between the numbers tried. "
    "Right: how many unguided images one such image replaces, with Fieller's 95 % interval, paired by seed, of "
    "this set alone; a mark or end at 1/8 and 8 (MNIST and GTSRB: 1/4 and 4) is a bound: it lies beyond what was tried. Small "
    "marks: labels as drawn.",
    tuple(study.table for study in STUDIES.values()),
    f"{SETTINGS}; " + "; ".join(study.about for study in STUDIES.values()),
)
LEFT, RIGHT = ": robust accuracy", ": worth in unguided images"


def attacked(files: Files, table: str) -> Columns:
    """The rows of sweep.csv under the attack that is shown."""
    data = files.columns(table, "seed robust_accuracy", text="run method attack")
    return {name: values[data["attack"] == ATTACK] for name, values in data.items()}


def rates(study: Study, data: Columns) -> dict[str, tuple[float, float, float]]:
    """(rate, low, high) of each set, the highest first."""
    plain = [by_seed(data, run, "unguided") for run in study.curve().values()]
    seeds = sorted(plain[0])
    curve = np.array([[one[seed] for one in plain] for seed in seeds])
    sets = {name: by_seed(data, *key) for name, key in study.sets.items()}
    found = {name: exchange_rate(study.counts, curve, np.array([one[seed] for seed in seeds]), COUNT) for name, one in sets.items()}
    return dict(sorted(found.items(), key=lambda item: -np.nan_to_num(item[1][0], nan=-1)))


def numbers(files: Files) -> Numbers:
    rows: list[Row] = []
    for name_of_data, study in STUDIES.items():
        data = attacked(files, study.table)
        for count, run in study.curve().items():
            plain = mean_interval(list(by_seed(data, run, "unguided").values()))
            rows.append((name_of_data + LEFT, PLAIN, float(count), *plain))
        for place, (name, rate) in enumerate(rates(study, data).items()):
            reached = float(np.mean(list(by_seed(data, *study.sets[name]).values())))
            rows.append((name_of_data + LEFT, name, float(COUNT), reached))
            rows.append((name_of_data + RIGHT, name, float(place), *(float(np.clip(end, *study.limits())) for end in rate)))
    return Numbers.of(rows)


def mark(name: str) -> dict[str, Any]:
    """How a set is drawn: colour and marker of its method; small with labels as drawn; a black edge if chosen by k-means besides."""
    chosen = {"mec": "black"} if "k-means choice" in name and not name.startswith("k-means") else {}
    return {**shape(place_of(name)), "ms": 4 if name.endswith("as drawn") else 7, **chosen}


def draw(numbers: Numbers) -> Any:
    shown = list(dict.fromkeys(panel.partition(":")[0] for panel in numbers.panels()))
    figure, axes = new_grid(2 * len(shown), 2, 8.0, 3.0)
    for i, name_of_data in enumerate(shown):
        _draw_study(axes[2 * i], axes[2 * i + 1], numbers, name_of_data)
    return figure


def _draw_study(left: Any, right: Any, numbers: Numbers, name_of_data: str) -> None:
    plain = numbers.series(name_of_data + LEFT, PLAIN)
    band(left, 0, plain)
    line(left, 0, plain)
    names = numbers.names(name_of_data + RIGHT)
    for name in names:
        look = mark(name)
        one, rate = (numbers.series(name_of_data + part, name) for part in (LEFT, RIGHT))
        left.hlines(one.y, one.x, COUNT * rate.y, color=look["color"], lw=0.8, ls=":", gid=GUIDE)  # to as many unguided images
        left.plot(one.x, one.y, **look)
        right.plot(rate.y, rate.x, **look)
        right.hlines(rate.x, rate.low, rate.high, color=look["color"], lw=1.4)
    right.axvline(1, color="0.4", lw=0.9, gid=GUIDE)
    left.set(xscale="log", xlabel="unguided images", ylabel="robust accuracy", title=f"Robust accuracy, {name_of_data}")
    ticks(left, "x", (250, 1000, 4000, 16000))
    right.set(xscale="log", xlabel="unguided images of the same worth / 2,000", title=f"Exchange rate, {name_of_data}")
    ticks(right, "x", (0.125, 0.25, 0.5, 1, 2, 4, 8))
    broken = [",\n".join(name.rsplit(", ", 1)) for name in names]
    right.set_yticks(range(len(names)), broken, fontsize=7)
    right.set_ylim(len(names) - 0.5, -0.5)
