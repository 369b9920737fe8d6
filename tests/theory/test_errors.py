"""Bad input: one ValueError naming the value, the cause and the remedy."""

import math
import re

import numpy as np
import pytest

import theory as t

GOOD = t.BinaryMixture([1.0, 0.5])
FULL = t.BinaryMixture([1.0, 0.5], [[1.0, 0.2], [0.2, 1.0]])

CASES = [
    (lambda: t.BinaryMixture([1.0, 2.0], [[1.0, 0.5], [0.1, 1.0]]), "not symmetric.*0.4.*cov . cov.T"),
    (lambda: t.BinaryMixture([1.0, 2.0], [[1.0, 0.1], [0.100001, 1.0]]), "not symmetric.*1e-06"),
    (lambda: t.BinaryMixture(np.ones(3), [[1e12, 0, 0], [0, 1, 0.5], [0, -0.5, 1]]), "not symmetric.*reaches 1;"),
    (lambda: t.BinaryMixture([1.0], True), "not real numbers"),
    (lambda: t.GaussianMixture([[1.0]], None), "covs is None"),
    (lambda: t.GaussianMixture(np.empty((0, 2)), 1.0), "no rows"),
    (lambda: t.direction_cosine([1.0, np.nan], [1.0, 1.0]), "left contains nan"),
    (lambda: t.direction_cosine(1.0, [1.0, 1.0]), "left has shape"),
    (lambda: t.duality_gap(GOOD, [1.0, 1.0], -0.1, 2), "eps=-0.1 is negative"),
    (lambda: t.duality_gap(GOOD, [1.0], 0.1, 2), "dimensions 1 and 2"),
    (lambda: t.duality_gap(GOOD, [0.0, 0.0], 0.1, 2), "weights are zero"),
    (lambda: t.AveragingLaw(GOOD, GOOD, 10**400, 0.1), "n has 401 digits"),
    (lambda: t.AveragingLaw(GOOD, GOOD, 5, 0.1).angle_cdf(math.nan), "psi contains NaN"),
    (lambda: t.SecondOrderLaw(GOOD, GOOD, 5, 0.1, 2).cdf(math.nan), "a contains NaN"),
    (lambda: t.learned_classifier(GOOD, np.array(["lda", "lda"])), "unknown learner"),
    (lambda: t.optimal_synthetic_mean(GOOD, 0.1, 3, "adversarial"), "p=3.*p = 1, 2 and inf"),
    (lambda: t.BinaryMixture([1.0, 2.0], [[1.0, 2.0], [2.0, 1.0]]), "not positive definite.*-1.*shrinkage"),
    (lambda: t.BinaryMixture([1.0, 2.0], [1.0, 0.0]), "variance 0.*> 0"),
    (lambda: t.BinaryMixture([1.0, 2.0], -1.0), "variance -1.*> 0"),
    (lambda: t.BinaryMixture([1.0, math.nan]), r"mean contains nan at index \(1,\).*remove"),
    (lambda: t.BinaryMixture([1.0, 2.0], [1.0, math.inf]), r"cov contains inf at index \(1,\)"),
    (lambda: t.BinaryMixture([1.0, 2.0], [1.0, 1.0, 1.0]), "dimensions 3 and 2.*equal"),
    (lambda: t.BinaryMixture([1.0, 2.0], np.ones((2, 3))), "must be square"),
    (lambda: t.BinaryMixture([[1.0]]), r"mean has shape \(1, 1\).*1-d"),
    (lambda: t.BinaryMixture([]), "empty"),
    (lambda: t.BinaryMixture(["a", "b"]), "not real numbers"),
    (lambda: t.BinaryMixture([1.0, 2.0j]), "not real numbers"),
    (lambda: t.BinaryMixture([[1.0], [1.0, 2.0]]), "ragged|real numbers"),
    (lambda: t.BinaryMixture([1.0], prior=1.0), "prior=1 must lie strictly between 0 and 1"),
    (lambda: t.LinearClassifier([1.0, math.nan]), "weights contains nan"),
    (lambda: t.LinearClassifier([1.0], math.inf), "bias=inf"),
    (lambda: t.robust_accuracy(t.LinearClassifier([1.0]), GOOD), "classifier and mixture have dimensions 1 and 2"),
    (lambda: t.robust_accuracy(t.LinearClassifier([1.0, 1.0]), GOOD, -0.1), "eps=-0.1 is negative"),
    (lambda: t.robust_accuracy(t.LinearClassifier([1.0, 1.0]), GOOD, math.nan), "eps=nan is not a finite"),
    (lambda: t.robust_accuracy(t.LinearClassifier([1.0, 1.0]), GOOD, 0.1, 0.5), "p=0.5 is not a norm"),
    (lambda: t.robust_accuracy(t.LinearClassifier([1.0, 1.0]), GOOD, 0.1, "2"), "p='2' is not a norm"),
    (lambda: t.robust_accuracy(t.LinearClassifier([1.0, 1.0]), GOOD, 0.1, math.nan), "p=nan is not a norm"),
    (lambda: t.worst_case_perturbation(t.LinearClassifier([1.0]), [1.0, 0.0], 0.1), "contains 0: labels must be -1 or"),
    (lambda: t.LinearClassifier([1.0]).predict([[1.0, 2.0]]), "x and weights have dimensions 2 and 1"),
    (lambda: t.bayes_robust_classifier(GOOD, -1.0), "eps=-1 is negative"),
    (lambda: t.bayes_robust_classifier(GOOD, 0.1, 1.5), "p=1.5.*p = 1, 2 and inf"),
    (lambda: t.learned_classifier(GOOD, "logistics"), "unknown learner 'logistics'.*did you mean 'logistic'"),
    (lambda: t.learned_classifier(GOOD, "lda", label_noise=0.5), r"label_noise=0.5.*\[0, 1/2\)"),
    (lambda: t.learned_classifier(GOOD, "adversarial", 0.1, label_noise=0.1), "no closed form"),
    (lambda: t.learned_classifier(GOOD, "logistic", 0.5), "eps=0.5: 'logistic' trains without attacks; use 'adversarial'"),
    (lambda: t.learned_classifier(GOOD, "lda", -1), "eps=-1 is negative"),
    (lambda: t.learned_classifier(GOOD, "lda", p=0.3), "p=0.3"),
    (lambda: t.AveragingLaw(GOOD, t.BinaryMixture([1.0, 2.0], [1.0, 2.0]), 5, 0.1), "SecondOrderLaw with p=2"),
    (lambda: t.gaussian_nodes(2.5, 256), "dim=2.5 must be a whole number"),
    (lambda: t.optimal_synthetic_mean(GOOD, 5.0), "no classifier beats guessing.*smaller eps"),
    (lambda: t.misalignment_ceiling(FULL, 1.0, 0.1), "full.*needs a scalar"),
    (lambda: t.misalignment_ceiling(GOOD, 1.2, 0.1), "cosine=1.2"),
    (lambda: t.direction_cosine(np.zeros(2), np.ones(2)), "zero: its angle is undefined"),
    (lambda: t.AveragingLaw(GOOD, FULL, 5, 0.1), "synthetic has a full covariance.*SecondOrderLaw"),
    (lambda: t.AveragingLaw(GOOD, t.BinaryMixture([1.0]), 5, 0.1), "dimensions 2 and 1"),
    (lambda: t.AveragingLaw(GOOD, GOOD, 2.5, 0.1), "n=2.5 must be a whole number >= 0"),
    (lambda: t.AveragingLaw(GOOD, GOOD, 0, 0.1), "at least one sample"),
    (lambda: t.AveragingLaw(GOOD, GOOD, -3, 0.1), "n=-3"),
    (lambda: t.AveragingLaw(t.BinaryMixture([0.0, 0.0]), GOOD, 5, 0.1), "mixture.mean is zero"),
    (lambda: t.AveragingLaw(GOOD, GOOD, 5, 0.1).quantile(1.0), "q=1 must lie strictly"),
    (lambda: t.AveragingLaw(GOOD, GOOD, 5, 0.1).cdf(math.nan), "NaN"),
    (lambda: t.required_samples(GOOD, GOOD, eps=0.1, accuracy=0.3), r"accuracy=0.3 must lie in \[0.5, 1\)"),
    (lambda: t.required_samples(GOOD, GOOD, eps=0.1, accuracy=0.8, confidence=1.0), "confidence=1 must lie strictly"),
    (lambda: t.required_samples(GOOD, t.BinaryMixture([0.0, 0.0]), eps=0.1, accuracy=0.8), "carry no direction"),
    (lambda: t.SecondOrderLaw(GOOD, GOOD, 5, 0.1, 1), "p=1: the second-order law covers"),
    (lambda: t.SecondOrderLaw(GOOD, GOOD, 0, 0.1, 2), "n=0 must be a whole number >= 1"),
    (lambda: t.robust_sample_gap(100, 5.0, eps=0.6), "eps=0.6 must lie in"),
    (lambda: t.robust_sample_gap(100, 5.0, eps=0.25, accuracy=0.999999), "out of reach.*ceiling.*0.9"),
    (lambda: t.schmidt_mixture(100, 0.0), "n0=0 must be > 0"),
    (lambda: t.distinguishability_frontier(GOOD, -1.0), "radius=-1 is negative"),
    (lambda: t.distinguishability_frontier(t.BinaryMixture([0.0]), 1.0), "mixture.mean is zero"),
    (lambda: t.GaussianMixture([[1.0], [2.0]], [1.0, 1.0], [0.5, 0.6]), "sum to 1.1"),
    (lambda: t.GaussianMixture([[1.0], [2.0]], [1.0, 1.0, 1.0]), "dimensions 3 and 2"),
    (lambda: t.GaussianMixture([[1.0], [2.0]], 1.0).score(np.ones((2, 1)), 0.0), "alpha_bar=0 must lie in"),
    (lambda: t.GaussianMixture([[1.0], [2.0]], 1.0).score(np.ones((2, 1)), 0.5, np.array([0, 2])), r"labels must lie in 0\.\.1"),
    (lambda: t.GaussianMixture([[1.0], [2.0]], 1.0).score(np.ones((2, 2))), "x and means have dimensions 2 and 1"),
    (lambda: t.multiclass_robust_accuracy(np.ones((2, 1)), np.zeros(2), t.GaussianMixture([[1.0], [2.0]], 1.0)), "equal weights"),
    (lambda: t.multiclass_robust_accuracy(np.ones((3, 1)), np.zeros(2), t.GaussianMixture([[1.0], [2.0]], 1.0)), "do not fit"),
    (lambda: t.ddim_law(0.0, 0.0, [0.5, 1.0]), "std=0 must be > 0"),
    (lambda: t.ddim_law(0.0, 1.0, [1.0, 0.5]), "non-decreasing"),
    (lambda: t.ddim_law(0.0, 1.0, [0.5]), "at least two"),
    (lambda: t.ddim_law([0.0, 1.0], [1.0, 1.0, 1.0], [0.5, 1.0]), "do not fit"),
    (lambda: t.ddim_law([0.0, 1.0], 1.0, [0.5, 1.0], np.ones((3, 2))), "do not fit"),
    (lambda: t.direction_variance(1.0, "svm"), "unknown learner 'svm'.*averaging, lda, logistic"),
    (lambda: t.direction_variance(0.0, "lda"), "class_snr=0 must be > 0"),
    (lambda: t.direction_variance(1.0, "lda", 0.5), "logistic learner only"),
    (lambda: t.direction_variance(1.0, "logistic", 1.0), "the adversary erases the classes"),
    (lambda: t.optimal_class_snr("averaging", 0.5), "logistic learner only"),
    (lambda: t.large_sample_accuracy(FULL, 1.0, "lda", 100), "needs a scalar variance"),
]


@pytest.mark.parametrize(("call", "pattern"), CASES, ids=[pattern[:40] for _, pattern in CASES])
def test_one_clear_line(call, pattern):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    message = str(caught.value)
    assert re.search(pattern, message), message
    assert "\n" not in message


def test_frozen_objects_do_not_change_under_the_caller():
    mean, cov = np.array([1.0, 2.0]), np.eye(2)
    mixture = t.BinaryMixture(mean, cov)
    mean[0], cov[0, 0] = 7.0, 9.0
    assert mixture.mean[0] == mixture.cov[0, 0] == 1.0
    for array in (mixture.mean, mixture.cov, t.LinearClassifier(mean).weights):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5.0
    x = np.zeros((1, 2))
    t.LinearClassifier([1.0, 1.0]).score(x)
    x[0, 0] = 1.0  # the caller's own arrays stay writable


def test_numbers_may_be_zero_dimensional_arrays():
    classifier = t.LinearClassifier([1.0, 1.0])
    assert t.robust_accuracy(classifier, GOOD, np.array(0.1), np.array(2)) == t.robust_accuracy(classifier, GOOD, 0.1, 2)


def test_extreme_arguments_have_answers():
    assert t.direction_variance(1e-200, "averaging") == math.inf
    assert t.optimal_class_snr(eps=1e10) == pytest.approx(1e10)


@pytest.mark.parametrize("unit", [1e-40, 1e40])
@pytest.mark.parametrize(
    "ask",
    [
        lambda one: t.SecondOrderLaw(one, one, 5, 0.0, p=2),
        lambda one: t.QuasiMonteCarloLaw(one, one, 5, 0.0),
        lambda one: t.bayes_robust_accuracy(one, 0.0),
        lambda one: t.distinguishability_frontier(one, 0.0),
    ],
)
def test_units_beyond_floating_point_are_refused(ask, unit):
    """Powers of the spread left its range: 1.0 for 0.744, 4 samples for 12, 0.5 for 0.78, without a word."""
    one = t.BinaryMixture(np.array([1.0, 0.5]) * unit, np.array([1.0, 2.0]) * unit**2)
    with pytest.raises(ValueError, match="give x in units in which both lie below 1e30"):
        ask(one)
    ask(t.BinaryMixture(np.array([1.0, 0.5]) * 1e-25, np.array([1.0, 2.0]) * 1e-50))
