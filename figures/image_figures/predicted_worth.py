"""What theory says that an image is worth, from a description of its set alone, beside what it was found to be worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from figures.figure import GUIDE, Figure, Numbers, Row, diagonal, ticks
from figures.image_figures.exchange_rate import STUDIES, Study, attacked, rates
from figures.inputs import Files
from figures.words import place_of


def worth_of(sweep: str) -> str:
    """The table with the predicted worth of a sweep's sets."""
    return sweep.replace("/sweep.csv", "-worth/worth.csv")


FIGURE = Figure(
    "What theory predicts that an image is worth, and what it was found to be worth",
    "Measured: exchange rate of each set of 2,000 images, with Fieller's 95 % interval (figure exchange_rate). Predicted by T16, with "
    "nothing fitted: the number of unguided images with soft labels from which a logistic learner misses the best direction by the same "
    "angle, over 2,000. T16 is given the number of images, and of a set its class SNR, share of wrong labels and effective dimension, in "
    "the features of a classifier that took no part; real images count as having the unguided ones' class SNR and right labels.",
    tuple(table for study in STUDIES.values() for table in (study.table, worth_of(study.table))),
    "300 real images, l_inf 0.15, APGD-CE, 16 seeds",
)
LEAST, MOST = 0.125, 8.0
"""Worths that are shown."""


def predicted(study: Study, files: Files) -> dict[str, float]:
    """The worth of each set by T16, as simulations/image_worth.py wrote it."""
    data = files.columns(worth_of(study.table), "worth", text="run method")
    by_key = dict(zip(zip(data["run"].tolist(), data["method"].tolist(), strict=True), data["worth"].tolist(), strict=True))
    return {name: float(np.clip(by_key[key], LEAST, MOST)) for name, key in study.sets.items()}


def numbers(files: Files) -> Numbers:
    rows: list[Row] = []
    for name_of_data, study in STUDIES.items():
        by_theory = predicted(study, files)
        for name, rate in rates(study, attacked(files, study.table)).items():
            rows.append((name_of_data, name, by_theory[name], *(float(np.clip(end, LEAST, MOST)) for end in rate)))
    return Numbers.of(rows)


def misses(numbers: Numbers, panel: str) -> tuple[float, int, int]:
    """(typical factor between predicted and measured worth: the root mean square of its logarithm; sets inside their interval; sets)."""
    of = numbers.columns["panel"] == panel
    x, y, low, high = (numbers.columns[name][of] for name in ("x", "y", "low", "high"))
    return float(np.exp(np.sqrt(np.mean(np.log(x / y) ** 2)))), int(((low <= x) & (x <= high)).sum()), int(of.sum())


def finding(files: Files) -> str:
    """How well it predicts, one line a data set."""
    drawn = numbers(files)
    lines = []
    for panel in drawn.panels():
        factor, inside, count = misses(drawn, panel)
        lines.append(
            f"T16 predicts what an image is worth on {panel} within a typical factor of {factor:.2f}; {inside} of {count} predictions lie "
            "inside the 95 % interval of what was measured. Nothing was fitted."
        )
    return "\n".join(lines)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), 4.8 * len(panels), 4.2)
    for axis, panel in zip(axes, panels, strict=True):
        for name in numbers.names(panel):
            i, one = place_of(name), numbers.series(panel, name)
            hollow = "white" if name.endswith("as drawn") else COLOURS[i % 6]
            axis.plot(one.x, one.y, MARKERS[i % 6], color=COLOURS[i % 6], mfc=hollow, ms=6, label=name)
            axis.vlines(one.x, one.low, one.high, color=COLOURS[i % 6], lw=1)
        diagonal(axis, LEAST, MOST)
        axis.axhline(1, color="0.8", lw=0.8, gid=GUIDE)
        axis.set(xscale="log", yscale="log", xlim=(0.6, MOST), ylim=(0.6, MOST))
        axis.set(xlabel="worth predicted by T16", title=f"{panel}: typical factor {misses(numbers, panel)[0]:.2f}")
        for which in "xy":
            ticks(axis, which, (1, 2, 4, 8))
        axis.legend(fontsize=6.5, loc="lower right")
    axes[0].set_ylabel("measured worth in unguided images")
    return figure
