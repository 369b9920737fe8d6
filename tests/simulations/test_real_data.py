"""Real-data analysis on data whose truth is known: Gaussian data give no gap, broken assumptions are named."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from simulations.mixtures import certainty, real_data
from simulations.mixtures.certainty import MOST_FEATURES, estimate, measured_needs, subset_sizes
from simulations.mixtures.learners import fit_averaging
from simulations.mixtures.real_data import OPTIMUM, analyse, estimate_mixture, split_and_scale, verdict
from simulations.mixtures.real_data_report import answer, doubts
from simulations.mixtures.tables import make_table
from theory import BinaryMixture, QuasiMonteCarloLaw, bayes_robust_accuracy, required_samples


def table_of(x, y):
    return make_table("made", x, np.where(y > 0, "b", "a"), tuple(f"f{i}" for i in range(x.shape[1])))


@pytest.fixture(scope="module")
def gaussian():
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((6, 12))
    mixture = BinaryMixture(rng.standard_normal(6) * 0.8, factor @ factor.T / 12 + 0.3 * np.eye(6), 0.4)
    x, y = mixture.sample(20_000, rng)
    return analyse(table_of(x * 7 + 100, y), (2.0, math.inf), (), 0.8, 0.95, (), 0)


def test_predictions_hold_on_gaussian_data(gaussian):
    """10,000 held-out rows: every prediction within 5 binomial standard errors plus 0.01 for the estimated moments."""
    for row in gaussian.comparisons:
        assert abs(row.measured - row.predicted) < 5 * row.standard_error + 0.01, row
        assert abs(row.shape_gap) < 5 * row.standard_error, row


def test_learning_curve_is_predicted_on_gaussian_data(gaussian):
    for point in gaussian.curve:
        if point.n >= 8:  # the second-order law at d = 6 needs a few samples
            assert abs(point.measured - point.predicted) < 5 * point.standard_error + 0.015, point


def test_optimum_is_not_beaten(gaussian):
    for row in gaussian.comparisons:
        best = bayes_robust_accuracy(gaussian.mixture, row.eps, row.p)
        assert row.predicted <= best + 1e-9
        if row.classifier == OPTIMUM:
            assert row.predicted == pytest.approx(best, abs=1e-12)


def test_last_default_radius_is_trivial_and_said(gaussian):
    trivial = [row for row in gaussian.comparisons if row.trivial]
    assert {row.p for row in trivial} == {2.0, math.inf}
    for row in trivial:
        if row.classifier == OPTIMUM:
            assert row.predicted == pytest.approx(max(gaussian.mixture.prior, 1 - gaussian.mixture.prior))


def test_scaling_uses_the_training_half_alone():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200, 3)), np.repeat([1.0, -1.0], 100)
    x[:, 2] = 5.0
    train, test, dropped = split_and_scale(table_of(x, y), 3)
    assert dropped == ("f2",)
    assert train.x.shape[1] == test.x.shape[1] == 2
    np.testing.assert_allclose(train.x.std(axis=0), 1, atol=1e-12)
    mixture, shrinkage = estimate_mixture(train)
    np.testing.assert_allclose(train.x[train.y > 0].mean(axis=0), mixture.mean, atol=1e-12)
    assert 0 <= shrinkage <= 1


def test_unequal_spread_is_named():
    rng = np.random.default_rng(2)
    y = np.repeat([1.0, -1.0], 1000)
    x = rng.standard_normal((2000, 4)) * np.where(y > 0, 2.0, 0.7)[:, None] + y[:, None]
    lines = "\n".join(verdict(analyse(table_of(x, y), (2.0,), (), 0.8, 0.95, (), 0)))
    assert "class 'b'" in lines
    assert "as wide as the shared covariance says" in lines


def test_same_seed_same_analysis():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((100, 3)), np.repeat([1.0, -1.0], 50)
    table = table_of(x + y[:, None], y)
    first, second = (analyse(table, (2.0,), (0.1,), 0.8, 0.95, (0.5,), 7) for _ in range(2))
    assert first.comparisons == second.comparisons
    assert first.curve == second.curve


def test_copies_of_a_row_stay_on_one_side_of_the_split():
    """Noise, each row six times: with copies on both sides it measured .84."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((60, 20)), np.arange(60) % 2 * 2 - 1
    table = table_of(np.tile(x, (6, 1)), np.tile(y, 6))
    measured = []
    for seed in range(20):
        train, test, _ = split_and_scale(table, seed)
        assert len(train.y) + len(test.y) == 360
        assert 150 <= len(train.y) <= 210
        assert abs((train.y > 0).mean() - 0.5) < 0.1
        seen = {row.tobytes() for row in np.round(train.x, 9)}
        assert not seen & {row.tobytes() for row in np.round(test.x, 9)}
        mixture, _ = estimate_mixture(train)
        scores = test.x @ mixture.covariance.solve(mixture.mean)
        measured.append(((scores > 0) == (test.y > 0)).mean())
    assert abs(np.mean(measured) - 0.5) < 3 * np.std(measured) / np.sqrt(20) + 0.05


def test_intervals_hold_on_gaussian_data(gaussian):
    """10,000 training rows: the interval is 0.02 wide, and the prediction and the held-out accuracy lie in or near it."""
    assert len(gaussian.certainties) == 2 * 6  # all but the trivial radius
    for row in gaussian.certainties:
        predicted = bayes_robust_accuracy(gaussian.mixture, row.eps, row.p)
        assert row.optimum.low - 0.005 < predicted < row.optimum.high + 0.005
        assert row.measured.low < row.optimum.high
        shares = [one.measured for one in gaussian.comparisons if (one.p, one.eps, one.classifier) == (row.p, row.eps, OPTIMUM)]
        assert shares == [pytest.approx(row.measured.estimate, abs=1e-12)]  # the share, as the table of accuracies has it
        assert row.optimum.low < row.measured.high
        assert row.optimum.high - row.optimum.low < 0.025
        law = QuasiMonteCarloLaw(gaussian.mixture, gaussian.mixture, gaussian.train_rows, row.eps, row.p).mean()
        assert row.averaging.low - 0.005 < law < row.averaging.high + 0.005
        if math.isfinite(row.needed.high):
            assert row.needed.low <= row.measured_needed.high
            assert row.measured_needed.low <= row.needed.high


def test_measured_rows_are_those_of_the_law():
    """n from subsets of 3,000 rows against the exact law: within 20 %, and inside the interval up to one of the sizes tried."""
    rng = np.random.default_rng(4)
    mixture = BinaryMixture(np.full(8, 0.6), 1.0)
    train, test = mixture.sample(3000, rng), mixture.sample(6000, rng)
    attacks = [(2.0, 0.3), (math.inf, 0.1), (2.0, 100.0)]
    found = measured_needs(train, test, attacks, 0.85, 0.9, rng)
    for (p, eps), interval in zip(attacks[:2], found, strict=False):
        exact = required_samples(mixture, mixture, eps=eps, accuracy=0.85, confidence=0.9, p=p)
        assert 6 < exact < 60
        assert abs(interval.estimate - exact) <= 0.25 * exact
        assert interval.low - 1 <= exact <= interval.high + 1
        assert QuasiMonteCarloLaw(mixture, mixture, exact, eps, p).quantile(0.1) >= 0.849
    assert found[2].estimate == found[2].low == math.inf
    assert measured_needs(train, test, [], 0.8, 0.9, rng) == []


def test_too_few_rows_and_dependent_features_have_no_gaussian_interval():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((60, 5)) + 0.5, np.repeat([1.0, -1.0], 30)
    assert estimate(x, y) is not None
    assert estimate(np.column_stack([x, x.sum(axis=1)]), y) is None
    assert estimate(rng.standard_normal((60, 50)), y) is None
    assert subset_sizes(13) == [1, 2, 3, 4, 6]
    assert subset_sizes(1) == [1]


def test_a_table_in_the_folder_of_results_is_not_overwritten(tmp_path, capsys):
    from simulations.gaussian_mixture import main

    data = tmp_path / "real_data.csv"
    data.write_text("a,b,label\n" + "\n".join(f"{i},{i * i % 7},{'xy'[i % 2]}" for i in range(20)))
    before = data.read_text()
    assert main(["--part", "data", "--data", str(data), "--out", str(tmp_path)]) == 1
    assert "lies in --out, whose tables are written anew; give another --out" in capsys.readouterr().err
    assert data.read_text() == before


def test_copies_make_no_interval_narrower():
    """Noise, 60 rows six times: the interval of what was measured is that of the 30 different held-out rows."""
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((60, 8)), np.repeat([-1.0, 1.0], 30)
    found = analyse(table_of(np.repeat(x, 6, axis=0), np.repeat(y, 6)), (2.0,), (0.0,), 0.8, 0.9, (), 1)
    assert found.test_rows == 6 * found.distinct_test_rows
    (certainty,) = found.certainties
    assert certainty.measured.high - certainty.measured.low > 0.25  # 360 rows would make it .14
    assert {point.n for point in found.curve} == {2, 4, 8}  # up to half of the 30 different training rows, not of 180
    row = found.comparisons[0]
    assert row.standard_error == pytest.approx(math.sqrt(row.measured * (1 - row.measured) / found.distinct_test_rows), rel=0.01)
    said = answer(found, 0.99, 0.9)[-1]
    assert f"needs more than {subset_sizes(30)[-1]} rows" in said
    assert subset_sizes(30)[-1] < subset_sizes(180)[-1]


def test_rows_of_few_values_are_not_too_few():
    """400 rows of three yes/no features have eight patterns, and are no copies of eight rows."""
    rng = np.random.default_rng(4)
    y = np.repeat([-1.0, 1.0], 200)
    x = (rng.random((400, 3)) < np.where(y > 0, 0.7, 0.3)[:, None]).astype(float)
    found = analyse(table_of(x, y), (2.0,), (0.0, 0.3), 0.6, 0.9, (), 1)
    assert found.distinct_train_rows == 200
    assert not [line for line in doubts(found) if "WARNING" in line]


def test_no_interval_has_the_right_reason():
    rng = np.random.default_rng(4)
    y = np.repeat([-1.0, 1.0], 300)
    found = analyse(table_of(rng.standard_normal((600, 4)) + 0.5 * y[:, None], y), (1.0, 2.0), (0.2,), 0.6, 0.9, (), 1)
    said = answer(found, 0.6, 0.9)[0]
    assert "(no interval: they are for p = 2 and inf)" in said
    assert "too few rows" not in said
    wide = estimate(rng.standard_normal((600, MOST_FEATURES + 1)), y)
    assert wide is None


def test_the_curve_of_two_rows_is_that_of_two_rows():
    """One dimension, mean and spread 1, n = 2: Phi(sqrt 2) Phi(1) + Phi(-sqrt 2) Phi(-1); the second-order law says .803."""
    rng = np.random.default_rng(0)
    half = real_data._Half(rng.standard_normal((40, 1)), np.repeat([-1.0, 1.0], 20))
    points = real_data.learning_curve(half, half, BinaryMixture([1.0], 1.0), [0.0], 2.0, rng)
    exact = ndtr(math.sqrt(2)) * ndtr(1.0) + ndtr(-math.sqrt(2)) * ndtr(-1.0)
    assert points[0].predicted == pytest.approx(exact, abs=1e-3)


def test_rows_of_a_subset_are_different_ones(monkeypatch):
    seen = []
    monkeypatch.setattr(
        real_data, "fit_averaging", lambda x, y: seen.append((len(x), len(np.unique(x, axis=0)))) or fit_averaging(x, y)
    )
    half = real_data._Half(np.random.default_rng(1).standard_normal((40, 3)), np.repeat([-1.0, 1.0], 20))
    real_data.learning_curve(half, half, BinaryMixture([0.5, 0.0, 0.0], 1.0), [0.1], 2.0, np.random.default_rng(2))
    assert {n for n, _ in seen} == {2, 4, 8, 16}
    assert all(n == different for n, different in seen)


def test_resampled_subsets_count_as_the_fewer_rows_that_they_are_worth(monkeypatch):
    """Subsets of N resampled rows vary as 1/n + 1/N. Counted as n rows they needed n N / (N - n): 1.3 times as many here."""
    rng, counts = np.random.default_rng(3), []
    original = certainty._percentiles
    monkeypatch.setattr(certainty, "_percentiles", lambda found: counts.append(found) or original(found))
    mixture = BinaryMixture(np.full(40, 1 / np.sqrt(40)), 1.0)
    halves = [mixture.sample(count, rng) for count in (300, 2000)]
    measured_needs(*halves, [(2.0, 0.0)], 0.78, 0.9, rng)
    estimate_, *resampled = counts[0]
    assert 60 < estimate_ < 130
    assert np.median(resampled) == pytest.approx(estimate_, rel=0.15)


def test_no_attack_counts_once_whatever_the_norms(gaussian):
    """At eps = 0 all norms are one attack."""
    said = next(line for line in verdict(gaussian) if line.startswith("predicted robust optimum"))
    radii = {
        (0 if row.eps == 0 else row.p, row.eps) for row in gaussian.comparisons if row.classifier == OPTIMUM and not row.trivial
    }
    assert f" of {len(radii)} attacks (the estimate" in said
    assert len(radii) == 2 * 6 - 1


def rare(rows, share, dim, apart):
    """Gaussian classes, one of them rare."""
    rng = np.random.default_rng(5)
    y = np.where(np.arange(rows) < share * rows, 1, -1)
    return table_of(rng.standard_normal((rows, dim)) + apart * y[:, None] / np.sqrt(dim), y)


def test_a_rare_class_is_counted_for_what_it_says():
    """400 rows are 13 for each of 15 features, but 10 % of one class say as much as 72 of equal classes: under five."""
    analysis = analyse(rare(400, 0.1, 15, 1.5), (2.0,), (0.0, 0.3), 0.8, 0.95, (), 0)
    (warning,) = doubts(analysis)
    assert (
        "200 training rows, but only 10% of one class, say as much as 72 of equal classes, fewer than 5 for each of 15" in warning
    )
    assert doubts(analyse(rare(400, 0.5, 15, 1.5), (2.0,), (0.0, 0.3), 0.8, 0.95, (), 0)) == []


def test_the_answer_says_what_guessing_reaches_and_how_sure_its_numbers_are():
    analysis = analyse(rare(600, 0.2, 3, 1.5), (2.0,), (0.3,), 0.8, 0.95, (), 0)
    first, second = answer(analysis, 0.8, 0.95)
    (row,) = analysis.certainties
    assert (
        f"best classifier has robust accuracy {row.optimum.estimate:.3f} [{row.optimum.low:.3f}, {row.optimum.high:.3f}]" in first
    )
    assert first.endswith(f"to say {analysis.table.classes[0]!r} always has 0.800")
    assert "as the mean over both classes" in second
    high = "more than 128" if math.isinf(row.measured_needed.high) else f"{row.measured_needed.high:.0f}"
    assert f"needs {row.measured_needed.estimate:.0f} [{row.measured_needed.low:.0f}, {high}] rows" in second
