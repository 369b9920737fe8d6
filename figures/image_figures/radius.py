"""Does the best class SNR of synthetic images move with the radius of adversarial training?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from command_line.drawing import Columns, new_figure
from command_line.output import UserError
from command_line.statistics import holm, mean_interval, paired_p
from figures.figure import Figure, Numbers, Row, guide, line, marks, ticks
from figures.image_figures.ablations import SNR, described_again
from figures.inputs import Files, remedy

TABLE = "digits-eps/sweep.csv"
DESCRIPTION = described_again(TABLE)
FIGURE = Figure(
    "The training radius and the best class SNR",
    "Left: log odds of robust accuracy, minus those with unguided images, against the class SNR of the synthetic images, mean and 95 % "
    "interval over paired seeds; one line per radius of adversarial training, attacked at the same radius. Only the standard deviation "
    "of the initial noise varies, from 1.3 (left) to 0.8. Middle: slope of the log odds against the log class SNR (least squares per "
    "seed). Right: its paired change from one radius to the next. Where the best class SNR grows "
    "with the radius, as T11 and T14 say, the slope grows too, and the differences lie above zero. At 0.25 training failed for "
    "all classifiers of the leftmost set and one of the next, which ended at the loss of guessing. They make most of the last slope and "
    "change: without these two sets we detect no change, without these classifiers alone a smaller one.",
    (TABLE, DESCRIPTION),
    "scikit-learn's digits, 300 real and 2,000 synthetic images, l_inf attacks, PGD-20 on 1,197 test images",
)
UNLEARNED = 0.3
"""Below this robust accuracy, a classifier of ten classes has hardly learned anything at these radii."""
LEFT, RIGHT, GAPS = "log odds", "slope", "change"
Sets = dict[float, dict[float, dict[int, tuple[float, float]]]]
"""{radius: {initial std: {seed: (class SNR, log odds of robust accuracy)}}}."""


def read_sets(files: Files) -> Sets:
    """The sweep by radius, standard deviation of the initial noise, and seed; the first two are in the run's name."""
    data: Columns = files.columns(TABLE, "seed eps robust_accuracy", text="run attack norm")
    again = files.columns(DESCRIPTION, f"seed {SNR}", text="run")
    described = {(run, seed): snr for run, seed, snr in zip(*(again[name].tolist() for name in ("run", "seed", SNR)), strict=True)}
    if len(set(zip(data["attack"], data["norm"], strict=True))) > 1:
        raise UserError(
            f"{files.path(TABLE)}: holds several attacks; this figure reads a sweep with one, at the radius of training"
        )
    found: Sets = {}
    names = ("run", "seed", "eps", "robust_accuracy")
    for run, seed, eps, robust in zip(*(data[name].tolist() for name in names), strict=True):
        of = found.setdefault(eps, {}).setdefault(float(run.rpartition("-")[2]), {})
        if not 0 < robust < 1:
            raise UserError(
                f"{files.path(TABLE)}: robust accuracy {robust:g} of {run}, seed {seed:g}, has no log odds; attack more images"
            )
        if (run, seed) not in described:
            raise UserError(f"{files.path(DESCRIPTION)}: lacks {run}, seed {seed:g}; {remedy(DESCRIPTION)}")
        of[int(seed)] = (described[run, seed], float(np.log(robust / (1 - robust))))
    if not all(1.0 in of for of in found.values()):
        raise UserError(f"{files.path(TABLE)}: a radius has no set of std 1.0, with which others are compared; {remedy(TABLE)}")
    return {eps: dict(sorted(found[eps].items(), reverse=True)) for eps in sorted(found)}


def slopes(sets: Sets) -> dict[float, dict[int, float]]:
    """{radius: {seed: least-squares slope of the log odds against the log class SNR over the sets}}."""
    found: dict[float, dict[int, float]] = {}
    for eps, of in sets.items():
        for seed in next(iter(of.values())):
            x, y = np.array([points[seed] for points in of.values() if seed in points]).T
            if len(x) > 1:
                found.setdefault(eps, {})[seed] = float(np.polyfit(np.log(x), y, 1)[0])
    return found


def differences(of: dict[float, dict[int, float]]) -> dict[tuple[float, float], list[float]]:
    """{(smaller radius, larger): slope at the larger minus slope at the smaller, by seed}."""
    return {(a, b): [of[b][seed] - of[a][seed] for seed in of[a] if seed in of[b]] for a, b in pairwise(of)}


def numbers(files: Files) -> Numbers:
    sets = read_sets(files)
    rows: list[Row] = []
    for eps, of in sets.items():
        for points in of.values():
            gains = [points[seed][1] - of[1.0][seed][1] for seed in points if seed in of[1.0]]
            rows.append((LEFT, f"ε = {eps:g}", float(np.mean([snr for snr, _ in points.values()])), *mean_interval(gains)))
    found = slopes(sets)
    rows += [(RIGHT, "slope", eps, *mean_interval(list(of.values()))) for eps, of in found.items()]
    gaps = differences(found).items()
    rows += [(GAPS, f"{a:g} to {b:g}", float(place), *mean_interval(values)) for place, ((a, b), values) in enumerate(gaps)]
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, (left, right, change) = new_figure(3, 9.6, height=3.2)
    for i, series in numbers.all(LEFT):
        line(left, i, series, lw=1)
        marks(left, i, series, series.name)
    marks(right, 3, numbers.series(RIGHT, "slope"))
    for _, series in numbers.all(GAPS):
        marks(change, 4, series)
    for axis in (left, right, change):
        guide(axis, 0.0)
    names = numbers.names(GAPS)
    change.set_xticks(range(len(names)), names)
    change.set_xlim(-0.5, len(names) - 0.5)
    ticks(right, "x", numbers.series(RIGHT, "slope").x.tolist())
    left.set(xlabel="class SNR", ylabel="log odds minus unguided", title="Robust accuracy by radius")
    right.set(xlabel="radius ε of training and attack", ylabel="slope against log class SNR", title="Slopes")
    change.set(xlabel="from radius to radius", ylabel="change of the slope", title="Change of the slope")
    left.legend(fontsize=7)
    return figure


def finding(files: Files) -> str:
    """The result of the test, in words."""
    sets = read_sets(files)
    gaps = differences(slopes(sets))
    said = []
    for ((a, b), values), p in zip(gaps.items(), holm([paired_p(values) for values in gaps.values()]), strict=True):
        mean, low, high = mean_interval(values)
        told = "larger" if low > 0 and p < 0.05 else "smaller" if high < 0 and p < 0.05 else "no difference detected"
        said.append(f"from {a:g} to {b:g} by {mean:+.2f} [{low:+.2f}, {high:+.2f}] (p {p:.2g} by Holm: {told})")
    if not said:
        return ""
    unlearned = sum(
        odds < np.log(UNLEARNED / (1 - UNLEARNED)) for of in sets.values() for p in of.values() for _, odds in p.values()
    )
    caveat = (
        f" {unlearned} classifiers have a robust accuracy below {UNLEARNED:g}: they hardly learned, and the slope at their radius is "
        "largely due to them."
        if unlearned
        else ""
    )
    return (
        "The slope of the log odds of robust accuracy against the log class SNR, which grows with the radius where the best class SNR does "
        f"(T11, T14), changes {' and '.join(said)}.{caveat}"
    )
