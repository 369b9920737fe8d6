"""T12 to T14: how far apart synthetic classes should be when added to real data, for K classes, and under l_inf training.

T12, pooled data. Balanced isotropic aligned parts j (real, synthetic, ...) with class means +-mu_j along one direction, standard
deviations s_j and shares pi_j of n samples; logistic regression on all of them together, trained against l_2 perturbations of radius e.
The parts need different slopes, so the pooled model is misspecified: M-estimation. The margin of a sample of part j at w = a mu/||mu|| is
m_j(u) = a t_j, t_j = mu_j - e + s_j u, u ~ N(0, 1), and p_j = 1 / (1 + exp(m_j)). Along mu the population slope a solves

    sum_j pi_j E[p_j t_j] = 0       (unique: the loss is convex; a > 0 iff sum_j pi_j mu_j > e).

Across mu, every coordinate has score -p_j x + p_j e w / ||w|| with variance B = sum_j pi_j s_j^2 E[p_j^2], and curvature
H = sum_j pi_j (s_j^2 E[p_j (1 - p_j)] + (e / a) E[p_j]), so that, n large,

    E tan^2(angle to mu) = V (d - 1) / n,   V = B / (a H)^2.

A single part gives T10 and T11 (there a = 2 (mu - e) / s^2 and B = E[p (1 - p)] s^2).

T13, K classes at the corners of a simplex, softmax regression. With h = half the distance between two class means over sigma, logits of a
sample of class y differ from sqrt(2) h g_k + 2 h^2 [k = y], g_k ~ N(0, 1) independent, by a constant. The information on a coordinate
across the means is alpha (I - 11'/K) with alpha = E[1 - sum_k p_k^2] / (K - 1); the weights are the means over sigma^2, and

    E sum_c ||W_c||^2 / ||W||^2 = V (d - K + 1) / n  over coordinates c across the means,   V = 1 / (2 h^2 alpha).

K = 2 is T10.

T14, l_inf training. Logistic regression against l_inf perturbations of radius e: where sign(w) is fixed, the penalty e ||w||_1 has no
curvature and only moves the class means to soft(mu, e) = sign(mu) max(|mu| - e, 0). Coordinates with |mu_i| < e get weight zero, exactly
so as n grows. On the others it is standard logistic regression on N(+-soft(mu, e), sigma^2 I): T10 at class SNR ||soft(mu, e)|| / sigma,
in the remaining dimensions. If all |mu_i| are equal, the best class SNR moves up by e sqrt(d) / sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from theory._checks import count, finite_array, non_negative, open_unit, positive
from theory.learners import direction_variance, optimal_class_snr
from theory.mixtures import BinaryMixture

Array = np.ndarray[Any, np.dtype[np.float64]]
STEP = 0.01  # of the trapezoidal rule over u, at most; and at most FINE / (a s), for which it errs by e^-30
FINE = 2 * math.pi**2 / 30
MOST_FINER = 200
MOST_SNR = 30.0
MOST_HALF_DISTANCE = 15.0  # for more than two classes


def pooled_direction_variance(means: Any, stds: Any, shares: Any, eps: float = 0.0) -> float:
    """V in E tan^2(angle to mu) = V (d - 1) / n for logistic regression on several parts together (T12), with n samples in total, n large.

    The limit n / d -> infinity; for any n / d, ProportionalLaw takes the same parts. accuracy_from_variance turns V into an accuracy.
    means, stds: (J,), distance of a class mean from the boundary (>= 0) and standard deviation, per part, in one unit. shares: (J,)
    positive, summing to 1. eps: l_2 training radius in that unit.
    Raises ValueError for different shapes, values out of these ranges, a class SNR above 30, shares that do not sum to 1, and
    eps >= the mean of the means: training then returns w = 0.
    """
    mu, s, pi, e = *_parts(means, stds, shares), non_negative(eps, "eps")
    if pi @ mu <= e:
        raise ValueError(f"eps={e:g} >= mean distance from the boundary {pi @ mu:g}: the adversary erases the classes, w = 0")
    reach, step = float(np.max((mu - e) / s).clip(0)) + 9, STEP
    while True:
        u = np.arange(-reach, 9 + step, step)
        weight = pi[:, None] * np.exp(-u * u / 2) * step / math.sqrt(2 * math.pi)
        t = (mu - e)[:, None] + s[:, None] * u
        a = _slope(t, weight)
        if step <= 1.01 * FINE / (a * float(s.max())) or step <= STEP / MOST_FINER:
            break
        step = max(FINE / (a * float(s.max())), STEP / MOST_FINER)
    p = expit(-a * t)
    variance = float((weight * p * p).sum(axis=1) @ s**2)
    curvature = float((weight * p * (1 - p)).sum(axis=1) @ s**2 + e / a * (weight * p).sum())
    return variance / (a * curvature) / (a * curvature)  # the square can be below the smallest number


def _slope(t: Array, weight: Array) -> float:
    """The root a of E[p(a t) t], which decreases in a."""
    from scipy.optimize import brentq  # 0.2 s to import, which `import theory` should not cost

    def gradient(log_a: float) -> float:
        return float((weight * expit(-math.exp(log_a) * t) * t).sum())

    low = high = 0.0
    while gradient(low) <= 0:
        low -= 2
    while gradient(high) > 0:
        high += 2
    return math.exp(float(brentq(gradient, low - 2, high, xtol=1e-13, rtol=1e-14)))


def optimal_synthetic_snr(real_snr: float, share: float, eps: float = 0.0) -> float:
    """The class SNR of synthetic samples, with this share of all samples, that minimises V when added to real ones (T12).

    Synthetic classes have the same standard deviation as the real ones; only their means move. real_snr: class SNR of the real samples.
    share: of synthetic samples among all, in (0, 1). eps: l_2 training radius over sigma. The result is 0 where synthetic samples without
    any class signal help most, like label smoothing: at a small share and a real class SNR of 2.5 to 5 (share 0.01: 3 to 4). As the real
    class SNR grows beyond, real samples hardly count, and the result returns to optimal_class_snr().
    Raises ValueError as pooled_direction_variance; real_snr and eps < 20.
    """
    from scipy.optimize import minimize_scalar  # 0.2 s to import, which `import theory` should not cost

    real, pi, e = positive(real_snr, "real_snr"), open_unit(share, "share"), non_negative(eps, "eps")
    if max(real, e) >= 20:
        raise ValueError(f"real_snr={real:g} and eps={e:g} must be below 20")
    least = max((e - (1 - pi) * real) / pi, 0.0)
    if least >= MOST_SNR - 0.1:
        raise ValueError(
            f"share={pi:g}, eps={e:g}: synthetic samples would need a class SNR above {MOST_SNR:g}; use a larger share"
        )

    def variance(log_excess: float) -> float:
        return math.log(pooled_direction_variance([real, least + math.exp(log_excess)], [1, 1], [1 - pi, pi], e))

    grid = np.linspace(-4, math.log((1 - 1e-9) * MOST_SNR - least), 72)
    i = int(np.argmin([variance(float(x)) for x in grid]))
    if i == 0 and not least:
        return 0.0
    if i == len(grid) - 1:
        raise ValueError(
            f"real_snr={real:g}, share={pi:g}: the best synthetic class SNR lies beyond {MOST_SNR:g}; use a larger share"
        )
    ends = (float(grid[max(i - 1, 0)]), float(grid[min(i + 1, len(grid) - 1)]))
    return least + math.exp(float(minimize_scalar(variance, bounds=ends, method="bounded", options={"xatol": 1e-9}).x))


def multiclass_direction_variance(half_distance: float, classes: int) -> float:
    """V of softmax regression for K classes at the corners of a simplex (T13); for two classes direction_variance(..., "logistic").

    half_distance: half the distance between two class means over sigma: the class SNR of these two classes alone. classes: K >= 2.
    Relative error below 1e-10. Raises ValueError for bad values, and for half_distance above 15, or 30 for two
    classes.
    """
    h, k = positive(half_distance, "half_distance"), count(classes, "classes", 2)
    most = MOST_SNR if k == 2 else MOST_HALF_DISTANCE
    if h > most:
        raise ValueError(
            f"half_distance={h:g} must be at most {most:g} for {k} classes: softmax regression then needs 10^40 samples"
        )
    if k == 2:
        return direction_variance(h, "logistic")
    return (k - 1) / (2 * h * h * _softmax_uncertainty(h, k))


def _softmax_uncertainty(h: float, k: int) -> float:
    """E[1 - sum_k p_k^2] = sum over pairs of E[p_i p_j], with p_i = e^{l_i} / S and 1 / S^2 = int t e^{-t S} dt, t = e^tau.

    Given t the logits are independent, so this is one integral of products of E[e^x exp(-e^x)] and E[exp(-e^x)], x ~ N(tau, 2 h^2), at tau
    and, for the class of the sample, at tau + 2 h^2. Both integrals by the trapezoidal rule, exponentially accurate on the line.
    """
    spread, shift = math.sqrt(2) * h, 2 * h * h
    step = 0.25
    tau = np.arange(-shift / 2 - 9 * spread - 25, 9 * spread + 4, step)
    u = np.arange(-9 - h, 9 + h + 1e-9, min(0.4, 0.35 / spread))
    weight = np.exp(-u * u / 2) * (u[1] - u[0]) / math.sqrt(2 * math.pi)

    def expectations(centre: Array) -> tuple[Array, Array]:
        x = centre[:, None] + spread * u
        kept = np.exp(-np.exp(np.minimum(x, 7.0)))
        return kept @ weight, (np.exp(np.minimum(x, 7.0)) * kept) @ weight

    other, other_weighed = expectations(tau)
    own, own_weighed = expectations(tau + shift)
    pairs = 2 * own_weighed * other_weighed * other ** (k - 2)
    if k > 2:
        pairs += (k - 2) * other_weighed**2 * own * other ** (k - 3)
    return float((k - 1) * pairs.sum() * step)


def optimal_half_distance(classes: int) -> float:
    """The half distance between class means over sigma at which softmax regression learns fastest (T13); 1.2281411 for two classes."""
    from scipy.optimize import minimize_scalar  # 0.2 s to import, which `import theory` should not cost

    if count(classes, "classes", 2) == 2:
        return optimal_class_snr("logistic")
    found = minimize_scalar(lambda h: math.log(multiclass_direction_variance(h, classes)), bounds=(0.5, 6.0), method="bounded")
    return float(found.x)


@dataclass(frozen=True, eq=False)
class LinfTraining:
    """The problem that l_inf adversarial logistic regression really learns (T14). direction: soft(mu, e). class_snr: its norm over sigma.
    active: number of coordinates with nonzero weight. variance: E tan^2(angle to direction) = variance (active - 1) / n."""

    direction: Array
    class_snr: float
    active: int
    variance: float


def linf_training(mixture: BinaryMixture, eps: float) -> LinfTraining:
    """T14 for a mixture with scalar covariance and no |mu_i| equal to eps (there the weight would be zero half of the time).

    eps: l_inf training radius in units of x. Raises ValueError for any other covariance, a prior other than 1/2, |mu_i| = eps, or eps
    at or above every |mu_i|: training then returns w = 0.
    """
    e = non_negative(eps, "eps")
    if mixture.covariance.kind != "scalar":
        raise ValueError(f"the covariance is {mixture.covariance.kind}: this law needs a scalar variance")
    if mixture.prior != 0.5:
        raise ValueError(f"prior={mixture.prior:g}: this law needs balanced classes, prior=0.5")
    size = np.abs(mixture.mean)
    if e and (size == e).any():
        raise ValueError(f"eps={e:g} equals a coordinate of the mean: move it a little, the law jumps there")
    soft = np.sign(mixture.mean) * np.maximum(size - e, 0)
    if not soft.any():
        raise ValueError(f"eps={e:g} is at or above every coordinate of the mean: training returns w = 0")
    snr = float(np.linalg.norm(soft)) / math.sqrt(float(mixture.cov))
    # without a penalty, weights of coordinates without a mean are noise, not zero
    active = int((soft != 0).sum()) if e else mixture.dim
    return LinfTraining(soft, snr, active, direction_variance(snr, "logistic"))


def _parts(means: Any, stds: Any, shares: Any) -> tuple[Array, Array, Array]:
    mu, s, pi = finite_array(means, "means", 1), finite_array(stds, "stds", 1), finite_array(shares, "shares", 1)
    if not len(mu) == len(s) == len(pi) > 0:
        raise ValueError(f"means, stds and shares have lengths {len(mu)}, {len(s)}, {len(pi)}: one of each for every part")
    if mu.min() < 0 or not mu.any():
        raise ValueError(f"means holds {mu.min():g}: all must be >= 0, and one > 0")
    for value, name in ((s, "stds"), (pi, "shares")):
        if value.min() <= 0:
            raise ValueError(f"{name} holds {value.min():g}: all must be > 0")
    if abs(pi.sum() - 1) > 1e-9:
        raise ValueError(f"shares sum to {pi.sum():g}: they must sum to 1")
    if (mu / s).max() > MOST_SNR:
        raise ValueError(f"a part has class SNR {(mu / s).max():g}: it must be at most {MOST_SNR:g}")
    return mu, s, pi
