"""The quasi-Monte Carlo law: against the exact law, against plain Monte Carlo, and the number of samples it asks for."""

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import ncx2, norm
from scipy.stats import t as t_law

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
        assert abs(found.cdf(a) - level) < 5 * max(found.cdf_error(a), 1e-7)
        assert found.cdf(found.quantile(level)) == pytest.approx(level, abs=1e-9)
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


@pytest.mark.parametrize("seed", range(40))
def test_the_cone_against_plain_monte_carlo(seed):
    """Random pairs of 1 to 12 dimensions, with and without directions of little noise: 100,000 draws, |z| < 4.5."""
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(1, 13))
    factor = rng.standard_normal((dim, dim + 1)) * np.exp(rng.uniform(-2, 2, dim))[:, None]
    real = BinaryMixture(rng.standard_normal(dim), float(rng.uniform(0.2, 2)))
    eps = float(rng.choice([0.0, 0.2, 0.6])) * float(np.linalg.norm(real.mean))
    if eps == 0:
        real = BinaryMixture(real.mean, np.eye(dim) + 0.5 * np.ones((dim, dim)) if seed % 2 else rng.uniform(0.5, 2, dim))
    synthetic = BinaryMixture(real.mean + 0.5 * rng.standard_normal(dim), factor @ factor.T / dim)
    n = int(rng.choice([1, 4, 30]))
    law, values = QuasiMonteCarloLaw(real, synthetic, n, eps), draws(real, synthetic, n, eps, 2, seed, 100_000)
    for level in (0.02, 0.3, 0.7, 0.95):
        a = float(np.quantile(values, level)) - 1e-12
        share = (values <= a).mean()
        error = math.hypot(math.sqrt(max(share * (1 - share), 1e-5) / len(values)), law.cdf_error(a))
        assert abs(law.cdf(a) - share) < 4.5 * error, (dim, n, eps, level)
        assert law.cdf_error(a) < 5e-3


@pytest.mark.parametrize("cov", [EQUAL, ALTERNATING, np.linspace(0.2, 3, DIM)], ids=["equal", "alternating", "diagonal"])
def test_confidence_of_correlated_samples_is_exact(cov):
    real, synthetic = BinaryMixture(MEAN, 0.8), BinaryMixture(MEAN, cov)
    n = required_samples(real, synthetic, eps=0.2, accuracy=0.85)
    law = QuasiMonteCarloLaw(real, synthetic, n, 0.2)
    assert law.cdf_error(0.85) == 1e-8
    assert law.cdf(0.85) <= 0.05 < QuasiMonteCarloLaw(real, synthetic, n - 1, 0.2).cdf(0.85)
    values = np.concatenate([draws(real, synthetic, n, 0.2, 2, seed, 200_000) for seed in range(5)])
    assert abs((values <= 0.85).mean() - law.cdf(0.85)) < 4.5 * math.sqrt(0.05 * 0.95 / 1e6)


@pytest.mark.parametrize(("dim", "n"), [(8, 7), (12, 1), (12, 7), (60, 40), (199, 1000)])
def test_the_probability_is_that_of_the_exact_law(dim, n):
    direction = np.r_[0.6, 0.8, np.zeros(dim - 2)]
    real, synthetic = BinaryMixture(np.r_[1.5, np.zeros(dim - 1)], 0.8), BinaryMixture(1.2 * direction, 1.3)
    exact, found = AveragingLaw(real, synthetic, n, 0.3), QuasiMonteCarloLaw(real, synthetic, n, 0.3)
    for level in (1e-5, 0.001, 0.05, 0.5, 0.95, 0.999):
        a = exact.quantile(level)
        assert found.cdf(a) == pytest.approx(level, abs=2e-8)
        if level >= 0.001:
            assert found.quantile(level) == pytest.approx(a, abs=1e-6)


@pytest.mark.parametrize(("df", "n", "dim"), [(3.0, 20, 50), (5.0, 3, 8), (2.5, 1, 4)])
@pytest.mark.parametrize(("p", "q"), [(2, 2), (np.inf, 1)])
def test_student_t_classes_against_averages_of_their_samples(df, n, dim, p, q):
    """2,000 training sets, attacked in closed form through the t cdf: |z| < 4. The Gaussian law is off by 0.02 to 0.08 there."""
    rng = np.random.default_rng(int(df * 10))
    mixture = BinaryMixture(np.full(dim, 2 / math.sqrt(dim)), rng.uniform(0.5, 1.5, dim))
    eps = 0.2 * float(np.linalg.norm(mixture.mean, p))
    scales = (df - 2) / rng.chisquare(df, (2000, n, 1))
    theta = (mixture.mean + np.sqrt(mixture.cov * scales) * rng.standard_normal((2000, n, dim))).mean(axis=1)
    margin = (theta @ mixture.mean - eps * np.linalg.norm(theta, ord=q, axis=1)) / np.sqrt(theta**2 @ mixture.cov)
    values = t_law.cdf(margin * math.sqrt(df / (df - 2)), df)
    law = QuasiMonteCarloLaw(mixture, mixture, n, eps, p, df)
    error = math.hypot(values.std() / math.sqrt(len(values)), law.mean_error)
    assert abs(values.mean() - law.mean()) < 4 * error
    assert abs(values.mean() - QuasiMonteCarloLaw(mixture, mixture, n, eps, p).mean()) > 8 * error
    assert law.cdf(law.quantile(0.3)) == pytest.approx(0.3, abs=1e-3)


def test_errors():
    mixture = BinaryMixture(MEAN, EQUAL)
    with pytest.raises(ValueError, match=r"confidence=0\.9999 is too high"):
        required_samples(mixture, mixture, eps=0.1, accuracy=0.6, confidence=0.9999)
    wide = BinaryMixture(np.full(201, 0.1), np.linspace(0.5, 1, 201))
    with pytest.raises(ValueError, match=r"confidence=0\.9999 is too high"):  # normal tails
        required_samples(wide, wide, eps=0.1, accuracy=0.6, confidence=0.9999)
    with pytest.raises(ValueError, match="have dimensions 12 and 2"):
        QuasiMonteCarloLaw(mixture, BinaryMixture([1.0, 0.0]), 3, 0.1)
    with pytest.raises(ValueError, match="n=0"):
        QuasiMonteCarloLaw(mixture, mixture, 0, 0.1)
    with pytest.raises(ValueError, match="df=2 must be"):
        QuasiMonteCarloLaw(mixture, mixture, 3, 0.1, df=2)
    with pytest.raises(ValueError, match="n=20000 with df=3"):
        QuasiMonteCarloLaw(mixture, mixture, 20_000, 0.1, df=3)


def ncx2_integral(mean, along, across, k):
    """P(x >= k sqrt(x^2 + R)), x ~ N(mean[0], along), R / across noncentral chi-square of d - 1 degrees of freedom, by the trapezoid."""
    x = np.linspace(max(0.0, mean[0] - 9 * math.sqrt(along)), mean[0] + 9 * math.sqrt(along), 400_001)
    if x[0] == 0:
        x = np.unique(np.r_[x, np.geomspace(1e-9, x[-1], 100_000)])
    inside = ncx2.cdf(x * x * (1 / k**2 - 1) / across, len(mean) - 1, float(mean[1:] @ mean[1:]) / across)
    return float(np.trapezoid(norm.pdf(x, mean[0], math.sqrt(along)) * np.where(np.isnan(inside), 1.0, inside), x))


@pytest.mark.parametrize(
    ("mean", "along", "across", "z"),
    [
        (np.zeros(8), 1e6, 1.0, 0.3),  # almost always inside but for a sliver near 0
        (np.eye(200)[1], 1.0, 3e-6, 0.7),  # a step in the middle
        (np.r_[1e-3, np.zeros(5)], 1.0, 1.0, 1e-5),
        (np.r_[3.0, 2.0, np.zeros(6)], 0.01, 0.5, 0.8),
    ],
)
def test_slivers_and_steps_are_not_missed(mean, along, across, z):
    """Against a trapezoid of 400,000 points, to 1e-6, or to the error that is told where points are sampled (the second)."""
    axis = np.eye(len(mean))[0]
    synthetic = BinaryMixture(mean, np.r_[along, np.full(len(mean) - 1, across)])
    law = QuasiMonteCarloLaw(BinaryMixture(axis, 1.0), synthetic, 1, 0.0)
    error = max(1e-6, 5 * law.cdf_error(float(ndtr(z))))
    assert error < 1e-3
    assert 1 - law.cdf(float(ndtr(z))) == pytest.approx(ncx2_integral(mean, along, across, z), abs=error)


def test_noise_that_turns_with_x_leaves_no_part_out():
    """E x is 14 standard deviations from 0, and the part that is surely inside lies left of the part that may be."""
    factor = np.eye(12) * 0.2
    factor[0, 0], factor[1, 0] = 1, 2
    real = BinaryMixture(np.r_[2.0, np.zeros(11)], 1.0)
    synthetic = BinaryMixture(np.r_[20, 16.6, np.zeros(10)], factor @ factor.T)
    law = QuasiMonteCarloLaw(real, synthetic, 1, 0.0)
    values = draws(real, synthetic, 1, 0.0, 2, 5, 400_000)
    for level in (1.3, 1.4, 1.5, 1.6):
        share = (values <= ndtr(level)).mean()
        assert abs(law.cdf(float(ndtr(level))) - share) < 4.5 * math.sqrt(max(share * (1 - share), 1e-6) / 400_000)
    assert law.quantile(0.5) == pytest.approx(np.median(values), abs=1e-3)


def test_where_the_law_is_exact_high_confidences_are_answered():
    """A scalar real covariance and a full synthetic one: twelve dimensions, n against draws of the classifier."""
    rng = np.random.default_rng(5)
    factor = rng.standard_normal((12, 12)) / 4 + np.eye(12)
    real, synthetic = BinaryMixture(np.full(12, 0.4), 1.0), BinaryMixture(np.full(12, 0.4), factor @ factor.T)
    n = required_samples(real, synthetic, eps=0.1, accuracy=0.75, confidence=0.9999)
    law = QuasiMonteCarloLaw(real, synthetic, n, 0.1)
    assert law.cdf_error(0.75) == 1e-8
    assert law.cdf(0.75) <= 1e-4 < QuasiMonteCarloLaw(real, synthetic, n - 1, 0.1).cdf(0.75)
    short = 0
    for _ in range(20):  # 4 million classifiers: five standard errors are a quarter of 1e-4
        theta = synthetic.mean + rng.standard_normal((200_000, 12)) @ factor.T / np.sqrt(n)
        short += ((theta @ real.mean) / np.linalg.norm(theta, axis=1) - 0.1 < ndtri(0.75)).sum()
    assert abs(short / 4e6 - law.cdf(0.75)) < 5 * np.sqrt(1e-4 / 4e6)
    with pytest.raises(ValueError, match=r"confidence=0\.9999999 is too high.*at most 0\.999999"):  # the integral errs by 1e-8
        required_samples(real, synthetic, eps=0.1, accuracy=0.75, confidence=0.9999999)
