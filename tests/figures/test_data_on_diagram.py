"""Where the data sets lie in T16's diagram, and what they gained, from the tables of the sweeps by hand."""

import csv

import numpy as np
import pytest

from figures.experiments import REFERENCE
from figures.image_figures import data_on_diagram
from figures.image_figures.data_on_diagram import LEFT, RIGHT
from figures.inputs import Files

SETS = [
    ("digits", "digits-confirm", "particle-0.1"),
    ("MNIST", "mnist-confirm", "particle-0.05"),
    ("GTSRB", "gtsrb-confirm", "particle-0.1"),
]


def rows_of(path):
    with (REFERENCE / path).open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("data", "design", "guided"), SETS)
def test_marks_are_means_over_seeds_and_the_gain_is_that_of_the_design(data, design, guided):
    numbers = data_on_diagram.numbers(Files(REFERENCE))
    sweep = rows_of(f"{design}/sweep.csv")
    for place, method in enumerate(("unguided", guided)):
        of = [row for row in sweep if (row["run"], row["method"], row["attack"]) == ("soft", method, "apgd-ce")]
        assert len(of) == (10 if data == "GTSRB" else 16)
        ratio = np.mean([(int(row["n_real"]) + 2000) / 5 / float(row["effective_dimension_judge"]) for row in of])
        snr = np.mean([float(row["class_snr_crossfit_judge"]) for row in of])
        mark = numbers.series(LEFT, data)
        np.testing.assert_allclose([mark.x[place], mark.y[place]], [ratio, snr], rtol=1e-12)
    wrong = np.mean([float(row["label_error"]) for row in of])
    (planned,) = [
        row
        for row in rows_of(f"{design}/comparisons.csv")
        if (row["a"], row["b"], row["attack"]) == (f"soft/{guided}", "soft/unguided", "apgd-ce")
    ]
    gain = numbers.series(RIGHT, data)
    expected = [wrong, *(float(planned[name]) for name in ("difference", "low_of_all", "high_of_all"))]
    np.testing.assert_allclose([gain.x[0], gain.y[0], gain.low[0], gain.high[0]], expected, rtol=1e-12)
