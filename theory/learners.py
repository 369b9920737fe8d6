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
boundary, so well separated data should be made less separated. Adversarial training moves the optimum up.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from theory._checks import count, non_negative, one_of, positive
from theory.averaging import chi_quadrature
from theory.mixtures import BinaryMixture

DIRECTION_LEARNERS = ("averaging", "lda", "logistic")


def direction_variance(class_snr: float, learner: str, eps: float = 0.0) -> float:
    """V in E tan^2(angle to mu) = V (d - 1) / n as n grows, for balanced isotropic aligned classes (T10, T11).

    class_snr: kappa_1 = ||mu~|| / sigma~ > 0. learner: "averaging", "lda" or "logistic". eps: l_2 training radius over sigma~, for
    "logistic" only. Returns inf if the value exceeds the floating-point range (kappa_1 - eps above 37).
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


def optimal_class_snr(learner: str = "logistic", eps: float = 0.0) -> float:
    """The class SNR at which one sample teaches the direction best; inf if more is always better (T10, T11).

    Logistic: root of d log V / d kappa_1 = k - 2 / kappa_1 - S'(k) / S(k), S(k) = E[sech(k Z)], k = kappa_1 - eps.
    1.2281411 at eps = 0, rising with eps; eps: l_2 training radius over sigma~. Errors as in direction_variance.
    """
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
    mixture: BinaryMixture, class_snr: float, learner: str, n: int, eps: float = 0.0, training_eps: float = 0.0
) -> float:
    """Mean l_2-robust accuracy after training on n aligned samples with class SNR kappa_1, for large n (T10, T11).

    tan(angle) ~ sqrt(V / n) chi_{d-1}, so E[A] = E Phi((||mu|| / sqrt(1 + tan^2) - eps) / sigma): T3's ceiling at the random cosine.

    mixture: the attacked mixture, with scalar covariance. eps: attack radius in units of x. training_eps: l_2 training radius over
    sigma~ (logistic only). Valid to first order in d V / n. Errors as in direction_variance; ValueError for another covariance.
    """
    samples, radius = count(n, "n"), non_negative(eps, "eps")
    variance = direction_variance(class_snr, learner, training_eps)
    if mixture.covariance.kind != "scalar":
        raise ValueError(f"the covariance is {mixture.covariance.kind}: this law needs a scalar variance")
    cosine, weights = np.ones(1), np.ones(1)
    if mixture.dim > 1:
        chi, weights = chi_quadrature(mixture.dim - 1)
        cosine = 1 / np.hypot(1, math.sqrt(variance / samples) * chi)
    return float(weights @ ndtr((np.linalg.norm(mixture.mean) * cosine - radius) / math.sqrt(mixture.cov)))


def _mean_sech(k: float) -> tuple[float, float]:
    """S(k) = E[sech(k Z)] and S'(k), Z ~ N(0, 1), by the trapezoidal rule (exponentially accurate on the line)."""
    reach = min(9.0, 45 / max(k, 1.0))
    z = np.linspace(-reach, reach, 801)
    weight = np.exp(-z * z / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    sech = 1 / np.cosh(k * z)
    return float(weight @ sech), float(weight @ (-z * np.tanh(k * z) * sech))
