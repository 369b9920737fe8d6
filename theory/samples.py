"""How many synthetic samples are needed for a target robust accuracy (T4, T5)."""

from __future__ import annotations

from theory._checks import norm_order, open_unit, real_number
from theory._search import smallest_count
from theory.averaging import AveragingLaw
from theory.linear import robust_accuracy
from theory.mixtures import BinaryMixture
from theory.sampled import EXACT_ERROR, MOST_DIM, QuasiMonteCarloLaw
from theory.second_order import SecondOrderLaw
from theory.synthetic import learned_classifier

MOST_SAMPLED = 0.999
"""The largest confidence where points or normal tails decide."""
MOST_INTEGRATED = 1 - 100 * EXACT_ERROR
"""And where an integral does, whose error is absolute."""


def law_of_averages(dim: int) -> type[QuasiMonteCarloLaw] | type[SecondOrderLaw]:
    """The law of the averaging learner for any covariances and norm: sampled up to 200 dimensions, of second order beyond."""
    return QuasiMonteCarloLaw if dim <= MOST_DIM else SecondOrderLaw


def required_samples(
    mixture: BinaryMixture, synthetic: BinaryMixture, *, eps: float, accuracy: float, confidence: float = 0.95, p: float = 2
) -> int:
    """Smallest n with P(robust accuracy >= accuracy) >= confidence for the averaging learner.

    p = 2 and scalar covariances: exact (T4). P increases with n, so bisection finds n: {A >= accuracy >= 1/2} is a convex cone around
    mu that contains the mean direction, and a larger kappa only moves theta deeper into it.
    p = 2, a scalar real covariance and any synthetic one (or eps = 0 and any two), up to 200 dimensions: exact as QuasiMonteCarloLaw says,
    for confidences up to 0.999999.
    Any other p or covariances, up to 200 dimensions: quasi-Monte Carlo with 8,192 points, which misses a confidence of 0.95 by about 0.001;
    confidences above 0.999 are refused, because too few points decide. Beyond, p = 2 or inf: the second-order law (T5),
    which has normal tails: at d = 100, isotropic, a confidence of 0.95 is really 0.95, one of 0.999 about 0.996; more is refused too.

    mixture: the attacked mixture. eps: radius in units of x. The classifier has no bias, so priors do not matter.
    Raises ValueError naming the ceiling, the accuracy at n = infinity, if accuracy is not below it; for an accuracy outside
    [1/2, 1), a confidence outside (0, 1) or too high, a synthetic mean of zero, or another p in more than 200 dimensions.
    """
    (wished, level), order = sample_goal(accuracy, confidence), norm_order(p)
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
        if exact:
            return bool(AveragingLaw(mixture, synthetic, n, eps).cdf(wished) <= 1 - level)
        law = law_of_averages(mixture.dim)(mixture, synthetic, n, eps, order)
        if level > MOST_SAMPLED:
            known = isinstance(law, QuasiMonteCarloLaw) and law.cdf_error(wished) == EXACT_ERROR
            if level > (most := MOST_INTEGRATED if known else MOST_SAMPLED):
                raise ValueError(f"confidence={level:.10g} is too high for this covariance, norm and dimension: use at most {most}")
        return bool(law.cdf(wished) <= 1 - level)

    return smallest_count(confident, f"accuracy={wished:g} (the ceiling is {ceiling:.15g})")


def sample_goal(accuracy: float, confidence: float) -> tuple[float, float]:
    """Both as floats; ValueError for an accuracy outside [1/2, 1) or a confidence outside (0, 1)."""
    wished, level = real_number(accuracy, "accuracy"), open_unit(confidence, "confidence")
    if not 0.5 <= wished < 1:
        raise ValueError(f"accuracy={wished:g} must lie in [0.5, 1): below one half no data are needed")
    return wished, level
