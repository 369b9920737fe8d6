"""T4: the exact finite-sample law of the averaging learner's l_2-robust accuracy.

theta = mean of y~ x~ ~ N(m, v I); with only n synthetic samples, m = mu~, v = sigma~^2 / n. Only its angle psi to mu matters:
A = Phi((||mu|| cos psi - eps) / sigma). With kappa = ||m|| / sqrt(v) and rho = cos(m, mu),

    cot psi = N(kappa rho, 1) / chi'_{d-1}(kappa sqrt(1 - rho^2)),

a doubly noncentral t over sqrt(d-1), i.e. a Poisson(kappa^2 (1 - rho^2) / 2) mixture over j of N(kappa rho, 1) / chi_{d-1+2j};
with rho = 1 a plain noncentral t.
*Exchange law*: n, class separation and noise enter only through kappa, so classes k times more distinguishable are worth exactly
k^2 times the samples. The cdf is integrated by Gauss-Legendre quadrature; scipy.stats.nct agrees to 1e-13 up to
kappa = 10^3, to 1e-8 at 10^4, and no longer converges at 10^6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import chdtr, gammaln, ndtr, ndtri

from theory._checks import Array, Remade, count, non_negative, numbers_only, open_unit, same_dimension
from theory.mixtures import BinaryMixture
from theory.synthetic import misalignment_ceiling

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(80)  # resolves a Gaussian over +-9 standard deviations to 1e-15
WIDE_NODES, WIDE_WEIGHTS = np.polynomial.legendre.leggauss(120)
LEAST_DIM = 20
"""From this dimension on, the singularity of the angle at theta = 0 has no weight in a product rule. Signals that are strong against the
noise of theta make the rule too coarse. Within both limits, it agrees with the integral over angles to 1e-11."""
PANEL_NODES, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(16)
POISSON_TAIL = 9.0  # standard deviations kept on either side
CERTAIN = 8.5  # standard deviations; the normal tail beyond is 1e-17


@dataclass(frozen=True, eq=False, repr=False)
class AveragingLaw(Remade):
    """Exact law of the l_2-robust accuracy on `mixture` after averaging n samples of `synthetic` (T4).

    n_real further samples from `mixture` itself can be included with equal weight; the law stays exact, with
    m = (n mu~ + n_real mu) / (n + n_real), v = (n sigma~^2 + n_real sigma^2) / (n + n_real)^2.

    mixture, synthetic: BinaryMixture with scalar covariance; priors do not matter (y x ~ N(mu, sigma^2 I) for either class,
    and the classifier has no bias, so neither does the test prior). n >= 0 with n + n_real >= 1. eps >= 0 in units of x.
    Raises ValueError for other covariances (use QuasiMonteCarloLaw, or SecondOrderLaw with p=2), different dimensions, or a zero real mean.
    """

    mixture: BinaryMixture
    synthetic: BinaryMixture
    n: int
    eps: float
    n_real: int = 0

    def __post_init__(self) -> None:
        same_dimension(self.mixture.dim, self.synthetic.dim, "mixture and synthetic")
        for name, part in (("mixture", self.mixture), ("synthetic", self.synthetic)):
            if part.covariance.kind != "scalar":
                raise ValueError(
                    f"{name} has a {part.covariance.kind} covariance: the exact law needs a scalar; use QuasiMonteCarloLaw, or "
                    "SecondOrderLaw with p=2"
                )
        if not self.mixture.mean.any():
            raise ValueError("mixture.mean is zero: the classes coincide and the angle to it is undefined")
        object.__setattr__(self, "n", count(self.n, "n", 0))
        object.__setattr__(self, "n_real", count(self.n_real, "n_real", 0))
        if self.n + self.n_real == 0:
            raise ValueError("n and n_real are both 0: averaging needs at least one sample")
        object.__setattr__(self, "eps", non_negative(self.eps, "eps"))

    @cached_property
    def _theta(self) -> tuple[Array, float]:
        """Mean m (d,) and standard deviation sqrt(v) of each coordinate of theta."""
        share = self.n / (self.n + self.n_real)
        mean = share * self.synthetic.mean + (1 - share) * self.mixture.mean
        variance = share * float(self.synthetic.cov) + (1 - share) * float(self.mixture.cov)
        return mean, math.sqrt(variance / (self.n + self.n_real))

    @cached_property
    def kappa(self) -> float:
        """||m|| / sqrt(v); ||mu~|| sqrt(n) / sigma~ without real samples. n and separation matter only through kappa."""
        mean, std = self._theta
        return float(np.linalg.norm(mean)) / std

    @cached_property
    def alignment(self) -> float:
        """rho = cos(m, mu); 1 by convention if m = 0, as every direction is then equally likely."""
        m, mu = self._theta[0], self.mixture.mean
        if not m.any():
            return 1.0
        m, mu = m / np.linalg.norm(m), mu / np.linalg.norm(mu)
        # cos from the chord: exact up to rounding even if the two are nearly parallel
        return float(1 - ((m - mu) ** 2).sum() / 2) if m @ mu > 0 else float(((m + mu) ** 2).sum() / 2 - 1)

    @property
    def ceiling(self) -> float:
        """Robust accuracy at n -> infinity with this alignment: Phi((rho ||mu|| - eps) / sigma). With m = 0 the law is the same for any n,
        and its mean is the ceiling."""
        if not self._theta[0].any():
            return self.mean()
        return misalignment_ceiling(self.mixture, self.alignment, self.eps)

    @property
    def _signal(self) -> float:
        return float(np.linalg.norm(self.mixture.mean))

    @property
    def _sigma(self) -> float:
        return math.sqrt(self.mixture.cov)

    def accuracy_at(self, psi: Any) -> Array:
        """Robust accuracy of a direction at angle psi (radians) to mu."""
        return np.asarray(ndtr((self._signal * np.cos(numbers_only(psi, "psi")) - self.eps) / self._sigma))

    def angle_cdf(self, psi: Any) -> Array:
        """P(angle between theta and mu <= psi), psi in radians, any shape."""
        return _angle_cdf(numbers_only(psi, "psi"), self.mixture.dim, self.kappa, self.alignment)

    def cdf(self, a: Any) -> Any:
        """P(A <= a), for a scalar or an array of accuracies."""
        level = numbers_only(a, "a")
        cosine = (self._sigma * ndtri(np.clip(level, 0, 1)) + self.eps) / self._signal
        if self.mixture.dim == 1:  # A has two values, at the cosines -1 and 1, which rounding must not miss
            cosine = np.where(np.abs(np.abs(cosine) - 1) < 1e-9, np.sign(cosine), cosine)
        probability = 1 - self.angle_cdf(np.arccos(np.clip(cosine, -1, 1)))
        if self.mixture.dim == 1:  # at the angle pi all of the law is below, and A is at its lowest with what is not at angle 0
            probability = np.where(cosine == -1, 1 - self.angle_cdf(0.0), probability)
        probability = np.where(cosine >= 1, 1.0, np.where(cosine < -1, 0.0, probability))
        return float(probability) if probability.ndim == 0 else probability

    def mean(self) -> float:
        """E[A], in high dimension as a product rule over the parts of theta along and across mu (0.5 ms), otherwise over the angle.

        Over the angle: A(pi) + integral over psi of P(angle <= psi) (-dA/dpsi), on panels that are fine where either factor varies.
        """
        if self.mixture.dim >= LEAST_DIM and self._signal <= 0.9 * self._sigma * math.hypot(
            self.kappa, math.sqrt(self.mixture.dim)
        ):
            return self._mean_by_product()
        return self._mean_over_angles()

    def _mean_by_product(self) -> float:
        """E of A over theta = (u, s): u ~ N(kappa rho, 1) along mu, s ~ chi'_{d-1} across it, 80 by 120 nodes."""
        along, across = self.kappa * self.alignment, self.kappa * math.sqrt(max(0.0, 1 - self.alignment**2))
        u = along + 9 * NODES
        normal = NODE_WEIGHTS * np.exp(-((u - along) ** 2) / 2)
        s, density = _noncentral_chi_quadrature(self.mixture.dim - 1, across)
        z = (self._signal * u[:, None] / np.hypot(u[:, None], s) - self.eps) / self._sigma
        return float((normal / normal.sum()) @ ndtr(z) @ density)

    def _mean_over_angles(self) -> float:
        edges = self._panel_edges()
        half = np.diff(edges)[:, None] / 2
        psi = edges[:-1, None] + half * (1 + PANEL_NODES)
        z = (self._signal * np.cos(psi) - self.eps) / self._sigma
        slope = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (self._signal / self._sigma) * np.sin(psi)
        lowest = float(self.accuracy_at(np.array(math.pi)))
        return lowest + float((half * PANEL_WEIGHTS * self.angle_cdf(psi) * slope).sum())

    def quantile(self, q: float) -> float:
        """The accuracy a with P(A <= a) = q, 0 < q < 1."""
        target = 1 - open_unit(q, "q")
        if self.mixture.dim == 1:  # theta has only two possible directions
            return float(self.accuracy_at(np.array(0.0 if self.angle_cdf(0.0) >= target else math.pi)))
        from scipy.optimize import brentq  # imported here because it takes 0.2 s, which `import theory` should not

        edges = self._panel_edges()
        values = self.angle_cdf(edges)
        right = int(np.clip(np.searchsorted(values, target), 1, len(edges) - 1))
        psi = brentq(lambda angle: float(self.angle_cdf(angle)) - target, edges[right - 1], edges[right], xtol=1e-300, rtol=1e-14)
        return float(self.accuracy_at(np.array(psi)))

    def _panel_edges(self) -> Array:
        """Angles that resolve both the law of psi and the step of A: geometric grids around their centres."""
        spread = 1 / math.sqrt(1 + self.kappa**2 + self.mixture.dim)
        along, across = self.kappa * self.alignment, math.sqrt(self.mixture.dim - 1 + self.kappa**2 * (1 - self.alignment**2))
        step = min(1.0, self._sigma / self._signal)
        step_centre = math.acos(min(1.0, self.eps / self._signal))
        grids = [np.array([0.0, math.pi])]
        for centre, width in ((math.atan2(across, along), spread), (step_centre, step)):
            offsets = width * 2.0 ** np.arange(math.ceil(math.log2(math.pi / width)) + 1)
            grids += [centre + offsets, centre - offsets, np.array([centre])]
        return np.unique(np.clip(np.concatenate(grids), 0.0, math.pi))


def _angle_cdf(psi: Array, dim: int, kappa: float, rho: float) -> Array:
    """P(angle <= psi) for theta ~ N(kappa e, I_dim), cos(e, mu) = rho: a Poisson mixture of noncentral t laws."""
    along, across = kappa * rho, kappa * math.sqrt(max(0.0, 1 - rho * rho))
    if dim == 1:  # theta points along mu or against it: one value for every psi in [0, pi)
        return np.where(np.asarray(psi) >= math.pi, 1.0, ndtr(along))
    counts, weights = _poisson(across**2 / 2)
    flat = np.clip(np.ravel(psi), 0.0, math.pi)
    total = sum(weight * _central_angle_cdf(flat, dim - 1 + 2 * j, along) for j, weight in zip(counts, weights, strict=True))
    return np.asarray(np.clip(np.reshape(total, np.shape(psi)), 0.0, 1.0))


def _poisson(rate: float) -> tuple[Array, Array]:
    """Counts and weights that represent a Poisson law in sums of smooth functions of the count.

    Beyond a rate of 16 every m-th count is enough, m = sqrt(rate) / 2: the trapezoidal rule on a bell of standard deviation
    sqrt(rate / 2) or more (law times anything smooth on the scale of sqrt(rate)) errs by exp(-2 pi^2 (rate / 2) / m^2) < 1e-17.
    """
    if rate == 0:
        return np.zeros(1), np.ones(1)
    reach = POISSON_TAIL * math.sqrt(rate) + 25
    stride = max(1.0, math.floor(math.sqrt(rate) / 2))
    steps = np.arange(math.ceil(2 * reach / stride) + 1, dtype=np.float64)
    counts: Array = max(0.0, float(math.floor(rate - reach))) + stride * steps
    if rate < 1000:
        log_weights = counts * math.log(rate) - gammaln(counts + 1)
    else:  # Stirling around the rate, which avoids cancellation between two huge terms
        x = (counts - rate) / rate
        log_weights = -rate * ((1 + x) * _log1p_minus(x) + x * x) - np.log1p(x) / 2 - 1 / (12 * counts)
    weights = np.exp(log_weights - log_weights.max())
    kept = weights > 1e-18
    return counts[kept], weights[kept] / weights[kept].sum()


def _log1p_minus(x: Array) -> Array:
    """log(1 + x) - x without cancellation at small x."""
    series = -x * x * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x / 6))))
    return np.where(np.abs(x) < 1e-3, series, np.log1p(x) - x)


def _central_angle_cdf(psi: Array, nu: float, delta: float) -> Array:
    """P(N(delta, 1) >= cot(psi) chi_nu), psi (m,), integrated over the variable in which the integrand is smoothest."""
    s, weights = chi_quadrature(nu)
    with np.errstate(divide="ignore"):
        cotangent = 1 / np.tan(psi)
    ends = delta - cotangent * np.array([[s[0]], [s[-1]]])  # N - delta must exceed minus this
    result = np.where(ends.min(axis=0) > CERTAIN, 1.0, 0.0)
    open_case = (ends.min(axis=0) <= CERTAIN) & (ends.max(axis=0) >= -CERTAIN)
    steep = np.abs(cotangent) > 1
    middle = open_case & ~steep
    # middle: E over s = chi_nu of Phi(delta - s cot psi)
    result[middle] = ndtr(delta - s * cotangent[middle, None]) @ weights
    # near mu: E over u ~ N(delta, 1), u > 0, of P(chi_nu <= u tan psi); near -mu: one minus the same, mirrored
    for side, sign in ((open_case & steep & (psi < 1), 1.0), (open_case & steep & (psi > 1), -1.0)):
        if side.any():
            u, density = _normal_quadrature(sign * delta)
            inside = chdtr(nu, (u * np.abs(np.tan(psi[side]))[:, None]) ** 2) @ density
            result[side] = inside if sign > 0 else 1 - inside
    return result


def chi_quadrature(nu: float) -> tuple[Array, Array]:
    """Nodes and probability weights of chi_nu; the density is computed relative to its mode, so nu = 10^6 is as exact as nu = 1."""
    mode = math.sqrt(max(nu - 1, 0))
    low, high = max(0.0, mode - 6.5), mode + (6.5 if nu > 3 else 8.5)
    s = low + (high - low) / 2 * (1 + NODES)
    if nu == 1:
        density = np.exp(-s * s / 2)
    else:
        r = (s - mode) / mode
        density = np.exp((nu - 1) * (_log1p_minus(r) - r * r / 2))
    weights = NODE_WEIGHTS * density
    return s, weights / weights.sum()


def _noncentral_chi_quadrature(nu: int, noncentrality: float) -> tuple[Array, Array]:
    """Nodes and probability weights of chi'_nu with this noncentrality, as a Poisson mixture of chi_{nu + 2 j} on one grid; nu > 1."""
    counts, shares = _poisson(noncentrality**2 / 2)
    centre = math.sqrt(nu + noncentrality**2)
    low = max(0.0, centre - 9)
    s = low + (centre + 9 - low) / 2 * (1 + WIDE_NODES)
    mode = np.sqrt(nu + 2 * counts - 1)[:, None]  # (J, 1)
    r = (s - mode) / mode
    density = WIDE_WEIGHTS * np.exp(mode**2 * (_log1p_minus(r) - r * r / 2))
    return s, (shares / density.sum(axis=1)) @ density


def _normal_quadrature(centre: float) -> tuple[Array, Array]:
    """Nodes u > 0 and weights of the density of N(centre, 1) there."""
    low, high = max(0.0, centre - 9), max(centre + 9, 0.0)
    u = low + (high - low) / 2 * (1 + NODES)
    return u, NODE_WEIGHTS * (high - low) / 2 * np.exp(-((u - centre) ** 2) / 2) / math.sqrt(2 * math.pi)
