"""T1 and T2 for elliptical classes, against exact attacks on samples and against numbers known in closed form."""

import math

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import gennorm

import theory as t
from theory import generalised_normal_margin, student_t_margin

MIXTURE = t.BinaryMixture([1.2, -0.5, 0.3], [[1.0, 0.3, 0.0], [0.3, 0.8, -0.1], [0.0, -0.1, 0.5]])


def radii(kind, n, dim, rng):
    """R with E R^2 = d."""
    if kind == "t":
        return np.sqrt(rng.chisquare(dim, n) / rng.chisquare(3.0, n) * 3) / math.sqrt(
            3
        )  # chi_d / sqrt(chi2_3 / 3), t3 has variance 3
    powered = rng.gamma(dim / 1.0, 1.0, n)  # shape 1
    return powered * math.sqrt(dim / (dim * (dim + 1)))


@pytest.mark.parametrize(("kind", "cdf"), [("t", student_t_margin(3)), ("laplace", generalised_normal_margin(1.0, 3))])
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_attacked_samples_have_that_accuracy(kind, cdf, p):
    """400,000 samples, each moved by its worst perturbation: abs(z) < 4; the Gaussian law is far off."""
    rng, n, eps = np.random.default_rng(5), 400_000, 0.25
    best = t.bayes_robust_classifier(MIXTURE, eps, p)
    u = rng.standard_normal((n, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    y = rng.choice([-1.0, 1.0], n)
    x = y[:, None] * MIXTURE.mean + (radii(kind, n, 3, rng)[:, None] * u) @ np.linalg.cholesky(MIXTURE.cov).T
    x += t.worst_case_perturbation(best, y, eps, p)
    measured = float((best.predict(x) == y).mean())
    predicted = t.robust_accuracy(best, MIXTURE, eps, p, margin_cdf=cdf)
    error = math.sqrt(predicted * (1 - predicted) / n)
    assert abs(measured - predicted) < 4 * error
    assert abs(measured - t.robust_accuracy(best, MIXTURE, eps, p)) > 8 * error
    assert t.bayes_robust_accuracy(MIXTURE, eps, p, margin_cdf=cdf) == pytest.approx(predicted, abs=1e-12)


def test_cdfs_have_their_closed_forms():
    x = np.array([-3.0, -0.7, -1e-2, -1e-4, 0.0, 1e-3, 0.4, 2.5])
    for dim in (1, 2, 7, 19, 20, 400):
        assert generalised_normal_margin(2.0, dim)(x) == pytest.approx(ndtr(x), abs=1e-10)
    for shape in (1.0, 1.5, 4.0):
        unit = gennorm(shape, scale=1 / gennorm(shape).std())
        assert generalised_normal_margin(shape, 1)(x) == pytest.approx(unit.cdf(x), abs=1e-9)
    assert student_t_margin(1e9)(x) == pytest.approx(ndtr(x), abs=1e-8)
    for cdf in (student_t_margin(4.0), generalised_normal_margin(1.0, 5), generalised_normal_margin(6.0, 3)):
        grid = np.linspace(-60, 60, 24_001)
        density = np.diff(cdf(grid))
        middle = (grid[1:] + grid[:-1]) / 2
        assert density.min() >= -1e-12
        assert density.sum() == pytest.approx(1, abs=1e-5)
        assert (density * middle**2).sum() == pytest.approx(1, abs=5e-3)


def test_no_other_linear_classifier_is_better():
    cdf, rng = student_t_margin(3), np.random.default_rng(0)
    best = t.bayes_robust_accuracy(MIXTURE, 0.3, 2, margin_cdf=cdf)
    others = [t.robust_accuracy(t.LinearClassifier(rng.standard_normal(3)), MIXTURE, 0.3, margin_cdf=cdf) for _ in range(300)]
    assert max(others) < best


def test_errors():
    with pytest.raises(ValueError, match="df=2 must be above 2"):
        student_t_margin(2)
    with pytest.raises(ValueError, match="shape=0 must be > 0"):
        generalised_normal_margin(0, 3)
    with pytest.raises(ValueError, match=r"prior=0\.3: the best rule for elliptical classes"):
        t.bayes_robust_accuracy(t.BinaryMixture([1.0], 1.0, 0.3), 0.1, margin_cdf=student_t_margin(3))


def test_accuracy_from_variance_is_that_of_the_random_angle():
    """Against 200,000 draws of the chi distribution, 4 standard errors."""
    mixture, rng = t.BinaryMixture([1.5, 0.0, 0.0, 0.0], 0.8), np.random.default_rng(2)
    tangent = np.sqrt(3.2 / 40 * rng.chisquare(3, 200_000))
    values = ndtr((1.5 / np.hypot(1, tangent) - 0.2) / math.sqrt(0.8))
    found = t.accuracy_from_variance(mixture, 3.2, 40, eps=0.2)
    assert abs(found - values.mean()) < 4 * values.std() / math.sqrt(len(values))
    assert t.accuracy_from_variance(mixture, math.inf, 40) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="variance=0 must be > 0"):
        t.accuracy_from_variance(mixture, 0.0, 40)


@pytest.mark.parametrize("shape", [1.0, 4.0])
@pytest.mark.parametrize("dim", [20, 64])
def test_margins_in_many_dimensions_are_those_of_samples(shape, dim):
    """Four shares of 200,000 samples within 4 standard errors. R^shape is Gamma(dim / shape), the direction is uniform."""
    rng, n = np.random.default_rng(int(dim + shape)), 200_000
    radius = rng.gamma(dim / shape, 1, n) ** (1 / shape)
    radius *= math.sqrt(dim / math.exp(math.lgamma((dim + 2) / shape) - math.lgamma(dim / shape)))
    first, rest = rng.normal(size=n), rng.chisquare(dim - 1, n)
    along = radius * first / np.sqrt(first**2 + rest)
    cdf = generalised_normal_margin(shape, dim)
    for x in (-2.0, -0.5, 0.3, 1.5):
        expected = float(cdf(x))
        assert abs(np.mean(along <= x) - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
