"""How sure a prediction is that rests on an estimated mixture: intervals for the robust optimum, a learner's accuracy, the required n.

Predictions with an estimated mean are optimistic, because noise makes the mean longer: isotropic, d = N = 1,000, ||mu|| = 2, eps = 1/2, the
predicted robust optimum is about .959 and the true one .933; for an accuracy of .9 about 330 samples seem enough where 1,049 are.

One free number is left of the unknown mixture: how far apart its classes are. Every candidate is (s m, C), m and C the estimated mean and
covariance. Redrawn estimates (theory/redrawn.py) say what would have been estimated if a candidate were true, and the interval holds the s
for which the observed statistic lies within the central 95 % of the redrawn ones. The statistic is the quantity itself as estimated, the
margin of T2 or the first-order margin of T5, so the interval is exact where its law depends on s alone, and near where it depends on
other features of the mixture only through the small correction for noise:

exact     without attack, scalar or full covariance: the estimated class SNR obeys a noncentral F law. Scalar covariance and p = 2: the
          statistic depends on ||mu|| and sigma alone, and sigma is known well (d (N - 2) degrees of freedom).
measured  otherwise: 93.8 to 96.0 % over 4,000 data sets, in settings of tests/theory/test_confidence.py with d / N from 0.05 to 1.

C is the estimate with its eigenvalues pulled together until their first two moments are unbiased: those of a raw estimate spread too far.
m is shortened most where noise lengthens it most, so that the candidates' means have the right share in directions of large variance.
Sources: noncentral F: Anderson (2003), An Introduction to Multivariate Statistical Analysis, section 5.2; inverting a bootstrap test along
one parameter: Carpenter (1999), Test inversion bootstrap confidence intervals.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betainc, betaincinv, chdtri, gammaincc, gammaln, ncfdtr, nctdtrinc, ndtr

from theory._checks import (
    Array,
    Remade,
    count,
    finite_array,
    frozen_array,
    non_negative,
    norm_order,
    one_of,
    open_unit,
    same_dimension,
)
from theory.averaging import NODE_WEIGHTS, NODES, AveragingLaw, chi_quadrature
from theory.covariance import Covariance
from theory.linear import check_signs, robust_accuracy, vector_norm
from theory.mixtures import BinaryMixture
from theory.optimal import bayes_robust_accuracy
from theory.proportional import ATTACKED, PROPORTIONAL_LEARNERS, ProportionalLaw, mean_length
from theory.redrawn import Redrawn, Statistic
from theory.samples import law_of_averages, required_samples, sample_goal
from theory.synthetic import learned_classifier

KINDS = ("scalar", "diagonal", "full")
DRAWS, FEW_DRAWS = 1000, 400
"""FEW_DRAWS for the optimum with a full covariance, where each takes eigenvectors or an interior-point method."""
MOST_LEVEL = 0.99
"""Of bootstrap intervals: beyond, too few draws lie outside. Exact intervals have no such limit."""
FULL_SHARE = 0.75
"""Largest d / (N - 2) up to which intervals with a full covariance were found to hold."""
ROUNDS = 2
MOST_COMPARED = 100
"""The averaging margin is compared at the required n, or at this many times the rows, if that is less."""
FAR_T = 1e4
MOST_ROOT = 100.0
LEAST_SIGNAL = 0.1
"""Smallest average square of a component of the mean, against its noise."""
LEAST_SNR = 1e-3
"""In place of 0, at which a learner's direction is undefined."""


class Interval(NamedTuple):
    """low <= estimate <= high. estimate: median-unbiased, so as often too high as too low."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True, eq=False, repr=False)
class MixtureEstimate(Remade):
    """The mean and covariance of a Gaussian pair as estimated from labelled rows, with intervals for what follows from them.

    mean: (d,), half the difference of the class means. cov: pooled covariance about the class means, divided by N - 2: scalar, (d,) or
    (d, d). rows: (n_plus, n_minus). prior: of the class +1 where the prediction is used. The kind of cov is an assumption: features that
    are correlated need a full one, which needs d <= N - 2, and d <= 0.75 (N - 2) for the stated coverage (a UserWarning otherwise).
    Intervals by bootstrap have a `level` of at most 0.99. The same data give the same interval, in any units.
    Raises ValueError for fewer than two rows a class, a mean of zero, and covariances that are not positive definite.
    """

    mean: Any
    cov: Any
    rows: tuple[int, int]
    prior: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", frozen_array(self.mean, "mean", 1))
        if not self.mean.any():
            raise ValueError("mean is zero: the classes coincide, and there is nothing to scale")
        if not isinstance(self.rows, tuple | list | np.ndarray) or len(self.rows) != 2:
            raise ValueError(f"rows={self.rows!r}: give two numbers, the rows of class +1 and of class -1")
        rows = tuple(count(n, "rows", 2) for n in self.rows)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "prior", open_unit(self.prior, "prior"))
        if np.ndim(self.cov) == 2 and len(self.mean) > self.degrees:
            raise ValueError(
                f"{len(self.mean)} dimensions and {sum(rows)} rows: a full covariance needs at least two rows more than dimensions; "
                "use a diagonal or scalar one, or more rows"
            )
        object.__setattr__(self, "cov", self.mixture.cov)
        if self.mixture.covariance.is_full and len(self.mean) > FULL_SHARE * self.degrees:
            warnings.warn(
                f"{len(self.mean)} dimensions and {sum(rows)} rows: with a full covariance intervals hold up to d = {FULL_SHARE} (N - 2), "
                "beyond only without attack; use more rows, or a diagonal covariance",
                stacklevel=3,
            )

    @classmethod
    def from_samples(cls, x: Any, y: Any, covariance: str = "full") -> MixtureEstimate:
        """Estimate from x (n, d) and labels y (n,) in {-1, +1}; covariance: 'scalar', 'diagonal' or 'full'. prior: the share of +1."""
        points, labels = finite_array(x, "x", 2), check_signs(y)
        same_dimension(len(points), len(labels), "x and y (their rows)")
        one_of(covariance, "covariance", KINDS)
        plus, minus = points[labels > 0], points[labels < 0]
        if min(len(plus), len(minus)) < 2:
            raise ValueError(f"{len(plus)} rows of class +1 and {len(minus)} of class -1: each class needs at least two")
        residual = np.concatenate([plus - plus.mean(axis=0), minus - minus.mean(axis=0)])
        degrees = len(points) - 2
        if covariance == "full":
            cov: Any = residual.T @ residual / degrees
        else:
            cov = (residual**2).sum(axis=0) / degrees
            cov = cov if covariance == "diagonal" else float(cov.mean())
        mean = (plus.mean(axis=0) - minus.mean(axis=0)) / 2
        return cls(mean, cov, (len(plus), len(minus)), len(plus) / len(points))

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the covariance, N - 2."""
        return sum(self.rows) - 2

    @property
    def effective_rows(self) -> float:
        """n with mean ~ N(mu, Sigma / n): 4 n_plus n_minus / (n_plus + n_minus)."""
        plus, minus = self.rows
        return 4 * plus * minus / (plus + minus)

    @cached_property
    def mixture(self) -> BinaryMixture:
        """The plug-in mixture, about the middle between the classes."""
        return BinaryMixture(self.mean, self.cov, self.prior)

    def class_snr(self, *, level: float = 0.95) -> Interval:
        """Interval for sqrt(mu' Sigma^-1 mu); exact for a scalar or full covariance. level: its coverage."""
        if self.mixture.covariance.kind == "diagonal":
            scales = self._optimum_scales(0.0, 2, level)
            return Interval(*(self._at(s).covariance.mahalanobis(self._at(s).mean) for s in scales))
        dim, n = len(self.mean), self.effective_rows
        scaled = self._scaled
        full = scaled.covariance.is_full
        freedom = self.degrees - dim + 1 if full else self.degrees * dim
        square = scaled.covariance.mahalanobis(scaled.mean) ** 2
        observed = n * square / dim * (freedom / self.degrees if full else 1.0)
        return Interval(*(_noncentrality(dim, freedom, observed, q) / math.sqrt(n) for q in _quantiles(level)))

    def robust_optimum(self, eps: float, p: float = 2, *, level: float = 0.95) -> Interval:
        """Interval for bayes_robust_accuracy(mixture, eps, p) of the true mixture. eps: radius in units of x. p: 2 or inf."""
        radius, order = non_negative(eps, "eps") / self._unit, _two_or_inf(p)
        if radius == 0 and self.mixture.covariance.kind != "diagonal":
            unit = [BinaryMixture([snr], 1.0, self.prior) for snr in self.class_snr(level=level)]
            return Interval(*(bayes_robust_accuracy(mixture, 0.0) for mixture in unit))
        scales = self._optimum_scales(radius, order, level)
        return Interval(*(bayes_robust_accuracy(self._at(s), radius, order) for s in scales))

    def learner_accuracy(
        self,
        n: int,
        *,
        eps: float,
        p: float = 2,
        learner: str = "averaging",
        ridge: float = 0.0,
        training_eps: float = 0.0,
        level: float = 0.95,
    ) -> Interval:
        """Interval for the mean balanced robust accuracy of a learner that is given n fresh rows of the true mixture.

        learner: averaging for any covariance (QuasiMonteCarloLaw; SecondOrderLaw beyond 200 dimensions), or one of ProportionalLaw with its
        ridge and training_eps (in standard deviations), for a scalar covariance and p = 2; where training would return w = 0, 1/2.
        """
        number, radius, order = count(n, "n"), non_negative(eps, "eps") / self._unit, _two_or_inf(p)
        if one_of(learner, "learner", PROPORTIONAL_LEARNERS) == "averaging":
            ProportionalLaw(1.0, 1.0, learner, ridge=ridge)  # raises for a ridge that the learner lacks
            if non_negative(training_eps, "training_eps"):
                raise ValueError(f"training_eps={training_eps:g}: averaging does not train against an adversary; use 0")
            scales = self._scales(lambda spreads, means: spreads.averaging_margin(means, radius, order, number), level)
            return _ordered(self._averaging_mean(s, number, radius, order) for s in scales)
        if self.mixture.covariance.kind != "scalar" or order != 2:
            raise ValueError(f"learner={learner!r} needs a scalar covariance and p=2; use learner='averaging'")
        ProportionalLaw(1.0, number / len(self.mean), learner, ridge=ridge)  # raises for a ridge that the learner lacks
        against = non_negative(training_eps, "training_eps") if learner in ATTACKED else 0.0
        scales = self._optimum_scales(radius, order, level)

        def accuracy(s: float) -> float:
            mixture = self._at(max(s, LEAST_SNR / self._at(1.0).covariance.mahalanobis(self._direction)))
            snr = mixture.covariance.mahalanobis(mixture.mean)
            if against and against >= mean_length(snr, number / mixture.dim):
                return 0.5
            law = ProportionalLaw(snr, number / mixture.dim, learner, ridge=ridge, eps=training_eps)
            return law.robust_accuracy(mixture, radius)

        return _ordered(accuracy(s) for s in scales)

    def required_samples(
        self, *, eps: float, accuracy: float, confidence: float = 0.95, p: float = 2, level: float = 0.95
    ) -> Interval:
        """Interval for required_samples(mixture, mixture, ...) of the true mixture: fresh rows that averaging needs.

        Arguments as there. inf: out of reach. high is inf if the data allow a mixture on which no number of rows reaches the accuracy.
        """
        radius, order = non_negative(eps, "eps") / self._unit, _two_or_inf(p)
        sample_goal(accuracy, confidence)

        def needed(scale: float) -> float:
            if scale == 0:
                return math.inf
            mixture = self._at(scale)
            if accuracy >= robust_accuracy(learned_classifier(mixture, "averaging"), mixture, radius, order):
                return math.inf
            return required_samples(mixture, mixture, eps=radius, accuracy=accuracy, confidence=confidence, p=order)

        def margin(n: float) -> Statistic:
            number = min(n, float(MOST_COMPARED * sum(self.rows)))
            return lambda spreads, means: spreads.averaging_margin(means, radius, order, number)

        counts = [needed(s) for s in self._optimum_scales(radius, order, level)]
        for _ in range(ROUNDS):  # the margin of a candidate is compared at the n that this candidate needs
            counts = [needed(self._scales(margin(n), level)[i]) for i, n in enumerate(counts)]
        return _ordered(counts)

    @cached_property
    def _unit(self) -> float:
        """The largest standard deviation: all else is computed in its units, so that squares neither overflow nor underflow."""
        return math.sqrt(float(self.mixture.covariance.variances.max()))

    @cached_property
    def _scaled(self) -> BinaryMixture:
        return BinaryMixture(self.mean / self._unit, self.mixture.cov / self._unit / self._unit, self.prior)

    @cached_property
    def _base(self) -> Covariance:
        """C of the candidates (s m, C)."""
        covariance = self._scaled.covariance
        return Covariance(_unbiased_spectrum(covariance.value, self.degrees), covariance.dim) if covariance.is_full else covariance

    @cached_property
    def _direction(self) -> Array:
        """m of the candidates (s m, C): the estimated mean, with each component shortened by what noise adds to its square on average.

        Along an eigenvector of C with variance v the square of the mean is mu^2 + v / n. If the mu^2 are t^2 on average, the factor
        sqrt(t^2 / (t^2 + v / n)) makes up for it; otherwise directions of large variance would count for too much.
        """
        covariance, n = self._base, self.effective_rows
        if covariance.kind == "scalar":
            return np.asarray(self._scaled.mean)
        variances, axes = np.linalg.eigh(covariance.value) if covariance.is_full else (covariance.variances, None)
        along = self._scaled.mean if axes is None else axes.T @ self._scaled.mean
        noise = variances / n
        square = max(float((along**2 - noise).mean()), LEAST_SIGNAL * float(noise.mean()))
        shortened = along * np.sqrt(square / (square + noise))
        return np.asarray(shortened if axes is None else axes @ shortened)

    @lru_cache(maxsize=4)  # noqa: B019 - a few estimates may stay in memory
    def _redrawn(self, draws: int) -> Redrawn:
        """The same data in other units have the same draws; other data have others, so that their errors average out."""
        scaled = self._scaled
        shape = [*scaled.mean / vector_norm(scaled.mean, 2), scaled.covariance.mahalanobis(scaled.mean)]
        seed = zlib.crc32((np.round(shape, 6) + 0.0).tobytes())
        return Redrawn.of(self._direction, self._base, self.effective_rows, self.degrees, draws, seed)

    def _at(self, scale: float) -> BinaryMixture:
        return BinaryMixture(scale * self._direction, self._base.value, self.prior)

    def _scales(self, statistic: Statistic, level: float, draws: int = DRAWS) -> tuple[float, ...]:
        """s at the low end, the median and the high end."""
        if open_unit(level, "level") > MOST_LEVEL:
            raise ValueError(f"level={level:g} is too high for a bootstrap: use at most {MOST_LEVEL}")
        observed = float(Redrawn.observed(self._scaled.mean, self._scaled.covariance).statistic(statistic)[0])
        return self._redrawn(draws).scales(statistic, observed, _quantiles(level))

    @lru_cache(maxsize=8)  # noqa: B019 - a few estimates may stay in memory: with a full covariance and p = inf this takes 0.5 s
    def _optimum_scales(self, eps: float, p: float, level: float) -> tuple[float, ...]:
        draws = FEW_DRAWS if self._base.is_full else DRAWS
        return self._scales(lambda spreads, means: spreads.optimal_margin(means, eps, p), level, draws)

    def _averaging_mean(self, scale: float, n: int, eps: float, p: float) -> float:
        mixture = self._at(scale)
        if mixture.covariance.kind == "scalar" and p == 2 and scale > 0:
            return min(AveragingLaw(mixture, mixture, n, eps).mean(), 1.0)
        return law_of_averages(mixture.dim)(mixture, mixture, n, eps, p).mean()


def margin_interval(margins: Any, *, level: float = 0.95) -> Interval:
    """Interval for P(margin > 0) from independent normal margins, y (w.x + b) - eps ||w||_q of held-out rows of one class, w fixed: exact.

    P = Phi(mean / std), and sqrt(n) times its estimate is noncentral t with n - 1 degrees of freedom. Holds for any number of dimensions.
    Rows on which w was fitted make it too high; margins that are not normal call for share_interval.
    Raises ValueError for fewer than two margins, or for equal ones.
    """
    values = finite_array(margins, "margins", 1)
    values = values / (np.abs(values).max() or 1.0)
    if len(values) < 2 or not np.ptp(values) > 0:
        raise ValueError(f"{len(values)} margins, from {values.min():g} to {values.max():g}: give at least two that differ")
    root, freedom = math.sqrt(len(values)), len(values) - 1
    observed = root * float(values.mean() / values.std(ddof=1))
    return Interval(*(float(ndtr(_noncentrality_of_t(freedom, q, observed) / root)) for q in _quantiles(level)))


def _noncentrality_of_t(freedom: int, q: float, t: float) -> float:
    """d at which noncentral t lies below t with probability q.

    Beyond FAR_T, where scipy's search does not end, its normal part is negligible: t = d / sqrt(chi2 / freedom).
    """
    if abs(t) < FAR_T:
        return float(nctdtrinc(freedom, q, t))
    return t * math.sqrt(chdtri(freedom, q if t > 0 else 1 - q) / freedom)


def share_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Interval for a probability of which n independent trials saw `successes`: Jeffreys, whatever the distribution of the data.

    For the robust accuracy of a fixed linear classifier: the held-out rows that it gets right under its exact worst-case perturbation.
    Its accuracy is a lower bound on that of the best classifier, so `low` is one too. With 0 or n successes, the end beyond is 0 or 1.
    Coverage averages to `level` over probabilities, and swings by a few percent for few trials (Brown, Cai, DasGupta 2001).
    Raises ValueError unless 0 <= successes <= n, n >= 1.
    """
    total, good = count(n, "n"), count(successes, "successes", 0)
    if good > total:
        raise ValueError(f"successes={good} exceeds n={total}")
    high, middle, low = (float(betaincinv(good + 0.5, total - good + 0.5, q)) for q in _quantiles(level))
    return Interval(0.0 if good == 0 else low, middle, 1.0 if good == total else high)


def _ordered(values: Iterable[float]) -> Interval:
    """Three values, each near its place, in order: small accuracies are not monotone in s, and counts are compared each at its own n."""
    return Interval(*sorted(values))


def _quantiles(level: float) -> tuple[float, float, float]:
    """Of the redrawn statistic, at the low end, the middle and the high end of an interval."""
    outside = (1 - open_unit(level, "level")) / 2
    return 1 - outside, 0.5, outside


def _noncentrality(dim: int, freedom: int, observed: float, quantile: float) -> float:
    """Square root of the noncentrality at which the observed F is this quantile; 0 if it is lower even without one."""
    from scipy.optimize import brentq  # imported here because it takes 0.2 s, which `import theory` should not

    def excess(root: float) -> float:
        return _noncentral_f_cdf(observed, dim, freedom, root) - quantile

    if excess(0.0) <= 0:
        return 0.0
    high = math.sqrt(dim * observed) + 1
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, rtol=1e-12))


def _noncentral_f_cdf(x: float, dim: int, freedom: int, root: float) -> float:
    """P(F <= x), F noncentral with `dim` and `freedom` degrees of freedom and noncentrality root^2.

    By scipy.special.ncfdtr, but for some points where that is NaN (2, 1996, 4047; 2000). (ncfdtrinc ends at a noncentrality of 10^4.)
    """
    known = float(ncfdtr(dim, freedom, root * root, x))
    return known if math.isfinite(known) else _f_by_parts(x, dim, freedom, root)


def _f_by_parts(x: float, dim: int, freedom: int, root: float) -> float:
    """The same without ncfdtr.

    Up to 10^4 a Poisson mixture of beta laws; beyond, where u + root, u ~ N(0, 1), is all but certainly positive, one part of
    dim F = ((u + root)^2 + chi^2_{dim - 1}) / (chi^2_freedom / freedom) in closed form, averaged over the others: the one that varies most.
    """
    if root <= MOST_ROOT:
        half = root * root / 2
        reach = 10 * math.sqrt(half) + 40
        j = np.arange(max(0, math.floor(half - reach)), math.ceil(half + reach) + 1)
        share = np.exp(j * math.log(half) - half - gammaln(j + 1)) if half else (j == 0).astype(float)
        return float(share @ betainc(dim / 2 + j, freedom / 2, dim * x / (dim * x + freedom)))
    across, shares = chi_quadrature(dim - 1) if dim > 1 else (np.zeros(1), np.ones(1))
    if root > math.sqrt(freedom):
        u, weights = 9 * NODES, NODE_WEIGHTS * np.exp(-((9 * NODES) ** 2) / 2)
        square = (u[:, None] + root) ** 2 + across**2
        return float(weights / weights.sum() @ gammaincc(freedom / 2, freedom * square / (2 * dim * x)) @ shares)
    s, weights = chi_quadrature(freedom)
    left = dim * x * s[:, None] ** 2 / freedom - across**2
    return float(weights @ np.where(left > 0, ndtr(np.sqrt(np.maximum(left, 0)) - root), 0.0) @ shares)


def _two_or_inf(p: float) -> float:
    order = norm_order(p)
    if order not in (2, math.inf):
        raise ValueError(f"p={order:g}: intervals are available for p = 2 and inf")
    return order


def _unbiased_spectrum(cov: Array, degrees: int) -> Array:
    """The covariance with its eigenvalues drawn to their mean until tr C and tr C^2 are unbiased.

    E tr C^2 = tr S^2 (1 + 1/k) + (tr S)^2 / k and E (tr C)^2 = (tr S)^2 + 2 tr S^2 / k for a Wishart estimate C of S with k >= 2 degrees of
    freedom, so tr C^2 - (tr C)^2 / k has the mean tr S^2 (1 + 1/k - 2/k^2).
    """
    dim = len(cov)
    mean, square = float(np.trace(cov)) / dim, float((cov * cov).sum()) / dim
    spread = square - mean**2
    unbiased = (square - dim * mean**2 / degrees) / (1 + 1 / degrees - 2 / degrees**2) - mean**2
    keep = math.sqrt(max(unbiased, 0.0) / spread) if spread > 0 else 1.0
    return keep * cov + (1 - keep) * mean * np.eye(dim)
