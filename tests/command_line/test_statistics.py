"""Intervals over seeds against scipy's own."""

import numpy as np
import pytest
from scipy import stats

from command_line.statistics import mean_interval


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
