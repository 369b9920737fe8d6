"""Intervals over seeds against scipy's own."""

import math

import numpy as np
import pytest
from scipy import stats

from command_line.statistics import crossed_interval, exchange_rate, half_width, holm, mean_interval, paired_p


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (3, 0.95), (8, 0.9), (40, 0.99)])
def test_interval_of_the_mean_is_students(n, level):
    values = np.random.default_rng(n).normal(3, 2, n)
    mean, low, high = mean_interval(list(values), level)
    expected = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (mean, low, high) == pytest.approx((values.mean(), *expected), rel=1e-12)


@pytest.mark.parametrize(
    ("images", "seeds", "accuracy"), [(50, 2, 0.7), (100, 2, 0.5), (100, 2, 0.9), (100, 3, 0.7), (1000, 2, 0.5)]
)
def test_equal_gains_are_no_certainty(images, seeds, accuracy):
    """Two methods that do not differ, 20,000 times: 95 % intervals miss zero in at most one of twenty (z < 3). Without the resolution two
    seeds gain the same in 4 to 6 % of cases, which would be certain."""
    rng = np.random.default_rng(images + seeds)
    gains = (rng.binomial(images, accuracy, (20_000, seeds)) - rng.binomial(images, accuracy, (20_000, seeds))) / images
    share = 0.0
    for gain, times in zip(
        *np.unique(gains, axis=0, return_counts=True), strict=True
    ):  # gains are whole images: the same come often
        _, low, high = mean_interval(gain, resolution=1 / images)
        missed = not low <= 0 <= high
        assert missed == (paired_p(gain, 1 / images) < 0.05)
        share += missed * times / 20_000
    assert (share - 0.05) / math.sqrt(0.05 * 0.95 / 20_000) < 3
    same = mean_interval([0.1, 0.1], 1 - 0.05 / 9, 1 / images)  # Bonferroni widens it
    assert same[2] - same[1] > 5 * np.diff(mean_interval([0.1, 0.1], 0.95, 1 / images)[1:])[0]
    assert 0.05 < paired_p([0.01, 0.01], 1 / 100) < 1
    assert np.isnan(mean_interval([0.1, 0.1])[1:]).all()  # of unknown resolution
    assert np.isnan(paired_p([0.1, 0.1]))
    assert np.isnan(mean_interval([0.1, np.nan, 0.3])).all()


def test_the_interval_for_new_images_covers_them():
    """Gains with an effect of each seed, of each image, and of both, 2,000 times: the interval for new seeds and images covers the true
    mean in 95 % or more (z > -3); that for new seeds alone in far fewer, and is always narrower."""
    rng, covered, alone = np.random.default_rng(0), [], []
    for _ in range(2000):
        of_seed, of_image = rng.normal(0, 0.02, (5, 1)), rng.normal(0, 0.3, (1, 100))
        cells = np.sign(rng.normal(0, 0.7, (5, 100)) + of_seed + of_image) * (rng.random((5, 100)) < 0.3)
        mean, low, high = crossed_interval(cells)
        of_seeds = mean_interval(cells.mean(axis=1).tolist(), resolution=0.01)
        assert mean == pytest.approx(of_seeds[0])
        assert low < of_seeds[1] < of_seeds[2] < high
        covered.append(low <= 0 <= high)
        alone.append(of_seeds[1] <= 0 <= of_seeds[2])
    assert (np.mean(covered) - 0.95) / math.sqrt(0.95 * 0.05 / 2000) > -3
    assert np.mean(alone) < np.mean(covered)
    assert np.isnan(crossed_interval(np.zeros((1, 9)))[1:]).all()


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_interval_for_new_images_is_its_formula(level):
    """Student's, over seeds and over images, the two half widths added in squares."""
    gains = np.random.default_rng(4).integers(-1, 2, (5, 100)).astype(float)
    halves = [stats.t.ppf((1 + level) / 2, len(m) - 1) * stats.sem(m) for m in (gains.mean(axis=1), gains.mean(axis=0))]
    reach = math.hypot(*halves)
    assert crossed_interval(gains, level) == pytest.approx((gains.mean(), gains.mean() - reach, gains.mean() + reach), rel=1e-12)


def test_holm_counts_the_planned_family():
    assert holm([0.01, math.nan], family=2)[0] == pytest.approx(0.02)
    assert holm([0.01, 0.02], family=5) == pytest.approx([0.05, 0.08])


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert mean_interval([0.5])[0] == 0.5
    assert np.isnan(mean_interval([0.5])[1:]).all()
    assert np.isnan(mean_interval([])).all()


def test_half_a_width_is_students_for_any_number_of_values():
    counts = np.array([2, 3, 8, 1000])
    np.testing.assert_allclose(half_width(counts), stats.t.ppf(0.975, counts - 1), rtol=1e-9)
    assert half_width(5, 0.8) == pytest.approx(stats.t.ppf(0.9, 4))
    assert math.isnan(half_width(1))


def test_paired_p_is_students():
    rng = np.random.default_rng(5)
    for n in (2, 3, 8):
        values = rng.standard_normal(n) + 0.4
        assert paired_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)
    assert math.isnan(paired_p([0.3]))
    assert paired_p([0.0, 0.0]) == 1.0
    assert math.isnan(paired_p([0.1, math.nan, 0.2]))


def test_holm_is_the_textbooks_and_keeps_the_error_of_a_family():
    """By hand; and 4,000 families of five true hypotheses at 0.05: at most one in twenty has a false one, z < 3."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9])[0] == 1.0
    assert math.isnan(holm([0.5, math.nan])[1])
    rng = np.random.default_rng(0)
    wrong = np.mean([min(holm(rng.random(5).tolist())) <= 0.05 for _ in range(4000)])
    assert (wrong - 0.05) / math.sqrt(0.05 * 0.95 / 4000) < 3
    assert wrong > 0.04  # not needlessly careful


COUNTS = (250, 500, 1000, 2000, 4000, 8000)


def curve_of(n):
    """A planted curve: robust accuracy at n plain images."""
    return 0.6 + 0.05 * np.log(n / 250) - 0.005 * np.log(n / 250) ** 2


def test_the_exchange_rate_is_that_of_a_planted_curve():
    for worth in (0.3, 1.0, 2.5):
        shift = np.random.default_rng(8).normal(0, 0.01, (5, 1))  # a seed's own level falls out of a paired comparison
        reached = np.interp(np.log(2000 * worth), np.log(COUNTS), curve_of(np.array(COUNTS))) + shift[:, 0]
        rate, low, high = exchange_rate(COUNTS, curve_of(np.array(COUNTS)) + shift, reached, 2000)
        assert [rate, low, high] == pytest.approx([worth] * 3, rel=0.003)  # the grid's step


def test_plain_images_are_worth_what_they_are():
    """Whatever the form of the curve, which may have a kink or fall for a while."""
    rng = np.random.default_rng(10)
    curve = np.array([0.5, 0.6, 0.62, 0.7, 0.69, 0.72]) + rng.normal(0, 0.001, (6, 1)) + rng.normal(0, 1e-4, (6, 6))
    for i in (0, 1, 2, 3, 5):  # at the fifth, where the curve falls, the first with this accuracy is found
        rate, low, high = exchange_rate(COUNTS, curve, curve[:, i], 2000)
        assert rate == pytest.approx(COUNTS[i] / 2000, rel=0.01)
        assert low <= rate * 1.01
        assert high >= rate * 0.99
    assert exchange_rate(COUNTS, curve, curve[:, -1], 2000)[2] == math.inf


@pytest.mark.parametrize("form", [curve_of, lambda n: 0.74 - 0.14 * (n / 250) ** -0.8])
def test_the_interval_of_the_exchange_rate_covers_it(form):
    """Also of a curve that is no parabola. False alarms below 1 in 1,000: 400 experiments, coverage .95 -/+ .0109, bound at 3.3 standard
    errors; more is covered where the interval is open."""
    rng, covered = np.random.default_rng(9), 0
    for _ in range(400):
        level = rng.normal(0, 0.02, (8, 1))
        curve = form(np.array(COUNTS)) + level + rng.normal(0, 0.006, (8, len(COUNTS)))
        _, low, high = exchange_rate(COUNTS, curve, form(4000) + level[:, 0] + rng.normal(0, 0.006, 8), 2000)
        covered += low <= 2 <= high
    assert covered / 400 > 0.95 - 3.3 * 0.0109


def test_the_interval_ends_with_the_last_count_that_is_not_rejected():
    """Four seeds agree at 2,000, where the other images are worse, and do not at 4,000, where they may be as good."""
    curve = np.array([[0.5, 0.601, last] for last in (0.57, 0.57, 0.65, 0.65)])
    assert exchange_rate((1000, 2000, 4000), curve, np.full(4, 0.6), 2000)[2] == math.inf
    falling = np.array([[0.5, 0.6, 0.55]]) + np.array(
        [[0.0], [1e-4], [2e-4]]
    )  # here 4,000 are worse than the others, which is no doubt
    rate, low, high = exchange_rate((1000, 2000, 4000), falling, np.full(3, 0.58), 2000)
    assert rate == pytest.approx(2 ** (0.8 - 1), rel=0.01)  # at .58 on the way up
    assert low <= rate
    assert high == pytest.approx(2**0.4, rel=0.02)  # and on the way down


def test_the_rate_lies_in_its_interval():
    """Also without any spread, where the crossing lies between two points of the grid."""
    curve = np.tile([0.5, 0.6, 0.7], (4, 1))
    for reached in (0.5123, 0.6, 0.6789):
        rate, low, high = exchange_rate((1000, 2000, 4000), curve, np.full(4, reached), 2000)
        assert low <= rate <= high
        assert high - low < 0.002 * rate


def test_the_exchange_rate_beyond_what_was_tried():
    curve = np.tile(curve_of(np.array(COUNTS)), (3, 1)) + np.array([[0.0], [1e-4], [2e-4]])
    assert exchange_rate(COUNTS, curve, np.full(3, 0.99), 2000) == (math.inf, math.inf, math.inf)
    assert exchange_rate(COUNTS, curve, np.full(3, 0.1), 2000) == (0, 0, 0)
    rate, *interval = exchange_rate(COUNTS, curve[:1], np.array([curve_of(1000)]), 2000)
    assert rate == pytest.approx(0.5, rel=0.003)
    assert np.isnan(interval).all()
    for counts, values, reached, count in (
        ((250,), curve[:, :1], np.ones(3), 2000),
        (COUNTS[::-1], curve, np.ones(3), 2000),
        (COUNTS, curve[:2], np.ones(3), 2000),
        (COUNTS, curve, np.ones((3, 1)), 2000),
        ((0, *COUNTS[1:]), curve, np.ones(3), 2000),
        (COUNTS, curve, np.ones(3), 0),
    ):
        with pytest.raises(ValueError, match="does not fit"):
            exchange_rate(counts, values, reached, count)


def test_no_exchange_rate_where_more_images_are_worth_no_more_or_a_number_is_missing():
    curve = np.tile(curve_of(np.array(COUNTS)), (3, 1))
    for values, reached in (
        (curve[:, ::-1], np.full(3, curve_of(1000))),
        (np.where(np.arange(len(COUNTS)) == 2, np.nan, curve), np.full(3, 0.7)),
        (curve, np.array([0.7, np.nan, 0.7])),
    ):
        assert np.isnan(exchange_rate(COUNTS, values, reached, 2000)).all()


def test_equal_gains_have_the_spread_of_rounding():
    """Two uniforms of width 0.01 differ with variance 2 * 0.01^2 / 12."""
    rounding = math.sqrt(2 * 0.01**2 / 12)
    reach = stats.t.ppf(0.975, 1) * rounding / math.sqrt(2)
    assert mean_interval([0.1, 0.1], 0.95, 0.01) == pytest.approx((0.1, 0.1 - reach, 0.1 + reach))
    rows = np.tile((np.arange(100) < 30).astype(float), (3, 1))
    reach = math.hypot(stats.t.ppf(0.975, 2) * rounding / math.sqrt(3), stats.t.ppf(0.975, 99) * stats.sem(rows[0]))
    assert crossed_interval(rows) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach))
