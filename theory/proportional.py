"""T16: what linear learners learn from any number of samples per dimension.

n, d -> infinity with n / d fixed; balanced isotropic aligned classes. The samples come in parts j (real, synthetic), n_j / d = delta_j,
delta = sum_j delta_j, shares pi_j = delta_j / delta. In units in which the spread is 1, the signed samples of part j are

    y x ~ N(k_j e_1, s_j^2 I),   k_j: class SNR.   Labels wrong with probability eta: a share eta of the part has mean -k_j instead.

A learner minimises, with the margins m_i = y_i w.x_i, mean_i l(m_i - e ||w||) + (lambda / 2) ||w||^2:

    logistic       l(u) = log(1 + exp(-u)); e > 0: adversarial training in l_2.
    svm            l(u) = max(1 - u, 0).
    least-squares  l(u) = (1 - u)^2 / 2, e = 0; lda is the same direction at lambda = 0 (Fisher), for n > d.
    averaging      w = mean of y x.

Derivation. Write w = a e_1 + w', ||w'|| = r, q = ||w|| = sqrt(a^2 + r^2). The only randomness of the margins that w' sees is the Gaussian
matrix G of the samples across e_1, in the bilinear form sum_i v_i s_j G_i.w' of multipliers v_i / n of the margins. By the convex Gaussian
min-max theorem (Thrampoulidis, Abbasi, Hassibi 2018) it may be replaced by r sum_i g_i v_i + ||v|| h.w', g and h standard normal. The
minimum over the direction of w' gives -||v|| sqrt(d) r, the maximum over v makes this a constraint on the scaled margins t_i = m_i / s_j:

    min_{a, r, t} mean_i l(s_j t_i - e q) + (lambda / 2) q^2   subject to   mean_i (t_i - a k_j / s_j - q Z_i)^2 <= r^2 / delta,

Z ~ N(0, 1), as a times the noise along e_1 plus r g_i is q Z_i. With the multiplier 1 / (2 g) of the constraint, each t_i is a proximal
point: u = s_j t - e q solves u = V - G l'(u), V = a k_j + q (s_j Z - e), G = g s_j^2. With p = -l'(u), the stationary points in g, r, a are

    r^2 = delta g^2 E[s^2 p^2],     1 / (delta g) = -E[s p Z] / q + e E[p] / q + lambda,     a = delta g E[k p].

Only the angle decides the accuracy: A = Phi((||mu|| a / q - eps) / sigma). Least squares: p is linear, the equations are solved in closed
form up to one root in g. Large n / d: T10, T11, T12. Large lambda: averaging.

Hard margin. Without a ridge, a loss that decreases to 0 sends ||w|| to infinity if some w separates the samples by more than e; w then has
the direction of the largest margin M = min_i m_i / ||w||. By the same replacement, with c = a / q and Z ~ N(0, 1), M >= 0 is possible iff

    min_c F(M, c) <= 0,   F(M, c) = E[max((M - k_j c) / s_j - Z, 0)^2] - (1 - c^2) / delta,

so M solves min_c F = 0. (For M < 0 the problem is not convex, and this M is an upper bound.) M = 0 gives the largest n / d at which the
classes are separable (Candes, Sur 2020; Cover: 2 without a signal).

Sources: Thrampoulidis, Abbasi, Hassibi 2018 (M-estimators); Mignacco et al. 2020 (Gaussian mixtures, the hard margin); Taheri, Pedarsani,
Thrampoulidis 2021 and Javanmard, Soltanolkotabi 2022 (adversarial training).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import erfcx, expit, ndtr

from theory._checks import Array, Remade, finite_array, frozen_array, non_negative, one_of, positive
from theory.mixtures import BinaryMixture

ATTACKED = ("logistic", "svm")
"""Learners that can be trained against an adversary."""
PROPORTIONAL_LEARNERS = ("averaging", "lda", "least-squares", "logistic", "svm")
MOST_SNR = 30.0
NODES = np.linspace(-9.0, 9.0, 721)
"""Of the trapezoidal rule over Z: exponentially accurate."""
WEIGHTS = np.exp(-NODES * NODES / 2) * (NODES[1] - NODES[0]) / math.sqrt(2 * math.pi)
_panel_nodes, _panel_weights = np.polynomial.legendre.leggauss(16)
HINGE_NODES = np.concatenate([(_panel_nodes + 2 * i - 19) / 20 for i in range(20)])
HINGE_WEIGHTS = np.tile(_panel_weights / 20, 20)
"""20 panels over [-1, 1]."""
FEWEST, MOST = 1e-3, 1e15
"""Samples per dimension."""


def mean_length(class_snr: float, samples_per_dim: float) -> float:
    """Length of the mean signed sample, sqrt(k^2 + d / n), from which on a training radius leaves w = 0."""
    return math.hypot(class_snr, 1 / math.sqrt(samples_per_dim))


@dataclass(frozen=True, eq=False, repr=False)
class ProportionalLaw(Remade):
    """What a learner learns from n = samples_per_dim * d samples, for any samples_per_dim (T16). d large: errors are O(1 / d).

    class_snr: distance k of a class mean from the boundary over the standard deviation, >= 0, for one part at least > 0. samples_per_dim:
    n / d. Both (J,) for J parts pooled, such as real and synthetic samples. learner: averaging, lda, least-squares, logistic or svm.
    ridge: lambda in mean loss + (lambda / 2) ||w||^2, data scaled to unit spread (scikit-learn: C = 1 / (lambda n)); 0: the limit of a
    vanishing ridge, which is the hard margin on separable data (logistic, svm) and the interpolator of least norm for n < d
    (least-squares).
    eps: l_2 training radius over the standard deviation (logistic, svm). label_noise: share of wrong labels, number or (J,), below 1/2.
    stds: (J,) standard deviations (default 1), in the unit of class_snr, ridge and eps.
    elongation: standard deviation of the classes along mu over that across it (logistic, svm); class_snr, stds, ridge and eps are then in
    units of that along mu. Scaling mu's axis makes such classes isotropic and leaves ||w||, which ridge and eps multiply, an ellipse.

    Fits at d = 200 agree within their noise (96 settings, 20 fits each: root mean square of z 0.97). At smaller d the mean cosine differs
    by O(1 / d), and n / (d - 1) is the better samples_per_dim.
    Raises ValueError for values out of range, for ridge or eps with a learner that has none, lda with n <= d, and for eps so large that
    training returns w = 0.
    """

    class_snr: Any
    samples_per_dim: Any
    learner: str = "logistic"
    ridge: float = 0.0
    eps: float = 0.0
    label_noise: Any = 0.0
    stds: Any = None
    elongation: float = 1.0

    def __post_init__(self) -> None:
        for name in ("class_snr", "samples_per_dim", "label_noise", "stds"):
            if isinstance(value := getattr(self, name), np.ndarray):  # a later change by the caller is none of the law
                object.__setattr__(self, name, frozen_array(value, name, (0, 1)))
        object.__setattr__(self, "elongation", positive(self.elongation, "elongation"))
        object.__setattr__(self, "learner", one_of(self.learner, "learner", PROPORTIONAL_LEARNERS))
        object.__setattr__(self, "ridge", non_negative(self.ridge, "ridge"))
        object.__setattr__(self, "eps", non_negative(self.eps, "eps"))
        if self.ridge and self.learner in ("averaging", "lda"):
            raise ValueError(f"ridge={self.ridge:g}: {self.learner} has none; use 0, or least-squares, logistic, svm")
        if self.eps and self.learner not in ATTACKED:
            raise ValueError(f"eps={self.eps:g}: {self.learner} does not train against an adversary; use 0, or logistic, svm")
        parts = self._parts
        if self.elongation != 1 and self.learner not in ("logistic", "svm"):
            raise ValueError(f"elongation={self.elongation:g}: {self.learner} has no such law; use 1, or logistic, svm")
        if self.elongation != 1 and not self.ridge and (self.eps or self.separable):
            raise ValueError(
                f"elongation={self.elongation:g} without ridge: the hard margin, and with a radius whether it is reached, is known for "
                "isotropic classes alone; use a ridge, or elongation=1"
            )
        if self.learner == "lda" and parts.delta <= 1:
            raise ValueError(f"samples_per_dim={parts.delta:g}: lda needs n > d; use more, or least-squares")
        if self.learner == "least-squares" and not self.ridge and parts.delta == 1:
            raise ValueError(
                "samples_per_dim=1 without ridge: least squares has no finite limit at n = d; use another n, or a ridge"
            )
        length = mean_length(parts.mean_of(parts.k), parts.delta * self.elongation**2 / parts.mean_of(parts.s**2))
        if self.eps >= length:
            raise ValueError(
                f"eps={self.eps:g} >= {length:g}, the length of the mean signed sample: training returns w = 0; use less"
            )

    @cached_property
    def _parts(self) -> _Parts:
        return _parts(self.class_snr, self.samples_per_dim, self.label_noise, self.stds)

    @cached_property
    def largest_margin(self) -> float:
        """M, the largest margin min_i y_i w.x_i / ||w|| of any w, in units of the spread; negative if the samples are not separable,
        and then an upper bound (Montanari, Zhong, Zhou 2021).

        Raises ValueError with an elongation, for which it is not known.
        """
        self._check_isotropic("largest_margin")
        return _hard_margin(self._parts)[0]

    @property
    def separable(self) -> bool:
        """Whether some w separates the samples, by more than eps. Raises ValueError with both an elongation and eps."""
        if self.eps:
            self._check_isotropic("separable by a radius")
        return _least_excess(self._parts, self.eps)[0] < 0

    def _check_isotropic(self, name: str) -> None:
        if self.elongation != 1:
            raise ValueError(f"elongation={self.elongation:g}: {name} is known for isotropic classes alone; use elongation=1")

    @cached_property
    def _solution(self) -> tuple[float, float]:
        parts = self._parts
        if self.learner == "averaging":
            return parts.mean_of(parts.k), math.sqrt(parts.mean_of(parts.s**2) / parts.delta)
        if self.learner in ("lda", "least-squares"):
            return _least_squares(parts, self.ridge)
        return _margin_learner(parts, self.ridge, self.eps, _logistic if self.learner == "logistic" else _hinge, self.elongation)

    @property
    def along(self) -> float:
        """a = w.mu / ||mu||. On separable data without a ridge, of the unit vector w / ||w||."""
        return self._solution[0]

    @property
    def across(self) -> float:
        """r, the length of w across mu."""
        return self._solution[1]

    @property
    def alignment(self) -> float:
        """Cosine of the angle between w and mu."""
        return self.along / math.hypot(self.along, self.across)

    def robust_accuracy(self, mixture: BinaryMixture, eps: float = 0.0) -> float:
        """Accuracy on `mixture` under l_2 attacks of radius eps, in units of x: Phi((||mu|| cos - eps) / sigma).

        A covariance that is not scalar is allowed where whitening changes nothing: without ridge and training radius, for lda, for logistic
        regression and svm on samples that nothing separates, and for least squares with n > d; the samples' classes must then be
        N(+-c mu, s^2 Sigma) with this mixture's mu and Sigma. The length of w, which decides under an attack, is then averaged over the
        random direction of its part across mu: E Phi(snr cos - eps ||w||), ||Sigma^(1/2) w|| = 1, from AVERAGED draws.
        Raises ValueError for another covariance, and for a zero mean.
        """
        radius, length = non_negative(eps, "eps"), float(np.linalg.norm(mixture.mean))
        if not length:
            raise ValueError("mixture.mean is zero: the classes coincide")
        covariance, cosine = mixture.covariance, self.alignment
        if covariance.kind == "scalar":
            return float(ndtr((length * cosine - radius) / math.sqrt(mixture.cov)))
        if self.ridge or self.eps or self.learner == "averaging":
            raise ValueError(
                f"the covariance is {covariance.kind}: {self.learner} with ridge {self.ridge:g} and eps {self.eps:g} is not the same after "
                "whitening; use a scalar variance, or ridge=0 and eps=0"
            )
        if self.elongation != 1:
            raise ValueError(
                f"the covariance is {covariance.kind}, and elongation={self.elongation:g} says another; use a scalar variance"
            )
        if self._shortest:
            raise ValueError(
                f"the covariance is {covariance.kind}: {self.learner} without ridge takes the shortest w of those that fit these samples "
                "perfectly, which is not the same after whitening; use a scalar variance, or more samples per dimension"
            )
        solved = covariance.solve(mixture.mean)
        snr = math.sqrt(float(mixture.mean @ solved))
        if not radius:
            return float(ndtr(snr * cosine))
        along, rng = cosine * solved / snr, np.random.default_rng(0)
        draws, most = int(np.clip(4_000_000 // mixture.dim, 64, AVERAGED)), max(100_000 // mixture.dim, 1)
        norms = [
            np.linalg.norm(along + math.sqrt(1 - cosine**2) * _across(mixture, snr, min(most, draws - done), rng), axis=1)
            for done in range(0, draws, most)  # so many at once that they take little memory
        ]
        return float(ndtr(snr * cosine - radius * np.concatenate(norms)).mean())

    @property
    def _shortest(self) -> bool:
        """Whether training without a ridge has many solutions, of which it takes the shortest."""
        if self.learner == "least-squares":
            return self._parts.delta <= 1
        return self.learner in ("logistic", "svm") and self.separable


AVERAGED = 2048
"""Random directions over which the length of w is averaged, at least 64 of them in high dimension."""


def _across(mixture: BinaryMixture, snr: float, draws: int, rng: np.random.Generator) -> Array:
    """Sigma^(-1/2) u for random unit vectors u across Sigma^(-1/2) mu, (draws, d).

    With z ~ N(0, Sigma), Sigma^-1 z has the law of Sigma^(-1/2) g, g standard normal.
    """
    z = mixture.covariance.sample(draws, rng)
    z -= (z @ mixture.covariance.solve(mixture.mean))[:, None] / snr**2 * mixture.mean  # g without its part along Sigma^(-1/2) mu
    whitened = mixture.covariance.solve(z)
    length = np.sqrt(np.einsum("nd,nd->n", z, whitened))
    unit: Array = whitened / np.maximum(length, np.finfo(np.float64).tiny)[:, None]
    return unit


@dataclass(frozen=True)
class ClassSnrOptimum:
    """The class SNR from which a learner learns the direction best, at a given number of samples per dimension (T16).

    best: the global optimum within the range that was searched; alignment: the cosine reached there. local: the best optimum inside the
    range, a maximum on both sides; NaN if there is none. local_alignment: the cosine there. more_is_better: whether `best` is the upper
    end of the range.
    """

    best: float
    alignment: float
    local: float
    local_alignment: float
    more_is_better: bool


def best_class_snr(samples_per_dim: float, learner: str, ridge: float, eps: float, largest: float) -> ClassSnrOptimum:
    """The global and the local optimum over class SNRs from `eps + 0.1` to `largest`: see optimal_class_snr."""
    from scipy.optimize import minimize_scalar

    least, most = non_negative(eps, "eps") + 0.1, positive(largest, "largest")
    if not least < most <= MOST_SNR:
        raise ValueError(f"largest={most:g} must lie in ({least:g}, {MOST_SNR:g}]")

    def loss(snr: float) -> float:
        law = ProportionalLaw(snr, samples_per_dim, learner, ridge, eps)
        return math.log(law.across / law.along)  # of tan: the cosine is flat at 1

    grid = np.geomspace(least, most, 48)
    grid[0], grid[-1] = least, most  # free of rounding
    losses = np.array([loss(float(snr)) for snr in grid])
    inner = [i for i in range(1, len(grid) - 1) if losses[i] < min(losses[i - 1], losses[i + 1])]
    local, local_loss = math.nan, math.inf
    if inner:
        i = min(inner, key=lambda j: float(losses[j]))
        found = minimize_scalar(loss, bounds=(float(grid[i - 1]), float(grid[i + 1])), method="bounded", options={"xatol": 1e-7})
        local, local_loss = float(found.x), float(found.fun)
    ends = [(local_loss, local), (float(losses[0]), float(grid[0])), (float(losses[-1]), float(grid[-1]))]
    best_loss, best = min(ends)
    cosines = [1 / math.hypot(1, math.exp(value)) if math.isfinite(value) else math.nan for value in (best_loss, local_loss)]
    return ClassSnrOptimum(best, cosines[0], local, cosines[1], best == float(grid[-1]))


def separability_threshold(class_snr: float, label_noise: float = 0.0) -> float:
    """The number of samples per dimension below which balanced isotropic classes are linearly separable, d large (T16).

    1 / threshold = min over c of E[max(-k c - Z, 0)^2] / (1 - c^2), the expectation over wrong labels too; 2 without a signal.
    Raises ValueError for class_snr outside (0, 30] and label_noise outside [0, 1/2).
    """
    from scipy.optimize import minimize_scalar  # 0.2 s to import, which `import theory` should not cost

    parts = _parts(class_snr, 1.0, label_noise, None)

    def log_rate(angle: float) -> float:
        c = math.cos(angle)
        return math.log(parts.mean_of(_squared_excess(-parts.k * c / parts.s))) - 2 * math.log(math.sin(angle))

    grid = np.exp(np.linspace(math.log(1e-8), math.log(math.pi / 2), 80))
    i = int(np.argmin([log_rate(float(angle)) for angle in grid]))
    ends = (float(grid[max(i - 1, 0)]), float(grid[min(i + 1, len(grid) - 1)]))
    return math.exp(-float(minimize_scalar(log_rate, bounds=ends, method="bounded", options={"xatol": 1e-12}).fun))


@dataclass(frozen=True)
class _Parts:
    """share, k, s: (J,), one entry per part and sign of the label noise. delta: samples per dimension, in total."""

    share: Array
    k: Array
    s: Array
    delta: float

    def mean_of(self, values: Array) -> float:
        """Average of (J,) values over the parts."""
        return float(self.share @ values)


def _parts(class_snr: Any, samples_per_dim: Any, label_noise: Any, stds: Any) -> _Parts:
    k, counts = (
        np.atleast_1d(finite_array(v, n, (0, 1))) for v, n in ((class_snr, "class_snr"), (samples_per_dim, "samples_per_dim"))
    )
    noise = np.atleast_1d(finite_array(label_noise, "label_noise", (0, 1)))
    s = np.ones(1) if stds is None else np.atleast_1d(finite_array(stds, "stds", (0, 1)))
    if len(k) != len(counts):
        raise ValueError(f"class_snr has {len(k)} parts, samples_per_dim {len(counts)}: give one of each per part")
    for name, values in (("label_noise", noise), ("stds", s)):
        if len(values) not in (1, len(k)):
            raise ValueError(f"{name} has {len(values)} entries for {len(k)} parts: give one, or one per part")
    noise, s = np.broadcast_to(noise, k.shape), np.broadcast_to(s, k.shape)
    if k.min() < 0 or not k.any():
        raise ValueError(f"class_snr={k.min():g} must be > 0, or of several parts >= 0 and one > 0")
    for name, values in (("samples_per_dim", counts), ("stds", s)):
        if values.min() <= 0:
            raise ValueError(f"{name}={values.min():g} must be > 0")
    if (k / s).max() > MOST_SNR:
        raise ValueError(f"class_snr={(k / s).max():g} standard deviations is above {MOST_SNR:g}: give less")
    if not FEWEST <= counts.sum() <= MOST:
        raise ValueError(f"samples_per_dim={counts.sum():g} must lie in {FEWEST:g} .. {MOST:g}: it is the number of samples over d")
    if noise.min() < 0 or noise.max() >= 0.5:
        raise ValueError(f"label_noise={noise[(noise < 0) | (noise >= 0.5)][0]:g} must lie in [0, 1/2)")
    share = counts / counts.sum()
    both = np.concatenate([share * (1 - noise), share * noise]), np.concatenate([k, -k]), np.concatenate([s, s])
    used = both[0] > 0
    return _Parts(both[0][used], both[1][used], both[2][used], float(counts.sum()))


def _squared_excess(b: Array) -> Array:
    """E[max(b - Z, 0)^2] = (1 + b^2) Phi(b) + b phi(b), without cancellation for b < 0."""
    density = np.exp(-b * b / 2) / math.sqrt(2 * math.pi)
    mills = math.sqrt(math.pi / 2) * erfcx(np.maximum(-b, -5.0) / math.sqrt(2))
    return np.asarray(np.where(b < 0, density * ((1 + b * b) * mills + b), (1 + b * b) * ndtr(b) + b * density))


def _least_excess(parts: _Parts, margin: float) -> tuple[float, float]:
    """(min_c F(margin, c), the minimising c)."""
    from scipy.optimize import minimize_scalar

    def excess(c: float) -> float:
        return parts.mean_of(_squared_excess((margin - parts.k * c) / parts.s)) - (1 - c * c) / parts.delta

    found = minimize_scalar(excess, bounds=(-1.0, 1.0), method="bounded", options={"xatol": 1e-10})
    return float(found.fun), float(found.x)


def _hard_margin(parts: _Parts) -> tuple[float, float]:
    """(largest margin M, cosine of its direction)."""
    from scipy.optimize import brentq

    high = float(parts.k.max()) + 9 * float(parts.s.max()) * (1 + 1 / math.sqrt(parts.delta))
    low = -high
    while _least_excess(parts, low)[0] > 0:
        low *= 2
    margin = float(brentq(lambda m: _least_excess(parts, m)[0], low, high, xtol=1e-11, rtol=1e-12))
    return margin, _least_excess(parts, margin)[1]


def _least_squares(parts: _Parts, ridge: float) -> tuple[float, float]:
    """(a, r): p = (1 - V) / (1 + g s^2) is linear in V, so a and r^2 follow from g, and g from one increasing equation."""
    from scipy.optimize import brentq

    s2, delta = parts.s**2, parts.delta
    if not ridge and delta <= 1:
        share = 1 / s2  # of g -> infinity: g / (1 + g s^2)
    else:

        def excess(log_g: float) -> float:
            g = math.exp(log_g)
            return parts.mean_of(g * s2 / (1 + g * s2)) + ridge * g - 1 / delta

        g = math.exp(float(brentq(excess, -650.0, 650.0, xtol=1e-14)))
        share = g / (1 + g * s2)
    signal = delta * parts.mean_of(parts.k * share)
    a = signal / (1 + delta * parts.mean_of(parts.k**2 * share))
    weight = delta * s2 * share**2
    noise = parts.mean_of(weight * ((1 - parts.k * a) ** 2 + s2 * a * a))
    return a, math.sqrt(noise / (1 - parts.mean_of(weight * s2)))


Moments = Callable[[_Parts, float, float, float, float], tuple[Array, Array, Array]]
"""(parts, a, q, g, eps) -> E[p], E[p^2], E[p Z] of each part, p = -l'(u) at the proximal points u = V + G p, G = g s^2."""


def _logistic(parts: _Parts, a: float, q: float, g: float, eps: float) -> tuple[Array, Array, Array]:
    """By the trapezoidal rule. Newton starts at the end of [V, V + G], or the inflection at 0, from which it is monotone."""
    v, scale = a * parts.k[:, None] + q * (parts.s[:, None] * NODES - eps), g * parts.s[:, None] ** 2
    u = np.clip(0.0, v, v + scale)
    for _ in range(100):
        p = expit(-u)
        step = (u - v - scale * p) / (1 + scale * p * (1 - p))
        u = u - step
        if np.abs(step).max() < 1e-12 * (1 + np.abs(u).max()):
            break
    p = expit(-u)
    return p @ WEIGHTS, (p * p) @ WEIGHTS, (p * NODES) @ WEIGHTS


def _hinge(parts: _Parts, a: float, q: float, g: float, eps: float) -> tuple[Array, Array, Array]:
    """p falls linearly from 1 to 0 as Z goes from `low` to `high`: the average over b in between of [Z < b]. By Gauss-Legendre."""
    spread = q * parts.s
    high = (1 - a * parts.k + q * eps) / spread
    width = g * parts.s / q
    low = high - width
    left, right = np.clip((-40 - low) / width, 0, 1), np.clip((high - 40) / width, 0, 1)  # shares where Phi is 0, and 1
    inside = (1 - left - right)[:, None] / 2
    t = left[:, None] + inside * (1 + HINGE_NODES)  # from 0 at low to 1 at high
    b, weight = low[:, None] + width[:, None] * t, inside * HINGE_WEIGHTS
    cdf = ndtr(b)
    first, second = (weight * cdf).sum(axis=1) + right, 2 * (weight * (1 - t) * cdf).sum(axis=1) + right**2
    return first, second, -(weight * np.exp(-b * b / 2)).sum(axis=1) / math.sqrt(2 * math.pi)


def _margin_learner(parts: _Parts, ridge: float, eps: float, moments: Moments, elongation: float = 1.0) -> tuple[float, float]:
    """(a, r), of the unit vector w / ||w|| where the norm is infinite."""
    if not ridge and _least_excess(parts, eps)[0] < 0:
        c = _hard_margin(parts)[1]
        return c, math.sqrt(1 - c * c)
    a, r = _regularised(parts, ridge, eps, moments, elongation)
    return a, elongation * r  # back from the axes in which the classes are isotropic


def logistic_tangent(share: Array, k: Array, samples_per_dim: float, eps: float) -> float:
    """tan(angle) of logistic regression without ridge for parts of unit spread; some k may be negative, on the wrong side of w."""
    a, r = _margin_learner(_Parts(share, k, np.ones_like(k), samples_per_dim), 0.0, eps, _logistic)
    return r / a


def _regularised(parts: _Parts, ridge: float, eps: float, moments: Moments, elongation: float) -> tuple[float, float]:
    """(a, r) at a finite optimum: the three equations, solved from a large ridge downwards, in units of the largest spread.

    For isotropic classes; ridge and eps multiply ||w||^2 and ||w|| of w = (a, elongation r).
    """
    from scipy.optimize import root

    unit = float(parts.s.max())
    parts, ridge, eps = _Parts(parts.share, parts.k / unit, parts.s / unit, parts.delta), ridge / unit**2, eps / unit

    def equations(x: Array, ridge: float) -> Array:
        a, r, g = np.exp(np.clip(x, -100, 100))
        q, norm = math.hypot(a, r), math.hypot(a, elongation * r)
        first, second, with_z = moments(parts, a, q, g, eps * norm / q)
        bend, pull = -parts.mean_of(parts.s * with_z) / q, eps * parts.mean_of(first) / norm + ridge
        curvature = max(bend + elongation**2 * pull, 1e-300)  # across mu; along it, bend + pull
        along = parts.delta * g * parts.mean_of(parts.k * first) * curvature / max(bend + pull, 1e-300)
        across = parts.delta * g * g * parts.mean_of(parts.s**2 * second)
        new = np.maximum((along, across, 1 / (parts.delta * curvature)), 1e-300)
        return np.asarray(np.log(new) - [x[0], 2 * x[1], x[2]])

    def solved(x: Array, ridge: float) -> Array | None:
        found = root(equations, x, args=(ridge,), tol=1e-10)
        return found.x if np.abs(found.fun).max() < 1e-8 else None

    now = max(ridge, 10 * (1 + float(parts.mean_of(parts.k**2))))
    slope = 0.5 if moments is _logistic else 1.0
    beyond = now * elongation**2  # the ridge across mu
    sizes = parts.mean_of(parts.k) * slope / now, math.sqrt(parts.mean_of(parts.s**2) / parts.delta) * slope / beyond
    x, target, factor = solved(np.log([*sizes, 1 / (parts.delta * beyond)]), now), ridge or 1e-9, 10.0
    while x is not None and now > target * (1 + 1e-12):
        following = max(now / factor, target)
        if (further := solved(x, following)) is not None:
            x, now, factor = further, following, min(factor * 2, 100.0)
        elif (factor := math.sqrt(factor)) < 1.01:
            x = None
        if x is not None and not ridge and now <= target:
            if (without := solved(x, 0.0)) is not None:
                x = without
            elif target > 1e-40:
                target /= 1e3
            else:
                x = None
    if x is not None:
        return float(math.exp(x[0])) / unit, float(math.exp(x[1])) / unit
    excess = _least_excess(parts, eps)[0]
    tiny = moments is _hinge and elongation == 1 and 0 < ridge <= 1e-6 and excess < 0
    next_to_threshold = not ridge and abs(excess) * parts.delta < 1e-3  # where both sides meet
    if not tiny and not next_to_threshold:
        raise RuntimeError(f"the law was not found from ridge {now:.3g} down to {ridge:.3g}: please report these settings")
    margin, c = _hard_margin(parts)
    length = 1 / (margin - eps) / unit if tiny else 1.0  # the limit of small ridges has the attacked margin 1
    return c * length, math.sqrt(1 - c * c) * length
