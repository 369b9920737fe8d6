"""What guided samples are worth to learners: T16 for classes that are wider along their line than across it, and the best at a price."""

import csv
import json
import math
from functools import partial

import numpy as np
import pytest

from contrastive_dp import NoiseSchedule
from simulations.guided.models import Setting, distance_to_boundary, problem_named
from simulations.guided.theory import Classes, predict
from simulations.guided.value import (
    HEADER,
    RADII,
    RIDGE,
    TRAINING_EPS,
    Pair,
    accuracy,
    best_curve,
    best_guidances,
    fit,
    law,
    measure_value,
    tabulate,
)
from simulations.guided_diffusion import main
from theory import AveragingLaw, BinaryMixture, ProportionalLaw


@pytest.fixture(scope="module")
def schedule():
    return NoiseSchedule.linear()


def test_classes_as_a_pair():
    """Means (-m, m) in direction (3, 4, 0) / 5, variance 4 along it and (1, 9) across: across is their root mean square."""
    problem = problem_named("d10")
    rotation = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    cov = rotation @ np.diag([4.0, 1.0, 9.0]) @ rotation.T
    mean = 2.5 * rotation[:, 0]
    pair = Pair.of(Classes(problem, np.stack([-mean, mean]), np.stack([cov, cov])))
    assert (pair.mean, pair.along, pair.across) == pytest.approx((2.5, 2.0, math.sqrt(5)))


@pytest.mark.parametrize("learner", ["averaging", "logistic", "adversarial"])
def test_isotropic_classes_follow_t16(learner):
    pair = Pair(1.8, 1.2, 1.2)
    more = {"averaging": {}, "logistic": {"ridge": RIDGE}, "adversarial": {"ridge": RIDGE, "eps": TRAINING_EPS / 1.2}}[learner]
    name = "averaging" if learner == "averaging" else "logistic"
    assert law(pair, learner, 7) == pytest.approx(ProportionalLaw(1.5, 7, name, **more).alignment, rel=1e-12)


@pytest.mark.parametrize("learner", ["averaging", "logistic", "adversarial"])
@pytest.mark.parametrize(("along", "across"), [(0.5, 1.0), (1.3, 0.9)])
def test_classes_with_another_width_along_their_line(learner, along, across):
    """Mean cosine of 16 fits at d = 150, n / d = 8. Ridge and radius make the law an approximation: within .01 and 5 standard errors."""
    rng, dim, mean = np.random.default_rng([3, int(10 * along)]), 150, 1.5
    found = []
    for _ in range(16):
        y = rng.choice([-1.0, 1.0], 8 * dim)
        x = across * rng.standard_normal((8 * dim, dim))
        x[:, 0] = mean * y + along * rng.standard_normal(8 * dim)
        w = np.asarray(fit(learner, x, y).weights)
        found.append(w[0] / np.linalg.norm(w))
    error = np.std(found, ddof=1) / 4
    assert abs(law(Pair(mean, along, across), learner, 8 * dim / (dim - 1)) - np.mean(found)) < 0.01 + 5 * error
    isotropic = math.sqrt((along**2 + (dim - 1) * across**2) / dim)
    if learner != "averaging" and along < 1:  # a law that knows their mean width alone is off
        assert abs(law(Pair(mean, isotropic, isotropic), learner, 8) - np.mean(found)) > 0.03


def test_the_best_for_averaging_is_on_t7s_circle():
    """Its law knows mean / across alone; `across` costs (d - 1) (across - sigma)^2, so T7 holds with d - 1 in place of d."""
    problem = problem_named("d100")
    found = best_curve(problem, "averaging", 5, angles=48)
    for r, value in zip(RADII, found, strict=True):
        phi, psi = math.atan2(2.0, math.sqrt(99)), math.asin(r / math.hypot(2.0, math.sqrt(99)))
        best = accuracy(problem, ProportionalLaw(math.tan(phi + psi) * math.sqrt(99), 5, "averaging").alignment)
        assert best - 2e-4 < value <= best + 1e-9
    assert (np.diff(found) >= 0).all()
    with_logistic = best_curve(problem, "logistic", 5, angles=6)
    assert with_logistic[0] == pytest.approx(accuracy(problem, law(Pair(2.0, 1.0, 1.0), "logistic", 5)))
    assert with_logistic[4] > with_logistic[0] + 0.02


@pytest.mark.parametrize(
    ("guidance", "more"),
    [
        ("feedback", {"scale": 0.03}),
        ("boundary", {"scale": 0.05}),
        ("boundary-near", {"scale": 0.05}),
        ("particle", {"scale": 0.05}),
        ("infonce-same", {"scale": 0.05}),
        ("infonce-other", {"scale": 0.05}),
        ("autoguidance", {"scale": 0.5, "at": "xt", "relative": False, "high": 1000}),
    ],
)
def test_the_new_guidances_are_predicted(schedule, guidance, more):
    """Class SNR and W2 of 5,120 samples against the closure, in ten dimensions."""
    from simulations.guided.runs import generate, moments

    setting = Setting(**{"problem": "d10", "guidance": guidance, "at": "x0", "relative": True, "high": 700, **more})
    problem, foreseen = problem_named("d10"), predict(setting, schedule)
    x, y = generate(setting, 0, 5120, schedule)
    found = moments(problem, x.double().numpy(), y.numpy())
    plain = predict(Setting(problem="d10"), schedule)
    assert found.class_snr == pytest.approx(foreseen.class_snr, rel=0.05)
    assert found.w2 == pytest.approx(foreseen.w2, rel=0.15, abs=0.05)
    assert abs(foreseen.class_snr / plain.class_snr - 1) > 0.02 or guidance == "boundary"


def test_boundary_guidance_holds_the_class_means_and_narrows_their_line(schedule):
    problem = problem_named("d100")
    assert distance_to_boundary(problem) == pytest.approx(2.0)  # the boundary is x_1 = 0, the means lie at +-2
    wide = problem_named("anisotropic").binary  # the boundary is Sigma^-1 mu . x = 0
    normal = np.linalg.solve(wide.cov, wide.mean)
    distance = normal @ wide.mean / np.linalg.norm(normal)
    assert distance_to_boundary(problem_named("anisotropic")) == pytest.approx(distance)
    setting = Setting(problem="d100", guidance="boundary", scale=0.05, at="x0", relative=True, high=700)
    guided, plain = (Pair.of(predict(one, schedule)) for one in (setting, Setting(problem="d100")))
    assert guided.mean == pytest.approx(plain.mean, rel=0.01)
    assert guided.along < 0.2 * plain.along
    assert guided.across == pytest.approx(plain.across, rel=0.01)
    for learner in ("logistic", "adversarial"):
        assert law(guided, learner, 5) > law(plain, learner, 5) + 0.01


def test_measured_learners_follow_t4(schedule, monkeypatch):
    """Averaging of 500 unguided samples in 100 dimensions: T4's mean on the classes that DDIM leaves, over 12 training sets, |z| < 4."""
    monkeypatch.setattr("simulations.guided.value.LEARNERS", ("averaging",))
    setting, problem = Setting(problem="d100"), problem_named("d100")
    pair = Pair.of(predict(setting, schedule))
    direction = np.eye(100)[0]
    expected = AveragingLaw(problem.binary, BinaryMixture(pair.mean * direction, pair.across**2), 500, problem.eps).mean()
    found = [
        value
        for seed in range(3)
        for learner, ratio, value in measure_value(setting, seed, (5, 20))
        if (learner, ratio) == ("averaging", 5)
    ]
    assert len(found) == 3  # each a mean over four training sets
    assert abs(np.mean(found) - expected) < 4 * np.std(found, ddof=1) / math.sqrt(3) + 2e-4


def test_rows_are_paired_with_no_guidance(schedule):
    plain, guided = Setting(problem="d100"), Setting(problem="d100", guidance="classifier-free", scale=0.1)
    measured = {
        plain: [[("averaging", 5, 0.90)], [("averaging", 5, 0.92)]],
        guided: [[("averaging", 5, 0.93)], [("averaging", 5, 0.93)]],
    }
    rows, best = tabulate(measured, schedule)
    table = [dict(zip(HEADER, row, strict=True)) for row in rows]
    assert table[1]["gain"] == pytest.approx(0.02)
    assert table[1]["gain_error"] == pytest.approx(np.std([0.03, 0.01], ddof=1) / math.sqrt(2))
    assert table[0]["accuracy_predicted"] == table[0]["unguided_predicted"] == table[1]["unguided_predicted"]
    assert [row[2] for row in best] == list(RADII)
    assert table[1]["best_at_this_w2"] == pytest.approx(np.interp(table[1]["w2"], RADII, [row[3] for row in best]))
    assert all(not row["accuracy_predicted"] > row["best_at_this_w2"] for row in table)
    (line,) = best_guidances(rows)
    assert line.startswith("averaging, n/d = 5: best is classifier-free 0.1, predicted ")
    assert "measured +0.0200 +- 0.0100" in line


def test_no_guidance_is_predicted_to_beat_the_best_at_its_price(schedule, monkeypatch):
    """Strong guidance, within the radii that were searched and beyond, where the best is not known."""
    cells = [Setting(problem="d100")]
    cells += [
        Setting(problem="d100", guidance=name, scale=scale, at="x0", relative=True, high=700)
        for name in ("boundary-near", "anchored", "classifier")
        for scale in (0.05, 0.3)
    ]
    raw = best_curve(problem_named("d100"), "adversarial", 5, angles=4)
    monkeypatch.setattr("simulations.guided.value.best_curve", lambda *_: raw)
    rows, best = tabulate({cell: [[("adversarial", 5, 0.9)]] for cell in cells}, schedule)
    table = [dict(zip(HEADER, row, strict=True)) for row in rows]
    within = [row for row in table if row["w2"] <= RADII[-1]]
    # of the search alone: tabulate itself raises the curve to what guidance reaches
    assert all(row["accuracy_predicted"] <= np.interp(row["w2"], RADII, raw) + 0.004 for row in within)
    assert len(within) >= 5
    assert all(math.isnan(row["best_at_this_w2"]) for row in table if row["w2"] > RADII[-1])
    curve = [row[3] for row in best]
    assert curve == sorted(curve)


def test_the_part_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr("simulations.guided.value.PROBLEM", "d10")
    monkeypatch.setattr("simulations.guided.value.best_curve", partial(best_curve, angles=4))  # what it finds is tested above
    small = [Setting(problem="d10"), Setting(problem="d10", guidance="boundary", scale=0.05, at="x0", relative=True, high=700)]
    monkeypatch.setattr("simulations.guided.value.settings", lambda: small)
    assert main(["--parts", "value", "--quick", "--seeds", "2", "--workers", "1", "--out", str(tmp_path)]) == 0
    with (tmp_path / "value.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert {(row["guidance"], row["learner"], row["samples_per_dim"], row["seeds"]) for row in table} == {
        (guidance, learner, "5", "2") for guidance in ("none", "boundary") for learner in ("averaging", "logistic", "adversarial")
    }
    lines = json.loads((tmp_path / "summary.json").read_text())["value"]["best"]
    assert len(lines) == 3
