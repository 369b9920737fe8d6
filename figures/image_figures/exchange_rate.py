"""How many unguided images is a guided one worth?"""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, Columns, new_figure
from command_line.statistics import exchange_rate, mean_interval
from figures.figure import GUIDE, Figure, Numbers, Row, band, line, marks, ticks
from figures.image_figures.ablations import by_seed
from figures.inputs import Files
from figures.words import place_of

TABLE = "digits-confirm/sweep.csv"
ATTACK, COUNT = "apgd-ce", 2000
CURVE = {
    250: "soft-250",
    500: "soft-500",
    1000: "soft-1000",
    2000: "soft",
    4000: "soft-4000",
    8000: "soft-8000",
    16000: "soft-16000",
}
"""Number of unguided images with soft labels, and the run that trained on them."""
SETS = {
    "particle 0.1, soft labels": ("soft", "particle-0.1"),
    "InfoNCE 0.3, k-means choice, soft labels": ("soft-cover", "infonce-0.3"),
    "hotter noise, soft labels": ("soft-hot", "unguided"),
    "k-means choice, soft labels": ("soft-cover", "unguided"),
    "model without labels, pseudo-labels": ("unlabelled", "unguided"),
    "particle 0.1, labels as drawn": ("drawn", "particle-0.1"),
    "hotter noise, labels as drawn": ("drawn-hot", "unguided"),
    "unguided, labels as drawn": ("drawn", "unguided"),
}
"""Sets of 2,000 images: the run and the method."""
FIGURE = Figure(
    "What a guided image is worth in unguided ones",
    "Left: robust accuracy under APGD-CE against the number of unguided images with soft labels (line, 95 % interval over seeds), and of "
    "sets of 2,000 images made in other ways. Dotted: up to the number of unguided images of the same worth. Right: that number over "
    "2,000, with Fieller's 95 % interval, paired by seed; marks at the edge lie beyond what was tried.",
    (TABLE,),
    "scikit-learn's digits, 300 real images, l_inf 0.15, 1,197 test images, 16 seeds",
)
LEFT, RIGHT, PLAIN = "robust accuracy", "worth in unguided images", "unguided, soft labels"


def attacked(files: Files) -> Columns:
    """The rows of sweep.csv under the attack that is shown."""
    data = files.columns(TABLE, "seed robust_accuracy", text="run method attack")
    return {name: values[data["attack"] == ATTACK] for name, values in data.items()}


def rates(data: Columns) -> dict[str, tuple[float, float, float]]:
    """(rate, low, high) of each set."""
    plain = [by_seed(data, run, "unguided") for run in CURVE.values()]
    seeds = sorted(plain[0])
    curve = np.array([[one[seed] for one in plain] for seed in seeds])
    sets = {name: by_seed(data, *key) for name, key in SETS.items()}
    return {name: exchange_rate(list(CURVE), curve, np.array([one[seed] for seed in seeds]), COUNT) for name, one in sets.items()}


def numbers(files: Files) -> Numbers:
    data = attacked(files)
    rows: list[Row] = []
    for count, run in CURVE.items():
        rows.append((LEFT, PLAIN, float(count), *mean_interval(list(by_seed(data, run, "unguided").values()))))
    least, most = min(CURVE) / COUNT, max(CURVE) / COUNT
    for place, (name, rate) in enumerate(rates(data).items()):
        rows.append((LEFT, name, float(COUNT), float(np.mean(list(by_seed(data, *SETS[name]).values())))))
        rows.append((RIGHT, name, float(place), *(float(np.clip(end, least, most)) for end in rate)))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, (left, right) = new_figure(2, 10.0, 3.6)
    plain = numbers.series(LEFT, PLAIN)
    band(left, 0, plain)
    line(left, 0, plain)
    names = numbers.names(RIGHT)
    for name in names:
        i = place_of(name)
        colour = COLOURS[i % 6]
        one, rate = numbers.series(LEFT, name), numbers.series(RIGHT, name)
        left.hlines(one.y, one.x, COUNT * rate.y, color=colour, lw=0.8, ls=":", gid=GUIDE)  # to as many unguided images
        marks(left, i, one, ms=6)
        right.plot(rate.y, rate.x, MARKERS[i % 6], color=colour, mfc=colour if i < 6 else "white", ms=6)
        right.hlines(rate.x, rate.low, rate.high, color=colour, lw=1.4)
    right.axvline(1, color="0.4", lw=0.9, gid=GUIDE)
    left.set(xscale="log", xlabel="unguided images", ylabel="robust accuracy", title="Robust accuracy")
    ticks(left, "x", (250, 1000, 4000, 16000))
    right.set(xscale="log", xlabel="unguided images of the same worth / 2,000", title="Exchange rate")
    ticks(right, "x", (0.125, 0.25, 0.5, 1, 2, 4, 8))
    right.set_yticks(range(len(names)), names, fontsize=7)
    right.set_ylim(len(names) - 0.5, -0.5)
    return figure
