"""The quasi-Monte Carlo law: against the exact law, against plain Monte Carlo, and the number of samples it asks for."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from theory import AveragingLaw, BinaryMixture, QuasiMonteCarloLaw, learned_classifier, required_samples, robust_accuracy

DIM = 12
SIGNS = (-1.0) ** np.arange(DIM)
EQUAL = np.full((DIM, DIM), 0.5) + 0.5 * np.eye(DIM)
ALTERNATING = 0.9 * np.outer(SIGNS, SIGNS) + 0.1 * np.eye(DIM)
MEAN = np.full(DIM, 1.5 / math.sqrt(DIM))


def draws(mixture, synthetic, n, eps, q, seed, count=60_000):
    theta = synthetic.mean + synthetic.covariance.sample(count, np.random.default_rng(seed)) / math.sqrt(n)
    length = np.sqrt((mixture.covariance.matvec(theta) * theta).sum(axis=1))
    return ndtr((theta @ mixture.mean - eps * np.linalg.norm(theta, ord=q, axis=1)) / length)


@pytest.mark.parametrize(("n", "cosine"), [(3, 1.0), (40, 0.6)])
def test_it_is_the_exact_law_where_there_is_one(n, cosine):
    direction = np.r_[cosine, math.sqrt(1 - cosine**2), np.zeros(DIM - 2)]
    real, synthetic = BinaryMixture(np.r_[1.5, np.zeros(DIM - 1)], 0.8), BinaryMixture(1.2 * direction, 1.3)
    exact, found = AveragingLaw(real, synthetic, n, 0.3), QuasiMonteCarloLaw(real, synthetic, n, 0.3)
    assert abs(found.mean() - exact.mean()) < 5 * found.mean_error < 1e-3
    for level in (0.05, 0.5, 0.9):
        a = exact.quantile(level)
        assert abs(found.cdf(a) - level) < 5 * max(found.cdf_error(a), 2e-4)
        assert found.cdf(found.quantile(level)) == pytest.approx(level, abs=2e-4)
    assert found.cdf([0.0, 1.0]).tolist() == [0, 1]


@pytest.mark.parametrize("cov", [EQUAL, ALTERNATING, np.linspace(0.2, 3, DIM)], ids=["equal", "alternating", "diagonal"])
@pytest.mark.parametrize(("p", "q"), [(1, np.inf), (2, 2), (np.inf, 1)])
def test_correlated_features_against_plain_monte_carlo(cov, p, q):
    """60,000 draws; abs(z) < 4.5 for the mean and two quantiles."""
    real, synthetic = BinaryMixture(MEAN, cov), BinaryMixture(0.8 * MEAN + 0.1 * SIGNS, cov)
    law = QuasiMonteCarloLaw(real, synthetic, 5, 0.1, p)
    values = draws(real, synthetic, 5, 0.1, q, seed=3)
    error = math.hypot(values.std() / math.sqrt(len(values)), law.mean_error)
    assert abs(values.mean() - law.mean()) < 4.5 * error
    for level in (0.05, 0.5):
        a = law.quantile(level)
        error = math.hypot(math.sqrt(level * (1 - level) / len(values)), law.cdf_error(a))
        assert abs((values <= a).mean() - level) < 4.5 * error


@pytest.mark.parametrize("cov", [EQUAL, ALTERNATING], ids=["equal", "alternating"])
@pytest.mark.parametrize(("p", "q", "eps"), [(2, 2, 0.2), (np.inf, 1, 0.05)])
def test_correlated_features_need_the_samples_they_need(cov, p, q, eps):
    """The second-order law asked for twice as many here. Confidence by 60,000 draws: 4 standard errors beside 0.95 are 0.0036."""
    mixture = BinaryMixture(MEAN, cov)
    accuracy = robust_accuracy(learned_classifier(mixture, "averaging"), mixture, eps, p) - 0.02
    n = required_samples(mixture, mixture, eps=eps, accuracy=accuracy, p=p)
    enough, few = ((draws(mixture, mixture, count, eps, q, seed=4) >= accuracy).mean() for count in (n, math.floor(0.8 * n)))
    assert enough > 0.95 - 0.006
    assert few < 0.95


def test_errors():
    mixture = BinaryMixture(MEAN, EQUAL)
    with pytest.raises(ValueError, match=r"confidence=0\.9999 is too high"):
        required_samples(mixture, mixture, eps=0.1, accuracy=0.6, confidence=0.9999)
    with pytest.raises(ValueError, match="have dimensions 12 and 2"):
        QuasiMonteCarloLaw(mixture, BinaryMixture([1.0, 0.0]), 3, 0.1)
    with pytest.raises(ValueError, match="n=0"):
        QuasiMonteCarloLaw(mixture, mixture, 0, 0.1)
