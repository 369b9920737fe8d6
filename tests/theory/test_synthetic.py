"""T3: infinite-sample learners against the population problems solved numerically, and optimality of the synthetic mean."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from simulations.mixtures.learners import fit_adversarial, fit_averaging, fit_lda, fit_logistic
from tests.theory.conftest import random_mixture
from theory import (
    BinaryMixture,
    LinearClassifier,
    bayes_robust_accuracy,
    bayes_robust_classifier,
    direction_cosine,
    learned_classifier,
    misalignment_ceiling,
    optimal_synthetic_mean,
    optimality_gap,
    robust_accuracy,
)


def population_adversarial(mixture, eps, p):
    """Minimise the logistic loss of the robust margin, a Gaussian expectation by Gauss-Hermite quadrature, over w directly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    q = {2: 2, np.inf: 1}[p]
    cov = mixture.cov if mixture.cov.ndim == 2 else np.diag(np.broadcast_to(mixture.cov, mixture.dim))

    def loss(w):
        margin = w @ mixture.mean - eps * np.linalg.norm(w, q) + math.sqrt(w @ cov @ w) * nodes
        return weights @ np.logaddexp(0, -margin)

    start = np.linalg.solve(cov, mixture.mean)
    best = minimize(
        loss, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 20_000, "maxfev": 20_000}
    )
    return minimize(loss, best.x, method="Powell", options={"xtol": 1e-10, "ftol": 1e-15}).x


@pytest.mark.parametrize("p", [2, np.inf])
def test_adversarial_training_finds_the_robust_optimum(kind, p):
    mixture = random_mixture(kind, 3, 20, condition=4)
    eps = 0.3 * np.linalg.norm(mixture.mean, p)
    w = population_adversarial(mixture, eps, p)
    assert direction_cosine(w, learned_classifier(mixture, "adversarial", eps, p).weights) > 1 - 1e-5


def test_printed_directions(kind):
    mixture = random_mixture(kind, 5, 21, prior=0.3)
    cov = mixture.cov if mixture.cov.ndim == 2 else np.diag(np.broadcast_to(mixture.cov, 5))
    np.testing.assert_allclose(learned_classifier(mixture, "averaging", label_noise=0.2).weights, 0.6 * mixture.mean, rtol=1e-14)
    for learner in ("lda", "logistic"):
        found = learned_classifier(mixture, learner)
        np.testing.assert_allclose(found.weights, np.linalg.solve(cov, mixture.mean), rtol=1e-10)
        assert found.bias == pytest.approx(math.log(0.3 / 0.7) / 2)


@pytest.mark.parametrize("label_noise", [0.0, 0.25])
@pytest.mark.parametrize(("learner", "fit"), [("averaging", fit_averaging), ("lda", fit_lda), ("logistic", fit_logistic)])
def test_learners_converge_to_the_limit(kind, learner, fit, label_noise):
    """tan^2 of the angle to the limit is about V d / n; 1e-3 is 10 times what these sizes leave."""
    mixture = random_mixture(kind, 4, 22, condition=5)
    rng = np.random.default_rng(23)
    x, y = mixture.sample(200_000, rng)
    y_noisy = np.where(rng.random(len(y)) < label_noise, -y, y)
    limit = learned_classifier(mixture, learner, label_noise=label_noise)
    assert direction_cosine(fit(x, y_noisy).weights, limit.weights) > 1 - 5e-4


def test_adversarial_fit_gradient_matches_finite_differences():
    """At the returned optimum no coordinate step lowers the loss (smooth p=2 and split p=inf)."""
    mixture = random_mixture("full", 4, 24)
    x, y = mixture.sample(500, np.random.default_rng(25))
    for p, q in ((2, 2), (np.inf, 1)):
        classifier = fit_adversarial(x, y, 0.2, p, penalty=1e-3)

        def loss(w, b, q=q):
            return np.logaddexp(0, -(y * (x @ w + b) - 0.2 * np.linalg.norm(w, q))).mean() + 5e-4 * w @ w

        best = loss(classifier.weights, classifier.bias)
        for i in range(4):
            for step in (1e-3, -1e-3):
                moved = classifier.weights.copy()
                moved[i] += step
                assert loss(moved, classifier.bias) > best
        assert loss(classifier.weights, classifier.bias + 1e-3) > best


def test_learned_adversarial_bias_is_that_of_logistic_regression():
    """Along w* the attacked problem is plain logistic regression, so unequal priors give half the log odds."""
    mixture = BinaryMixture([1.0, 0.5], 1.0, 0.3)
    x, y = mixture.sample(200_000, np.random.default_rng(26))
    fitted, limit = fit_adversarial(x, y, 0.3, 2), learned_classifier(mixture, "adversarial", 0.3, 2)
    scale = np.linalg.norm(limit.weights) / np.linalg.norm(fitted.weights)
    assert fitted.bias * scale == pytest.approx(limit.bias, abs=0.02)
    assert expit(2 * limit.bias) == pytest.approx(0.3)


@pytest.mark.parametrize("learner", ["averaging", "lda", "logistic", "adversarial"])
def test_optimal_mean_closes_the_gap(kind, p, learner):
    mixture = random_mixture(kind, 6, 27)
    eps = 0.4 * np.linalg.norm(mixture.mean, p)
    synthetic = BinaryMixture(optimal_synthetic_mean(mixture, eps, p, learner), mixture.cov)
    assert optimality_gap(mixture, synthetic, eps, p, learner) == pytest.approx(0, abs=1e-9)
    if learner != "adversarial" and kind != "scalar":
        assert optimality_gap(mixture, mixture, eps, p, learner) > 1e-4


def test_optimal_mean_is_soft_thresholding_for_linf():
    mean = np.array([2.0, -0.7, 0.3, -0.1])
    expected = [1.6, -0.3, 0.0, 0.0]
    np.testing.assert_allclose(optimal_synthetic_mean(BinaryMixture(mean, 2.3), 0.4, np.inf), expected, atol=1e-14)


def test_ceiling_is_robust_accuracy_of_the_rotated_direction():
    mixture = BinaryMixture([1.5, 0.0, 0.0], 0.64)
    for angle in (0.0, 0.4, 1.2, 2.5):
        w = np.array([math.cos(angle), math.sin(angle), 0.0])
        from theory import LinearClassifier

        direct = robust_accuracy(LinearClassifier(w), mixture, 0.3, 2)
        assert misalignment_ceiling(mixture, math.cos(angle), 0.3) == pytest.approx(direct, abs=1e-14)
        assert direct == pytest.approx(norm.cdf((1.5 * math.cos(angle) - 0.3) / 0.8), abs=1e-14)


def test_adversarial_limit_is_the_optimum_of_the_synthetic_mixture():
    synthetic, eps = random_mixture("full", 4, 28), 0.2
    found = learned_classifier(synthetic, "adversarial", eps, np.inf)
    np.testing.assert_array_equal(found.weights, bayes_robust_classifier(synthetic, eps, np.inf).weights)
    assert robust_accuracy(found, synthetic, eps, np.inf) == bayes_robust_accuracy(synthetic, eps, np.inf)


def test_no_synthetic_mean_makes_averaging_optimal_for_unequal_priors():
    """Averaging learns no threshold; the others learn one, and reach the optimum."""
    mixture = BinaryMixture(np.array([1.0, 0.5]), 1.0, prior=0.8)
    with pytest.raises(ValueError, match=r"prior=0.8: averaging learns no threshold"):
        optimal_synthetic_mean(mixture, 0.2)
    best = bayes_robust_accuracy(mixture, 0.2)
    for learner in ("lda", "logistic"):
        synthetic = BinaryMixture(optimal_synthetic_mean(mixture, 0.2, learner=learner), 1.0, prior=0.8)
        assert robust_accuracy(learned_classifier(synthetic, learner), mixture, 0.2) == pytest.approx(best, abs=1e-12)
    without = robust_accuracy(LinearClassifier(bayes_robust_classifier(mixture, 0.2).weights), mixture, 0.2)
    assert without < best - 0.02
