"""T5 by quasi-Monte Carlo: the averaging learner's robust accuracy for any covariances, any l_p attack, with its error.

theta ~ N(m, Sigma~ / n) exactly (T4), and A(theta) = Phi((theta.mu - eps ||theta||_q) / sqrt(theta' Sigma theta)). The law of A is that of
A(theta) over scrambled Sobol points, in independent replicates whose spread is the reported error. Where SecondOrderLaw assumes that many
coordinates contribute alike, this assumes nothing: correlated features, few dimensions and high confidences are as good as any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from theory._checks import Array, Remade, count, non_negative, norm_order, numbers_only, open_unit, same_dimension
from theory._checks import dual_exponent as dual
from theory.mixtures import BinaryMixture

REPLICATES = 8
POINTS = 2**10
"""Per replicate."""
MOST_DIM = 200
"""Largest dimension at which required_samples uses this law: above, it takes seconds, and SecondOrderLaw is good there."""


@dataclass(frozen=True, eq=False, repr=False)
class QuasiMonteCarloLaw(Remade):
    """Law of the l_p-robust accuracy on `mixture` after averaging n samples of `synthetic`, 1 <= p <= inf, any covariances (T5).

    n: samples, >= 1. eps: attack radius in units of x. Each value comes with the standard error over 8 replicates of 1,024 points:
    1e-6 to 2e-4 for the mean, 1e-3 to 2e-3 for a probability of 0.95. Raises ValueError for mismatched dimensions, n < 1, eps < 0 or p < 1.
    """

    mixture: BinaryMixture
    synthetic: BinaryMixture
    n: int
    eps: float
    p: float = 2

    def __post_init__(self) -> None:
        same_dimension(self.mixture.dim, self.synthetic.dim, "mixture and synthetic")
        object.__setattr__(self, "n", count(self.n, "n"))
        object.__setattr__(self, "eps", non_negative(self.eps, "eps"))
        object.__setattr__(self, "p", norm_order(self.p))

    @cached_property
    def accuracies(self) -> Array:
        """A(theta), (8, 1024): replicates, points."""
        z = _normals(self.mixture.dim)
        cov = self.synthetic.covariance
        noise = z @ cov.factor.T if cov.is_full else z * np.sqrt(cov.variances)
        theta = self.synthetic.mean + noise / math.sqrt(self.n)
        norm = np.linalg.norm(theta, ord=dual(self.p), axis=1)
        length = np.sqrt((self.mixture.covariance.matvec(theta) * theta).sum(axis=1))
        return np.asarray(ndtr((theta @ self.mixture.mean - self.eps * norm) / length).reshape(REPLICATES, POINTS))

    def mean(self) -> float:
        """E[A]."""
        return float(self.accuracies.mean())

    @property
    def mean_error(self) -> float:
        """Standard error of the mean."""
        return _error(self.accuracies.mean(axis=1))

    def cdf(self, a: Any) -> Any:
        """P(A <= a), for a scalar or an array."""
        values = np.sort(self.accuracies, axis=None)
        found = np.searchsorted(values, numbers_only(a, "a"), side="right") / values.size
        return float(found) if np.ndim(a) == 0 else found

    def cdf_error(self, a: float) -> float:
        """Standard error of P(A <= a)."""
        return _error((self.accuracies <= a).mean(axis=1))

    def quantile(self, q: float) -> float:
        """The accuracy a with P(A <= a) = q."""
        return float(np.quantile(self.accuracies, open_unit(q, "q")))


def _error(replicates: Array) -> float:
    return float(replicates.std(ddof=1) / math.sqrt(len(replicates)))


@lru_cache(maxsize=4)
def _normals(dim: int) -> Array:
    """(8 * 1024, dim) standard normals; always the same, so that a search over n sees a smooth function of n."""
    from scipy.stats import qmc  # 0.4 s to import, which `import theory` should not cost

    points = [qmc.Sobol(dim, seed=np.random.default_rng([dim, i])).random(POINTS) for i in range(REPLICATES)]
    normals = ndtri(np.clip(np.concatenate(points), 1e-16, 1 - 1e-16))
    normals.flags.writeable = False
    return np.asarray(normals)
