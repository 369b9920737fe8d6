"""Intervals over seeds against scipy's own."""

import math

import numpy as np
import pytest
from scipy import stats

from command_line.statistics import holm, mean_interval, paired_p


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (3, 0.95), (8, 0.9), (40, 0.99)])
def test_interval_of_the_mean_is_students(n, level):
    values = np.random.default_rng(n).normal(3, 2, n)
    mean, low, high = mean_interval(list(values), level)
    expected = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (mean, low, high) == pytest.approx((values.mean(), *expected), rel=1e-12)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert mean_interval([0.5])[0] == 0.5
    assert np.isnan(mean_interval([0.5])[1:]).all()
    assert np.isnan(mean_interval([])).all()


def test_paired_p_is_students():
    rng = np.random.default_rng(5)
    for n in (2, 3, 8):
        values = rng.standard_normal(n) + 0.4
        assert paired_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)
    assert math.isnan(paired_p([0.3]))
    assert paired_p([0.0, 0.0]) == 1.0
    assert paired_p([0.1, 0.1]) == 0.0


def test_holm_is_the_textbooks_and_keeps_the_error_of_a_family():
    """By hand; and 4,000 families of five true hypotheses at 0.05: at most one in twenty has a false one, z < 3."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, math.nan, 0.9])[0] == 1.0
    assert math.isnan(holm([0.5, math.nan])[1])
    rng = np.random.default_rng(0)
    wrong = np.mean([min(holm(rng.random(5).tolist())) <= 0.05 for _ in range(4000)])
    assert (wrong - 0.05) / math.sqrt(0.05 * 0.95 / 4000) < 3
    assert wrong > 0.04  # not needlessly careful
