"""How many synthetic samples are needed for a target robust accuracy (T4, T5)."""

from __future__ import annotations

from theory._checks import norm_order, open_unit, real_number
from theory._search import smallest_count
from theory.averaging import AveragingLaw
from theory.linear import robust_accuracy
from theory.mixtures import BinaryMixture
from theory.second_order import SecondOrderLaw
from theory.synthetic import learned_classifier


def required_samples(
    mixture: BinaryMixture, synthetic: BinaryMixture, *, eps: float, accuracy: float, confidence: float = 0.95, p: float = 2
) -> int:
    """Smallest n with P(robust accuracy >= accuracy) >= confidence for the averaging learner.

    p = 2 and scalar covariances: exact (T4). P increases with n, so bisection finds n: {A >= accuracy >= 1/2} is a convex cone around
    mu that contains the mean direction, and a larger kappa only moves theta deeper into it.
    p = inf, or other covariances with p = 2 or inf: the second-order law (T5), which has normal tails. Measured in l_inf, isotropic,
    accuracy 0.02 below the ceiling: a confidence of 0.95 is really 0.93 (d = 10) to 0.95 (d = 100), one of 0.999 is 0.993 (d = 10) to
    0.996 (d = 50). Ask for 0.95, or increase n by a tenth.

    mixture: the attacked mixture. eps: radius in units of x. The classifier has no bias, so priors do not matter.
    Raises ValueError naming the ceiling, the accuracy at n = infinity, if accuracy is not below it; for an accuracy outside
    [1/2, 1), a confidence outside (0, 1), a synthetic mean of zero, or any other p.
    """
    wished, level, order = real_number(accuracy, "accuracy"), open_unit(confidence, "confidence"), norm_order(p)
    if not 0.5 <= wished < 1:
        raise ValueError(f"accuracy={wished:g} must lie in [0.5, 1): below one half no data are needed")
    if not synthetic.mean.any():
        raise ValueError("synthetic.mean is zero: its samples carry no direction, whatever their number")
    ceiling = robust_accuracy(learned_classifier(synthetic, "averaging"), mixture, eps, order)
    if wished >= ceiling:
        raise ValueError(
            f"accuracy={wished:g} is out of reach: at eps={eps:g} the ceiling at n = infinity is {ceiling:.6g}; "
            "ask for less, lower eps or align the synthetic mean with the real optimum"
        )
    exact = order == 2 and mixture.covariance.kind == synthetic.covariance.kind == "scalar"

    def confident(n: int) -> bool:
        law = AveragingLaw(mixture, synthetic, n, eps) if exact else SecondOrderLaw(mixture, synthetic, n, eps, order)
        return bool(law.cdf(wished) <= 1 - level)

    return smallest_count(confident, f"accuracy={wished:g} (the ceiling is {ceiling:.15g})")
