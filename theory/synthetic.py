"""T3: what a learner learns from infinitely many synthetic samples, and which synthetic distribution is therefore optimal."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

from theory._checks import Array, finite_array, non_negative, norm_order, one_of, real_number, same_dimension
from theory.linear import LinearClassifier, robust_accuracy, vector_norm
from theory.mixtures import BinaryMixture
from theory.optimal import bayes_robust_accuracy, bayes_robust_classifier, is_trivial

LEARNERS = ("averaging", "lda", "logistic", "adversarial")


def learned_classifier(
    synthetic: BinaryMixture, learner: str, eps: float = 0.0, p: float = 2, label_noise: float = 0.0
) -> LinearClassifier:
    """The classifier that a learner returns for infinitely many samples of `synthetic` (T3).

    averaging    w = E[y x] = (1 - 2 eta) mu~, b = 0
    lda          w = Sigma~^-1 mu~, b = log(prior / (1 - prior)) / 2
    logistic     the same: the model is well specified, and its log odds are 2 (w.x + b)
    adversarial  w = Sigma~^-1 (mu~ - z~*), the robust optimum of the synthetic mixture at (eps, p). For any decreasing convex margin
                 loss: the robust margin has mean w.mu~ - eps ||w||_q and standard deviation sqrt(w' Sigma~ w); the loss falls with
                 the first and rises with the second, so at any scale the optimum maximises their ratio, which is T2's problem.

    label_noise: probability eta in [0, 1/2) of a flipped label. It scales `averaging`, and does not change the direction of `lda` (its
    pooled covariance gains a multiple of mu~ mu~') and `logistic` (symmetry about mu~ after whitening).
    eps, p: training radius in units of x, and norm, of `adversarial`.
    Raises ValueError for an unknown learner, an eps > 0 of another than `adversarial`, p not in {1, 2, inf}, label_noise outside
    [0, 1/2), label noise with `adversarial` or, for `lda` and `logistic`, with unequal priors (no closed form).
    """
    learner = one_of(learner, "learner", LEARNERS)
    eta = real_number(label_noise, "label_noise")
    if not 0 <= eta < 0.5:
        raise ValueError(f"label_noise={eta:g} must lie in [0, 1/2)")
    if eta and (learner == "adversarial" or (learner != "averaging" and synthetic.prior != 0.5)):
        raise ValueError(
            f"label_noise={eta:g} has no closed form for {learner!r} here: use 0, or balanced classes with lda or logistic"
        )
    norm_order(p)
    if non_negative(eps, "eps") and learner != "adversarial":
        raise ValueError(f"eps={eps:g}: {learner!r} trains without attacks; use 'adversarial', or eps=0")
    if learner == "averaging":
        return LinearClassifier((1 - 2 * eta) * synthetic.mean)
    if learner == "adversarial":
        return bayes_robust_classifier(synthetic, eps, p)
    return LinearClassifier(synthetic.covariance.solve(synthetic.mean), synthetic.log_odds / 2)


def optimality_gap(mixture: BinaryMixture, synthetic: BinaryMixture, eps: float, p: float = 2, learner: str = "averaging") -> float:
    """Robust accuracy lost with infinitely many samples of `synthetic`: A* - A(learned classifier) >= 0 (T3).

    If both mixtures are balanced and eps < ||mu||_p, it is 0 iff the learned direction is a positive multiple of w* of T2; unequal
    synthetic priors also move the threshold. `adversarial` trains at the same (eps, p).
    """
    learned = learned_classifier(synthetic, learner, eps if learner == "adversarial" else 0.0, p)
    return bayes_robust_accuracy(mixture, eps, p) - robust_accuracy(learned, mixture, eps, p)


def optimal_synthetic_mean(mixture: BinaryMixture, eps: float, p: float = 2, learner: str = "averaging") -> Array:
    """Mean mu~ of the synthetic N(y mu~, Sigma), Sigma the real covariance, from which a learner finds the robust optimum (T3).

    averaging      mu~ = projection of mu - z* on w*: c w*, c = w*' Sigma w* / ||w*||^2. For an isotropic Sigma this is mu - z*;
                   for p=inf that is soft(mu, eps): plain averaging on it equals adversarial training on real data. For balanced
                   classes only: averaging learns no threshold, and unequal priors need one (T2).
    lda, logistic  mu~ = mu - z*, since Sigma^-1 (mu - z*) = w*.
    adversarial    mu~ = mu: adversarial training needs no help from the data.

    This is the limit of many samples. For p = 2 it is approached at rate 1/n; for p = inf and 1, where w* has zeros or ties that
    sampling noise breaks, at rate 1/sqrt(n).

    Returns (d,). Raises ValueError if eps >= ||mu||_p (nothing is robust), for an unknown learner, p not in {1, 2, inf}, and for
    averaging with unequal priors.
    """
    learner = one_of(learner, "learner", LEARNERS)
    if is_trivial(mixture, eps, p):
        raise ValueError(
            f"eps={eps:g} >= ||mean||_{norm_order(p):g}: no classifier beats guessing, so no synthetic mean is optimal; use a smaller eps"
        )
    if learner == "averaging" and mixture.prior != 0.5:
        raise ValueError(
            f"prior={mixture.prior:g}: averaging learns no threshold, so no synthetic mean makes it optimal for unequal priors; use lda or "
            "logistic, or balanced classes"
        )
    w = bayes_robust_classifier(mixture, eps, p).weights
    if learner == "adversarial":
        return np.array(mixture.mean)
    shifted_mean = mixture.covariance.matvec(w)  # Sigma w* = mu - z*
    if learner == "averaging":
        return np.asarray(w * ((w @ shifted_mean) / (w @ w)))
    return shifted_mean


def direction_cosine(left: Any, right: Any) -> float:
    """Cosine of the angle between two directions (d,), in [-1, 1]; raises ValueError if one of them is zero or not a vector."""
    first, second = finite_array(left, "left", 1), finite_array(right, "right", 1)
    same_dimension(len(first), len(second), "left and right")
    lengths = vector_norm(first, 2), vector_norm(second, 2)
    if not min(lengths) > 0:
        raise ValueError("a direction is zero: its angle is undefined")
    return float(np.clip((first / lengths[0]) @ (second / lengths[1]), -1, 1))


def misalignment_ceiling(mixture: BinaryMixture, cosine: float, eps: float) -> float:
    """Highest l_2-robust accuracy of a direction at angle arccos(cosine) to mu: Phi((cosine ||mu|| - eps) / sigma) (T3b).

    Neither more samples nor larger class separation raises it. For isotropic mixtures and a balanced threshold b = 0.
    Raises ValueError for a covariance that is not scalar, |cosine| > 1, eps < 0.
    """
    rho = real_number(cosine, "cosine")
    if abs(rho) > 1:
        raise ValueError(f"cosine={rho:g} must lie in [-1, 1]")
    if mixture.covariance.kind != "scalar":
        raise ValueError(f"the covariance is {mixture.covariance.kind}: the ceiling's closed form needs a scalar variance")
    return float(ndtr((rho * np.linalg.norm(mixture.mean) - non_negative(eps, "eps")) / np.sqrt(mixture.cov)))
