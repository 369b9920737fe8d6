"""T5 and T6: the averaging learner where the exact law does not apply: l_inf attacks, and any covariance in l_2 and l_inf.

theta ~ N(m, C), m = mu~, C = Sigma~ / n. Robust accuracy is Phi(h), h = (X - eps Y) / sqrt(Z), with
X = theta.mu, Y = ||theta||_q, Z = theta' Sigma theta. All three are sums over coordinates, so they are jointly near-normal in
high dimension. The first order inserts their means into h. The second order adds half the trace of (Hessian of h) x (their covariance)
to the mean of h, treats h as normal with the delta-method variance, and averages Phi over it exactly.

Measured error of E[A] against Monte Carlo (isotropic, ||mu|| = 2, p=inf, eps = 1/(2 sqrt d), n = 2; standard error 1.5e-4):
d = 10: first order 1.2e-2, second 9e-4; d = 20: 1.1e-2, 1e-4; d = 50: 5e-3, below the standard error. Elsewhere up to 8e-3 at d = 20
(n = 1, synthetic class SNR 4, eps = ||mu|| / (2 sqrt d), sigma = 1/2). With one dominant direction in
the covariance, the sums do not have many parts, and the second order improves little (4e-3 at d = 64, one eigenvalue of 32): use
QuasiMonteCarloLaw there, as required_samples does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from theory._checks import (
    Array,
    Remade,
    count,
    non_negative,
    norm_order,
    numbers_only,
    open_unit,
    positive,
    real_number,
    same_dimension,
)
from theory._search import smallest_count
from theory.averaging import AveragingLaw
from theory.covariance import Covariance
from theory.mixtures import BinaryMixture, usual_units

HERMITE_TERMS = 30  # of the Mehler series of cov(|x|, |y|); its remainder is below 2e-3 sd^2 even at correlation 1


@dataclass(frozen=True, eq=False, repr=False)
class SecondOrderLaw(Remade):
    """Approximate law of the l_p-robust accuracy on `mixture` after averaging n samples of `synthetic`, p in {2, inf} (T5).

    mixture, synthetic: BinaryMixture with any covariances. n: samples, >= 1. eps: attack radius in units of x, in
    norm p. Raises ValueError for any other p, mismatched dimensions, n < 1, or eps < 0.
    """

    mixture: BinaryMixture
    synthetic: BinaryMixture
    n: int
    eps: float
    p: float

    def __post_init__(self) -> None:
        same_dimension(self.mixture.dim, self.synthetic.dim, "mixture and synthetic")
        usual_units(self.mixture, self.synthetic)
        object.__setattr__(self, "n", count(self.n, "n"))
        object.__setattr__(self, "eps", non_negative(self.eps, "eps"))
        object.__setattr__(self, "p", norm_order(self.p))
        if self.p not in (2, math.inf):
            raise ValueError(f"p={self.p:g}: the second-order law covers p = 2 and inf (the maximum norm obeys no central limit)")

    def mean(self) -> float:
        """E[A] to second order: Phi(E h / sqrt(1 + Var h))."""
        mean, variance = self._margin
        return float(ndtr(mean / math.sqrt(1 + variance)))

    def first_order_mean(self) -> float:
        """E[A] to first order: Phi(h(E X, E Y, E Z))."""
        return float(ndtr(self._margin_at_means))

    def cdf(self, a: Any) -> Any:
        """P(A <= a) with h normal; a step where h does not vary."""
        mean, variance = self._margin
        beyond = ndtri(np.clip(numbers_only(a, "a"), 0, 1)) - mean
        probability = ndtr(beyond / math.sqrt(variance)) if variance else np.asarray(beyond >= 0, dtype=float)
        return float(probability) if probability.ndim == 0 else probability

    def quantile(self, q: float) -> float:
        """The accuracy a with P(A <= a) = q."""
        mean, variance = self._margin
        return float(ndtr(mean + math.sqrt(variance) * ndtri(open_unit(q, "q"))))

    @property
    def _statistics(self) -> tuple[Array, Array]:
        return _statistics(self.mixture, self.synthetic, self.n, self.p)

    @cached_property
    def _margin_at_means(self) -> float:
        x, v, z = self._statistics[0]
        return float((x - self.eps * (math.sqrt(v) if self.p == 2 else v)) / math.sqrt(z))

    @cached_property
    def _margin(self) -> tuple[float, float]:
        """Mean and variance of h by the second-order delta method."""
        (_, v, z), covariance = self._statistics
        h = self._margin_at_means
        slope, bend = (1 / (2 * math.sqrt(v)), -1 / (4 * v**1.5)) if self.p == 2 else (1.0, 0.0)  # Y', Y'' in V
        root = math.sqrt(z)
        gradient = np.array([1 / root, -self.eps * slope / root, -h / (2 * z)])
        hessian = np.array(
            [
                [0, 0, -1 / (2 * z * root)],
                [0, -self.eps * bend / root, self.eps * slope / (2 * z * root)],
                [-1 / (2 * z * root), self.eps * slope / (2 * z * root), 3 * h / (4 * z * z)],
            ]
        )
        variance = float(gradient @ covariance @ gradient)
        return h + float((hessian * covariance).sum()) / 2, max(variance, 0.0)  # rounding can make less of 0


@dataclass(frozen=True)
class _Moments:
    """Mean and variance of one statistic and its covariances with X and Z."""

    mean: float
    variance: float
    with_x: float
    with_z: float


@lru_cache(maxsize=64)
def _statistics(mixture: BinaryMixture, synthetic: BinaryMixture, n: int, p: float) -> tuple[Array, Array]:
    """Means (3,) and covariance (3, 3) of X, V, Z, where V = Y for p=inf and Y^2 for p=2; the same for every radius."""
    m, mu, products = synthetic.mean, mixture.mean, _products(mixture, synthetic)
    z = _quadratic_moments(m, mu, n, products, products.with_real)
    identity = products.with_identity
    v = _quadratic_moments(m, mu, n, products, identity) if p == 2 else _absolute_moments(m, mu, n, products)
    covariance = np.array(
        [
            [synthetic.covariance.quadratic(mu) / n, v.with_x, z.with_x],
            [v.with_x, v.variance, v.with_z],
            [z.with_x, v.with_z, z.variance],
        ]
    )
    return np.array([m @ mu, v.mean, z.mean]), covariance


@dataclass(frozen=True, eq=False)
class _Form:
    """A quadratic form A beside C = Sigma~: A itself, tr(AC), tr(ACAC), tr(AC Sigma C)."""

    form: Covariance
    trace: float
    trace_squared: float
    trace_with_real: float


@dataclass(frozen=True, eq=False)
class _Products:
    """All computations of order d^3, done once per pair of mixtures for any n: C = Sigma~, Sigma and their products."""

    cov: Covariance
    real: Covariance
    sandwich_diagonal: Array  # (C Sigma C)_ii
    with_identity: _Form
    with_real: _Form


@lru_cache(maxsize=2)
def _products(mixture: BinaryMixture, synthetic: BinaryMixture) -> _Products:
    cov, real = synthetic.covariance, mixture.covariance
    c = cov.variances
    if not cov.is_full and not real.is_full:
        diagonal, squares = c * real.variances * c, float(c @ c)
        trace_real, quartic = float(c @ real.variances), float((c * real.variances) @ (c * real.variances))
    else:
        if cov.is_full:
            product = cov.value @ real.value if real.is_full else cov.value * real.value  # C Sigma, (d, d)
            diagonal, squares = (product * cov.value).sum(axis=1), float((cov.value * cov.value).sum())
        else:
            product = c[:, None] * real.value
            diagonal, squares = np.diagonal(product) * c, float(c @ c)
        trace_real, quartic = float(np.trace(product)), float((product * product.T).sum())
    identity = Covariance(1.0, mixture.dim)
    return _Products(
        cov=cov,
        real=real,
        sandwich_diagonal=diagonal,
        with_identity=_Form(identity, cov.trace, squares, float(diagonal.sum())),
        with_real=_Form(real, trace_real, quartic, quartic),
    )


def _quadratic_moments(m: Array, mu: Array, n: int, products: _Products, a: _Form) -> _Moments:
    """Moments of theta' A theta, theta ~ N(m, C/n): mean m'Am + tr(AC)/n, covariance with theta'B theta 2 tr(ACBC)/n^2 + 4 m'ACBm/n."""
    cov, am, real_m = products.cov, a.form.matvec(m), products.real.matvec(m)
    return _Moments(
        mean=float(m @ am) + a.trace / n,
        variance=2 * a.trace_squared / n**2 + 4 * cov.quadratic(am) / n,
        with_x=2 * float(mu @ cov.matvec(am)) / n,
        with_z=2 * a.trace_with_real / n**2 + 4 * float(am @ cov.matvec(real_m)) / n,
    )


def _absolute_moments(m: Array, mu: Array, n: int, products: _Products) -> _Moments:
    """Moments of ||theta||_1, theta ~ N(m, C/n): folded normals, joined by Stein's lemma and Mehler's series. With s_i^2 = C_ii / n:

    E|t| = |m| + 2 s phi(r) - 2 |m| Phi(-|r|), r = m/s; cov(|t_i|, t_j) = C_ij (2 Phi(r_i) - 1) / n;
    cov(|t_i|, t'At) = 2 (CAm)_i (2 Phi(r_i) - 1) / n + 2 (CAC)_ii phi(r_i) / (s_i n^2);
    cov(|t_i|, |t_j|) = sum_k rho_ij^k a_k(i) a_k(j) / k!, a_1 = s (2 Phi(r) - 1), a_k = 2 s (-1)^k He_{k-2}(r) phi(r).
    """
    cov = products.cov
    s = np.sqrt(cov.variances / n)
    r = m / s
    density, sign = np.exp(-r * r / 2) / math.sqrt(2 * math.pi), 2 * ndtr(r) - 1
    excess = 2 * (s * density - np.abs(m) * ndtr(-np.abs(r)))  # of E|t| over |m|
    folded = np.abs(m) + excess
    variance = float((s * s - excess * (2 * np.abs(m) + excess)).sum())  # m^2 + s^2 - folded^2 without its cancellation
    if cov.is_full:
        spread = np.sqrt(cov.variances)
        correlation = cov.value / np.outer(spread, spread)
        np.fill_diagonal(correlation, 0.0)  # the diagonal is exact above
        variance += _mehler_sum(correlation, s, r, density, sign)
    return _Moments(
        mean=float(folded.sum()),
        variance=variance,
        with_x=float(cov.matvec(mu) @ sign) / n,
        with_z=2 * float(cov.matvec(products.real.matvec(m)) @ sign) / n
        + 2 * float((products.sandwich_diagonal * density / s).sum()) / n**2,
    )


def _mehler_sum(correlation: Array, s: Array, r: Array, density: Array, sign: Array) -> float:
    """Sum over i != j of cov(|t_i|, |t_j|)."""
    power = correlation.copy()
    scaled = s * sign  # a_k / sqrt(k!)
    total = float(scaled @ power @ scaled)
    hermite, before = np.ones_like(r), np.zeros_like(r)  # He_{k-2} / sqrt((k-2)!), normalised so that nothing overflows
    for k in range(2, HERMITE_TERMS + 2):
        power *= correlation
        scaled = 2 * s * density * hermite / math.sqrt(k * (k - 1))
        total += float(scaled @ power @ scaled)
        hermite, before = (r * hermite - math.sqrt(k - 2) * before) / math.sqrt(k - 1), hermite
    return total


@dataclass(frozen=True)
class SampleGap:
    """Numbers of samples for the same mean accuracy without and with an l_inf attack (T6)."""

    standard_samples: int
    robust_samples: int
    carmon_samples: float

    @property
    def ratio(self) -> float:
        return self.robust_samples / self.standard_samples


def schmidt_mixture(dim: int, n0: float) -> BinaryMixture:
    """The model of Schmidt et al. (2018): mu = (1, ..., 1), so ||mu||^2 = d, and sigma = (n0 d)^{1/4} (T6)."""
    dim = count(dim, "dim")
    return BinaryMixture(np.ones(dim), math.sqrt(positive(n0, "n0") * dim))


def robust_sample_gap(dim: int, n0: float, *, eps: float, accuracy: float = 0.8, separation: float = 1.0) -> SampleGap:
    """How many averaged samples reach a mean accuracy in the Schmidt model, without attack (T4) and at l_inf radius eps (T5).

    carmon_samples = n0 * 4 eps^2 sqrt(d / n0) / c^2 is the order given by Carmon et al. (2019, section 3, c = 1) for the robust case.
    separation: c, synthetic mean c mu. theta / c ~ N(mu, sigma^2 / (c^2 n) I), so all counts fall by 1/c^2.

    Raises ValueError for eps outside [0, 1/2), accuracy outside [1/2, 1) or above the ceiling Phi((d / n0)^{1/4} (1 - eps)).
    """
    radius, wished, c = non_negative(eps, "eps"), real_number(accuracy, "accuracy"), positive(separation, "separation")
    if radius >= 0.5:
        raise ValueError(f"eps={radius:g} must lie in [0, 1/2), the range of the theorem")
    if not 0.5 <= wished < 1:
        raise ValueError(f"accuracy={wished:g} must lie in [0.5, 1)")
    real = schmidt_mixture(dim, n0)
    synthetic = BinaryMixture(c * real.mean, real.cov)
    ceiling = float(ndtr((dim / n0) ** 0.25 * (1 - radius)))
    if wished >= ceiling:
        raise ValueError(f"accuracy={wished:g} is out of reach: the ceiling at eps={radius:g} is {ceiling:.6g}; ask for less")
    goal = f"mean accuracy {wished:g}"
    return SampleGap(
        standard_samples=smallest_count(lambda n: AveragingLaw(real, synthetic, n, 0.0).mean() >= wished, goal),
        robust_samples=smallest_count(lambda n: SecondOrderLaw(real, synthetic, n, radius, math.inf).mean() >= wished, goal),
        carmon_samples=n0 * 4 * radius**2 * math.sqrt(dim / n0) / c**2,
    )
