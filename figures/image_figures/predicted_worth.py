"""What theory says that an image is worth, from a description of its set alone, beside what it was found to be worth."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from command_line.drawing import new_figure
from command_line.output import UserError
from figures.figure import GUIDE, Figure, Numbers, Row, diagonal, ticks
from figures.image_figures.exchange_rate import SETTINGS, STUDIES, Study, attacked, mark, rates
from figures.inputs import Files, remedy


def worth_of(sweep: str) -> str:
    """The table with the predicted worth of a sweep's sets."""
    return sweep.replace("/sweep.csv", "-worth/worth.csv")


FIGURE = Figure(
    "Worth of a synthetic image: predicted by theory and measured",
    "Measured: exchange rate of each set of 2,000 images, with Fieller's 95 % interval (figure exchange_rate); a mark at the edge "
    "is a bound, beyond what was tried, and not in the typical factor. Predicted: the number of unguided images with soft labels at which "
    "T16's two-class logistic learner has the same angle to the best direction, over 2,000. It knows of each set the number of images, the "
    "class SNR, the share of wrong labels and the effective dimension, in the features of a classifier not used for guidance; nothing is "
    "fitted. It takes real images as unguided ones with right labels, ignores the training attack, and takes soft labels as hard. A set "
    "with half of its labels wrong has no prediction. Typical factor: exp of the root mean square of log(predicted / measured). The rule "
    "was chosen when the results of digits were known. The prediction for MNIST was committed before its exchange rates were measured, "
    "that for GTSRB, by the same rule, together with them.",
    tuple(table for study in STUDIES.values() for table in (study.table, worth_of(study.table))),
    f"{SETTINGS}; APGD-CE",
)
SHOWN = (0.25, 10.0)
"""Worths at the ends of the axes."""
STRENGTH = re.compile(r" [\d.]+(?=,)")
"""Of a guidance, which the legend leaves out: it differs between data sets, and the mark does not."""


def predicted(study: Study, files: Files) -> dict[str, float]:
    """The worth of each set by T16, as simulations/image_worth.py wrote it. Raises UserError for a set that a smaller sweep left out."""
    name = worth_of(study.table)
    data = files.columns(name, "worth", text="run method")
    if not files.current(name):
        raise UserError(f"{files.path(name)}: was computed from another {study.table}; {remedy(name)}")
    by_key = dict(zip(zip(data["run"].tolist(), data["method"].tolist(), strict=True), data["worth"].tolist(), strict=True))
    missing = next(("/".join(key) for key in study.sets.values() if key not in by_key), None)
    if missing:
        raise UserError(f"{worth_of(study.table)}: has no set {missing}; make the whole sweep, without --quick")
    return {name: by_key[key] for name, key in study.sets.items()}


def numbers(files: Files) -> Numbers:
    rows: list[Row] = []
    for name_of_data, study in STUDIES.items():
        by_theory = predicted(study, files)
        for name, rate in rates(study, attacked(files, study.table)).items():
            if math.isnan(by_theory[name]):  # half of the labels are wrong
                continue
            measured = (shown(worth, study.limits()) for worth in rate)
            rows.append((name_of_data, name, shown(by_theory[name], SHOWN), *measured))
    return Numbers.of(rows)


def shown(worth: float, limits: tuple[float, float]) -> float:
    """The worth; at an end of the axes if it lies beyond the limits, within which it is known."""
    return SHOWN[0] if worth < limits[0] else SHOWN[1] if worth > limits[1] else float(np.clip(worth, *SHOWN))


def _of(numbers: Numbers, panel: str) -> Any:
    """x, y, low, high of all sets of a data set."""
    return (numbers.columns[name][numbers.columns["panel"] == panel] for name in ("x", "y", "low", "high"))


def misses(numbers: Numbers, panel: str) -> tuple[float, float, int, int]:
    """(typical factor between prediction and measurement, the same for a prediction of 1, sets inside their interval, sets), of sets whose
    worth and interval were measured within what was tried."""
    x, y, low, high = _of(numbers, panel)
    known = (low > SHOWN[0]) & (high < SHOWN[1])
    x, y, low, high = x[known], y[known], low[known], high[known]
    factors = [float(np.exp(np.sqrt(np.mean(np.log(worth / y) ** 2)))) if known.any() else math.nan for worth in (x, 1.0)]
    return factors[0], factors[1], int(((low <= x) & (x <= high)).sum()), int(known.sum())


def refuted(numbers: Numbers, panel: str) -> tuple[int, int]:
    """(sets whose prediction lies outside the measured interval, sets), whether or not that interval ends within what was tried."""
    x, _, low, high = _of(numbers, panel)
    least, most = STUDIES[panel].limits()  # an end beyond them says only that it lies beyond
    return int(((x < np.minimum(low, most)) | (x > np.maximum(high, least))).sum()), len(x)


def finding(files: Files) -> str:
    """How well it predicts, one line a data set."""
    drawn = numbers(files)
    lines = []
    for panel in drawn.panels():
        factor, unity, inside, count = misses(drawn, panel)
        outside, sets = refuted(drawn, panel)
        if 2 * count < sets:
            lines.append(
                f"On {panel} hardly a worth can be measured: robust accuracy hardly depends on the number of unguided images with soft "
                f"labels. T16's predictions lie outside the intervals, most of them open, for {outside} of {sets} sets."
            )
            continue
        lines.append(
            f"T16 predicts what an image is worth on {panel} within a typical factor of {factor:.2f} ({unity:.2f} if all were worth "
            f"one); {inside} of {count} predictions lie inside the 95 % interval of what was measured. Nothing was fitted."
        )
    return "\n".join(lines)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), height=4.3)
    seen: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=True):
        for name in numbers.names(panel):
            one, look = numbers.series(panel, name), mark(name)
            (seen[STRENGTH.sub("", name)],) = axis.plot(one.x, one.y, **look, clip_on=False)
            axis.vlines(one.x, one.low, one.high, color=look["color"], lw=1)
        diagonal(axis, *SHOWN)
        axis.axhline(1, color="0.8", lw=0.8, gid=GUIDE)
        axis.set(xscale="log", yscale="log", xlim=SHOWN, ylim=SHOWN)
        factor, unity, inside, count = misses(numbers, panel)
        outside, sets = refuted(numbers, panel)
        said = f"{inside} of {count} inside\ntypical factor {factor:.2f}; {unity:.2f} if all were worth one"
        if 2 * count < sets:
            said = f"{outside} of {sets} outside\nmost intervals are open"
        axis.set(xlabel="worth predicted by T16", ylabel="measured worth in unguided images", title=f"{panel}: {said}")
        for which in "xy":
            ticks(axis, which, (0.5, 1, 2, 4, 8))
    figure.legend(list(seen.values()), list(seen), loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return figure
