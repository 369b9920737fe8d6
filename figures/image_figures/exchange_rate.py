"""How many unguided images is a guided one worth?"""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from command_line.statistics import exchange_rate, mean_interval
from figures.figure import GUIDE, Figure, Numbers, Row, ticks
from figures.inputs import Files

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


def accuracies(files: Files) -> dict[tuple[str, str], dict[int, float]]:
    """{(run, method): {seed: robust accuracy}}."""
    data = files.columns(TABLE, "seed robust_accuracy", text="run method attack")
    found: dict[tuple[str, str], dict[int, float]] = {}
    for i in np.flatnonzero(data["attack"] == ATTACK):
        found.setdefault((data["run"][i], data["method"][i]), {})[int(data["seed"][i])] = float(data["robust_accuracy"][i])
    return found


def rates(files: Files) -> dict[str, tuple[float, float, float]]:
    """(rate, low, high) of each set."""
    found = accuracies(files)
    seeds = sorted(found["soft", "unguided"])
    curve = np.array([[found[run, "unguided"][seed] for run in CURVE.values()] for seed in seeds])
    return {
        name: exchange_rate(list(CURVE), curve, np.array([found[key][seed] for seed in seeds]), COUNT)
        for name, key in SETS.items()
        if key in found
    }


def numbers(files: Files) -> Numbers:
    found = accuracies(files)
    rows: list[Row] = []
    for count, run in CURVE.items():
        rows.append((LEFT, PLAIN, float(count), *mean_interval(list(found[run, "unguided"].values()))))
    least, most = min(CURVE) / COUNT, max(CURVE) / COUNT
    for place, (name, rate) in enumerate(rates(files).items()):
        rows.append((LEFT, name, float(COUNT), float(np.mean(list(found[SETS[name]].values())))))
        rows.append((RIGHT, name, float(place), *(float(np.clip(end, least, most)) for end in rate)))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, (left, right) = new_figure(2, 10.0, 3.6)
    plain = numbers.series(LEFT, PLAIN)
    left.fill_between(plain.x, plain.low, plain.high, color=COLOURS[0], alpha=0.2, lw=0)
    left.plot(plain.x, plain.y, color=COLOURS[0], label=PLAIN)
    names = numbers.names(RIGHT)
    for i, name in enumerate(names):
        look = {
            "color": COLOURS[(i + 1) % 6],
            "marker": MARKERS[(i + 1) % 6],
            "mfc": COLOURS[(i + 1) % 6] if i < 5 else "white",
            "ls": "",
        }
        one, rate = numbers.series(LEFT, name), numbers.series(RIGHT, name)
        left.hlines(one.y, one.x, COUNT * rate.y, color=look["color"], lw=0.8, ls=":", gid=GUIDE)  # to as many unguided images
        left.plot(one.x, one.y, ms=6, label=name, **look)
        right.plot(rate.y, rate.x, ms=6, **look)
        right.hlines(rate.x, rate.low, rate.high, color=look["color"], lw=1.4)
    right.axvline(1, color="0.4", lw=0.9, gid=GUIDE)
    left.set(xscale="log", xlabel="unguided images", ylabel="robust accuracy", title="Robust accuracy")
    ticks(left, "x", (250, 1000, 4000, 16000))
    right.set(xscale="log", xlabel="unguided images of the same worth / 2,000", title="Exchange rate")
    ticks(right, "x", (0.125, 0.25, 0.5, 1, 2, 4, 8))
    right.set_yticks(range(len(names)), names, fontsize=7)
    right.set_ylim(len(names) - 0.5, -0.5)
    return figure
