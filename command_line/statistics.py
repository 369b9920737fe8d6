"""Intervals over seeds, and over seeds and test images.

Student's distribution is from scipy. Our own code: the lower bound from the resolution, which scipy's t test lacks, and Holm's correction
for a family in which some members have no p-value (scipy has no Holm correction, and that of statsmodels does not accept such a family).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def mean_interval(values: Sequence[float], level: float = 0.95, resolution: float = 0.0) -> tuple[float, float, float]:
    """(mean, low, high): the mean of independent values and its interval by Student's t.

    mean -/+ t_{n-1}((1 + level)/2) s / sqrt(n), s the standard deviation with n - 1, and at least resolution / sqrt(6).

    resolution: the step in which both sides of a difference are measured, 1 / images for accuracies. Equal gains of two seeds do not mean
    that there is no spread: rounding to this step has a standard deviation of resolution / sqrt(12), and the difference of two such numbers
    sqrt(2) times that. low and high are nan for a single value and for equal values of unknown resolution; all are nan if a value is nan.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample) or np.isnan(sample).any():
        return math.nan, math.nan, math.nan
    mean, error = float(sample.mean()), standard_error(sample, resolution)
    if math.isnan(error):
        return mean, math.nan, math.nan
    reach = float(half_width(len(sample), level) * error)
    return mean, mean - reach, mean + reach


def half_width(count: Any, level: float = 0.95) -> Any:
    """Half the width of an interval by Student's t for the mean of `count` values (or an array of counts), in standard errors.

    nan for one value.
    """
    from scipy.special import stdtrit

    return stdtrit(np.asarray(count) - 1, (1 + level) / 2)


def standard_error(sample: Array, resolution: float = 0.0) -> float:
    """s / sqrt(n), s as in mean_interval; nan for a single value, and for equal values of unknown resolution."""
    if len(sample) < 2:
        return math.nan
    spread = max(float(sample.std(ddof=1)), resolution / math.sqrt(6))
    return spread / math.sqrt(len(sample)) if spread else math.nan


def crossed_interval(differences: Array, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of a mean over seeds and images, for new seeds and new images.

    differences: (seeds, images), the difference between one seed's classifiers on one image, -1, 0 or 1; all seeds have the same images.
    The interval adds the two sources of randomness, seeds and images:

        mean -/+ sqrt((t_{S-1} s_S / sqrt(S))^2 + (t_{I-1} s_I / sqrt(I))^2),

    where s_S and s_I are the standard deviations of the means of seeds and of images. Each also includes the interaction of seed and image,
    so the interval errs on the wide side. It is never narrower than mean_interval's, which holds for new seeds and these images.
    nan for one seed or one image.
    """
    seeds, images = differences.shape
    if min(seeds, images) < 2:
        return float(differences.mean()) if differences.size else math.nan, math.nan, math.nan
    mean, low, _ = mean_interval(differences.mean(axis=1).tolist(), level, 1 / images)
    of_images = half_width(images, level) * differences.mean(axis=0).std(ddof=1) / math.sqrt(images)
    reach = math.hypot(mean - low, float(of_images))
    return mean, mean - reach, mean + reach


def paired_p(differences: Sequence[float], resolution: float = 0.0) -> float:
    """Two-sided p-value of Student's t test of mean zero, with the spread of mean_interval; 1 if all values are zero.

    nan for fewer than two values, if any value is nan, and for equal values of unknown resolution.
    """
    from scipy.special import stdtr

    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2 or np.isnan(sample).any():
        return math.nan
    error = standard_error(sample, resolution)
    if not sample.any():
        return 1.0
    return float(2 * stdtr(len(sample) - 1, -abs(sample.mean()) / error))


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """Holm's adjusted p-values (1979): the probability of any false rejection at level a is at most a, whatever the dependence.

    Of m sorted p-values the k-th is max_{j <= k} min(1, (m - j + 1) p_(j)). nan stays nan. family: m, if more tests were planned than have
    a p-value (default: the number that are not nan).
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    size = len(order) if family is None else max(family, len(order))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for k, (p, i) in enumerate(order):
        least = max(least, min(1.0, (size - k) * p))
        adjusted[i] = least
    return adjusted


def exchange_rate(
    counts: Sequence[float], curve: Array, reached: Array, count: float, level: float = 0.95
) -> tuple[float, float, float]:
    """(rate, low, high): how many plain images one of `count` other images is worth.

    counts: at least two, ascending. curve: (seeds, counts), accuracies with so many plain images. reached: (seeds,), with `count` other
    images, seed by seed as the curve. Between counts each seed's curve is a straight line in log(n), so n plain images are worth n / count
    at every count that was tried. With d_s(n) = reached_s - curve_s(n),

        rate = n / count at the first n where the mean of d(n) falls to zero,

    and low and high are the first and the last count that a paired t test does not reject: where Student's interval for that mean begins
    to reach down to zero, and where it no longer reaches up to it (Fieller 1954). 0 below the fewest that were tried, inf beyond the most.
    low and high are nan with fewer than two seeds; all are nan if a value is, and if the mean curve does not rise from the first count to
    the last. Raises ValueError for what does not fit.
    """
    amounts, accuracies, other = (np.asarray(part, dtype=np.float64) for part in (counts, curve, reached))
    fits = (
        amounts.ndim == 1 and len(amounts) > 1 and other.ndim == 1 and len(other) and accuracies.shape == (len(other), len(amounts))
    )
    if not fits or amounts[0] <= 0 or (np.diff(amounts) <= 0).any() or not count > 0:
        raise ValueError(
            f"curve {accuracies.shape} does not fit {other.shape} seeds, counts {list(counts)} and count={count}: give two counts or "
            "more, ascending and > 0"
        )
    if not (np.isfinite(accuracies).all() and np.isfinite(other).all()):
        return math.nan, math.nan, math.nan
    n = np.log(amounts)
    grid = np.union1d(np.linspace(n[0], n[-1], 2001), n)
    between = np.stack([np.interp(grid, n, row) for row in accuracies])
    gain = other[:, None] - between
    mean, middle = gain.mean(axis=0), between.mean(axis=0)
    if middle[-1] <= middle[0]:  # more images are worth no more here, so a number of them says nothing
        return math.nan, math.nan, math.nan

    below = np.flatnonzero(mean <= 0)
    rate = math.inf if not len(below) else math.exp(grid[below[0]]) / count if below[0] or mean[0] == 0 else 0.0
    if len(other) < 2:
        return rate, math.nan, math.nan
    reach = half_width(len(other), level) * gain.std(axis=0, ddof=1) / math.sqrt(len(other))
    # the last and not the first gap ends it: noise can widen the interval again
    kept = np.flatnonzero((mean - reach <= 0) & (mean + reach >= 0))
    if not len(kept):  # all are rejected, on both sides of the rate
        return rate, rate, rate
    low = 0.0 if kept[0] == 0 and mean[0] < reach[0] else math.exp(grid[kept[0]]) / count
    high = math.inf if kept[-1] == len(grid) - 1 else math.exp(grid[kept[-1]]) / count
    return rate, min(low, rate), max(high, rate)
