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
