"""Checks that intervals hold the truth as often as they say: data sets are drawn, estimated, and asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import ndtr

from simulations.mixtures.monte_carlo import Check, Effort, Estimate, setting_of, share
from theory import BinaryMixture, Interval, MixtureEstimate, bayes_robust_accuracy, margin_interval

Rng = np.random.Generator
LEVEL = 0.95


def estimated(kind: str, dim: int, rows: int, rng: Rng) -> MixtureEstimate:
    """A fresh data set of N(+-mu, I), ||mu|| = 2, with equally many rows a class, estimated with this kind of covariance."""
    y = np.repeat([1.0, -1.0], rows // 2)
    x = rng.standard_normal((len(y), dim))
    x[:, 0] += 2 * y
    return MixtureEstimate.from_samples(x, y, kind)


def covers(truth: float, intervals: list[Interval]) -> Estimate:
    return share(LEVEL, sum(one.low <= truth <= one.high for one in intervals), len(intervals))


def check_class_snr(rng: Rng, effort: Effort, kind: str, dim: int, rows: int) -> dict[str, Estimate]:
    """The interval of the class SNR, exact."""
    return {"": covers(2.0, [estimated(kind, dim, rows, rng).class_snr() for _ in range(effort.replicates // 2)])}


def check_optimum(rng: Rng, effort: Effort, kind: str, dim: int, rows: int, p: float, eps: float) -> dict[str, Estimate]:
    """The interval of the robust optimum, by bootstrap."""
    mean = np.zeros(dim)
    mean[0] = 2.0
    truth = bayes_robust_accuracy(BinaryMixture(mean, 1.0), eps, p)
    return {"": covers(truth, [estimated(kind, dim, rows, rng).robust_optimum(eps, p) for _ in range(effort.fits)])}


def check_margins(rng: Rng, effort: Effort, rows: int, snr: float) -> dict[str, Estimate]:
    """The interval of a fixed classifier's accuracy from normal held-out margins, exact."""
    margins = snr + rng.standard_normal((effort.replicates, rows))
    return {"": covers(float(ndtr(snr)), [margin_interval(row) for row in margins])}


def interval_checks() -> Iterator[Check]:
    settings: tuple[tuple[Any, str, dict[str, Any]], ...] = (
        (check_class_snr, "class SNR", {"kind": "scalar", "dim": 10, "rows": 20}),
        (check_class_snr, "class SNR", {"kind": "full", "dim": 10, "rows": 40}),
        (check_optimum, "robust optimum", {"kind": "scalar", "dim": 20, "rows": 20, "p": 2.0, "eps": 0.5}),
        (check_optimum, "robust optimum", {"kind": "diagonal", "dim": 10, "rows": 40, "p": math.inf, "eps": 0.1}),
        (check_optimum, "robust optimum", {"kind": "full", "dim": 8, "rows": 40, "p": 2.0, "eps": 0.5}),
        (check_margins, "accuracy of held-out margins", {"rows": 12, "snr": 1.0}),
    )
    for run, name, arguments in settings:
        yield Check(f"Interval of 95 % holds the {name}", setting_of(**arguments), run, arguments)
