"""Reads sweep.csv: runs on small images that differ in one choice, and their gains over unguided images, paired by seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, Columns, new_figure
from command_line.output import UserError
from command_line.statistics import mean_interval
from command_line.words import window_in_words
from figures.figure import GUIDE, Numbers, Row, Series
from figures.inputs import Files, remedy, where

TABLE = "digits-ablations/sweep.csv"
SETTINGS = "scikit-learn's digits, 300 real and 2,000 synthetic images, l_inf attack eps 0.15, PGD-20 on 1,197 test images"
FIRST = "loss"
"""The run whose unguided images are the baseline of the others."""


def read_sweep(files: Files, *described: str, table: str = TABLE, attack: str = "") -> Columns:
    """The columns that figures use, including the description columns named; only rows of this attack (default: the first in the table),
    at its first threat. Raises UserError if the table has none."""
    data = files.columns(table, " ".join(("seed n_synthetic robust_accuracy", *described)), text="run method attack norm eps")
    rows = np.flatnonzero(data["attack"] == (attack or data["attack"][0]))
    if not len(rows):
        raise UserError(f"{files.path(table)}: has no rows of {attack}; {remedy(table)}")
    first = where(data, **{name: data[name][rows[0]] for name in ("attack", "norm", "eps")})
    return {name: values[first] for name, values in data.items()}


SNR = "class_snr_crossfit"


def described_again(table: str) -> str:
    """The table with the class SNR of a sweep: its own, or that of a run that described its images again."""
    return table if table == TABLE else table.replace("/sweep.csv", "-description/description.csv")


def class_snr(files: Files, table: str = TABLE) -> dict[tuple[str, str], float]:
    """{(run, method): mean over seeds} of the cross-fitted class SNR."""
    data = files.columns(described_again(table), f"seed {SNR}", text="run method")
    each = dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True))
    return {one: float(np.mean(list(by_seed(data, *one, SNR).values()))) for one in each}


def family_of(run: str, method: str) -> str:
    """How a set was made, ignoring scale, window and input: a guidance, noise, or a selection (the run's name)."""
    return run if run.startswith("select-") else method.removesuffix("-auto").rstrip("0123456789.").rstrip("-")


def window_of(run: str) -> str | None:
    """The window of a run named window-LOW-HIGH, in words; None for other runs."""
    if not run.startswith(WINDOW):
        return None
    low, high = map(float, run.removeprefix(WINDOW).split("-"))
    return window_in_words(low, high)


WINDOW = "window-"


def by_seed(data: Columns, run: str, method: str, column: str = "robust_accuracy") -> dict[int, float]:
    of = where(data, run=run, method=method)
    return {int(seed): float(value) for seed, value in zip(data["seed"][of], data[column][of], strict=True)}


def gain(data: Columns, run: str, method: str, first: str = FIRST) -> tuple[float, float, float]:
    """Robust accuracy minus that with the unguided images of the first run: mean over seeds and 95 % interval."""
    ours, base = by_seed(data, run, method), by_seed(data, first, "unguided")
    return mean_interval([ours[seed] - base[seed] for seed in ours if seed in base])


def gain_rows(data: Columns, choices: dict[str, tuple[str, str]]) -> list[Row]:
    """One row per choice, {name: (run, method)}: x is its place from the top, y the gain; runs missing in a smaller sweep are left out."""
    rows: list[Row] = []
    for name, (run, method) in choices.items():
        if by_seed(data, run, method):
            mean, low, high = gain(data, run, method)
            rows.append(("gain", name, float(len(rows)), mean, low, high))
    return rows


def look_of(low: float, high: float) -> tuple[str, str]:
    """Marker and colour of an interval: above zero, below, or neither."""
    return (MARKERS[0], COLOURS[0]) if low > 0 else (MARKERS[1], COLOURS[3]) if high < 0 else (MARKERS[3], "0.5")


def draw_gains(numbers: Numbers, title: str) -> Any:
    """Draw gains as marks with intervals, one line per choice, from top to bottom."""
    series = [one for _, one in numbers.all("gain")]
    figure, (axis,) = new_figure(1, 4.8, 0.9 + 0.27 * len(series))
    draw_lines(axis, series)
    axis.set(xlabel="robust accuracy minus unguided", title=title)
    return figure


def draw_lines(axis: Any, series: list[Series]) -> None:
    """The mark and interval of each series on its line, x; from top to bottom."""
    for one in series:
        marker, colour = look_of(one.low[0], one.high[0])
        known = np.isfinite(one.low)
        axis.hlines(one.x[known], one.low[known], one.high[known], color="0.35", lw=1.2)
        axis.plot(one.y, one.x, marker, color=colour, ms=5)
    axis.axvline(0, color="0.4", lw=0.9, gid=GUIDE)
    axis.set_yticks(range(len(series)), [one.name for one in series])
    axis.set_ylim(len(series) - 0.5, -0.5)


CAPTION = (
    "Robust accuracy of an adversarially trained classifier with these synthetic images, minus that with unguided ones; mean and "
    "95 % interval over paired seeds (Student). Circles lie above zero, squares below, diamonds at neither."
)
