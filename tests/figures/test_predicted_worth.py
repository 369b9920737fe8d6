"""The worth that T16 predicts from the description of a set, against planted sets."""

import numpy as np
import pytest

from figures.experiments import REFERENCE
from figures.image_figures.exchange_rate import COUNT, Study
from figures.image_figures.predicted_worth import LEAST, MOST, PLAIN, TAKEN, misses, numbers, predicted
from figures.inputs import Files
from theory import ProportionalLaw, sample_worth

DESCRIPTION = {"n_real": 300.0, "n_synthetic": float(COUNT), "snr": 3.0, "wrong": 0.03, "dim": 8.0}
SETS = {"plain": PLAIN, "double": ("drawn-4000", "unguided"), "wrong": ("drawn", "particle"), "close": ("drawn-hot", "unguided")}


def table(**sets):
    """Rows as `read` gives them: one description a set, on two seeds."""
    rows = [(run, method, seed, DESCRIPTION | change) for (run, method), change in sets.values() for seed in (0, 1)]
    columns = {column: np.array([row[3][name] for row in rows]) for name, column in TAKEN.items()}
    return columns | {"run": np.array([row[0] for row in rows]), "method": np.array([row[1] for row in rows])}


def test_planted_sets_are_worth_what_they_are():
    """As many images a set; an image of twice as many is worth one. Samples per dimension: 2 x 300 / 10 / 8, 2 x 2000 / 10 / 8."""
    changes = {"plain": {}, "double": {"n_synthetic": 2.0 * COUNT}, "wrong": {"wrong": 0.3}, "close": {"snr": 1.5, "dim": 4.0}}
    data = table(**{name: (SETS[name], change) for name, change in changes.items()})
    found = predicted(Study("", 250, 16000, SETS), data)
    assert found["plain"] == found["double"] == pytest.approx(1)
    plain = ProportionalLaw((3.0, 3.0), (7.5, 50.0), label_noise=(0.0, 0.03))
    close = ProportionalLaw((3.0, 1.5), (15.0, 100.0), label_noise=(0.0, 0.03))
    wrong = ProportionalLaw((3.0, 3.0), (7.5, 50.0), label_noise=(0.0, 0.3))
    assert found["wrong"] == pytest.approx(sample_worth(wrong, plain))
    assert found["close"] == pytest.approx(min(sample_worth(close, plain) * 2, MOST))
    assert LEAST < found["wrong"] < 0.6


def test_the_typical_factor_is_that_of_what_is_drawn():
    drawn = numbers(Files(REFERENCE))
    assert all(LEAST <= x <= MOST for x in drawn.columns["x"])
    factor, inside, count = misses(drawn, "digits")
    of = drawn.columns["panel"] == "digits"
    ratio = np.log(drawn.columns["x"][of] / drawn.columns["y"][of])
    assert factor == pytest.approx(np.exp(np.sqrt((ratio**2).mean())))
    assert 0 <= inside <= count == 8
