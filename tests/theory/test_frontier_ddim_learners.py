"""T7, T8, T10, T11: reference values, brute-force optimisation, step-by-step sampling, numerical integration and asymptotics of fits."""

import math
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import sqrtm
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from simulations.mixtures.learners import fit_lda, fit_logistic
from simulations.mixtures.theory_checks import visited_alpha_bars
from theory import (
    AveragingLaw,
    BinaryMixture,
    GaussianMixture,
    ddim_law,
    direction_variance,
    distinguishability_frontier,
    large_sample_accuracy,
    optimal_class_snr,
)


def wasserstein2(mean_a, cov_a, mean_b, cov_b):
    root = np.real(sqrtm(cov_b))
    cross = np.real(sqrtm(root @ cov_a @ root))
    return math.sqrt(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * cross))


# ------------------------------------------------------------------------------------------------ T7


def test_frontier_reference_value():
    frontier = distinguishability_frontier(BinaryMixture(np.eye(10)[0] * 2), 0.5)
    assert frontier.sample_multiplier == pytest.approx(1.7590948, abs=5e-8)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.floats(0.01, 0.95))
def test_frontier_lies_on_the_sphere_and_nothing_inside_beats_it(seed, fraction):
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(1, 6))
    factor = rng.standard_normal((dim, dim + 2))
    cov, mean = factor @ factor.T, rng.standard_normal(dim)
    mixture = BinaryMixture(mean, cov)
    radius = fraction * math.sqrt(np.trace(cov))
    frontier = distinguishability_frontier(mixture, radius)
    best_mean, best_cov = frontier.mean_scale * mean, frontier.std_scale**2 * cov
    assert wasserstein2(best_mean, best_cov, mean, cov) == pytest.approx(radius, rel=1e-5)
    real_snr = (mean @ mean) / np.trace(cov)
    assert (best_mean @ best_mean) / np.trace(best_cov) / real_snr == pytest.approx(frontier.sample_multiplier, rel=1e-9)
    for _ in range(20):  # other means and covariances within the budget
        other = rng.standard_normal((dim, dim + 2)) * rng.uniform(0.1, 1)
        rival_cov = frontier.std_scale**2 * cov + 0.3 * other @ other.T * rng.random()
        rival_mean = best_mean + 0.2 * rng.standard_normal(dim)
        if wasserstein2(rival_mean, rival_cov, mean, cov) <= radius:
            assert (rival_mean @ rival_mean) / np.trace(rival_cov) / real_snr <= frontier.sample_multiplier * (1 + 1e-9)


def test_frontier_at_its_ends():
    mixture = BinaryMixture([3.0, 0.0], 4.0)  # sqrt(d) sigma = 2.83
    still = distinguishability_frontier(mixture, 0.0)
    assert (still.mean_scale, still.std_scale, still.sample_multiplier) == pytest.approx((1, 1, 1))
    near = distinguishability_frontier(mixture, math.sqrt(8) * (1 - 1e-9))
    m, s = Decimal(3), Decimal(math.sqrt(8))
    r = Decimal(near.radius)  # tan(phi + psi) / tan(phi) in 28 digits, where tan(phi + psi) cancels in double precision
    t = (m * m + s * s - r * r).sqrt()
    ratio = (m * t + s * r) / (s * t - m * r) * s / m
    assert near.sample_multiplier == pytest.approx(float(ratio**2), rel=1e-7)
    for radius in (math.sqrt(8), 100.0):
        collapsed = distinguishability_frontier(mixture, radius)
        assert collapsed.sample_multiplier == math.inf
        assert collapsed.std_scale == 0
        assert collapsed.mean_scale == 1
    rng = np.random.default_rng(0)
    for _ in range(300):  # rounding never makes a standard deviation negative
        other = BinaryMixture(rng.standard_normal(3), rng.uniform(0.1, 5))
        radius = float(np.nextafter(math.sqrt(other.covariance.trace), 0))
        assert distinguishability_frontier(other, radius).std_scale >= 0


# ------------------------------------------------------------------------------------------------ T8


@pytest.mark.parametrize(("steps", "expected"), [(5, 0.61529), (10, 0.81459), (50, 0.96343), (1000, 0.99812)])
def test_ddim_reference_values(steps, expected):
    assert float(ddim_law(0.0, 1.0, visited_alpha_bars(steps))[1]) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_ddim_law_is_the_sampler_applied_to_the_exact_noise_prediction(steps):
    """DDIM is affine here: running it on points tells the law to rounding, without Monte Carlo."""
    rng = np.random.default_rng(steps)
    mean, std, push = rng.standard_normal(3), np.array([0.4, 1.0, 2.2]), rng.standard_normal((steps, 3))
    gaussian = GaussianMixture(mean[None], [std**2])
    alpha_bars = 0.98 * visited_alpha_bars(steps)  # the law also holds before the last step, at noisy data
    x = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    for i, (a, after) in enumerate(pairwise(alpha_bars)):
        noise = gaussian.noise_prediction(x, a, np.zeros(4, dtype=int)) + push[i]
        x = np.sqrt(after) * (x - np.sqrt(1 - a) * noise) / np.sqrt(a) + np.sqrt(1 - after) * noise
    law_mean, law_std = ddim_law(mean, std, alpha_bars, push)
    np.testing.assert_allclose(law_mean, x[0], atol=1e-11)
    np.testing.assert_allclose(law_std, np.diag(x[1:] - x[0]), atol=1e-11)


def test_few_steps_raise_distinguishability():
    for steps in (3, 10, 50):
        mean, std = ddim_law(1.0, 1.0, visited_alpha_bars(steps))
        assert mean / std > 1.03


@pytest.mark.parametrize("alpha_bar", [1.0, 0.7, 0.1])
@pytest.mark.parametrize("labelled", [True, False])
def test_score_is_the_gradient_of_the_log_density(alpha_bar, labelled):
    rng = np.random.default_rng(3)
    covs = [0.5, np.array([1.0, 2.0, 0.3]), np.diag([1.0, 2.0, 1.5]) + 0.4]
    mixture = GaussianMixture(rng.standard_normal((3, 3)), covs, [0.2, 0.5, 0.3])
    x, y = rng.standard_normal((8, 3)) * 2, rng.integers(0, 3, 8)

    def log_density(points):
        from scipy.stats import multivariate_normal

        matrices = [0.5 * np.eye(3), np.diag(covs[1]), covs[2]]
        terms = np.stack(
            [
                w * multivariate_normal(math.sqrt(alpha_bar) * m, alpha_bar * c + (1 - alpha_bar) * np.eye(3)).pdf(points)
                for w, m, c in zip(mixture.weights, mixture.means, matrices, strict=True)
            ]
        )
        return np.log(terms[y, np.arange(8)] if labelled else terms.sum(axis=0))

    step = 1e-5
    numeric = np.stack([(log_density(x + step * e) - log_density(x - step * e)) / (2 * step) for e in np.eye(3)], axis=1)
    score = mixture.score(x, alpha_bar, y if labelled else None)
    np.testing.assert_allclose(score, numeric, atol=1e-7)
    np.testing.assert_allclose(
        mixture.noise_prediction(x, alpha_bar, y if labelled else None), -math.sqrt(1 - alpha_bar) * numeric, atol=1e-7
    )


def test_score_far_from_every_class_is_finite():
    mixture = GaussianMixture([[0.0, 0.0], [1.0, 1.0]], 1e-6)
    score = mixture.score(np.array([[1e3, -1e3]]))
    assert np.isfinite(score).all()


def test_noise_prediction_is_the_conditional_mean_of_the_noise():
    """E[noise f(x_t)] = E[prediction f(x_t)] for test functions f: 400,000 draws, |z| < 5 (false alarm 6e-7 each)."""
    rng = np.random.default_rng(4)
    mixture = GaussianMixture([[1.0, 0.0], [-1.0, 0.5]], [0.3, 1.2], [0.3, 0.7])
    x, _ = mixture.sample(400_000, rng)
    noise = rng.standard_normal(x.shape)
    x_t = math.sqrt(0.6) * x + math.sqrt(0.4) * noise
    residual = noise - mixture.noise_prediction(x_t, 0.6)
    for f in (np.ones(len(x)), x_t[:, 0], np.tanh(x_t[:, 1]), (x_t**2).sum(axis=1)):
        products = residual * f[:, None]
        z = products.mean(axis=0) / (products.std(axis=0) / math.sqrt(len(x)))
        assert (np.abs(z) < 5).all()


# ------------------------------------------------------------------------------------------------ T10, T11


def direct_variance(snr, e):
    """E[p(1-p)] / (2k E[p(1-p)] + e E[p])^2 by adaptive integration: the formula before its simplification."""
    k = snr - e

    def expectation(f):
        return quad(lambda u: f(1 / (1 + math.exp(2 * k * k + 2 * k * u))) * norm.pdf(u), -12, 12, epsabs=1e-14, limit=400)[0]

    pq, p = expectation(lambda v: v * (1 - v)), expectation(lambda v: v)
    return pq / (2 * k * pq + e * p) ** 2


@pytest.mark.parametrize(("snr", "e"), [(0.1, 0.0), (1.0, 0.0), (3.0, 0.0), (1.0, 0.5), (2.0, 1.9), (3.5, 1.0)])
def test_variance_of_logistic_learners(snr, e):
    assert direction_variance(snr, "logistic", e) == pytest.approx(direct_variance(snr, e), rel=1e-9)


def test_optimum_reference_values():
    """1.2281411 to 10 digits from 30-digit arithmetic; the minimum is flat, V agrees to all 8 digits."""
    assert optimal_class_snr() == pytest.approx(1.2281411273898, abs=1e-12)
    assert direction_variance(optimal_class_snr(), "logistic") == pytest.approx(2.0854363, abs=5e-8)
    for e, expected in ((0.25, 1.3382), (0.5, 1.4608), (1.0, 1.7466), (1.5, 2.0858)):
        assert optimal_class_snr(eps=e) == pytest.approx(expected, abs=5e-5)
        found = minimize_scalar(lambda k, e=e: direct_variance(k, e), bounds=(e + 0.1, e + 2.5), method="bounded").x
        assert optimal_class_snr(eps=e) == pytest.approx(found, abs=1e-4)
    best = direction_variance(optimal_class_snr(), "logistic")
    assert direction_variance(3.0, "logistic") / best == pytest.approx(13, abs=0.5)
    assert direction_variance(4.0, "logistic") / best == pytest.approx(300, rel=0.03)


def test_averaging_and_lda_only_gain_from_separation():
    assert optimal_class_snr("averaging") == optimal_class_snr("lda") == math.inf
    snr = np.geomspace(0.01, 100, 50)
    for learner, limit in (("averaging", 0.0), ("lda", 1.0)):
        values = [direction_variance(float(s), learner) for s in snr]
        assert (np.diff(values) < 0).all()
        assert values[-1] == pytest.approx(limit, abs=2e-4)


def test_variance_at_its_ends():
    assert direction_variance(1e-6, "logistic") == pytest.approx(1e12, rel=1e-9)
    assert direction_variance(1e4, "logistic") == math.inf
    assert optimal_class_snr(eps=1000.0) > 1000


@pytest.mark.parametrize(("learner", "fit", "snr"), [("lda", fit_lda, 0.7), ("lda", fit_lda, 2.0), ("logistic", fit_logistic, 2.0)])
def test_variance_of_real_fits(learner, fit, snr):
    """200 fits, d = 6: the mean of chi-square(5) over 200 fits has relative standard error 4.5 %; bound 5 of them."""
    rng = np.random.default_rng(5)
    mixture, n = BinaryMixture(np.eye(6)[0] * snr), 4000
    ratios = []
    for _ in range(200):
        w = fit(*mixture.sample(n, rng)).weights
        ratios.append((w[1:] @ w[1:]) / w[0] ** 2 * n / 5)
    assert np.mean(ratios) == pytest.approx(direction_variance(snr, learner), rel=5 * math.sqrt(2 / 5 / 200))


def test_large_sample_accuracy_agrees_with_the_exact_law():
    mixture = BinaryMixture(np.eye(12)[0] * 1.5)
    exact = AveragingLaw(mixture, BinaryMixture(np.eye(12)[0] * 0.8), 20_000, 0.4).mean()
    assert large_sample_accuracy(mixture, 0.8, "averaging", 20_000, eps=0.4) == pytest.approx(exact, abs=2e-7)
    one = BinaryMixture([1.5])
    assert large_sample_accuracy(one, 1.0, "lda", 100, eps=0.4) == pytest.approx(norm.cdf(1.1))


@pytest.mark.parametrize("std", [1e-3, 1e-7, 1e-8, 1e-12])
def test_clean_steps_that_repeat_change_nothing_however_narrow_the_class(std):
    (mean, found), (expected_mean, expected) = (ddim_law(2.0, std, levels) for levels in ([0.5, 1.0, 1.0, 1.0], [0.5, 1.0]))
    assert found == pytest.approx(expected, rel=1e-12)
    assert mean == pytest.approx(expected_mean, rel=1e-12)
