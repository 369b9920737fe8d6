"""T16 against fitted learners, for few and for many samples per dimension.

T16 is a limit for d -> infinity. Each setting is simulated in two dimensions, with 40 and 80 directions across mu, at the same n / (d - 1),
and extrapolated: twice the mean cosine of the larger minus that of the smaller has no error of order 1 / d.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from simulations.mixtures.learners import Array, fit_adversarial, fit_hard_margin, fit_logistic
from simulations.mixtures.monte_carlo import Check, Effort, Estimate
from theory import ProportionalLaw

DIMS = (41, 81)
SAMPLES_PER_DIM = (0.5, 2.0, 10.0, 50.0)
CLASS_SNR = (0.5, 1.23, 3.0, 6.0)
RADIUS = (0.0, 0.5)
RIDGE = (0.0, 0.001, 0.1)


def t16_checks() -> Iterator[Check]:
    """The cosine to mu of logistic regression: standard, adversarial, regularised, and the hard margin, for 96 settings."""
    for ratio, snr, eps, ridge in itertools.product(SAMPLES_PER_DIM, CLASS_SNR, RADIUS, RIDGE):
        arguments = {"samples_per_dim": ratio, "class_snr": snr, "eps": eps, "ridge": ridge}
        setting = ", ".join(f"{name} {value:g}" for name, value in arguments.items())
        yield Check("T16 cosine at any n / d", setting, check_proportional, arguments, thorough=ratio == SAMPLES_PER_DIM[-1])


def check_proportional(
    rng: np.random.Generator, effort: Effort, samples_per_dim: float, class_snr: float, eps: float, ridge: float
) -> dict[str, Estimate]:
    """Mean cosine of fits, extrapolated to d -> infinity."""
    law = ProportionalLaw(class_snr, samples_per_dim, ridge=ridge, eps=eps)
    hard = not ridge and law.separable
    small, large = (
        [
            _cosine(rng, dim, round(samples_per_dim * (dim - 1)), class_snr, eps, ridge, hard)
            for _ in range(max(effort.fits // 4, 24))
        ]
        for dim in DIMS
    )
    spread = math.sqrt((4 * np.var(large, ddof=1) + np.var(small, ddof=1)) / len(small))
    return {"": Estimate(law.alignment, float(2 * np.mean(large) - np.mean(small)), spread)}


def _cosine(rng: np.random.Generator, dim: int, n: int, class_snr: float, eps: float, ridge: float, hard: bool) -> float:
    y = rng.choice([-1.0, 1.0], n)
    x = rng.standard_normal((n, dim))
    x[:, 0] += class_snr * y
    w = _fit(x, y, eps, ridge, hard)
    return float(w[0] / np.linalg.norm(w))


def _fit(x: Array, y: Array, eps: float, ridge: float, hard: bool) -> Array:
    """Without intercept; that of adversarial training, which has one, is left out. hard: the hard margin, where the law is that; a sample
    that is not separable all the same has a finite optimum."""
    if hard and (margin := fit_hard_margin(x, y)) is not None:
        return np.asarray(margin.weights)
    if eps:
        return np.asarray(fit_adversarial(x, y, eps, penalty=ridge).weights)
    return np.asarray(fit_logistic(x, y, 1 / (ridge * len(y)) if ridge else math.inf, intercept=False).weights)
