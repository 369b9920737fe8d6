"""The guided-diffusion job: its measures against other libraries, its predictions against samples, its command line."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line.output import UserError
from contrastive_dp import NoiseSchedule, ddim_sample
from simulations.guided.designs import ANCHORED, DESIGNS, SUPERVISED, UNGUIDED, settings_of
from simulations.guided.learners import CLASS_SNRS, learn_at_every_snr, optimum_interval, strength_for, tabulate
from simulations.guided.models import PROBLEMS, ExactNoisePrediction, MeanPush, Setting, balanced_labels, problem_named
from simulations.guided.report import (
    ACCURACY_HEADER,
    MULTIPLIER_SIZE,
    PREDICTION_HEADER,
    accuracy_rows,
    fewer_samples,
    grouped,
    multiplier,
    paired_gain,
    prediction_rows,
)
from simulations.guided.runs import Effort, attacked_accuracy, generate, group_directions, measure, moments
from simulations.guided.theory import GROUP, Classes, equivalent_kappa, predict, scale_for
from simulations.guided_diffusion import main
from theory import AveragingLaw, BinaryMixture, GaussianMixture, bayes_robust_accuracy, ddim_law, multiclass_robust_accuracy

ROOT = Path(__file__).resolve().parents[2]
SMALL = Effort(samples=512, averaging_fits=8, other_fits=2, training_steps=30)


@pytest.fixture(scope="module")
def schedule():
    return NoiseSchedule.linear()


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_what_they_say(name):
    problem = problem_named(name)
    x, y = problem.mixture.sample(40_000, np.random.default_rng(0))
    assert math.sqrt((x**2).sum(axis=1).mean()) == pytest.approx(problem.radius, rel=0.02)
    if problem.binary is not None:
        signed = np.where(y == 1, 1.0, -1.0)
        assert np.abs((signed[:, None] * x).mean(axis=0) - problem.binary.mean).max() < 0.05
        assert problem.optimum == bayes_robust_accuracy(problem.binary, problem.eps)
    labels = np.concatenate([balanced_labels(problem, first, n).numpy() for first, n in ((0, 300), (300, 500), (800, 200))])
    assert np.array_equal(labels, balanced_labels(problem, 0, 1000).numpy())
    assert np.abs(np.bincount(labels) / 1000 - problem.mixture.weights).max() < 2e-3


def test_wasserstein_distance_equals_pot():
    from ot.gaussian import bures_wasserstein_distance

    problem, rng = problem_named("anisotropic"), np.random.default_rng(1)
    root = rng.standard_normal((2, 2, 2))
    means, covs = rng.standard_normal((2, 2)), root @ root.transpose(0, 2, 1) + 0.1 * np.eye(2)
    distances = [
        bures_wasserstein_distance(means[k], problem.mixture.means[k], covs[k], problem.mixture.covariances[k].value)
        for k in range(2)
    ]
    assert Classes(problem, means, covs).w2 == pytest.approx(math.sqrt(np.mean(np.square(distances))), rel=1e-7)
    real = np.stack([cov.value for cov in problem.mixture.covariances])
    assert Classes(problem, problem.mixture.means, real).w2 < 1e-7


def test_class_snr_and_alignment():
    problem = problem_named("two")
    classes = Classes(problem, np.array([[-1.0, -1.0], [1.0, 1.0]]), np.stack([np.diag([1.0, 3.0])] * 2))
    assert classes.class_snr == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert classes.alignment == pytest.approx(math.sqrt(0.5))
    ring = problem_named("ring")
    assert Classes(ring, ring.mixture.means, np.stack([0.36 * np.eye(2)] * 8)).class_snr == pytest.approx(3 / 0.6)
    assert Classes(ring, -ring.mixture.means, np.stack([0.36 * np.eye(2)] * 8)).alignment == pytest.approx(-1)


@pytest.mark.parametrize("name", ["two", "d10"])
@pytest.mark.parametrize("n", [5, 20, 200])
def test_averaging_accuracy_and_its_inverse(name, n):
    """Quasi-Monte Carlo mean against the exact law, and the exact law inverted."""
    problem, scale, std = problem_named(name), 1.3, 0.8
    real = problem.binary
    synthetic = Classes(problem, scale * problem.mixture.means, np.stack([std**2 * np.eye(real.dim)] * 2))
    law = AveragingLaw(real, BinaryMixture(scale * real.mean, std**2), n, problem.eps).mean()
    assert synthetic.averaging_accuracy(n) == pytest.approx(law, abs=3e-4)
    assert equivalent_kappa(problem, law, n) == pytest.approx(scale * np.linalg.norm(real.mean) / std, rel=1e-6)
    assert equivalent_kappa(problem, problem.optimum + 1e-6, n) == math.inf
    assert equivalent_kappa(problem, 0.3, n) == 0.0
    assert math.isnan(equivalent_kappa(problem_named("ring"), 0.8, n))


@pytest.mark.parametrize("strength", [0.02, 0.2])
def test_constant_guidance_is_predicted_exactly(schedule, strength):
    setting = Setting(guidance="constant", scale=strength, steps=30)
    foreseen = predict(setting, schedule)
    mean, std = ddim_law(np.array([1.0, 0.0]), 1.0, schedule.visited(30).numpy(), np.array([-strength, 0.0]))
    assert np.abs(foreseen.means[1] - mean).max() < 1e-9
    assert np.abs(foreseen.covs - np.diag(std**2)).max() < 1e-9
    x, y = generate(setting, 3, 4 * GROUP, schedule)
    assert moments(problem_named("two"), x.double().numpy(), y.numpy()).class_snr == pytest.approx(foreseen.class_snr, rel=0.1)


@pytest.mark.parametrize(
    "setting",
    [
        ANCHORED,
        SUPERVISED,
        Setting(guidance="infonce", scale=1.0, at="x0", high=400),
        Setting(guidance="classifier", scale=0.2),
        Setting(guidance="classifier-free", scale=0.6),
        Setting("d10", guidance="anchored", scale=0.3),
        Setting("ring", guidance="anchored", scale=0.3),
    ],
    ids=lambda setting: f"{setting.problem} {setting.guidance}",
)
def test_predictions_hold_for_samples(schedule, setting):
    """What guidance changes, against the unguided samples of the same noise: within 10 % of the predicted change (or 2 % of class SNR)."""
    problem, found = problem_named(setting.problem), []
    for cell in (Setting(problem=setting.problem), setting):
        runs = [generate(cell, seed, 2 * GROUP, schedule) for seed in range(3)]
        classes = moments(problem, *(torch.cat(part).double().numpy() for part in zip(*runs, strict=True)))
        found.append((classes.class_snr, predict(cell, schedule).class_snr))
    measured, foreseen = found[1][0] / found[0][0], found[1][1] / found[0][1]
    assert abs(foreseen - 1) > 0.03
    assert math.log(measured) == pytest.approx(math.log(foreseen), rel=0.1, abs=0.02)


def test_a_sample_depends_on_its_index_alone(schedule):
    for setting in (SUPERVISED, Setting(solver="ddpm", steps=10), Setting(guidance="infonce", scale=1.0, high=300)):
        whole, labels = generate(setting, 5, 3 * GROUP, schedule)
        part, part_labels = generate(setting, 5, GROUP, schedule, first=GROUP)
        assert torch.equal(whole[GROUP : 2 * GROUP], part)
        assert torch.equal(labels[GROUP : 2 * GROUP], part_labels)
        assert not torch.equal(generate(setting, 6, GROUP, schedule)[0], whole[:GROUP])


def test_unanchored_guidance_at_high_noise_rotates_and_anchors_prevent_it(schedule):
    def cosines(setting):
        return [
            group_directions(problem_named("two"), *(v.double().numpy() for v in generate(setting, seed, GROUP, schedule)))[0]
            for seed in range(6)
        ]

    rotated = cosines(Setting(guidance="supervised", at="xt", scale=1.0))
    anchored = cosines(ANCHORED)
    assert min(cosine for cosine, _ in rotated) < 0.8
    assert np.mean([accuracy for _, accuracy in rotated]) < np.mean([accuracy for _, accuracy in anchored]) - 0.02
    assert min(cosine for cosine, _ in anchored) > 0.97


@pytest.mark.parametrize(("quantity", "target"), [("class_snr", 1.6), ("w2", 0.3), ("class_snr", 0.9)])
def test_scale_for_meets_its_target(schedule, quantity, target):
    setting = Setting(guidance="infonce" if target == 0.9 else "anchored", at="xt")
    scale, foreseen = scale_for(setting, schedule, quantity, target)
    assert getattr(foreseen, quantity) == pytest.approx(target, rel=1e-4)
    assert scale > 0


def test_scale_for_names_what_can_be_reached(schedule):
    with pytest.raises(
        UserError, match=r"--target-snr 9 is out of reach of infonce at xt 0≤t<50: it goes from .* to .*; choose a value"
    ):
        scale_for(Setting(guidance="infonce", high=50), schedule, "class_snr", 9.0)


def test_multiclass_robust_accuracy_by_attack_equals_theory():
    """Within 4 standard errors of theory's orthant probability, on three classes."""
    mixture = GaussianMixture(np.array([[1.5, 0.0], [-0.8, 1.2], [-0.7, -1.4]]), 0.6)
    problem = problem_named("ring").__class__("three", mixture, 0.3, None)
    weights, biases = mixture.means * 1.1, -(mixture.means**2).sum(axis=1) / 2
    exact = multiclass_robust_accuracy(weights, biases, mixture, 0.3)
    assert abs(attacked_accuracy(problem, weights, biases) - exact) < 4 * math.sqrt(exact * (1 - exact) / 4000)


def test_runs_measure_what_was_generated(schedule):
    run = measure(ANCHORED, 2, SMALL)
    x, y = generate(ANCHORED, 2, 512, schedule)
    classes = moments(problem_named("two"), x.double().numpy(), y.numpy())
    assert (run.class_snr, run.alignment, run.w2) == (classes.class_snr, classes.alignment, classes.w2)
    assert {name for name, *_ in run.accuracies} == {"averaging", "lda", "logistic", "adversarial"}
    assert all(0.3 < accuracy <= problem_named("two").optimum for _, _, accuracy, _ in run.accuracies)
    assert measure(ANCHORED, 2, SMALL).accuracies == run.accuracies
    assert 0 < run.w2_floor < 0.3


def test_paired_gain_is_students_interval():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    ours, theirs = dict(enumerate(rng.normal(1, 1, 12))), dict(enumerate(rng.normal(0, 1, 12)))
    expected = ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval(0.95)
    gain, low, high = paired_gain(ours, theirs)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert gain == pytest.approx((low + high) / 2)


def test_learners_meet_each_class_snr_and_theory(schedule):
    """Every class SNR is met by the strength chosen for it; V within 5 standard errors where n is large enough (SNR up to 1.5)."""
    problem = problem_named("d10")
    for class_snr in (0.6, 1.2, 3.0):
        strength = strength_for(class_snr, schedule)
        levels = (abs(strength) / (1 - schedule.alpha_bar).sqrt()).tolist()
        push = MeanPush(torch.from_numpy(problem.mixture.means.copy()), levels, reverse=strength < 0)
        x_T = torch.randn(40, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x_T = torch.cat([x_T, -x_T])
        labels = torch.ones(80, dtype=torch.int64)
        x = ddim_sample(ExactNoisePrediction(problem.mixture, schedule), x_T, schedule, 50, labels, guidance=push)
        std = float(ddim_law(0.0, 1.0, schedule.visited(50).numpy())[1])
        assert float(x.mean(dim=0).norm()) / std == pytest.approx(class_snr, rel=1e-6)
    by_seed = [learn_at_every_snr(seed, 2000, 4) for seed in range(4)]
    for learner, eps, snr, theory, variance, _, reached, accuracy, _, _ in tabulate(by_seed, 2000):
        assert 0.5 < accuracy < problem.optimum
        assert (snr < 2) <= (abs(accuracy - reached) < 0.01)  # NaN where the law needs more samples
        if snr <= 1.5:
            assert abs(variance - theory) < 5 * theory * math.sqrt(2 / 9 / 16) + 0.05 * theory, (learner, eps, snr)
    for eps in (0.0, 0.5):
        interval = optimum_interval(by_seed, eps, 200)
        assert interval["low"] <= interval["estimate"] <= interval["high"]
        assert interval["cubic_fit_to_theory"] == pytest.approx(interval["theory"], rel=0.02)
        assert interval["estimate"] == pytest.approx(interval["theory"], rel=0.15)
        alone = optimum_interval(by_seed[:1], eps, 20)
        assert math.isnan(alone["low"])  # one seed knows no spread
        assert math.isnan(alone["high"])
        assert alone["estimate"] > 0
    assert CLASS_SNRS[0] < 1 < CLASS_SNRS[-1]


def run_main(*arguments):
    return main([str(argument) for argument in arguments])


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_guidance_from_the_command_line(tmp_path, capsys):
    """The same files on one process and two; the target is met; unguided stands beside it."""
    for workers in (1, 2):
        arguments = (
            "--guidance",
            "anchored",
            "--target-snr",
            1.7,
            "--seeds",
            2,
            "--samples",
            512,
            "--workers",
            workers,
            "--out",
            tmp_path / str(workers),
        )
        assert run_main(*arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("settings: ")
    assert "theory predicts class SNR 1.7" in printed
    names = {path.name for path in (tmp_path / "1").iterdir()}
    assert {
        "guidance.csv",
        "prediction.csv",
        "accuracy.csv",
        "timing.csv",
        "summary.json",
        "samples.png",
        "trajectories.png",
    } <= names
    for name in names - {"timing.csv", "summary.json"}:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
    rows = read(tmp_path / "1" / "guidance.csv")
    assert [(row["guidance"], row["seed"]) for row in rows] == [("none", "0"), ("none", "1"), ("anchored", "0"), ("anchored", "1")]
    assert float(read(tmp_path / "1" / "prediction.csv")[1]["class_snr_predicted"]) == pytest.approx(1.7, rel=1e-3)
    summary = json.loads((tmp_path / "1" / "summary.json").read_text())
    assert summary["settings"]["target_snr"] == 1.7
    assert summary["versions"]["torch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--problem", "ring"), "error: --problem ring: belongs to a single run; add --guidance"),
        (("--guidance", "anchored", "--parts", "every"), "error: --parts every: belongs to the study"),
        (("--parts", "value", "learners", "--samples", "512"), "error: --samples 512: --parts value learners does not use it"),
        (("--parts", "value", "--seeds", "20"), "error: --seeds 20: --parts value takes at most 8"),
        (("--parts", "gallery", "--seeds", "2"), "error: --seeds 2: --parts gallery does not use it"),
        (("--parts", "gallery", "--quick"), "error: --quick: --parts gallery does not use it"),
        (("--guidance", "classifier-free", "--high", "400"), "error: --high 400: classifier-free guidance does not use it"),
        (("--guidance", "anchored", "--every", "60"), "error: --every 60: is more than --steps 50"),
        (("--guidance", "infonce", "--samples", "257"), "error: --samples 257: leaves a last batch of 1"),
        (("--scale", "-1"), "error: --scale -1.0: must be a finite number >= 0; to ascend the loss use --reverse"),
        (("--scale", "nan"), "error: --scale nan: must be a finite number >= 0"),
        (("--low", "500", "--high", "400"), "error: --low 500 --high 400: the window must satisfy"),
        (("--high", "1001"), "error: --low 0 --high 1001: the window must satisfy"),
        (("--target-snr", "2"), "error: --target-snr chooses the scale of one guidance: add --guidance"),
        (
            ("--guidance", "anchored", "--target-snr", "2", "--scale", "5"),
            "error: --target-snr chooses the scale: leave out --scale 5",
        ),
        (("--guidance", "anchored", "--target-snr", "nan"), "error: --target-snr nan: must be a finite number > 0"),
        (("--guidance", "anchored", "--target-snr", "2", "--target-w2", "1"), "both choose the scale"),
        (("--guidance", "anchored", "--target-w2", "1", "--solver", "unipc"), "theory predicts DDIM only"),
        (("--guidance", "infonce", "--high", "50", "--target-snr", "9"), "error: --target-snr 9 is out of reach of infonce"),
        (("--guidance", "anchored", "--steps", "0"), "error: --steps 0: must lie in 1 .. 1000"),
        (("--samples", "3"), "error: --samples 3: must be 0 or lie in 32"),
        (("--seeds", "-1"), "error: --seeds -1"),
        (("--parts",), "error: --parts: give at least one"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path):
    assert run_main(*arguments, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--problem", "ring"),
        ("--solver", "unipc", "--steps", 5),
        ("--train-on", 64, "--quick"),
        ("--scale", 0.01, "--problem", "unbalanced"),
    ],
)
def test_single_runs_of_every_kind_draw_what_they_have(arguments, tmp_path):
    assert run_main("--guidance", "anchored", "--seeds", 1, "--samples", 256, "--workers", 1, "--out", tmp_path, *arguments) == 0
    assert {"samples.png", "trajectories.png", "guided_accuracy.png"} <= {path.name for path in tmp_path.glob("*.png")}
    assert (tmp_path / "summary.json").is_file()


def test_the_multiplier_is_the_squared_ratio_of_equivalent_class_snrs(schedule):
    problem, n = problem_named("two"), MULTIPLIER_SIZE
    accuracies = [AveragingLaw(problem.binary, BinaryMixture(c * problem.binary.mean), n, problem.eps).mean() for c in (1.5, 0.9)]
    assert multiplier(ANCHORED, *accuracies) == pytest.approx((1.5 / 0.9) ** 2, rel=1e-6)


def test_prediction_rows_hold_measured_beside_predicted(schedule):
    """Columns by name: the multiplier lies within its interval, and the predicted one is of the same setting."""
    effort = Effort(samples=1024, averaging_fits=64)
    runs = [measure(cell, seed, effort, ("averaging",)) for cell in (UNGUIDED, ANCHORED) for seed in range(3)]
    rows = [dict(zip(PREDICTION_HEADER, row, strict=True)) for row in prediction_rows(grouped(runs), schedule)]
    assert rows[0]["multiplier"] == rows[0]["multiplier_predicted"] == pytest.approx(1.0)
    assert rows[1]["multiplier_low"] < rows[1]["multiplier"] < rows[1]["multiplier_high"]
    foreseen = predict(ANCHORED, schedule)
    assert rows[1]["class_snr_predicted"] == foreseen.class_snr
    assert rows[1]["multiplier_predicted"] == pytest.approx(3.6, rel=0.1)
    assert rows[1]["class_snr"] == pytest.approx(np.mean([run.class_snr for run in runs[3:]]))
    gains = [dict(zip(ACCURACY_HEADER, row, strict=True)) for row in accuracy_rows(grouped(runs))]
    twenty = next(row for row in gains if row["guidance"] == "anchored" and row["n"] == 20)
    assert twenty["gain_low"] < twenty["gain"] < twenty["gain_high"]
    few = fewer_samples(grouped(runs), ANCHORED, 5, 200)
    assert few[0] == pytest.approx(
        np.mean([dict_of(run)[5] for run in runs[3:]]) - np.mean([dict_of(run)[200] for run in runs[:3]])
    )


def dict_of(run):
    return {n: accuracy for _, n, accuracy, _ in run.accuracies}


def test_dry_run_writes_nothing(tmp_path, capsys):
    assert run_main("--dry-run", "--parts", "solvers", "--out", tmp_path / "out") == 0
    assert "dpm-solver++ 20" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_an_unknown_flag_is_refused_with_the_nearest():
    script = ROOT / "simulations" / "guided_diffusion.py"
    result = subprocess.run([sys.executable, script, "--guidanse", "anchored"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--guidance" in result.stderr


def test_designs_hold_no_setting_twice():
    cells = settings_of(tuple(DESIGNS))
    assert len(cells) > 60
    for design in DESIGNS.values():
        assert len(design()) == len(set(design()))


@pytest.mark.slow
def test_the_quick_study_runs_and_draws_everything(tmp_path):
    assert run_main("--quick", "--seeds", 2, "--out", tmp_path) == 0
    assert len(list(tmp_path.glob("*.png"))) == 11


def test_a_dry_run_names_the_parts_with_files_of_their_own(tmp_path, capsys):
    assert main(["--parts", "value", "gallery", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "would run what each guidance is worth; what each guidance does to samples\n" in capsys.readouterr().out
