"""T10 and T11: what class separation is worth to averaging, LDA, and standard and adversarial logistic regression.

Balanced isotropic classes N(+-c mu, sigma~^2 I), class SNR kappa_1 = c ||mu|| / sigma~ of one sample, n large:

    E tan^2(angle between w and mu) = V(kappa_1) (d - 1) / n.

averaging  V = 1 / kappa_1^2: noise sigma~ across mu, signal c ||mu|| along it.
lda        V = (1 + kappa_1^2) / kappa_1^2: the off-diagonal error of the pooled covariance adds 1 to the error of the mean.
logistic   V = 1 / (4 kappa_1^2 E[p q]): inverse Fisher information across mu (Efron 1975), where p q is the variance of a label given x.
adversarial logistic, l_2 radius e = eps~ / sigma~ < kappa_1, k = kappa_1 - e (M-estimation: sandwich B / H^2 across mu):
           score variance B = E[p^2] = E[p q] =: Q (the robust margins are those of a well-specified model with mean k);
           curvature H = 2 k Q + e E[p], the second part from eps~ ||w||; and E[p] = 2 Q, so H = 2 kappa_1 Q and
           V = 1 / (4 kappa_1^2 Q(k)).
Here p(u) = 1 / (1 + exp(2 k^2 + 2 k u)), u ~ N(0, 1). Substituting v = k + u and keeping the even part,

    Q(k) = exp(-k^2 / 2) E[sech(k Z)] / 4 and E[p] = 2 Q(k),

so one law covers both: V = exp(k^2 / 2) / (kappa_1^2 E[sech(k Z)]). It has a minimum: logistic-type learners learn from samples near the
boundary, so with very many samples, well separated data should be made less separated. Adversarial training moves the optimum up.

These are limits of T16 for n / d -> infinity. For logistic regression they need n / d far above the number at which the classes stop being
separable, which grows like exp(kappa_1^2 / 2). Below, a second valley opens at large separation; with few samples it is the deeper one
(theory/proportional.py).
"""

from __future__ import annotations

import math
import warnings
from typing import overload

import numpy as np
from scipy.special import ndtr

from theory._checks import count, non_negative, one_of, positive
from theory.averaging import AveragingLaw, chi_quadrature
from theory.mixtures import BinaryMixture
from theory.proportional import FEWEST, MOST, ClassSnrOptimum, ProportionalLaw, best_class_snr
from theory.proportional import MOST_SNR as MOST_PROPORTIONAL_SNR

DIRECTION_LEARNERS = ("averaging", "lda", "logistic")


def direction_variance(class_snr: float, learner: str, eps: float = 0.0) -> float:
    """V in E tan^2(angle to mu) = V (d - 1) / n as n grows, for balanced isotropic aligned classes (T10, T11).

    class_snr: kappa_1 = ||mu~|| / sigma~ > 0. learner: "averaging", "lda" or "logistic". eps: l_2 training radius over sigma~, for
    "logistic" only. Returns inf if the value exceeds the floating-point range (kappa_1 - eps above 37).
    Holds to 1 % from n / d = large_sample_threshold(class_snr, learner, eps) on; below, use ProportionalLaw.
    Raises ValueError for an unknown learner, for eps with another learner, or for eps >= class_snr, where the population optimum is w = 0.
    """
    learner, snr, radius = (
        one_of(learner, "learner", DIRECTION_LEARNERS),
        positive(class_snr, "class_snr"),
        non_negative(eps, "eps"),
    )
    if learner != "logistic":
        if radius:
            raise ValueError(f"eps={radius:g} applies to the logistic learner only: use eps=0 with {learner!r}")
        return (1 / snr) * (1 / snr) + (1.0 if learner == "lda" else 0.0)
    k = snr - radius
    if k <= 0:
        raise ValueError(f"eps={radius:g} >= class_snr={snr:g}: the adversary erases the classes and training returns w = 0")
    log_variance = k * k / 2 - 2 * math.log(snr) - math.log(_mean_sech(k)[0])
    return math.exp(log_variance) if log_variance < 709 else math.inf


def large_sample_threshold(class_snr: float, learner: str = "logistic", eps: float = 0.0) -> float:
    """The smallest n / d from which V d / n is within 1 % of tan^2(angle) in T16; inf if it is above 10^15. averaging: 0, they are equal.

    Logistic regression: 198 at class SNR 1.23, 737 at 2, 10,300 at 3, 396,000 at 4. Errors as in direction_variance.
    """
    variance = direction_variance(class_snr, learner, eps)
    if learner == "averaging":
        return 0.0
    if learner == "lda":
        return 101.0  # tan^2 = V / (n / d - 1)
    if class_snr > MOST_PROPORTIONAL_SNR or not math.isfinite(variance):
        return math.inf
    from scipy.optimize import brentq

    def excess(log_ratio: float) -> float:
        law = ProportionalLaw(class_snr, math.exp(log_ratio), learner, eps=eps)
        return (law.across / law.along) ** 2 * math.exp(log_ratio) / variance - 1

    high, last = math.log(MOST) - 0.5, math.log(MOST) - 0.5
    while abs(excess(high)) < 0.01 and high > 0.0:  # downwards, because the error may change its sign where n / d is small
        last, high = high, high - math.log(2)
    if last == high:
        return math.inf
    if abs(excess(high)) < 0.01:
        return math.exp(high)
    sign = math.copysign(0.01, excess(high))
    return math.exp(float(brentq(lambda x: excess(x) - sign, high, last, xtol=1e-4)))


LARGEST = 10.0


@overload
def optimal_class_snr(learner: str = "logistic", eps: float = 0.0) -> float: ...
@overload
def optimal_class_snr(
    learner: str = "logistic", eps: float = 0.0, *, samples_per_dim: float, ridge: float = 0.0, largest: float = LARGEST
) -> ClassSnrOptimum: ...
def optimal_class_snr(
    learner: str = "logistic",
    eps: float = 0.0,
    *,
    samples_per_dim: float | None = None,
    ridge: float = 0.0,
    largest: float = LARGEST,
) -> float | ClassSnrOptimum:
    """The class SNR of the samples that teach the direction best. Which it is depends on the number of samples per dimension.

    samples_per_dim: n / d; the answer is then a ClassSnrOptimum (T16), with the global optimum over class SNRs up to `largest` and the
    local one, for any learner of ProportionalLaw and any ridge.
    Without samples_per_dim: the limit n / d -> infinity without a ridge (T10, T11), a number. Logistic: the root of
    d log V / d kappa_1 = k - 2 / kappa_1 - S'(k) / S(k), S(k) = E[sech(k Z)], k = kappa_1 - eps: 1.2281411 at eps = 0, rising with eps.
    averaging, lda: inf. eps: l_2 training radius over sigma~. Errors as in direction_variance and ProportionalLaw.
    """
    if samples_per_dim is not None:
        return best_class_snr(positive(samples_per_dim, "samples_per_dim"), learner, ridge, eps, largest)
    if ridge:
        raise ValueError(f"ridge={ridge:g}: has no effect as n grows without bound; give samples_per_dim too")
    if largest != LARGEST:
        raise ValueError(f"largest={largest:g}: has no effect as n grows without bound; give samples_per_dim too")
    learner, radius = one_of(learner, "learner", DIRECTION_LEARNERS), non_negative(eps, "eps")
    if learner != "logistic":
        if radius:
            raise ValueError(f"eps={radius:g} applies to the logistic learner only: use eps=0 with {learner!r}")
        return math.inf
    from scipy.optimize import brentq  # imported here because it takes 0.2 s, which `import theory` should not

    def slope(k: float) -> float:
        value, derivative = _mean_sech(k)
        return k - 2 / (k + radius) - derivative / value

    return float(radius + brentq(slope, 0.1 / (1 + radius), 2.0, xtol=1e-14, rtol=1e-14))


def large_sample_accuracy(
    mixture: BinaryMixture, class_snr: float, learner: str, n: int, *, eps: float = 0.0, training_eps: float = 0.0
) -> float:
    """Mean l_2-robust accuracy after training on n aligned samples with class SNR kappa_1, for large n (T10, T11).

    See accuracy_from_variance, with the V of direction_variance.

    mixture: the attacked mixture, with scalar covariance. eps: attack radius in units of x. training_eps: l_2 training radius over
    sigma~ (logistic only). Valid to first order in d V / n.
    Warns if the law for any n / d (T16; averaging: the exact law, T4) gives an accuracy that differs by more than 0.01.
    Errors as in direction_variance; ValueError for another covariance.
    """
    samples, radius = count(n, "n"), non_negative(eps, "eps")
    accuracy = accuracy_from_variance(mixture, direction_variance(class_snr, learner, training_eps), samples, eps=radius)
    if learner == "averaging":
        _warn_if_not_exact(mixture, class_snr, samples, radius, accuracy)
    elif mixture.dim > 1:
        _warn_if_few(mixture, class_snr, learner, samples, radius, training_eps, accuracy)
    return accuracy


def accuracy_from_variance(mixture: BinaryMixture, variance: float, n: int, *, eps: float = 0.0) -> float:
    """Mean l_2-robust accuracy of a learner whose tan^2(angle to mu) is about V chi^2_{d-1} / n, n large (T10 to T13, two classes).

    tan(angle) ~ sqrt(V / n) chi_{d-1}, so E[A] = E Phi((||mu|| / sqrt(1 + tan^2) - eps) / sigma): T3's ceiling at the random cosine.

    mixture: the attacked mixture, with scalar covariance. variance: V, of direction_variance or pooled_direction_variance. eps: attack
    radius in units of x. V says nothing of n: below the n / d where its law holds (large_sample_threshold), use ProportionalLaw.
    Raises ValueError for another covariance, V <= 0 and n < 1.
    """
    samples, radius = count(n, "n"), non_negative(eps, "eps")
    spread = math.inf if variance == math.inf else positive(variance, "variance")
    if mixture.covariance.kind != "scalar":
        raise ValueError(f"the covariance is {mixture.covariance.kind}: this law needs a scalar variance")
    cosine, weights = np.ones(1), np.ones(1)
    if mixture.dim > 1:
        chi, weights = chi_quadrature(mixture.dim - 1)
        cosine = 1 / np.hypot(1, math.sqrt(spread / samples) * chi)
    return float(weights @ ndtr((np.linalg.norm(mixture.mean) * cosine - radius) / math.sqrt(mixture.cov)))


def _warn_if_few(
    mixture: BinaryMixture, class_snr: float, learner: str, n: int, eps: float, training_eps: float, accuracy: float
) -> None:
    """Warn if T16 gives another accuracy: n / d, counted over the d - 1 directions across mu, is then too small for the limit."""
    ratio = max(n / (mixture.dim - 1), FEWEST)
    far = class_snr > MOST_PROPORTIONAL_SNR
    if (far or ratio > MOST) and not math.isfinite(direction_variance(class_snr, learner, training_eps)):
        warnings.warn(f"class_snr={class_snr:g}: such samples are separable for any n; use ProportionalLaw", stacklevel=3)
        return
    if ratio > MOST:
        return
    law_snr = min(class_snr, MOST_PROPORTIONAL_SNR)  # further away hardly anything changes, if as much is left of the margin
    law_eps = max(training_eps - (class_snr - law_snr), 0.0)
    exact = ndtr(-eps / math.sqrt(mixture.cov)) if learner == "lda" and ratio <= 1 else (
        ProportionalLaw(law_snr, ratio, learner, eps=law_eps).robust_accuracy(mixture, eps)
    )  # fmt: skip
    if abs(exact - accuracy) > 0.01:
        least = large_sample_threshold(class_snr, learner, training_eps) * (mixture.dim - 1)
        at = f" at class SNR {law_snr:g}" * far + f" and eps {law_eps:g}" * (far and training_eps > 0)
        more = f", or n >= {least:.3g}" if math.isfinite(least) else ""
        warnings.warn(
            f"n={n} is too small for this law: it gives {accuracy:.3f}, ProportionalLaw{at} {exact:.3f}; use that{more}",
            stacklevel=3,
        )


def _warn_if_not_exact(mixture: BinaryMixture, class_snr: float, n: int, eps: float, accuracy: float) -> None:
    """Warn if T4 gives another accuracy of averaging: class_snr sqrt(n) is then small, and the averaged direction may point backwards."""
    length = float(np.linalg.norm(mixture.mean))
    along = mixture.mean / length if length else np.eye(mixture.dim)[0]
    exact = AveragingLaw(mixture, BinaryMixture(class_snr * along), n, eps).mean()
    if abs(exact - accuracy) > 0.01:
        warnings.warn(f"n={n} is too small for this law: it gives {accuracy:.3f}, AveragingLaw {exact:.3f}; use that", stacklevel=3)


def _mean_sech(k: float) -> tuple[float, float]:
    """S(k) = E[sech(k Z)] and S'(k), Z ~ N(0, 1), by the trapezoidal rule (exponentially accurate on the line)."""
    reach = min(9.0, 45 / max(k, 1.0))
    z = np.linspace(-reach, reach, 801)
    weight = np.exp(-z * z / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    sech = 1 / np.cosh(k * z)
    return float(weight @ sech), float(weight @ (-z * np.tanh(k * z) * sech))
