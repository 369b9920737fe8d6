"""Intervals: exact laws against sampled data sets, batched margins against T2 and T5, and coverage over 4,000 data sets.

False-alarm rates: coverage of 4,000 data sets has a standard error of 0.0034; bounds of 3.9 of them are crossed once in 10,000 tests.
"""

import math
import warnings

import numpy as np
import pytest
from scipy.special import betaincinv, ndtr, ndtri
from scipy.stats import binom, kstest, ncf, nct

from theory import (
    AveragingLaw,
    BinaryMixture,
    Interval,
    MixtureEstimate,
    ProportionalLaw,
    QuasiMonteCarloLaw,
    SecondOrderLaw,
    bayes_robust_accuracy,
    bayes_robust_classifier,
    confidence,
    is_trivial,
    margin_interval,
    required_samples,
    share_interval,
)
from theory.confidence import _f_by_parts, _unbiased_spectrum
from theory.linear import robust_margin
from theory.redrawn import Redrawn, Spreads

KINDS = ("scalar", "diagonal", "full")


def mixture_of(kind, dim, rng, norm=2.0):
    mean = rng.standard_normal(dim)
    mean *= norm / np.linalg.norm(mean)
    if kind == "scalar":
        return BinaryMixture(mean, 0.7)
    if kind == "diagonal":
        return BinaryMixture(mean, np.exp(rng.uniform(-1.5, 1.5, dim)))
    factor = rng.standard_normal((dim, dim + dim // 2))
    return BinaryMixture(mean, factor @ factor.T / factor.shape[1])


def optimal_margin(mixture, eps, p):
    """Margin of the classifier of T2 over its standard deviation; ||mean|| - eps where no classifier beats guessing."""
    if is_trivial(mixture, eps, p):
        return float(np.linalg.norm(mixture.mean, p)) - eps
    margin, std = robust_margin(bayes_robust_classifier(mixture, eps, p).weights, mixture, eps, p)
    return margin / std


def balanced(mixture, rows, rng, kind):
    """An estimate from equally many rows a class."""
    y = np.repeat([1.0, -1.0], rows // 2)
    x = y[:, None] * mixture.mean + mixture.covariance.sample(rows, rng)
    return MixtureEstimate.from_samples(x, y, kind)


def covered(truth, intervals):
    ends = np.array(intervals)
    return float(((ends[:, 0] <= truth) & (truth <= ends[:, 2])).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [2, math.inf])
def test_batched_margins_are_those_of_the_optimum_and_of_first_order_averaging(kind, p):
    rng = np.random.default_rng([3, KINDS.index(kind), int(p == 2)])
    mixtures = [mixture_of(kind, 7, rng) for _ in range(40)]
    spreads = Spreads(np.stack([np.atleast_1d(m.cov) for m in mixtures]), 7)
    shift = rng.standard_normal(7)
    redrawn = Redrawn(shift, np.stack([m.mean for m in mixtures]) - 1.7 * shift, spreads)
    for eps in (0.0, 1e-13, 0.01, 0.2, 0.6, 0.99, 3.0):
        radii = eps * (1.0 if p == 2 else 0.4)
        expected = [optimal_margin(m, radii, p) for m in mixtures]
        found = redrawn.statistic(lambda spreads, means: spreads.optimal_margin(means, radii, p), 1.7)  # noqa: B023
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
        first = [ndtri(SecondOrderLaw(m, m, 5, radii, p).first_order_mean()) for m in mixtures]
        found = redrawn.statistic(lambda spreads, means: spreads.averaging_margin(means, radii, p, 5), 1.7)  # noqa: B023
        np.testing.assert_allclose(found, first, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_redrawn_estimates_have_the_moments_of_estimates(kind):
    """Means, and the second moments E C_ij^2 of covariances of k degrees of freedom: z-scores of 20,000 draws, at most 5 of 40."""
    rng = np.random.default_rng(8)
    mixture, rows, degrees = mixture_of(kind, 4, rng), 12.0, 9
    redrawn = Redrawn.of(mixture.mean, mixture.covariance, rows, degrees, 20_000, 1)
    noise, values = redrawn.noise, redrawn.spreads.values
    cov = np.diag(mixture.covariance.variances) if kind != "full" else mixture.cov
    products = noise[:, :, None] * noise[:, None, :]
    z = (products.mean(axis=0) - cov / rows) / (products.std(axis=0) / math.sqrt(len(noise)))
    assert np.abs(z).max() < 4
    if kind == "full":  # E S_ij^2 = C_ij^2 + (C_ii C_jj + C_ij^2) / k
        expected = cov**2 + (np.outer(np.diag(cov), np.diag(cov)) + cov**2) / degrees
    else:  # chi^2_k / k has variance 2 / k
        expected = np.diag(cov)[: values.shape[1]] ** 2 * (1 + 2 / (degrees * (4 if kind == "scalar" else 1)))
    for power, wanted in ((values, mixture.cov), (values**2, expected)):
        z = (power.mean(axis=0) - wanted) / (power.std(axis=0) / math.sqrt(len(values)))
        assert np.abs(z).max() < 4


def test_spectrum_is_unbiased():
    rng = np.random.default_rng(4)
    mixture = mixture_of("full", 12, rng)
    squares = []
    for _ in range(3000):
        rows = mixture.covariance.sample(20, rng)
        fixed = _unbiased_spectrum(rows.T @ rows / 20, 20)
        assert np.trace(fixed) == pytest.approx((rows**2).sum() / 20)
        squares.append((fixed**2).sum())
    z = (np.mean(squares) - (mixture.cov**2).sum()) / (np.std(squares) / math.sqrt(3000))
    assert abs(z) < 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [2, math.inf])
def test_scale_puts_the_observation_at_its_quantile(kind, p):
    rng = np.random.default_rng(11)
    mixture = mixture_of(kind, 6, rng)
    redrawn = Redrawn.of(mixture.mean, mixture.covariance, 40, 38, 300, 2)

    def statistic(spreads, means):
        return spreads.optimal_margin(means, 0.2, p)

    for observed in (0.9, 1.7, 4.0):
        levels = (0.975, 0.5, 0.025)
        for level, scale in zip(levels, redrawn.scales(statistic, observed, levels), strict=True):
            values = redrawn.statistic(statistic, scale)
            if scale > 0:
                assert np.quantile(values, level, method="weibull") == pytest.approx(observed, rel=2e-3)
            else:
                assert np.quantile(values, level, method="weibull") >= observed


@pytest.mark.parametrize(("kind", "dim", "rows"), [("scalar", 5, 20), ("full", 5, 20), ("full", 12, 16), ("scalar", 1, 6)])
def test_class_snr_is_exact(kind, dim, rows):
    rng = np.random.default_rng([dim, rows])
    mixture = mixture_of(kind, dim, rng)
    truth = mixture.covariance.mahalanobis(mixture.mean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [balanced(mixture, rows, rng, kind) for _ in range(4000)]
    snr, optimum = [e.class_snr() for e in found[:400]], [e.robust_optimum(0.0) for e in found[:100]]
    np.testing.assert_allclose(np.array(optimum), ndtr(np.array(snr)[:100]), rtol=1e-9)
    # the whole law at once, by the observed statistic's own cdf, which must be uniform: false alarm 1 in 10,000
    freedom, degrees = ((rows - 2) * dim, 1.0) if kind == "scalar" else (rows - 1 - dim, (rows - 1 - dim) / (rows - 2))
    square = np.array([e.mixture.covariance.mahalanobis(e.mean) ** 2 for e in found])
    assert kstest(ncf.cdf(rows * square / dim * degrees, dim, freedom, rows * truth**2), "uniform").pvalue > 1e-4
    for observed, interval, narrower in zip(square[:50], snr, (e.class_snr(level=0.8) for e in found[:50]), strict=False):
        statistic = rows * observed / dim * degrees
        for end, quantile in ((interval.low, 0.975), (interval.estimate, 0.5), (interval.high, 0.025), (narrower.low, 0.9)):
            reached = ncf.cdf(statistic, dim, freedom, rows * end**2) if end > 0 else quantile
            assert reached == pytest.approx(quantile, abs=1e-6)


@pytest.mark.parametrize(("kind", "dim", "rows"), [("scalar", 5, 200_000), ("full", 3, 60_000), ("full", 1, 4)])
def test_class_snr_ends_are_quantiles_of_the_noncentral_f_law(kind, dim, rows):
    """Also for noncentralities of 10^6."""
    cov = 0.5 if kind == "scalar" else 0.5 * np.eye(dim)
    estimate = MixtureEstimate(np.full(dim, 3.0), cov, (rows // 2, rows // 2))
    freedom = (rows - 2) * dim if kind == "scalar" else rows - 1 - dim
    observed = rows * 18 * (1 if kind == "scalar" else freedom / (rows - 2))
    for end, quantile in zip(estimate.class_snr(), (0.975, 0.5, 0.025), strict=True):
        assert ncf.cdf(observed, dim, freedom, rows * end**2) == pytest.approx(quantile, abs=1e-6)


@pytest.mark.parametrize("root", [0.0, 0.3, 30.0, 99.0, 101.0, 3e3, 1e6])
@pytest.mark.parametrize(("dim", "freedom"), [(1, 2), (1, 1998), (2, 50), (20, 3), (20, 500), (300, 10**6)])
def test_noncentral_f_by_parts(dim, freedom, root):
    """Against 200,000 draws, |z| < 4.5, and against scipy.stats.ncf, where it is not NaN, to 1e-8."""
    rng = np.random.default_rng([dim, freedom])
    sample = ((root + rng.standard_normal(400)) ** 2 + (rng.chisquare(dim - 1, 400) if dim > 1 else 0)) / dim
    sample /= rng.chisquare(freedom, 400) / freedom
    for x in np.quantile(sample, [0.02, 0.5, 0.97]):
        found = _f_by_parts(float(x), dim, freedom, root)
        draws = ((root + rng.standard_normal(200_000)) ** 2 + (rng.chisquare(dim - 1, 200_000) if dim > 1 else 0)) / dim
        share = (draws <= x * rng.chisquare(freedom, 200_000) / freedom).mean()
        assert abs(found - share) < 4.5 * math.sqrt(max(share * (1 - share), 1e-4) / 200_000)
        known = ncf.cdf(x, dim, freedom, root**2)
        if math.isfinite(known):
            assert found == pytest.approx(known, abs=1e-8)


def test_class_snr_where_scipy_has_no_number():
    """Nodes at which ncfdtr is NaN are met in every thirtieth case."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        dim, half, length = int(rng.integers(1, 21)), int(10 ** rng.uniform(1.7, 4)), rng.uniform(0.5, 4)
        interval = MixtureEstimate(np.r_[length, np.zeros(dim - 1)], 1.0, (half, half)).class_snr()
        assert interval.low < interval.estimate < interval.high
        assert abs(interval.high - length) < 6 * math.sqrt((1 + length**2) / half)


def test_unequal_classes_have_the_right_effective_rows():
    """5 rows of one class, 45 of the other: the mean has the variance of 18 rows."""
    rng = np.random.default_rng(21)
    mixture = BinaryMixture([1.0, 0.5], 1.0)
    y = np.repeat([1.0, -1.0], [5, 45])
    found = [
        MixtureEstimate.from_samples(y[:, None] * mixture.mean + 3 + mixture.covariance.sample(50, rng), y) for _ in range(4000)
    ]
    assert found[0].effective_rows == pytest.approx(18)
    assert found[0].prior == pytest.approx(0.1)
    assert abs(covered(math.sqrt(1.25), [e.class_snr() for e in found]) - 0.95) < 0.0134


def test_class_snr_of_other_kinds_of_covariance():
    """Diagonal: the same scales as the optimum without an attack; one dimension is any kind. A share's middle: Jeffreys."""
    e = MixtureEstimate(np.array([1.0, 0.4]), np.array([0.5, 2.0]), (30, 30))
    np.testing.assert_allclose(ndtr(np.array(e.class_snr())), np.array(e.robust_optimum(0.0)), rtol=1e-9)
    one, full = (MixtureEstimate(np.array([1.0]), cov, (30, 30)).class_snr() for cov in (np.array([0.5]), np.array([[0.5]])))
    np.testing.assert_allclose(one, full, rtol=0.06)
    assert share_interval(9, 10).estimate == pytest.approx(betaincinv(9.5, 1.5, 0.5))


def test_plug_in_prediction_is_optimistic_and_the_interval_is_not():
    """d = N = 1,000, ||mu|| = 2, eps = 1/2: predicted .958, true .933."""
    rng = np.random.default_rng(0)
    mean = np.zeros(1000)
    mean[0] = 2
    truth = BinaryMixture(mean, 1.0)
    estimate = balanced(truth, 1000, rng, "scalar")
    assert bayes_robust_accuracy(estimate.mixture, 0.5) == pytest.approx(0.958, abs=0.005)
    optimum = estimate.robust_optimum(0.5)
    assert optimum.low < 0.933193 < optimum.high
    assert optimum.estimate == pytest.approx(0.9332, abs=0.008)
    needed = estimate.required_samples(eps=0.5, accuracy=0.9)
    assert required_samples(truth, truth, eps=0.5, accuracy=0.9) == 1049
    assert needed.low < 1049 < needed.high
    assert 250 < required_samples(estimate.mixture, estimate.mixture, eps=0.5, accuracy=0.9) < 400


def test_learner_accuracy_with_many_rows_is_that_of_the_law():
    rng = np.random.default_rng(5)
    truth = BinaryMixture(np.full(30, 2 / math.sqrt(30)), 1.0)
    estimate = balanced(truth, 200_000, rng, "scalar")
    for learner, ridge, training_eps in (("averaging", 0.0, 0.0), ("logistic", 0.01, 0.3), ("svm", 0.1, 0.0)):
        interval = estimate.learner_accuracy(60, eps=0.4, learner=learner, ridge=ridge, training_eps=training_eps)
        if learner == "averaging":
            law = AveragingLaw(truth, truth, 60, 0.4).mean()
        else:
            law = ProportionalLaw(2.0, 2.0, learner, ridge=ridge, eps=training_eps).robust_accuracy(truth, 0.4)
        assert interval.low < law < interval.high
        assert interval.high - interval.low < 0.01
    assert estimate.required_samples(eps=0.4, accuracy=0.99).estimate == math.inf


def test_classes_that_may_coincide():
    """Labels at random: the low ends are guessing, and no number of rows is sure to be enough."""
    rng = np.random.default_rng(6)
    estimate = MixtureEstimate.from_samples(rng.standard_normal((40, 5)), np.repeat([1, -1], 20))
    assert estimate.class_snr().low == 0
    for p in (2, math.inf):
        assert estimate.robust_optimum(0.3, p).low == 0.5
        assert estimate.required_samples(eps=0.0, accuracy=0.9, p=p).high == math.inf
        assert estimate.learner_accuracy(10, eps=0.1, p=p).low < 0.5
    assert estimate.robust_optimum(100.0) == Interval(0.5, 0.5, 0.5)
    scalar = MixtureEstimate(estimate.mean, 1.0, (20, 20))
    assert scalar.learner_accuracy(10, eps=0.1, learner="logistic", ridge=0.1).low < 0.5


def test_same_data_same_interval():
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((60, 4)) + 0.5, np.repeat([1, -1], 30)
    first, second = (MixtureEstimate.from_samples(x * y[:, None], y) for _ in range(2))
    assert first.robust_optimum(0.1) == second.robust_optimum(0.1)


@pytest.mark.parametrize("unit", [3.0, 1e-8, 1e150, 1e-150])
def test_units_change_nothing(unit):
    for cov in (0.8, np.array([1.0, 0.4]), np.array([[1, 0.2], [0.2, 1]])):
        first, second = (MixtureEstimate(np.array([1.0, 0.5]) * u, cov * u * u, (50, 30)) for u in (1.0, unit))
        for p in (2, math.inf):
            for eps in (0.0, 0.3):
                np.testing.assert_allclose(first.robust_optimum(eps, p), second.robust_optimum(eps * unit, p), rtol=1e-9)
                ends = [e.required_samples(eps=eps * u, accuracy=0.7, p=p) for e, u in ((first, 1.0), (second, unit))]
                assert ends[0] == ends[1]


def test_a_radius_beyond_the_mean():
    """The larger the radius, the less is possible; far beyond the data, nothing is. eps = 1e-12 is as none."""
    for mean, cov, rows in (([2.06], [[1.0]], (3, 18)), ([0.04], [1.0], (19, 8)), ([0.3, -0.5, 0.1], np.eye(3), (20, 20))):
        estimate = MixtureEstimate(mean, cov, rows)
        for p in (2, math.inf):
            ends = [estimate.robust_optimum(eps, p).high for eps in (1e-12, 0.04, 0.3, 0.6, 2.1, 3.0, 40.0, 1e20)]
            assert (np.diff(ends) <= 1e-3).all()
            assert ends[-1] == 0.5
            np.testing.assert_allclose(estimate.robust_optimum(0.0, p), estimate.robust_optimum(1e-12, p), atol=0.025)


def test_ends_are_in_order():
    """Counts are compared each at its own n, and small accuracies are not monotone in the distance of the classes."""
    rng = np.random.default_rng(31)
    for _ in range(60):
        dim, kind = int(rng.integers(1, 6)), rng.choice(KINDS)
        truth = mixture_of(kind, dim, rng, norm=rng.uniform(0.2, 3))
        estimate = balanced(truth, int(rng.integers(dim + 6, 60)) * 2, rng, kind)
        eps, p = float(rng.uniform(0, 2)), float(rng.choice([2, math.inf]))
        found = [
            estimate.robust_optimum(eps, p),
            estimate.learner_accuracy(int(rng.integers(1, 30)), eps=eps, p=p),
            estimate.required_samples(eps=eps, accuracy=float(rng.uniform(0.5, 0.9)), p=p),
        ]
        for interval in found:
            assert interval.low <= interval.estimate <= interval.high
        assert 0 <= found[1].low <= found[1].high <= 1


def test_margin_interval_is_exact():
    rng = np.random.default_rng(9)
    for n, snr in ((4, 0.3), (30, 1.5), (500, -0.4)):
        margins = 3 * (snr + rng.standard_normal((4000, n)))
        assert abs(covered(float(ndtr(snr)), [margin_interval(row) for row in margins]) - 0.95) < 0.0134
    row = margins[0]
    observed = math.sqrt(500) * row.mean() / row.std(ddof=1)
    for end, quantile in zip(margin_interval(row, level=0.9), (0.95, 0.5, 0.05), strict=True):
        assert nct.cdf(observed, 499, math.sqrt(500) * ndtri(end)) == pytest.approx(quantile, abs=1e-6)


def test_share_interval_covers_on_average():
    """Exact sum over all outcomes of 285 rows, averaged over 200 probabilities: 0.95 to 0.002."""
    n, total = 285, []
    intervals = [share_interval(k, n) for k in range(n + 1)]
    low, high = np.array(intervals)[:, 0], np.array(intervals)[:, 2]
    for probability in np.linspace(0.05, 0.99, 200):
        total.append(binom.pmf(np.arange(n + 1), n, probability)[(low <= probability) & (probability <= high)].sum())
    assert np.mean(total) == pytest.approx(0.95, abs=0.002)
    assert min(total) > 0.9
    assert share_interval(9, 10).low == pytest.approx(betaincinv(9.5, 1.5, 0.025))
    assert share_interval(0, 10).low == 0
    assert share_interval(10, 10).high == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MixtureEstimate([1.0, 2.0], 1.0, (1, 5)), "rows=1"),
        (lambda: MixtureEstimate([1.0, 2.0], 1.0, (3, 5, 5)), "two numbers"),
        (lambda: MixtureEstimate([1.0, 2.0], 1.0, 10), "two numbers"),
        (lambda: MixtureEstimate([0.0, 0.0], 1.0, (5, 5)), "mean is zero"),
        (lambda: MixtureEstimate([1.0, math.nan], 1.0, (5, 5)), "nan"),
        (lambda: MixtureEstimate([1.0, 2.0], -1.0, (5, 5)), "must be > 0"),
        (lambda: MixtureEstimate(np.ones(9), np.eye(9), (5, 5)), "two rows more than dimensions"),
        (lambda: MixtureEstimate.from_samples(np.ones((4, 2)), [1, 1, 1, -1]), "each class needs at least two"),
        (lambda: MixtureEstimate.from_samples(np.ones((4, 2)), [1, 1, 0, -1]), "-1 or \\+1"),
        (lambda: MixtureEstimate.from_samples(np.ones((4, 2)), [1, 1, -1]), "rows"),
        (lambda: MixtureEstimate.from_samples(np.ones((4, 2)), [1, 1, -1, -1], "ful"), "did you mean 'full'"),
        (lambda: good().robust_optimum(-0.1), "negative"),
        (lambda: good().robust_optimum(0.1, 1), "p = 2 and inf"),
        (lambda: good().robust_optimum(0.1, level=1.0), "level=1"),
        (lambda: good().required_samples(eps=0.1, accuracy=1.0), "accuracy=1"),
        (lambda: good().required_samples(eps=0.1, accuracy=0.8, confidence=1.5), "confidence=1.5"),
        (lambda: good().learner_accuracy(0, eps=0.1), "n=0"),
        (lambda: good().learner_accuracy(5, eps=0.1, ridge=0.1), "ridge=0.1"),
        (lambda: good().learner_accuracy(5, eps=0.1, training_eps=0.5), "^training_eps=0.5: averaging does not train"),
        (lambda: good().learner_accuracy(5, eps=0.1, learner="lgoistic"), "did you mean 'logistic'"),
        (lambda: good().learner_accuracy(5, eps=0.1, learner="logistic"), "needs a scalar covariance"),
        (lambda: good().robust_optimum(0.1, level=0.996), "at most 0.99"),
        (lambda: MixtureEstimate([1.0], 1.0, ([1], [2, 3])), "rows="),
        (lambda: margin_interval([1.0]), "at least two"),
        (lambda: margin_interval([1.0, 1.0]), "at least two"),
        (lambda: margin_interval([1.0, math.inf]), "inf"),
        (lambda: share_interval(5, 4), "exceeds"),
        (lambda: share_interval(-1, 4), "successes=-1"),
        (lambda: share_interval(0, 0), "n=0"),
        (lambda: share_interval(1, 4, level=0), "level=0"),
    ],
)
def test_errors_name_value_and_remedy(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def good():
    return MixtureEstimate([1.0, 0.5], np.eye(2), (20, 20))


def test_warns_where_the_interval_does_not_hold():
    with pytest.warns(UserWarning, match=r"19 dimensions and 22 rows.*0.75"):
        MixtureEstimate(np.ones(19), np.eye(19), (11, 11))


def settings():
    """name: (kind, mixture, rows, eps, p, target accuracy); d / N from 0.05 to 1."""
    rng = np.random.default_rng(5)
    return {
        "scalar, d/N .05": ("scalar", mixture_of("scalar", 20, rng), 400, 0.5, 2, 0.955),
        "scalar, d/N 1": ("scalar", mixture_of("scalar", 100, rng), 100, 0.5, 2, 0.94),
        "scalar, inf, d/N .5": ("scalar", mixture_of("scalar", 50, rng), 100, 0.15, math.inf, 0.88),
        "diagonal, d/N .2": ("diagonal", mixture_of("diagonal", 20, rng), 100, 0.5, 2, 0.9),
        "diagonal, inf, d/N 1": ("diagonal", mixture_of("diagonal", 40, rng), 40, 0.1, math.inf, 0.83),
        "full, d/N .05": ("full", mixture_of("full", 10, rng), 200, 0.5, 2, 0.95),
        "full, d/N .2": ("full", mixture_of("full", 20, rng), 100, 0.5, 2, 0.89),
        "full, d/N .5": ("full", mixture_of("full", 20, rng), 40, 0.5, 2, 0.94),
        "full, inf, d/N .1": ("full", mixture_of("full", 10, rng), 100, 0.2, math.inf, 0.82),
    }


def coverage(name, repetitions):
    """{quantity: (truth, intervals)} of one setting."""
    kind, mixture, rows, eps, p, accuracy = settings()[name]
    rng, n = np.random.default_rng(12), 4 * mixture.dim
    law = AveragingLaw(mixture, mixture, n, eps) if kind == "scalar" and p == 2 else QuasiMonteCarloLaw(mixture, mixture, n, eps, p)
    truths = {
        "optimum": bayes_robust_accuracy(mixture, eps, p),
        "averaging": law.mean(),
        "n": required_samples(mixture, mixture, eps=eps, accuracy=accuracy, p=p),
    }
    intervals = {quantity: [] for quantity in truths}
    for _ in range(repetitions):
        estimate = balanced(mixture, rows, rng, kind)
        intervals["optimum"].append(estimate.robust_optimum(eps, p))
        intervals["averaging"].append(estimate.learner_accuracy(n, eps=eps, p=p))
        intervals["n"].append(estimate.required_samples(eps=eps, accuracy=accuracy, p=p))
    return {quantity: (truth, intervals[quantity]) for quantity, truth in truths.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", settings())
def test_coverage_over_4000_data_sets(name):
    """93.5 to 96.5 %, and the median estimate of n within 10 %: 5 minutes a setting, 20 under l_inf."""
    for quantity, (truth, intervals) in coverage(name, 4000).items():
        share, middle = covered(truth, intervals), float(np.median(np.array(intervals)[:, 1]))
        print(f"{name}: {quantity} {truth:.4g}, covered {share:.4f}, median estimate {middle:.4g}")
        assert 0.935 <= share <= 0.965, (quantity, share)
        if quantity == "n":
            assert abs(middle - truth) <= 0.1 * truth


@pytest.mark.parametrize("name", ["scalar, d/N 1"])
def test_coverage_over_60_data_sets(name):
    """At least 50 of 60; fewer once in 4,000 if 95 % is true."""
    for quantity, (truth, intervals) in coverage(name, 60).items():
        assert covered(truth, intervals) * 60 >= 50 - 1e-9, quantity


def test_a_learner_that_learns_nothing_at_the_low_end_guesses():
    """Labels at random: the low end is a mixture on which adversarial training returns w = 0."""
    found = MixtureEstimate(np.array([0.4, 0.0, 0.0, 0.0, 0.0]), 1.0, (50, 50)).learner_accuracy(
        1000, eps=0.05, learner="logistic", training_eps=0.3
    )
    assert found.low == 0.5
    assert found.high > 0.5
    estimate = MixtureEstimate(np.array([0.4, 0.0]), 1.0, (50, 50))
    for more, message in (
        ({"learner": "lda", "training_eps": 5.0}, "does not train against an adversary"),
        ({"learner": "logistic", "training_eps": math.inf}, "training_eps=inf"),
        ({"learner": "logistic", "training_eps": 5.0, "ridge": -1.0}, "ridge=-1"),
        ({"learner": "lda", "ridge": 0.1}, "lda has none"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate.learner_accuracy(1000, eps=0.05, **more)


def test_the_spread_of_eigenvalues_is_unbiased():
    """tr C^2 of the shrunk covariance, over 20,000 Wishart estimates with 6 degrees of freedom: z below 4."""
    rng, true = np.random.default_rng(1), np.diag([1.0, 0.4, 0.2])
    z = rng.standard_normal((20_000, 6, 3)) * np.sqrt(true.diagonal())
    estimates = np.einsum("bni,bnj->bij", z, z) / 6
    squares = (estimates**2).sum(axis=(1, 2)) - np.trace(estimates, axis1=1, axis2=2) ** 2 / 6
    found = squares / (1 + 1 / 6 - 2 / 36)
    assert abs(found.mean() - (true**2).sum()) < 4 * found.std() / math.sqrt(20_000)
    one = estimates[0]
    shrunk = _unbiased_spectrum(one, 6)
    assert np.trace(shrunk) == pytest.approx(np.trace(one))
    assert (shrunk**2).sum() == pytest.approx(max(found[0], np.trace(one) ** 2 / 3), rel=1e-9)


def test_the_optimum_of_unequal_classes_is_at_least_the_larger_class():
    """No rule is worse than naming it always. Without the prior the estimate would be near Phi(0.6) = .73."""
    found = MixtureEstimate(np.array([0.6]), 1.0, (10, 90), prior=0.1).robust_optimum(0.0)
    assert 0.9 <= found.low <= found.estimate <= found.high


def test_the_rows_that_are_needed_are_those_of_the_confidence_asked_for():
    """Two million rows say the mixture almost exactly, so the estimate is the law's, which differs by confidence."""
    rng = np.random.default_rng(11)
    truth = BinaryMixture(np.array([0.6, 0.2, 0.0, 0.0, 0.0]), 1.0)
    estimate = balanced(truth, 2_000_000, rng, "scalar")
    for level in (0.6, 0.95, 0.99):
        wanted = required_samples(truth, truth, eps=0.1, accuracy=0.68, confidence=level)
        assert estimate.required_samples(eps=0.1, accuracy=0.68, confidence=level).estimate == pytest.approx(wanted, rel=0.05)
    assert required_samples(truth, truth, eps=0.1, accuracy=0.68, confidence=0.6) < 0.8 * wanted


def test_intervals_of_another_level_cover_as_often():
    """Of 400 data sets within 4 standard errors of 80 % (.02)."""
    truth, rng, covered = BinaryMixture(np.array([1.0, 0.3, 0.0, 0.0]), 1.0), np.random.default_rng(12), 0
    optimum = bayes_robust_accuracy(truth, 0.2)
    for _ in range(400):
        interval = balanced(truth, 60, rng, "scalar").robust_optimum(0.2, level=0.8)
        covered += interval.low <= optimum <= interval.high
    assert abs(covered / 400 - 0.8) < 4 * 0.02


@pytest.mark.parametrize("gap", [1e-4, 1e-5, 1e-9, 1e-15])
def test_margins_that_hardly_differ_have_an_interval(gap):
    """scipy's search for the noncentrality did not end there."""
    assert margin_interval([1.0, 1.0 + gap]) == Interval(1.0, 1.0, 1.0)
    assert margin_interval([-1.0, -1.0 - gap]) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("freedom", [1, 4, 30])
def test_the_far_noncentrality_is_that_of_noncentral_t(monkeypatch, freedom, sign):
    """By sampling t: 400,000 draws, z below 4.5."""
    monkeypatch.setattr(confidence, "FAR_T", 1.0)
    rng = np.random.default_rng(freedom)
    for q in (0.1, 0.5, 0.9):
        found = confidence._noncentrality_of_t(freedom, q, sign * 5000.0)
        drawn = (rng.standard_normal(400_000) + found) / np.sqrt(rng.chisquare(freedom, 400_000) / freedom)
        assert abs((drawn <= sign * 5000.0).mean() - q) < 4.5 * math.sqrt(q * (1 - q) / 400_000)
