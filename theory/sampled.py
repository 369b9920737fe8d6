"""T5 by quasi-Monte Carlo: the averaging learner's robust accuracy for any covariances, any l_p attack, with its error.

theta ~ N(m, Sigma~ / n) exactly (T4), and A(theta) = Phi((theta.mu - eps ||theta||_q) / sqrt(theta' Sigma theta)). The law of A is that of
A(theta) over scrambled Sobol points, in independent replicates whose spread is the reported error. Where SecondOrderLaw assumes that many
coordinates contribute alike, this assumes nothing: correlated features, few dimensions and high confidences are as good as any.

For p = 2 and a real covariance sigma^2 I, and for eps = 0, A >= a means that theta lies in a circular cone (in coordinates in which
theta' Sigma theta is ||theta||^2): theta.mu >= (eps + sigma Phi^-1(a)) ||theta||. Its probability is then computed without sampling
(theory/cone.py), in all but a few dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtr, ndtri

from theory._checks import Array, Remade, count, non_negative, norm_order, numbers_only, open_unit, real_number, same_dimension
from theory._checks import dual_exponent as dual
from theory.cone import Cone
from theory.elliptical import student_t_margin
from theory.mixtures import BinaryMixture, usual_units

REPLICATES = 8
POINTS = 2**10
"""Per replicate."""
LEAST_DIM = 3
EXACT_ERROR = 1e-8
MOST_T = 10_000
LARGEST_Z = 37.0
MOST_DIM = 200
"""Largest dimension at which required_samples uses this law: above, it takes seconds, and SecondOrderLaw is good there."""


@dataclass(frozen=True, eq=False, repr=False)
class QuasiMonteCarloLaw(Remade):
    """Law of the l_p-robust accuracy on `mixture` after averaging n samples of `synthetic`, 1 <= p <= inf, any covariances (T5).

    n: samples, >= 1. eps: attack radius in units of x. Each value comes with the standard error over 8 replicates of 1,024 points:
    1e-6 to 2e-4 for the mean; 1e-3 to 2e-3 for a probability of 0.95. For p = 2 with a scalar real covariance, and for eps = 0, a
    probability is exact to 1e-8 from about eight dimensions on, unless very few directions hold nearly all noise.
    df: the classes are multivariate Student t with these means and covariances and df > 2 degrees of freedom, for training and test alike:
    a scale mixture, so theta ~ N(m, S Sigma~ / n), S the average of n independent (df - 2) / chi^2_df, and the margin is t_df; n <= 10^4.
    Raises ValueError for mismatched dimensions, n < 1, eps < 0, p < 1, df <= 2.
    """

    mixture: BinaryMixture
    synthetic: BinaryMixture
    n: int
    eps: float
    p: float = 2
    df: float = math.inf

    def __post_init__(self) -> None:
        same_dimension(self.mixture.dim, self.synthetic.dim, "mixture and synthetic")
        usual_units(self.mixture, self.synthetic)
        object.__setattr__(self, "n", count(self.n, "n"))
        object.__setattr__(self, "eps", non_negative(self.eps, "eps"))
        object.__setattr__(self, "p", norm_order(self.p))
        df = numbers_only(self.df, "df")
        if df.ndim or not df > 2:
            raise ValueError(f"df={self.df!r} must be a number above 2: otherwise the classes have no covariance")
        if math.isfinite(self.df) and self.n > MOST_T:
            raise ValueError(
                f"n={self.n} with df={self.df:g}: give at most {MOST_T}, or leave df out: an average of so many is nearly normal"
            )

    @cached_property
    def accuracies(self) -> Array:
        """A(theta), (8, 1024): replicates, points."""
        points, mean, mu, cov = (
            _points(self.mixture, self.synthetic),
            self.synthetic.mean,
            self.mixture.mean,
            self.mixture.covariance,
        )
        r = np.full(REPLICATES * POINTS, 1 / math.sqrt(self.n))  # theta = mean + r noise
        if math.isfinite(self.df):
            r = r * np.sqrt(_average_scales(self.n, float(self.df)))
        signal = float(mean @ mu) + r * points.with_real_mean
        spread = np.sqrt(cov.quadratic(mean) + r * (2 * points.with_sigma_mean + r * points.with_sigma))
        if self.p == 2:
            norm = np.sqrt(float(mean @ mean) + r * (2 * points.with_mean + r * points.squared))
        else:
            norm = np.linalg.norm(mean + r[:, None] * points.noise, ord=dual(self.p), axis=1)
        cdf = student_t_margin(self.df) if math.isfinite(self.df) else ndtr
        found = np.asarray(cdf((signal - self.eps * norm) / spread).reshape(REPLICATES, POINTS))
        found.setflags(write=False)  # it is kept: sorting it would change the errors
        return found

    def mean(self) -> float:
        """E[A]."""
        return float(self.accuracies.mean())

    @property
    def mean_error(self) -> float:
        """Standard error of the mean."""
        return _error(self.accuracies.mean(axis=1))

    def cdf(self, a: Any) -> Any:
        """P(A <= a), for a scalar or an array."""
        levels = numbers_only(a, "a")
        found = np.array([self._exact(float(level)) for level in np.ravel(levels)], dtype=np.float64)  # nan where there is none
        sampled = np.isnan(found)
        if sampled.any():
            values = np.sort(self.accuracies, axis=None)
            found[sampled] = np.searchsorted(values, np.ravel(levels)[sampled], side="right") / values.size
        return float(found[0]) if levels.ndim == 0 else np.reshape(found, levels.shape)

    def cdf_error(self, a: float) -> float:
        """Standard error of P(A <= a)."""
        if self._exact(real_number(a, "a")) is not None:
            return EXACT_ERROR
        return _error((self.accuracies <= a).mean(axis=1))

    def quantile(self, q: float) -> float:
        """The accuracy a with P(A <= a) = q."""
        level = open_unit(q, "q")
        sampled = float(np.quantile(self.accuracies, level))
        if self._exact(sampled) is None:
            return sampled
        from scipy.optimize import brentq  # 0.2 s to import, which `import theory` should not cost

        low, high = float(ndtri(self.accuracies.min())), float(ndtri(self.accuracies.max()))  # of Phi^-1(a): a can be 1e-30
        while self.cdf(float(ndtr(low))) > level and low > -LARGEST_Z:
            low -= 1
        while self.cdf(float(ndtr(high))) < level and high < LARGEST_Z:
            high += 1
        if not -LARGEST_Z < low < high < LARGEST_Z:
            return sampled
        return float(ndtr(brentq(lambda z: self.cdf(float(ndtr(z))) - level, low, high, xtol=1e-12)))

    @cached_property
    def _cone(self) -> tuple[float, Cone]:
        """||mu|| and the cone's theta, in coordinates in which theta' Sigma theta is ||theta||^2."""
        cov, real = self.synthetic.covariance, self.mixture.covariance
        factor = (cov.factor if cov.is_full else np.diag(np.sqrt(cov.variances))) / math.sqrt(self.n)
        if real.is_full:
            factor, mean = real.factor.T @ factor, real.factor.T @ self.synthetic.mean
            mu = solve_triangular(real.factor, self.mixture.mean, lower=True)
        else:
            root = np.sqrt(real.variances)
            factor, mean, mu = factor * root[:, None], self.synthetic.mean * root, self.mixture.mean / root
        length = float(np.linalg.norm(mu))
        return length, Cone.of(mean, factor, mu / length)

    def _exact(self, a: float) -> float | None:
        """P(A <= a) without sampling, where that is possible."""
        scalar = self.mixture.covariance.kind == "scalar"
        if (
            math.isfinite(self.df)
            or (self.eps and (self.p != 2 or not scalar))
            or self.mixture.dim < LEAST_DIM
            or not self.mixture.mean.any()
        ):
            return None
        length, cone = self._cone
        threshold = (self.eps / math.sqrt(self.mixture.cov) if scalar else 0.0) + float(ndtri(np.clip(a, 0, 1)))
        if abs(threshold) >= length:
            return float(threshold > 0)
        reached = cone.probability(threshold / length)
        return None if reached is None else 1 - reached


@dataclass(frozen=True, eq=False)
class _Points:
    """Noise N(0, Sigma~), (8 * 1024, d), and what is linear and quadratic in it: the same for every n."""

    noise: Array
    with_real_mean: Array  # noise.mu
    with_mean: Array  # noise.mu~
    with_sigma_mean: Array  # noise' Sigma mu~
    squared: Array  # ||noise||^2
    with_sigma: Array  # noise' Sigma noise


@lru_cache(maxsize=2)
def _points(mixture: BinaryMixture, synthetic: BinaryMixture) -> _Points:
    z, cov = _normals(mixture.dim), synthetic.covariance
    noise = z @ cov.factor.T if cov.is_full else z * np.sqrt(cov.variances)
    return _Points(
        noise,
        noise @ mixture.mean,
        noise @ synthetic.mean,
        noise @ mixture.covariance.matvec(synthetic.mean),
        np.einsum("ij,ij->i", noise, noise),
        np.einsum("ij,ij->i", noise, mixture.covariance.matvec(noise)),
    )


def _error(replicates: Array) -> float:
    return float(replicates.std(ddof=1) / math.sqrt(len(replicates)))


@lru_cache(maxsize=4)
def _average_scales(n: int, df: float) -> Array:
    """(8 * 1024,) averages of n independent (df - 2) / chi^2_df; always the same."""
    rng = np.random.default_rng([n, int(df * 1e6) % 2**32])
    averages = [((df - 2) / rng.chisquare(df, (POINTS, n))).mean(axis=1) for _ in range(REPLICATES)]
    return np.concatenate(averages)


@lru_cache(maxsize=4)
def _normals(dim: int) -> Array:
    """(8 * 1024, dim) standard normals; always the same, so that a search over n sees a smooth function of n."""
    from scipy.stats import qmc  # 0.4 s to import, which `import theory` should not cost

    points = [qmc.Sobol(dim, seed=np.random.default_rng([dim, i])).random(POINTS) for i in range(REPLICATES)]
    normals = ndtri(np.clip(np.concatenate(points), 1e-16, 1 - 1e-16))
    normals.flags.writeable = False
    return np.asarray(normals)
