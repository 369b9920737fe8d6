"""T1 and T9 against Monte Carlo, numerical maximisation and other libraries. Monte Carlo bounds: |z| < 5, false alarm 6e-7 a case."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import norm

from tests.theory.conftest import random_mixture
from theory import (
    BinaryMixture,
    GaussianMixture,
    LinearClassifier,
    multiclass_robust_accuracy,
    robust_accuracy,
    worst_case_perturbation,
)


def test_robust_accuracy_is_the_printed_equation(kind, p):
    mixture = random_mixture(kind, 6, 1, prior=0.3)
    rng = np.random.default_rng(2)
    w, b, eps = rng.standard_normal(6), 0.4, 0.25
    q = {1: np.inf, 2: 2, np.inf: 1}[p]
    cov = {0: lambda c: c * np.eye(6), 1: np.diag, 2: lambda c: c}[np.ndim(mixture.cov)](mixture.cov)
    s, loss = math.sqrt(w @ cov @ w), eps * np.linalg.norm(w, q)
    expected = 0.3 * norm.cdf((w @ mixture.mean + b - loss) / s) + 0.7 * norm.cdf((w @ mixture.mean - b - loss) / s)
    assert robust_accuracy(LinearClassifier(w, b), mixture, eps, p) == pytest.approx(expected, abs=1e-14)


def test_robust_accuracy_matches_attacked_samples(kind, p):
    mixture = random_mixture(kind, 5, 3, prior=0.4)
    rng = np.random.default_rng(4)
    classifier, eps, n = LinearClassifier(rng.standard_normal(5), -0.3), 0.3, 200_000
    x, y = mixture.sample(n, rng)
    delta = worst_case_perturbation(classifier, y, eps, p)
    np.testing.assert_allclose(np.linalg.norm(delta, ord=p, axis=1), eps, rtol=1e-12)
    theory = robust_accuracy(classifier, mixture, eps, p)
    measured = (classifier.predict(x + delta) == y).mean()
    assert abs(measured - theory) < 5 * math.sqrt(theory * (1 - theory) / n)


@pytest.mark.parametrize("order", [1, 1.3, 1.5, 2, 3, 7.5, math.inf])
def test_worst_case_perturbation_attains_the_dual_norm(order):
    w = np.random.default_rng(5).standard_normal(7)
    q = math.inf if order == 1 else 1 if order == math.inf else order / (order - 1)
    delta = worst_case_perturbation(LinearClassifier(w), np.array([1.0, -1.0]), 0.7, order)
    np.testing.assert_allclose(np.linalg.norm(delta, ord=order, axis=1), 0.7, rtol=1e-12)
    np.testing.assert_allclose(delta @ w, [-0.7 * np.linalg.norm(w, q), 0.7 * np.linalg.norm(w, q)], rtol=1e-12)


def test_zero_weights_predict_one_class():
    mixture = BinaryMixture([1.0, 2.0], prior=0.3)
    constant = LinearClassifier([0.0, 0.0], -1.0)
    assert robust_accuracy(constant, mixture, 0.5, 2) == pytest.approx(0.7)
    assert not worst_case_perturbation(constant, np.ones(3), 0.5, math.inf).any()
    x, y = mixture.sample(1000, np.random.default_rng(0))
    assert (constant.predict(x) == y).mean() == (y == -1).mean()


def test_sign_of_zero_is_plus():
    assert LinearClassifier([1.0]).predict([[0.0]]) == [1.0]
    assert robust_accuracy(LinearClassifier([0.0]), BinaryMixture([1.0], prior=0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("scale", [1e-200, 1e-6, 1e6, 1e200])
def test_robust_accuracy_ignores_the_scale_of_the_classifier(scale):
    mixture = random_mixture("full", 4, 6)
    w = np.random.default_rng(7).standard_normal(4)
    reference = robust_accuracy(LinearClassifier(w, 0.2), mixture, 0.1, 1.5)
    assert robust_accuracy(LinearClassifier(w * scale, 0.2 * scale), mixture, 0.1, 1.5) == pytest.approx(reference, abs=1e-13)


@pytest.mark.parametrize(("classes", "dim"), [(2, 3), (3, 2), (4, 2), (4, 6), (6, 8)])
def test_multiclass_matches_attacked_samples(classes, dim, p):
    rng = np.random.default_rng([classes, dim])
    means = 1.2 * rng.standard_normal((classes, dim))
    covs = [np.diag(rng.uniform(0.5, 1.5, dim)) + 0.2 for _ in range(classes)]
    mixture = GaussianMixture(means, covs, rng.dirichlet(np.full(classes, 4.0)))
    weights, biases, eps, n = means + 0.2 * rng.standard_normal(means.shape), rng.standard_normal(classes), 0.2, 100_000
    x, y = mixture.sample(n, rng)
    correct = np.ones(n, dtype=bool)
    for k in range(classes):
        for j in range(classes):
            if j != k:
                push = worst_case_perturbation(LinearClassifier(weights[k] - weights[j]), np.ones(1), eps, p)
                correct[y == k] &= ((x[y == k] + push) @ weights.T + biases).argmax(axis=1) == k
    theory = multiclass_robust_accuracy(weights, biases, mixture, eps, p)
    assert abs(correct.mean() - theory) < 5 * math.sqrt(theory * (1 - theory) / n)


def test_multiclass_with_two_classes_is_the_binary_formula():
    mixture = random_mixture("full", 4, 8, prior=0.35)
    w, b = np.random.default_rng(9).standard_normal(4), 0.3
    pair = GaussianMixture(np.stack([mixture.mean, -mixture.mean]), [mixture.cov] * 2, [0.35, 0.65])
    multi = multiclass_robust_accuracy(np.stack([w, -w]), [b, -b], pair, 0.15, np.inf)
    assert multi == pytest.approx(robust_accuracy(LinearClassifier(w, b), mixture, 0.15, np.inf), abs=1e-13)


def test_no_perturbation_in_the_ball_beats_the_worst_case():
    """Projected search over the l_3 ball finds nothing worse than the closed form."""
    w, eps = np.array([0.3, -2.0, 1.1]), 0.5
    best = worst_case_perturbation(LinearClassifier(w), np.ones(1), eps, 3)[0] @ w
    found = minimize(
        lambda d: d @ w, np.zeros(3), constraints={"type": "ineq", "fun": lambda d: eps - (np.abs(d) ** 3).sum() ** (1 / 3)},
        method="SLSQP", options={"ftol": 1e-12},
    )  # fmt: skip
    assert found.fun == pytest.approx(best, abs=1e-6)
    assert found.fun >= best - 1e-9


@pytest.mark.parametrize(("points", "tolerance"), [(2000, 2.5e-4), (50_000, 3e-5)])
def test_ten_classes_against_a_one_dimensional_integral(points, tolerance):
    """Unit vectors: class k is right iff x_k exceeds the others by eps sqrt(2), so A = E Phi(Z + a - eps sqrt(2))^9."""
    z = np.linspace(-9, 9, 4001)
    for a, eps in ((1.0, 0.0), (2.5, 0.3), (4.0, 1.0)):
        mixture = GaussianMixture(a * np.eye(10), [1.0] * 10)
        found = multiclass_robust_accuracy(np.eye(10), np.zeros(10), mixture, eps, points=points)
        exact = np.trapezoid(np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * ndtr(z + a - eps * np.sqrt(2)) ** 9, z)
        assert found == pytest.approx(exact, abs=tolerance)
