"""T5 and T6: moments against Monte Carlo, the mean to its stated error, and consistency with the exact law."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from tests.theory.conftest import random_mixture
from theory import AveragingLaw, BinaryMixture, SecondOrderLaw, robust_sample_gap, schmidt_mixture
from theory.covariance import Covariance


def sampled_accuracies(mixture, synthetic, n, eps, p, draws, seed):
    rng = np.random.default_rng(seed)
    theta = synthetic.mean + Covariance(synthetic.cov / n, synthetic.dim).sample(draws, rng)
    norms = np.linalg.norm(theta, ord={2: 2, np.inf: 1}[p], axis=1)
    spread = np.sqrt((theta * mixture.covariance.matvec(theta)).sum(axis=1))
    return ndtr((theta @ mixture.mean - eps * norms) / spread), theta


@pytest.mark.parametrize("p", [2, np.inf])
@pytest.mark.parametrize("real_kind", ["scalar", "diagonal", "full"])
@pytest.mark.parametrize("synthetic_kind", ["scalar", "diagonal", "full"])
def test_moments_of_the_three_statistics(p, real_kind, synthetic_kind):
    """Means to 5 standard errors, covariances to 4 % of the product of standard deviations (5 standard errors are 1.6 %)."""
    mixture, synthetic = random_mixture(real_kind, 6, 30), random_mixture(synthetic_kind, 6, 31, condition=20)
    law = SecondOrderLaw(mixture, synthetic, 3, 0.1, p)
    _, theta = sampled_accuracies(mixture, synthetic, 3, 0.1, p, 200_000, 32)
    second = np.abs(theta).sum(axis=1) if p == np.inf else (theta**2).sum(axis=1)
    sample = np.stack([theta @ mixture.mean, second, (theta * mixture.covariance.matvec(theta)).sum(axis=1)])
    means, covariance = law._statistics
    error = sample.std(axis=1) / math.sqrt(sample.shape[1])
    assert (np.abs(sample.mean(axis=1) - means) < 5 * error).all()
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(np.cov(sample) / scale, covariance / scale, atol=0.04)


@pytest.mark.parametrize(("dim", "n", "tolerance"), [(10, 2, 1.5e-3), (20, 2, 6e-4), (50, 2, 4e-4), (50, 20, 4e-4), (200, 2, 4e-4)])
def test_mean_in_linf_to_its_stated_error(dim, n, tolerance):
    """Stated error plus 4 standard errors (about 7e-5); first order misses by up to 1e-2 at d = 10, n = 2."""
    rng = np.random.default_rng(dim)
    mean = rng.standard_normal(dim)
    mixture = BinaryMixture(2 * mean / np.linalg.norm(mean))
    law = SecondOrderLaw(mixture, mixture, n, 0.5 / math.sqrt(dim), math.inf)
    accuracies, _ = sampled_accuracies(mixture, mixture, n, 0.5 / math.sqrt(dim), np.inf, 200_000 if dim <= 50 else 50_000, 33)
    error = abs(law.mean() - accuracies.mean())
    assert error < tolerance
    if dim <= 20:
        assert abs(law.first_order_mean() - accuracies.mean()) > 5 * error


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize("p", [2, np.inf])
def test_mean_with_anisotropic_covariance(kind, p):
    mixture = random_mixture(kind, 60, 34, condition=3)
    mixture = BinaryMixture(mixture.mean / 4, mixture.cov)
    eps = 0.2 if p == 2 else 0.03
    accuracies, _ = sampled_accuracies(mixture, mixture, 4, eps, p, 100_000, 35)
    assert SecondOrderLaw(mixture, mixture, 4, eps, p).mean() == pytest.approx(accuracies.mean(), abs=1e-3)


def test_cdf_and_quantile():
    mixture = BinaryMixture(np.full(200, 0.15))
    law = SecondOrderLaw(mixture, mixture, 5, 0.03, math.inf)
    accuracies, _ = sampled_accuracies(mixture, mixture, 5, 0.03, np.inf, 40_000, 36)
    for q in (0.1, 0.5, 0.9):
        assert law.cdf(law.quantile(q)) == pytest.approx(q, abs=1e-12)
        assert (accuracies <= law.quantile(q)).mean() == pytest.approx(q, abs=0.02)


def test_agrees_with_the_exact_law_in_l2():
    mixture, synthetic = BinaryMixture(np.full(100, 0.2)), BinaryMixture(np.full(100, 0.3), 1.4)
    for n in (3, 30, 3000):
        exact = AveragingLaw(mixture, synthetic, n, 0.4).mean()
        assert SecondOrderLaw(mixture, synthetic, n, 0.4, 2).mean() == pytest.approx(exact, abs=5e-4)


def test_no_square_matrix_for_a_million_dimensions():
    mixture = BinaryMixture(np.full(1_000_000, 0.003), np.linspace(0.5, 1.5, 1_000_000))
    assert 0.5 < SecondOrderLaw(mixture, mixture, 10, 1e-5, math.inf).mean() < 1


def test_exchange_law_holds_in_linf():
    mixture = BinaryMixture(np.full(50, 0.3))
    near = SecondOrderLaw(mixture, mixture, 90, 0.05, math.inf).mean()
    far = SecondOrderLaw(mixture, BinaryMixture(np.full(50, 0.9)), 10, 0.05, math.inf).mean()
    assert near == pytest.approx(far, abs=1e-12)


def test_schmidt_model_and_gap():
    mixture = schmidt_mixture(900, 9.0)
    assert mixture.mean @ mixture.mean == pytest.approx(900)
    assert float(mixture.cov) == pytest.approx((9 * 900) ** 0.5)
    gap = robust_sample_gap(10_000, 5.0, eps=0.25)
    assert gap.carmon_samples == pytest.approx(4 * 0.25**2 * math.sqrt(5 * 10_000))
    assert AveragingLaw(schmidt_mixture(10_000, 5.0), schmidt_mixture(10_000, 5.0), gap.standard_samples, 0.0).mean() >= 0.8
    wide = robust_sample_gap(1_000_000, 5.0, eps=0.25)
    assert wide.ratio > 2 * gap.ratio > 8
    assert robust_sample_gap(1_000_000, 5.0, eps=0.25, separation=2.0).robust_samples == pytest.approx(
        wide.robust_samples / 4, abs=1
    )


def test_robust_samples_grow_like_the_square_root_of_the_dimension():
    """(2/pi) eps^2 sqrt(n0 d) asymptotically: exponent 1/2 fitted where sqrt(d/n0) is large."""
    dims = np.array([10**8, 10**9, 10**10], dtype=float)
    # theory without arrays of that size: T5's first order with all coordinates equal
    from scipy.optimize import brentq
    from scipy.special import ndtri

    def needed(d, n0=5.0, eps=0.25, accuracy=0.8):
        def shortfall(log_n):
            s = (n0 * d) ** 0.25 / math.exp(log_n / 2)
            folded = 2 * s * math.exp(-1 / (2 * s * s)) / math.sqrt(2 * math.pi) + (1 - 2 * ndtr(-1 / s))
            return math.sqrt(d) * (1 - eps * folded) / ((n0 * d) ** 0.25 * math.sqrt(1 + s * s)) - ndtri(accuracy)

        return math.exp(brentq(shortfall, 0, 30))

    slope = np.polyfit(np.log(dims), [math.log(needed(d)) for d in dims], 1)[0]
    assert 0.35 < slope < 0.55
    assert robust_sample_gap(100_000, 5.0, eps=0.25).robust_samples == pytest.approx(needed(1e5), abs=1.5)


@pytest.mark.parametrize(("low", "n"), [(-0.5, 2), (1.0, 1)])
def test_strongly_correlated_coordinates(low, n):
    """Var ||theta||_1 at correlation 0.95, d = 40, to 0.7 % (3 standard errors of 400,000 draws): fewer terms of Mehler's series or a
    wrong Hermite recursion miss by 1 to 10 %.
    """
    mixture = BinaryMixture(np.linspace(low, 1.0, 40), np.full((40, 40), 0.95) + 0.05 * np.eye(40))
    _, theta = sampled_accuracies(mixture, mixture, n, 0.1, np.inf, 400_000, 37)
    variance = SecondOrderLaw(mixture, mixture, n, 0.1, math.inf)._statistics[1][1, 1]
    assert variance == pytest.approx(np.abs(theta).sum(axis=1).var(), rel=0.007)


def test_strong_attack_in_l2_to_its_error():
    """At eps of the size of the signal the curvature of the norm matters: 6 times the error measured here, a sixth of the term."""
    mixture = BinaryMixture(np.full(40, 0.3))
    for n in (2, 4):
        exact = AveragingLaw(mixture, mixture, n, 1.5).mean()
        assert SecondOrderLaw(mixture, mixture, n, 1.5, 2).mean() == pytest.approx(exact, abs=1e-3)


def test_gap_uses_the_standard_accuracy_and_names_the_ceiling():
    gaps = [robust_sample_gap(400, 4.0, eps=eps) for eps in (0.05, 0.4)]
    assert gaps[0].standard_samples == gaps[1].standard_samples
    mixture = schmidt_mixture(400, 4.0)
    ceiling = ndtr((400 - 0.25 * 400) / math.sqrt(float(mixture.cov) * 400))
    with pytest.raises(ValueError, match=f"the ceiling at eps=0.25 is {ceiling:.6g}"):
        robust_sample_gap(400, 4.0, eps=0.25, accuracy=0.9999)


@pytest.mark.parametrize("n", [10**4, 10**12, 10**16])
def test_the_variance_of_the_l1_norm_keeps_its_digits(n):
    """For s small against m, |theta_i| is normal: the variance is d s^2, which m^2 + s^2 - E|theta|^2 loses to rounding."""
    mixture = BinaryMixture(np.ones(300))
    law = SecondOrderLaw(mixture, mixture, n, 0.5, math.inf)
    assert law._statistics[1][1, 1] == pytest.approx(300 / n, rel=1e-9)
    assert 0 <= law.cdf(0.9) <= 1  # was a bare error of the square root
    assert law.quantile(0.1) <= law.mean() + 1e-12


def test_the_law_of_an_accuracy_that_does_not_vary_is_a_step():
    law = SecondOrderLaw(BinaryMixture(np.zeros(50)), BinaryMixture(np.ones(50)), 5, 0.0, 2)
    assert law.cdf([0.499, 0.5, 0.501]).tolist() == [0.0, 1.0, 1.0]  # classes that coincide: 1/2, whatever was learned
    assert law.quantile(0.3) == 0.5


def test_all_three_counts_of_the_gap_fall_by_the_square_of_the_separation():
    near, far = (robust_sample_gap(400, 4, eps=0.3, separation=c) for c in (1.0, 2.0))
    assert far.carmon_samples == near.carmon_samples / 4
    assert far.robust_samples == pytest.approx(near.robust_samples / 4, abs=1)
