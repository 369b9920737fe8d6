"""What theory says that an image is worth, from a description of its set alone, beside what it was found to be worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, Columns, new_figure
from figures.figure import GUIDE, Figure, Numbers, Row, diagonal, ticks
from figures.image_figures.exchange_rate import ATTACK, STUDIES, Study, rates
from figures.inputs import Files
from figures.words import place_of
from theory import ProportionalLaw, sample_worth

CLASSES, PLAIN = 10, ("soft", "unguided")
TAKEN = {
    "n_real": "n_real",
    "n_synthetic": "n_synthetic",
    "snr": "class_snr_crossfit_judge",
    "wrong": "label_error",
    "dim": "effective_dimension_judge",
}
FIGURE = Figure(
    "What theory predicts that an image is worth, and what it was found to be worth",
    "Measured: exchange rate of each set of 2,000 images, with Fieller's 95 % interval (figure exchange_rate). Predicted by T16, with "
    "nothing fitted: the number of unguided images with soft labels from which a logistic learner misses the best direction by the same "
    "angle, over 2,000. T16 is given the number of images, and of a set its class SNR, share of wrong labels and effective dimension, in "
    "the features of a classifier that took no part; real images count as having the unguided ones' class SNR and right labels.",
    tuple(study.table for study in STUDIES.values()),
    "300 real images, l_inf 0.15, APGD-CE, 16 seeds",
)
LEAST, MOST = 0.125, 8.0
"""Worths that are shown."""


def law_of(set_of_images: Mapping[str, float], snr_real: float) -> ProportionalLaw:
    """T16's logistic learner of two of the classes: real images first, then those of the set, as `described`."""
    n_real, n, snr, wrong, dim = (set_of_images[name] for name in TAKEN)
    ratios = (2 * n_real / CLASSES / dim, 2 * n / CLASSES / dim)
    return ProportionalLaw((snr_real, snr), ratios, label_noise=(0.0, wrong))


def read(files: Files, table: str) -> Columns:
    """The rows of a sweep under the attack of the exchange rates."""
    data = files.columns(table, f"seed robust_accuracy {' '.join(TAKEN.values())}", text="run method attack")
    return {name: values[data["attack"] == ATTACK] for name, values in data.items()}


def described(data: Columns, run: str, method: str) -> dict[str, float]:
    """What `law_of` takes of a set, means over seeds."""
    of = (data["run"] == run) & (data["method"] == method)
    return {name: float(np.mean(data[column][of])) for name, column in TAKEN.items()}


def predicted(study: Study, data: Columns) -> dict[str, float]:
    """The worth of each set by T16."""
    plain = described(data, *PLAIN)
    found = {}
    for name, key in study.sets.items():
        of = described(data, *key)
        per_dimension = sample_worth(law_of(of, plain["snr"]), law_of(plain, plain["snr"]))
        found[name] = float(np.clip(per_dimension * plain["dim"] / of["dim"], LEAST, MOST))  # effective dimensions differ a little
    return found


def numbers(files: Files) -> Numbers:
    rows: list[Row] = []
    for name_of_data, study in STUDIES.items():
        data = read(files, study.table)
        by_theory = predicted(study, data)
        for name, rate in rates(study, data).items():
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
