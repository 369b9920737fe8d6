"""Intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): the mean of independent values and its interval by Student's t; low and high are nan for a single value.

    mean -/+ t_{n-1}((1 + level)/2) s / sqrt(n), s the standard deviation with n - 1.
    """
    from scipy.special import stdtrit

    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        return math.nan, math.nan, math.nan
    mean, n = float(sample.mean()), len(sample)
    if n == 1:
        return mean, math.nan, math.nan
    reach = float(stdtrit(n - 1, (1 + level) / 2) * sample.std(ddof=1) / math.sqrt(n))
    return mean, mean - reach, mean + reach


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of Student's t test of mean zero; nan for fewer than two values, 1 where all are zero."""
    from scipy.special import stdtr

    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2:
        return math.nan
    spread = sample.std(ddof=1)
    if not spread:
        return 0.0 if sample.any() else 1.0
    return float(2 * stdtr(len(sample) - 1, -abs(sample.mean()) / (spread / math.sqrt(len(sample)))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): the chance of any false one among those called at level a is at most a, whatever their dependence.

    Of m sorted p-values the k-th is max_{j <= k} min(1, (m - j + 1) p_(j)). nan stays and is not counted.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for k, (p, i) in enumerate(order):
        least = max(least, min(1.0, (len(order) - k) * p))
        adjusted[i] = least
    return adjusted
