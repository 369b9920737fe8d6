"""T4: the exact law against scipy's noncentral t, brute-force quadrature, Monte Carlo, its invariants and its edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest, nct, ncx2, norm

from simulations.mixtures.theory_checks import aligned, averaged_accuracies
from theory import AveragingLaw, BinaryMixture, required_samples


def law(dim=20, norm_=2.0, sigma=1.0, eps=0.5, c=1.0, std=1.0, n=5, cosine=1.0, n_real=0):
    mixture = BinaryMixture(aligned(dim, norm_), sigma**2)
    return AveragingLaw(mixture, BinaryMixture(aligned(dim, c * norm_, cosine), std**2), n, eps, n_real)


def test_reference_values():
    reference = law()
    assert reference.mean() == pytest.approx(0.8162201, abs=5e-8)
    assert 1 - reference.cdf(0.85) == pytest.approx(0.3007837, abs=5e-8)


@pytest.mark.parametrize("dim", [2, 3, 4, 10, 100, 1000])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 3.0, 30.0, 300.0])
def test_angle_law_is_scipys_noncentral_t(dim, kappa):
    found = law(dim=dim, norm_=1.0, c=kappa, n=1)
    centre = math.atan2(math.sqrt(dim - 1), kappa)
    psi = np.linspace(0.2 * centre, min(3 * centre, math.pi - 0.01), 60)
    expected = nct.sf(math.sqrt(dim - 1) / np.tan(psi), dim - 1, kappa)
    np.testing.assert_allclose(found.angle_cdf(psi), expected, atol=2e-12)


def test_mean_is_the_accuracy_averaged_over_the_angle():
    """Stieltjes sum of A d P(angle <= psi) over 40,000 cells: an error of order 1e-8, and no integration by parts."""
    psi = np.linspace(0, math.pi, 40_001)
    for case in (law(), law(dim=2, n=1), law(dim=5, cosine=0.4, n=7), law(dim=300, c=3.0, cosine=0.95, n=50), law(sigma=0.05)):
        accuracy = case.accuracy_at((psi[1:] + psi[:-1]) / 2)
        assert case.mean() == pytest.approx(accuracy @ np.diff(case.angle_cdf(psi)), abs=1e-7)


@pytest.mark.parametrize(("dim", "kappa", "cosine"), [(5, 200.0, 0.7), (3, 60.0, 0.2), (40, 1000.0, 0.95), (5, 20.0, -0.8)])
def test_misaligned_law_at_large_kappa(dim, kappa, cosine):
    """P(N(kappa rho, 1) >= r chi') with scipy's noncentral chi-square and adaptive integration over the normal variable."""
    case = law(dim=dim, norm_=1.0, c=kappa, cosine=cosine, n=1)
    along, across = kappa * cosine, kappa * math.sqrt(1 - cosine**2)
    centre = math.atan2(across, along)
    for psi in centre + np.array([-2.0, -0.5, 0.0, 1.0, 2.5]) / kappa:
        slope = math.tan(psi)  # chi' <= u tan psi where cos psi > 0, chi' <= |u| |tan psi| mirrored otherwise
        sign = 1 if slope > 0 else -1

        def inside(u, slope=slope):
            return ncx2.cdf((u * slope) ** 2, dim - 1, across**2) * norm.pdf(u - along)

        low, high = (max(0.0, along - 9), along + 9) if sign > 0 else (along - 9, min(0.0, along + 9))
        part = quad(inside, low, high, epsabs=1e-13, limit=400)[0]
        expected = part if sign > 0 else 1 - part
        assert float(case.angle_cdf(psi)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("dim", "n", "cosine", "n_real", "std"),
    [
        (2, 3, 0.6, 0, 1.0),
        (4, 10, -0.4, 0, 0.7),
        (15, 5, 0.8, 0, 1.0),
        (8, 4, 0.5, 6, 2.0),
        (30, 100, 0.9, 0, 1.0),
        (6, 0, 1.0, 3, 1.0),
    ],
)
def test_misaligned_and_mixed_law_matches_simulation(dim, n, cosine, n_real, std):
    """Kolmogorov-Smirnov over 4,000 really fitted data sets: false alarm 1e-6 a case."""
    case = law(dim=dim, n=n, cosine=cosine, n_real=n_real, std=std, c=1.2)
    rng = np.random.default_rng([dim, n])
    exact, measured = averaged_accuracies(case.mixture, case.synthetic, n, 0.5, 2, n_real, 4000, rng)
    assert kstest(exact, case.cdf).pvalue > 1e-6
    assert abs(measured.mean() - case.mean()) < 5 * measured.std() / math.sqrt(4000)


def test_quantile_inverts_cdf():
    """In two dimensions accuracy is flat in the angle at both ends, so extreme quantiles are ill-conditioned there."""
    for case in (law(), law(dim=2, n=1), law(cosine=0.3), law(dim=400, n=10**6), law(c=0.0)):
        for q in (0.05, 0.5, 0.95) if case.mixture.dim == 2 else (1e-6, 0.05, 0.5, 0.95, 1 - 1e-6):
            assert case.cdf(case.quantile(q)) == pytest.approx(q, rel=1e-6, abs=1e-9)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(2, 50), st.floats(0.2, 5), st.floats(0.2, 5), st.integers(1, 1000), st.floats(-1, 1), st.integers(2, 5))
def test_exchange_law(dim, c, std, n, cosine, k):
    """Classes k times more distinguishable are worth exactly k^2 times the samples, by separation or by noise."""
    base = law(dim=dim, c=c, std=std, n=n * k * k, cosine=cosine)
    apart = law(dim=dim, c=c * k, std=std, n=n, cosine=cosine)
    sharp = law(dim=dim, c=c, std=std / k, n=n, cosine=cosine)
    for other in (apart, sharp):
        assert other.kappa == pytest.approx(base.kappa, rel=1e-12)
        assert other.mean() == pytest.approx(base.mean(), abs=1e-10)
        assert other.cdf(0.7) == pytest.approx(base.cdf(0.7), abs=1e-8)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.floats(0.1, 3), st.integers(1, 500), st.floats(0, 1.5))
def test_more_samples_and_weaker_attacks_help(dim, c, n, eps):
    assert law(dim=dim, c=c, n=2 * n, eps=eps).mean() >= law(dim=dim, c=c, n=n, eps=eps).mean() - 1e-12
    assert law(dim=dim, c=c, n=n, eps=eps).mean() >= law(dim=dim, c=c, n=n, eps=eps + 0.1).mean() - 1e-12


def test_rotated_coordinates_give_the_same_law():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    base = law(dim=6, cosine=0.7)
    moved = AveragingLaw(BinaryMixture(rotation @ base.mixture.mean), BinaryMixture(rotation @ base.synthetic.mean), 5, 0.5)
    assert moved.mean() == pytest.approx(base.mean(), abs=1e-13)


@pytest.mark.parametrize("sigma", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("n", [1, 10**6, 10**12])
@pytest.mark.parametrize(("dim", "cosine"), [(1, 1.0), (2, 1.0), (2, 0.7), (1000, 1.0), (1000, 0.7), (10**6, 1.0), (10**6, 0.7)])
def test_edges_stay_finite_and_ordered(sigma, n, dim, cosine):
    case = law(dim=dim, sigma=sigma, std=sigma, n=n, cosine=cosine)
    low, middle, high = case.quantile(0.01), case.quantile(0.5), case.quantile(0.99)
    assert 0 <= low <= middle <= high <= 1
    assert low - 1e-9 <= case.mean() <= float(case.accuracy_at(np.array(0.0))) + 1e-9
    if case.kappa > 1e5 and dim < 1e5:
        assert case.mean() == pytest.approx(case.ceiling, abs=1e-4)


def test_unit_free():
    base = law(cosine=0.8)
    for unit in (1e-6, 1e6):
        scaled = law(norm_=2 * unit, sigma=unit, std=unit, eps=0.5 * unit, cosine=0.8)
        assert scaled.mean() == pytest.approx(base.mean(), abs=1e-12)


def test_kappa_zero_is_a_uniform_direction():
    """d = 3: cos(angle) is uniform on [-1, 1], so E[A] is an elementary integral."""
    case = law(dim=3, c=0.0)
    expected = quad(lambda t: norm.cdf(2 * t - 0.5) / 2, -1, 1)[0]
    assert case.mean() == pytest.approx(expected, abs=1e-12)


def test_kappa_ten_thousand_is_the_ceiling_minus_its_first_correction():
    """tan^2(angle) ~ chi^2_{d-1} / kappa^2, so E[A] = ceiling - phi(z) ||mu|| (d-1) / (2 kappa^2) to relative order 1e-7."""
    case = law(c=5000.0, n=1)
    assert case.kappa == pytest.approx(1e4)
    loss = norm.pdf(1.5) * 2 * 19 / (2 * 1e8)
    assert case.ceiling - case.mean() == pytest.approx(loss, rel=1e-4)


def test_one_dimension_is_a_coin():
    case = law(dim=1, n=4, c=0.25)
    right, wrong = norm.cdf(1.5), norm.cdf(-2.5)
    assert case.mean() == pytest.approx(norm.cdf(1.0) * right + norm.cdf(-1.0) * wrong, abs=1e-14)
    assert case.cdf(0.5) == pytest.approx(norm.cdf(-1.0), abs=1e-14)
    assert case.quantile(0.1) == pytest.approx(wrong)
    assert case.quantile(0.9) == pytest.approx(right)


def test_hopeless_attack():
    assert law(eps=50.0).mean() == pytest.approx(0, abs=1e-300)
    assert law(eps=50.0).cdf(0.1) == 1.0


@pytest.mark.parametrize(
    ("cosine", "accuracy", "confidence"), [(1.0, 0.9, 0.95), (1.0, 0.6, 0.5), (0.9, 0.85, 0.99), (0.5, 0.65, 0.9)]
)
def test_required_samples_is_the_smallest(cosine, accuracy, confidence):
    mixture, synthetic = law(cosine=cosine).mixture, law(cosine=cosine).synthetic
    n = required_samples(mixture, synthetic, eps=0.5, accuracy=accuracy, confidence=confidence)
    assert 1 - AveragingLaw(mixture, synthetic, n, 0.5).cdf(accuracy) >= confidence
    assert n == 1 or 1 - AveragingLaw(mixture, synthetic, n - 1, 0.5).cdf(accuracy) < confidence


def test_required_samples_in_simulation():
    """At n the wish is met with the wished confidence, at half of it not: 3,000 fitted data sets, bounds of 5 standard errors."""
    mixture = law().mixture
    n = required_samples(mixture, mixture, eps=0.5, accuracy=0.9, confidence=0.95)
    rng = np.random.default_rng(1)
    met, _ = averaged_accuracies(mixture, mixture, n, 0.5, 2, 0, 3000, rng)
    half, _ = averaged_accuracies(mixture, mixture, n // 2, 0.5, 2, 0, 3000, rng)
    assert (met >= 0.9).mean() > 0.95 - 5 * math.sqrt(0.05 * 0.95 / 3000)
    assert (half >= 0.9).mean() < 0.95 - 5 * math.sqrt(0.05 * 0.95 / 3000)


def test_required_samples_scales_with_separation():
    mixture = BinaryMixture(aligned(50, 1.0))
    near, far = (required_samples(mixture, BinaryMixture(aligned(50, c)), eps=0.1, accuracy=0.8) for c in (0.01, 0.1))
    assert near / far == pytest.approx(100, rel=1e-2)


@pytest.mark.parametrize("cosine", [1.0, 0.6])
def test_above_the_ceiling_names_it(cosine):
    case = law(cosine=cosine)
    with pytest.raises(ValueError, match=f"out of reach.*ceiling.*{case.ceiling:.6g}"):
        required_samples(case.mixture, case.synthetic, eps=0.5, accuracy=min(0.999, case.ceiling + 1e-6))


def test_required_samples_for_linf_and_anisotropic_data():
    """In 40 dimensions quasi-Monte Carlo decides: the second-order law's quantile crosses the wish between n - 1 and n too."""
    from theory import SecondOrderLaw

    rng = np.random.default_rng(2)
    mixture = BinaryMixture(rng.normal(0, 0.4, 40), rng.uniform(0.5, 2, 40))
    for p in (2, np.inf):
        n = required_samples(mixture, mixture, eps=0.05, accuracy=0.85, confidence=0.9, p=p)
        assert SecondOrderLaw(mixture, mixture, n, 0.05, p).quantile(0.1) >= 0.85
        assert SecondOrderLaw(mixture, mixture, n - 1, 0.05, p).quantile(0.1) < 0.85


def test_beyond_200_dimensions_the_second_order_law_decides():
    from theory import SecondOrderLaw

    rng = np.random.default_rng(3)
    mixture = BinaryMixture(rng.normal(0, 0.12, 250), rng.uniform(0.5, 2, 250))
    for p in (2, np.inf):
        n = required_samples(mixture, mixture, eps=0.02, accuracy=0.8, confidence=0.9, p=p)
        least, less = (SecondOrderLaw(mixture, mixture, count, 0.02, p).quantile(0.1) for count in (n, n - 1))
        assert least >= 0.8 > less
    with pytest.raises(ValueError, match="p=1: the second-order law covers"):
        required_samples(mixture, mixture, eps=0.02, accuracy=0.6, p=1)


def test_one_dimension_at_its_top():
    case = law(dim=1, n=4, c=0.25)
    assert case.cdf(0.9999) == 1.0
    assert case.cdf(0.001) == 0.0


def test_the_product_rule_and_the_integral_over_angles_agree():
    """Two ways to the mean, on random laws from d = 20 on: misaligned, few and many samples, weak and strong signals."""
    rng, compared = np.random.default_rng(0), 0
    for _ in range(60):
        dim, cosine = int(rng.choice([20, 21, 60, 400])), rng.uniform(-0.3, 1)
        mean = np.r_[10 ** rng.uniform(-0.5, 0.9), np.zeros(dim - 1)]
        direction = np.r_[cosine, math.sqrt(1 - cosine**2), np.zeros(dim - 2)]
        real, synthetic = BinaryMixture(mean, rng.uniform(0.4, 3)), BinaryMixture(direction * 10 ** rng.uniform(-1, 1))
        law = AveragingLaw(real, synthetic, int(10 ** rng.uniform(0, 5)), rng.uniform(0, 0.9) * mean[0])
        if law.mean() == law._mean_by_product():
            compared += 1
            assert law.mean() == pytest.approx(law._mean_over_angles(), abs=1e-13)
    assert compared > 30


def test_in_one_dimension_every_angle_is_at_most_pi():
    one = AveragingLaw(BinaryMixture([1.0], 1.0), BinaryMixture([1.0], 1.0), 1, 0.0)
    np.testing.assert_allclose(one.angle_cdf([0.0, 3.0, math.pi]), [norm.cdf(1), norm.cdf(1), 1])
    lowest, highest = norm.cdf(-1.0), norm.cdf(1.0)
    np.testing.assert_allclose(one.cdf([lowest - 1e-9, lowest, 0.5, highest]), [0, 1 - norm.cdf(1), 1 - norm.cdf(1), 1])
    assert one.mean() == pytest.approx(norm.cdf(1) * highest + (1 - norm.cdf(1)) * lowest, rel=1e-12)


def test_the_ceiling_without_any_class_signal_is_the_mean():
    """The direction is uniform for every n; the accuracies of 4,000 directions, wrong alarm 6e-5, of a fixed seed."""
    real, law = BinaryMixture([2.0, 0.0]), AveragingLaw(BinaryMixture([2.0, 0.0]), BinaryMixture([0.0, 0.0]), 10**9, 0.5)
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 4000)
    accuracies = norm.cdf(2 * np.cos(angles) - 0.5)
    assert abs(law.ceiling - accuracies.mean()) < 4 * accuracies.std() / np.sqrt(4000)
    assert law.ceiling == AveragingLaw(real, BinaryMixture([0.0, 0.0]), 3, 0.5).ceiling


def test_in_one_dimension_the_law_has_two_values_and_reaches_its_quantiles():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        real, fake = (BinaryMixture([rng.uniform(0.2, 2)], rng.uniform(0.3, 3)) for _ in range(2))
        law = AveragingLaw(real, fake, int(rng.integers(1, 6)), rng.uniform(0, 0.2))
        low, high = (float(norm.cdf((sign * real.mean[0] - law.eps) / math.sqrt(real.cov))) for sign in (-1, 1))
        assert law.cdf(low) == pytest.approx(norm.cdf(-fake.mean[0] * math.sqrt(law.n / fake.cov)), abs=1e-12)
        assert law.cdf(high) == 1.0
        assert all(law.cdf(law.quantile(q)) >= q for q in (0.02, 0.3, 0.9, 0.999))
