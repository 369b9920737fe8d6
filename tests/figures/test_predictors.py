"""The table of predictors against scikit-learn's grouped cross-validation, and on made-up sets whose truth is known."""

import csv
import math
import re
import statistics

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from figures.experiments import REFERENCE
from figures.image_figures import forecast
from figures.inputs import Files
from figures.tables import predictors


def sets_of_the_sweep():
    """[(kind, class SNR, gain)], read from the csv by hand."""
    with (REFERENCE / "digits-ablations" / "sweep.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["n_synthetic"] == "2000"]
    base = {row["seed"]: float(row["robust_accuracy"]) for row in rows if row["run"] == "loss" and row["method"] == "unguided"}
    found = []
    for run, method in sorted({(row["run"], row["method"]) for row in rows}):
        of = [row for row in rows if (row["run"], row["method"]) == (run, method)]
        gain = statistics.fmean(float(row["robust_accuracy"]) - base[row["seed"]] for row in of)
        kind = run if run.startswith("select-") else re.sub(r"-[\d.]+$", "", method)
        found.append((kind, statistics.fmean(float(row["class_snr_crossfit"]) for row in of), gain))
    return found


def test_class_snr_is_scored_as_scikit_learn_would():
    kinds, snr, gains = zip(*sets_of_the_sweep(), strict=True)
    x, y = np.log(np.array(snr))[:, None], np.array(gains)
    row = next(row for row in predictors.rows(Files(REFERENCE)) if row[0] == "class SNR")
    assert row[1] == len(kinds)
    assert row[2] == pytest.approx(np.corrcoef(rankdata(x[:, 0]), rankdata(y))[0, 1], rel=1e-9)
    for degree, score in ((1, row[3]), (2, row[4])):
        model = make_pipeline(PolynomialFeatures(degree), LinearRegression(fit_intercept=False))
        fit = cross_val_predict(model, x, y, groups=kinds, cv=LeaveOneGroupOut())
        mean = np.array([y[np.array(kinds) != kind].mean() for kind in kinds])
        assert score == pytest.approx(1 - ((y - fit) ** 2).sum() / ((y - mean) ** 2).sum(), rel=1e-6)
    grid = np.linspace(0.2, 3, 100_001)
    best = grid[np.polyval(np.polyfit(x[:, 0], y, 2), grid).argmax()]
    assert row[5] == pytest.approx(math.exp(best), rel=1e-3)
    assert row[6] <= row[5] <= row[7]


def test_the_forecast_is_fitted_to_the_ablations_alone():
    """A set of the evidence, by hand: the parabola through the 28 sets of the ablations, at its class SNR and unguided images'."""
    _, snr, gains = zip(*sets_of_the_sweep(), strict=True)
    hill = np.polyfit(np.log(snr), gains, 2)
    with (REFERENCE / "digits-evidence" / "sweep.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["run"] == "main" and row["attack"] == "pgd-20"]
    of = {method: [row for row in rows if row["method"] == method] for method in ("unguided", "anchored-0.1")}
    with (REFERENCE / "digits-evidence-description" / "description.csv").open() as stream:
        again = [row for row in csv.DictReader(stream) if row["run"] == "main"]
    snr = {method: [float(row["class_snr_crossfit"]) for row in again if row["method"] == method] for method in of}
    x = {method: math.log(statistics.fmean(found)) for method, found in snr.items()}
    accuracy = {method: statistics.fmean(float(row["robust_accuracy"]) for row in found) for method, found in of.items()}
    drawn = forecast.numbers(Files(REFERENCE))
    series = drawn.series("2,000 images", "class-anchored")
    assert series.x == pytest.approx([np.polyval(hill, x["anchored-0.1"]) - np.polyval(hill, x["unguided"])], rel=1e-9)
    assert series.y == pytest.approx([accuracy["anchored-0.1"] - accuracy["unguided"]], rel=1e-9)
    panel = np.array([row[2:4] for row in drawn.rows() if row[0] == "5,000 images"], dtype=float)
    assert len(panel) == 13
    assert forecast.explained(drawn, "5,000 images") == pytest.approx(r2_score(panel[:, 1], panel[:, 0]), rel=1e-9)
    said = forecast.finding(Files(REFERENCE))
    assert f"here {math.exp(-hill[1] / (2 * hill[0])):.1f} by the parabola" in said
    assert f"5,000 images: {r2_score(panel[:, 1], panel[:, 0]):.2f}" in said


def test_a_parabola_is_found_and_noise_is_not():
    rng = np.random.default_rng(0)
    x, kinds = rng.uniform(0, 2, 60), np.repeat(np.arange(12), 5)
    hill = 1 - (x - 0.8) ** 2
    assert predictors.left_out_score(x, hill, kinds, 2) == pytest.approx(1)
    assert predictors.left_out_score(x, hill, kinds, 1) < 0.9
    assert predictors.left_out_score(x, rng.standard_normal(60), kinds, 2) < 0.2
    assert predictors.optimum(x, hill) == pytest.approx(0.8)
    assert predictors.optimum(x, -hill) == math.inf
