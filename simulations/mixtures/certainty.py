"""How sure the predictions on real data are: intervals of the Gaussian model, and others from attacked held-out rows that need no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import isotonic_regression

from simulations.mixtures.learners import Array
from theory import Interval, MixtureEstimate, share_interval, worst_case_perturbation
from theory._checks import dual_exponent
from theory.confidence import FULL_SHARE
from theory.linear import LinearClassifier

RESAMPLES = 50
SUBSETS = 60, 300
"""Random subsets of a size: at least, and at most, where a confidence above .95 needs more. Above .99 the lowest accuracy counts."""
MOST_ROWS = 2000
"""Of either half for the measured number of rows: chosen at random, because 50 resamplings of more would take minutes."""

MOST_FEATURES = 200
"""With a full covariance: intervals redraw a thousand of them, which takes 1 GB here and grows with the square, its time with the cube."""
DEPENDENT = 1e-6
"""Of the largest singular value of the features: below, one is taken to be a linear combination of others."""


@dataclass(frozen=True)
class Certainty:
    """At one radius: intervals of 95 %. None: p = 1, too few training rows for the features, features that depend linearly on others, or
    more than MOST_FEATURES."""

    p: float
    eps: float
    optimum: Interval | None  # robust accuracy of the best classifier, if the data are Gaussian
    measured: Interval  # of the estimated best classifier, from the held-out rows; its low end is one for the best classifier, too
    averaging: (
        Interval | None
    )  # mean balanced accuracy of averaging as many fresh rows as the training half has, if the data are Gaussian
    needed: Interval | None  # rows that averaging needs, if the data are Gaussian; inf: out of reach
    measured_needed: Interval  # the same from subsets of the training half; inf: more than half of it


@dataclass(frozen=True, eq=False)
class Attack:
    """One radius, and the estimated best classifier there."""

    p: float
    eps: float
    optimum: LinearClassifier


def estimate(x: Array, y: Array) -> MixtureEstimate | None:
    """The training half with a full covariance; None where it has too few rows, features that depend linearly on others, or too many."""
    if x.shape[1] > min(FULL_SHARE * (len(y) - 2), MOST_FEATURES):
        return None
    residual = np.concatenate([x[y == label] - x[y == label].mean(axis=0) for label in (-1.0, 1.0)])
    sizes = np.linalg.svd(residual, compute_uv=False)
    return MixtureEstimate.from_samples(x, y) if sizes[-1] > DEPENDENT * sizes[0] else None


def certainties(
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    attacks: Sequence[Attack],
    accuracy: float,
    confidence: float,
    rng: np.random.Generator,
) -> list[Certainty]:
    """One Certainty for each attack."""
    gaussian, rows = estimate(*train), []
    counts = measured_needs(train, test, [(a.p, a.eps) for a in attacks], accuracy, confidence, rng)
    for attack, measured_needed in zip(attacks, counts, strict=True):
        model = gaussian if attack.p in (2, math.inf) else None
        radius: dict[str, Any] = {"eps": attack.eps, "p": attack.p}
        attacked = test[0] + worst_case_perturbation(attack.optimum, test[1], attack.eps, attack.p)
        right = int((attack.optimum.predict(attacked) == test[1]).sum())
        rows.append(
            Certainty(
                p=attack.p,
                eps=attack.eps,
                optimum=model.robust_optimum(**radius) if model else None,
                measured=share_interval(right, len(test[1]))._replace(estimate=right / len(test[1])),
                averaging=model.learner_accuracy(len(train[1]), **radius) if model else None,
                needed=model.required_samples(**radius, accuracy=accuracy, confidence=confidence) if model else None,
                measured_needed=measured_needed,
            )
        )
    return rows


def measured_needs(
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    attacks: Sequence[tuple[float, float]],
    accuracy: float,
    confidence: float,
    rng: np.random.Generator,
) -> list[Interval]:
    """Rows with which averaging reaches the accuracy with the confidence, for each (p, eps): bootstrap percentiles, no model.

    For each resampling of the training and the held-out rows: averages of random subsets of n rows, attacked exactly on the held-out rows;
    the n at which the (1 - confidence) quantile of their balanced accuracies passes the target. inf: not up to half of the training rows.
    Subsets of N resampled rows vary as 1/n + 1/N, so they count as n N / (N + n) rows. The midpoint between the classes is that of the
    whole training half: rows without it need more. Of each half, at most 2,000 rows.
    """
    if not attacks:
        return []
    (x, y), (held_x, held_y) = train, test
    signed, held = x * y[:, None], held_x * held_y[:, None]
    if len(held) > MOST_ROWS:
        chosen = rng.choice(len(held), MOST_ROWS, replace=False)
        held, held_y = held[chosen], held_y[chosen]
    if len(signed) > MOST_ROWS:
        signed = signed[rng.choice(len(signed), MOST_ROWS, replace=False)]
    sizes, count = subset_sizes(len(signed)), math.ceil(min(max(SUBSETS[0], round(3 / (1 - confidence))), SUBSETS[1]))
    low = np.empty((RESAMPLES, len(attacks), len(sizes)))  # the quantiles
    for i in range(RESAMPLES):
        rows = np.arange(len(signed)) if i == 0 else rng.integers(len(signed), size=len(signed))
        tested = np.arange(len(held)) if i == 0 else rng.integers(len(held), size=len(held))
        share = np.where(held_y[tested] > 0, 0.5 / max((held_y[tested] > 0).sum(), 1), 0.5 / max((held_y[tested] < 0).sum(), 1))
        for k, size in enumerate(sizes):
            subsets = [rows[rng.choice(len(rows), size, replace=False, shuffle=False)] for _ in range(count)]
            w = np.stack([signed[subset].mean(axis=0) for subset in subsets])  # (S, d)
            margins = held[tested] @ w.T  # (held-out rows, S)
            for j, (p, eps) in enumerate(attacks):
                right = margins > eps * np.linalg.norm(w, ord=dual_exponent(p), axis=1)
                low[i, j, k] = np.quantile(share @ right, 1 - confidence)
    known = np.array(sizes, dtype=float)
    worth = [known, *[known * len(signed) / (len(signed) + known)] * (RESAMPLES - 1)]
    curves = [zip(worth, low[:, j], strict=True) for j in range(len(attacks))]
    return [_percentiles([_passes(of, curve, accuracy) for of, curve in each]) for each in curves]


def subset_sizes(rows: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to half of the rows."""
    sizes = sorted({int(b * 2**e) for e in range(30) for b in (1, 1.5)} | {1})
    return [n for n in sizes if n <= max(rows // 2, 1)]


def _passes(sizes: Array, curve: Array, accuracy: float) -> float:
    """Where the curve, made increasing, passes the accuracy, between two sizes along log n; rounded up."""
    rising = isotonic_regression(curve)
    if rising[-1] < accuracy:
        return math.inf
    right = int(np.searchsorted(rising, accuracy))
    if right == 0:
        return float(math.ceil(sizes[0]))
    share = (accuracy - rising[right - 1]) / (rising[right] - rising[right - 1])
    return float(math.ceil(sizes[right - 1] * (sizes[right] / sizes[right - 1]) ** share - 1e-9))


def _percentiles(counts: list[float]) -> Interval:
    """The estimate of the rows as they are, first of the list, within the central 95 % of the resampled ones."""
    ordered = np.sort(counts)
    low, high = ordered[int(0.025 * len(ordered))], ordered[math.ceil(0.975 * len(ordered)) - 1]
    return Interval(float(min(low, counts[0])), float(counts[0]), float(max(high, counts[0])))
