"""The worth that T16 predicts from the description of a set, against planted sets and fits."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from figures.experiments import REFERENCE
from figures.image_figures.exchange_rate import COUNT, Study
from figures.image_figures.predicted_worth import LEAST, MOST, PLAIN, TAKEN, log_tangent, misses, numbers, predicted
from figures.inputs import Files

DESCRIPTION = {"n_real": 300.0, "n_synthetic": float(COUNT), "snr": 3.0, "wrong": 0.03, "dim": 8.0}
SETS = {"plain": PLAIN, "double": ("drawn-4000", "unguided"), "wrong": ("drawn", "particle"), "many": ("many", "unguided")}


def table(**sets):
    """Rows as `read` gives them: one description a set, on two seeds."""
    rows = [(run, method, seed, DESCRIPTION | change) for (run, method), change in sets.values() for seed in (0, 1)]
    columns = {column: np.array([row[3][name] for row in rows]) for name, column in TAKEN.items()}
    return columns | {"run": np.array([row[0] for row in rows]), "method": np.array([row[1] for row in rows])}


def test_planted_sets_are_worth_what_they_are():
    changes = {"plain": {}, "double": {"n_synthetic": 2.0 * COUNT}, "wrong": {"wrong": 0.3}, "many": {"n_synthetic": 10.0 * COUNT}}
    data = table(**{name: (SETS[name], change) for name, change in changes.items()})
    found = predicted(Study("", 250, 16000, SETS), data)
    assert found["plain"] == pytest.approx(1, abs=2e-3)
    assert found["double"] == pytest.approx(2, abs=2e-3)
    assert LEAST < found["wrong"] < 0.6
    assert found["many"] == MOST


def test_the_angle_is_that_of_fits():
    """Two classes in 100 dimensions, 10 and 30 samples per dimension, 10 % of the second kind labelled wrongly: 8 fits, |z| < 4."""
    rng, d, tangents = np.random.default_rng(3), 100, []
    for _ in range(8):
        y = rng.choice([-1.0, 1.0], 40 * d)
        x = rng.standard_normal((40 * d, d))
        x[:, 0] += y * np.repeat([1.5, 2.5], [10 * d, 30 * d])
        y[10 * d :] *= np.where(rng.random(30 * d) < 0.1, -1, 1)
        w = LogisticRegression(C=np.inf, max_iter=200, tol=1e-6).fit(x, y).coef_[0]
        tangents.append(np.log(np.linalg.norm(w[1:]) / w[0]))
    theory = log_tangent(n_real=5 * 10 * d, n_synthetic=5 * 30 * d, snr_real=1.5, snr=2.5, wrong=0.1, dim=float(d))
    assert abs(np.mean(tangents) - theory) < 4 * np.std(tangents, ddof=1) / np.sqrt(8) + 0.01


def test_the_typical_factor_is_that_of_what_is_drawn():
    drawn = numbers(Files(REFERENCE))
    assert all(LEAST <= x <= MOST for x in drawn.columns["x"])
    factor, inside, count = misses(drawn, "digits")
    of = drawn.columns["panel"] == "digits"
    ratio = np.log(drawn.columns["x"][of] / drawn.columns["y"][of])
    assert factor == pytest.approx(np.exp(np.sqrt((ratio**2).mean())))
    assert 0 <= inside <= count == 8
