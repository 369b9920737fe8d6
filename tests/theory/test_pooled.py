"""T12 to T14 against T10 and T11, numerical differentiation of the population loss, and fits with another library."""

import math

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.optimize import brentq, minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from simulations.mixtures.learners import fit_adversarial
from theory import (
    BinaryMixture,
    ProportionalLaw,
    direction_variance,
    linf_training,
    multiclass_direction_variance,
    optimal_class_snr,
    optimal_half_distance,
    optimal_synthetic_snr,
    pooled_direction_variance,
)
from theory.pooled import _softmax_uncertainty


@pytest.mark.parametrize(("snr", "eps"), [(0.3, 0.0), (1.2281, 0.0), (6.0, 0.0), (1.5, 0.5), (3.0, 1.7)])
@pytest.mark.parametrize("unit", [1.0, 0.37])
def test_one_part_is_t10_and_t11_in_any_unit(snr, eps, unit):
    found = pooled_direction_variance([snr * unit], [unit], [1], eps * unit)
    assert found == pytest.approx(direction_variance(snr, "logistic", eps), rel=1e-11)
    thirds = pooled_direction_variance([snr] * 3, [1] * 3, [0.2, 0.5, 0.3], eps)
    assert thirds == pytest.approx(found, rel=1e-11)


PARTS = [
    ([0.6, 1.5], [1.0, 1.0], [0.5, 0.5], 0.0),
    ([2.0, 0.9], [1.0, 0.6], [0.3, 0.7], 0.4),
    ([1.1, 0.3, 2.2], [0.8, 1.3, 1.0], [0.2, 0.3, 0.5], 0.25),
]


@pytest.mark.parametrize(("means", "stds", "shares", "eps"), PARTS)
def test_pooled_variance_is_the_sandwich_of_the_population_loss(means, stds, shares, eps):
    """The loss over (x along mu, one coordinate across) by cubature; slope, curvature and score variance from it by differences."""

    def expected(f):
        def of(part):
            mu, s = means[part], stds[part]

            def density(v, u):
                return math.exp(-(u * u + v * v) / 2) / (2 * math.pi) * f(mu + s * u, s * v)

            return dblquad(density, -8, 8, -8, 8, epsabs=1e-10, epsrel=1e-9)[0]

        return sum(share * of(part) for part, share in enumerate(shares))

    def loss(a, b):
        return expected(lambda x, z: np.logaddexp(0, -(a * x + b * z - eps * math.hypot(a, b))))

    def one_dimension(a):
        total = 0.0
        for mu, s, share in zip(means, stds, shares, strict=True):
            total += share * quad(lambda u, mu=mu, s=s: np.exp(-u * u / 2) / math.sqrt(2 * math.pi)
                                  * np.logaddexp(0, -a * (mu - eps + s * u)), -9, 9, epsabs=1e-13)[0]  # fmt: skip
        return total

    a = float(minimize(lambda v: one_dimension(v[0]), [1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15}).x[0])
    step = 0.05  # fourth-order second difference across, by symmetry from two values
    middle, one, two = loss(a, 0.0), loss(a, step), loss(a, 2 * step)
    curvature = (-2 * two + 32 * one - 30 * middle) / (12 * step**2)
    score = expected(lambda x, z: (expit(-a * (x - eps)) * z) ** 2)
    assert pooled_direction_variance(means, stds, shares, eps) == pytest.approx(score / (a * curvature) ** 2, rel=2e-4)


def test_fits_to_real_and_synthetic_samples_have_that_spread():
    """300 fits by scikit-learn. n tan^2 / (d-1) is V times a chi-square mean; abs(z) < 3.3 has a false-alarm rate of 0.001."""
    rng, dim, n = np.random.default_rng(7), 5, 4000
    tangents = []
    for _ in range(300):
        y = np.where(rng.random(n) < 0.5, -1, 1)
        distance = np.where(np.arange(n) < n // 4, 2.2, 0.7)
        x = rng.standard_normal((n, dim))
        x[:, 0] += y * distance
        w = LogisticRegression(C=math.inf, solver="newton-cholesky", fit_intercept=False).fit(x, y).coef_[0]
        tangents.append(w[1:] @ w[1:] / w[0] ** 2 * n / (dim - 1))
    variance = pooled_direction_variance([2.2, 0.7], [1, 1], [0.25, 0.75])
    z = (np.mean(tangents) / variance - 1) / math.sqrt(2 / (dim - 1) / 300)
    assert abs(z) < 3.3
    assert abs((np.mean(tangents) / direction_variance(1.0, "logistic") - 1) / math.sqrt(2 / (dim - 1) / 300)) > 3.3  # not blind


@pytest.mark.parametrize(("real", "share", "eps"), [(0.5, 0.3, 0.0), (2.0, 0.5, 0.0), (3.0, 0.9, 0.5), (0.8, 0.7, 0.25)])
def test_the_best_synthetic_snr_is_a_minimum(real, share, eps):
    best = optimal_synthetic_snr(real, share, eps)
    least_snr = max((eps - (1 - share) * real) / share, 0) + 0.02
    at = [pooled_direction_variance([real, snr], [1, 1], [1 - share, share], eps) for snr in np.linspace(least_snr, 6, 240)]
    least = pooled_direction_variance([real, best], [1, 1], [1 - share, share], eps)
    assert least <= min(at) * (1 + 1e-9)
    nearby = [pooled_direction_variance([real, best * f], [1, 1], [1 - share, share], eps) for f in (0.99, 1.01)]
    assert least < min(nearby)


def test_synthetic_data_alone_and_the_direction_in_which_real_data_push_it():
    assert optimal_synthetic_snr(2.0, 1 - 1e-9) == pytest.approx(optimal_class_snr(), abs=1e-5)
    assert optimal_synthetic_snr(optimal_class_snr(), 0.4) == pytest.approx(optimal_class_snr(), abs=1e-5)
    assert (
        optimal_synthetic_snr(0.5, 0.5) > optimal_class_snr() > optimal_synthetic_snr(2.0, 0.5)
    )  # it makes up for what is missing
    assert optimal_synthetic_snr(3.0, 0.1, 0.5) == 0.0


def test_softmax_regression_of_two_classes_is_logistic_regression_and_of_three_has_the_information_of_a_cubature():
    assert multiclass_direction_variance(1.1, 2) == direction_variance(1.1, "logistic")
    assert optimal_half_distance(2) == optimal_class_snr()
    h, rng = 1.3, np.random.default_rng(0)
    g = math.sqrt(2) * h * rng.standard_normal((400_000, 3)) + np.array([2 * h * h, 0, 0])
    p = np.exp(g - g.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    left = 1 - (p**2).sum(axis=1)
    expected = 2 / (2 * h * h * left.mean())
    error = left.std() / math.sqrt(len(left)) / left.mean()
    assert multiclass_direction_variance(h, 3) == pytest.approx(expected, rel=4 * error)


def test_the_information_of_softmax_regression_is_exact():
    """Two classes, where it is that of logistic regression by another formula; ten classes, by Monte Carlo with 4 standard errors."""
    for h in (0.02, 0.3, 1.2281411, 3.0, 8.0):
        assert 1 / (2 * h * h * _softmax_uncertainty(h, 2)) == pytest.approx(direction_variance(h, "logistic"), rel=1e-10)
    h, k, rng = 2.0, 10, np.random.default_rng(1)
    g = math.sqrt(2) * h * rng.standard_normal((400_000, k))
    g[:, 0] += 2 * h * h
    p = np.exp(g - g.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    left = (p * (1 - p)).sum(axis=1)
    error = left.std() / math.sqrt(len(left)) / left.mean()
    assert multiclass_direction_variance(h, k) == pytest.approx((k - 1) / (2 * h * h * left.mean()), rel=4 * error)
    assert multiclass_direction_variance(15, 10) > 1e40


def test_fits_of_four_classes_have_that_spread():
    """60 fits of softmax regression by scikit-learn; abs(z) < 3.3."""
    rng, k, across, n, h = np.random.default_rng(3), 4, 3, 6000, 1.2
    ratios = []
    for _ in range(60):
        y = rng.integers(0, k, n)
        x = rng.standard_normal((n, k + across))
        x[np.arange(n), y] += math.sqrt(2) * h
        w = LogisticRegression(C=math.inf, solver="lbfgs", tol=1e-7, max_iter=500).fit(x, y).coef_
        along = w[:, :k] - w[:, :k].mean(axis=1, keepdims=True)
        ratios.append((w[:, k:] ** 2).sum() / (along**2).sum() * n / across)
    z = (np.mean(ratios) / multiclass_direction_variance(h, k) - 1) / math.sqrt(2 / (across * (k - 1)) / 60)
    assert abs(z) < 3.3


def test_more_classes_want_more_separation():
    best = [optimal_half_distance(k) for k in (2, 3, 5, 10)]
    assert best == sorted(best)
    assert best[1:] == pytest.approx([1.3008, 1.3924, 1.515], abs=1e-3)


def test_linf_training_learns_the_soft_mean_and_drops_small_coordinates():
    mixture = BinaryMixture(np.array([0.9, -0.7, 0.1, 0.6, -0.05]), 0.8)
    law = linf_training(mixture, 0.3)
    assert law.direction == pytest.approx([0.6, -0.4, 0, 0.3, 0])
    assert law.active == 3
    assert law.class_snr == pytest.approx(math.sqrt(0.61 / 0.8))
    rng, n, tangents = np.random.default_rng(1), 6000, []
    for _ in range(60):
        w = fit_adversarial(*mixture.sample(n, rng), 0.3, math.inf).weights
        assert np.abs(w[[2, 4]]).max() < 1e-3 * np.linalg.norm(w)
        along = w @ law.direction / np.linalg.norm(law.direction)
        tangents.append((w @ w - along**2) / along**2 * n / (law.active - 1))
    z = (np.mean(tangents) / law.variance - 1) / math.sqrt(2 / (law.active - 1) / 60)
    assert abs(z) < 3.3


@pytest.mark.parametrize("dim", [4, 9])
def test_under_linf_training_the_best_class_snr_moves_by_eps_root_d(dim):
    eps, snr = 0.2, optimal_class_snr() + 0.2 * math.sqrt(dim)
    at = [linf_training(BinaryMixture(np.full(dim, (snr + d) / math.sqrt(dim))), eps).variance for d in (-0.02, 0.0, 0.02)]
    assert at[1] < min(at[0], at[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pooled_direction_variance([1, 2], [1], [0.5, 0.5]), "lengths 2, 1, 2"),
        (lambda: pooled_direction_variance([1, -2], [1, 1], [0.5, 0.5]), "means holds -2"),
        (lambda: pooled_direction_variance([1, 2], [1, 1], [0.5, 0.6]), "sum to 1.1"),
        (lambda: pooled_direction_variance([1, 2], [1, 1], [0.5, 0.5], 1.5), "the adversary erases the classes"),
        (lambda: pooled_direction_variance([1, math.nan], [1, 1], [0.5, 0.5]), "means"),
        (lambda: pooled_direction_variance([40], [1], [1]), "at most 30"),
        (lambda: optimal_synthetic_snr(1.0, 1.0), "share"),
        (lambda: optimal_synthetic_snr(25.0, 0.5), "below 20"),
        (lambda: multiclass_direction_variance(15.1, 3), r"half_distance=15\.1 must be at most 15 for 3 classes"),
        (lambda: multiclass_direction_variance(1.0, 1), "classes"),
        (lambda: linf_training(BinaryMixture([1.0, 0.2]), 0.2), "equals a coordinate"),
        (lambda: linf_training(BinaryMixture([1.0, 0.2]), 1.2), "at or above every coordinate"),
        (lambda: linf_training(BinaryMixture([1.0, 0.2], [1.0, 2.0]), 0.1), "needs a scalar variance"),
        (lambda: linf_training(BinaryMixture([1.0, 0.2], 1.0, 0.3), 0.1), "balanced classes"),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_a_radius_linf_training_learns_every_coordinate():
    found = linf_training(BinaryMixture(np.r_[2.0, np.zeros(99)], 1.0), 0.0)
    assert found.active == 100
    assert found.variance == direction_variance(2.0, "logistic")


def test_the_best_synthetic_snr_may_be_large():
    """Few synthetic samples beside real ones that hardly tell the classes apart."""
    best = optimal_synthetic_snr(0.01, 0.002)
    values = [pooled_direction_variance([0.01, snr], [1, 1], [0.998, 0.002]) for snr in (0.95 * best, best, 1.05 * best, 9.0)]
    assert 20 < best < 24
    assert values[1] < min(values[0], values[2]) < values[3]
    with pytest.raises(ValueError, match="the best synthetic class SNR lies beyond 30"):
        optimal_synthetic_snr(0.001, 0.0001)
    with pytest.raises(ValueError, match="synthetic samples would need a class SNR above 30; use a larger share"):
        optimal_synthetic_snr(1.0, 0.1, 4.0)


def test_far_classes_and_steep_slopes():
    """A variance of 10^194, of which factors are below the smallest number; and a slope of 405, for which a step of .01 is too coarse."""
    assert pooled_direction_variance([30.0], [1.0], [1.0]) == pytest.approx(direction_variance(30.0, "logistic"), rel=1e-9)
    mu, s, pi = np.array([[5.0], [0.05]]), np.array([[1.0], [0.01]]), np.full((2, 1), 0.5)
    u = np.arange(-14, 14, 2e-5)
    t, weight = mu + s * u, pi * np.exp(-u * u / 2) * 2e-5 / math.sqrt(2 * math.pi)
    a = brentq(lambda a: float((weight * expit(-a * t) * t).sum()), 100, 1000, xtol=1e-12)
    p = expit(-a * t)
    expected = float((weight * p * p * s**2).sum()) / (a * float((weight * p * (1 - p) * s**2).sum())) ** 2
    assert a * s.max() > 400
    assert pooled_direction_variance([5.0, 0.05], [1.0, 0.01], [0.5, 0.5]) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("half", "classes"), [(1e-6, 3), (1e-4, 10), (1e-3, 4)])
def test_classes_that_nearly_coincide(half, classes):
    """V -> K / (2 h^2), in little memory; the next term is of relative order h^2."""
    found = multiclass_direction_variance(half, classes)
    assert found == pytest.approx(classes / (2 * half**2), rel=5 * half**2 + 1e-10)


def test_synthetic_samples_without_a_class_signal_have_a_variance():
    """optimal_synthetic_snr can be 0: both laws take such a part, and agree with parts next to it."""
    assert optimal_synthetic_snr(3.0, 0.1, 0.5) == 0.0
    at = pooled_direction_variance([3.0, 0.0], [1, 1], [0.9, 0.1], 0.5)
    assert at == pytest.approx(pooled_direction_variance([3.0, 1e-6], [1, 1], [0.9, 0.1], 0.5), rel=1e-5)
    assert at < pooled_direction_variance([3.0, 0.5], [1, 1], [0.9, 0.1], 0.5)
    law = ProportionalLaw([3.0, 0.0], [1800.0, 200.0], eps=0.5)
    assert 1 / law.alignment**2 - 1 == pytest.approx(at / 2000, rel=2e-2)
    with pytest.raises(ValueError, match="means holds 0: all must be >= 0, and one > 0"):
        pooled_direction_variance([0.0, 0.0], [1, 1], [0.5, 0.5])
