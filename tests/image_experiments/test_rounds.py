"""Rounds: train, generate against the learner, train on. Equal images and equal steps in all; every part is what it would be by hand."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from contrastive_dp.randomness import mixed_seed
from image_experiments import preset, run_cifar
from image_experiments.data.images import Images
from image_experiments.data.shuffling import batch_indices
from image_experiments.engine.checks import Facts
from image_experiments.engine.cost import disk_bytes, passing_bytes
from image_experiments.engine.plan import plan
from image_experiments.engine.progress import work_of
from image_experiments.engine.settings import resolve
from image_experiments.experiment import Result
from image_experiments.models.classifier_files import load_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, learning_rate, train_classifier
from image_experiments.training.attacks import Threat
from tests.image_experiments.test_run_cifar import SMALL


def test_the_strength_of_a_result_is_that_of_the_last_round(tmp_path):
    """Of one found per round; nan, not the default of an automatic method, if none was found."""
    settings = {"rounds": 2, "seed": 0, "seeds": 1, "dataset": "digits", "methods": ["particle:auto", "infonce:0.3", "unguided"]}
    found = {f"strength/particle-auto/seed0-round{n}": {"scale": 0.05 * n} for n in (1, 2)}
    summary = {"settings": settings, "warnings": [], "data": {"classes": ["0"], "shape": [8, 8, 1]}, "results": found}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    result = Result(tmp_path)
    assert result._strength("particle-auto", 0) == 0.1
    assert np.isnan(result._strength("particle-auto", 1))
    assert result._strength("infonce-0.3", 0) == 0.3
    assert np.isnan(result._strength("unguided", 0))


def images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return Images(torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(n) % 3)


def by_hand(network, first, last, settings, data, seed):
    """Steps first ... last - 1 of standard training on real images, by torch's own optimiser."""
    network.train()
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay)
    for step in range(first, last):
        index = batch_indices(len(data), settings.batch_size, step, mixed_seed(seed, 0))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(data.x[index].float() / 255), data.y[index]).backward()
        optimiser.step()
    return network


def test_a_part_of_a_training_has_the_rates_and_batches_of_its_steps(tmp_path):
    settings = ClassifierSettings(
        network="small-cnn-8",
        adversary="none",
        steps=11,
        batch_size=8,
        average=0.0,
        augmentation="none",
        validate_every=3,
        warmup=4,
    )
    first_data, more_data = images(20, 0), images(32, 1)
    expected = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=1)
    found = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=1)
    curves = []
    for k, (data, first, last) in enumerate(((first_data, 0, 3), (more_data, 3, 7), (first_data, 7, 11))):
        by_hand(expected, first, last, settings, data, 5)
        given, kept = TrainingImages(data, 3, part=(k + 1, 3)), tmp_path / f"{k}.pt"
        trained, curve = train_classifier(found.requires_grad_(True), given, Threat("linf", 0.1), settings, 5, checkpoint=kept)
        curves.append([row["step"] for row in curve])
        for name, value in trained.state_dict().items():
            torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-5, atol=1e-7)
    assert curves == [[3], [6, 7], [9, 11]]


def run(out, *more):
    return run_cifar.main([*SMALL, *more, "--out", str(out)])


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    out = tmp_path_factory.mktemp("rounds") / "out"
    methods = ("--methods", "real", "unguided", "feedback:0.3", "--synthetic", "41", "--rounds", "2")
    assert run(out, *methods, "--classifier.learning-rate", "0.05") == 0
    return out


def test_images_and_steps_are_those_of_one_round(looped):
    with (looped / "metrics.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert {row["method"]: row["n_synthetic"] for row in table} == {"real": "0", "unguided": "41", "feedback-0.3": "41"}
    for method in ("unguided", "feedback-0.3"):
        parts = []
        for number in (1, 2):
            with np.load(looped / "rounds" / "new" / method / f"seed0-round{number}.npz") as content:
                parts.append(content["image"])
        assert [len(part) for part in parts] == [20, 21]
        with np.load(looped / "synthetic" / method / "seed0.npz") as content:
            np.testing.assert_array_equal(content["image"], np.concatenate(parts))
        assert not (parts[0] == parts[1][:20]).all(axis=(1, 2, 3)).any()  # other noise in every round
        with (looped / "curves" / f"{method}-seed0.csv").open(newline="") as stream:
            assert [row["step"] for row in csv.DictReader(stream)][-1] == "30"
        with (looped / "curves" / f"{method}-seed0-round1.csv").open(newline="") as stream:
            assert [row["step"] for row in csv.DictReader(stream)][-1] == "15"


def test_the_learner_of_the_round_before_guides(looped):
    """The same command with the encoder in all rounds would make other images in the second and the same in the first."""
    methods, settings = ("real", "unguided", "feedback:0.3"), resolve(preset("smoke", rounds=2))
    stages = {stage.name: stage for stage in plan(resolve(replace(settings, methods=methods)))}
    guides = [stages[f"generate/feedback-0.3/seed0-round{number}"].inputs["encoder"].name for number in (1, 2)]
    assert guides == ["encoder/seed0", "classifier/feedback-0.3/seed0-round1"]
    assert stages["classifier/feedback-0.3/seed0"].inputs["before"].name == "classifier/feedback-0.3/seed0-round1"
    assert "encoder" not in stages["generate/unguided/seed0-round2"].inputs
    results = json.loads((looped / "summary.json").read_text())["results"]
    assert results["classifier/feedback-0.3/seed0-round1"]["n_synthetic"] == 20
    learner, encoder = (
        load_classifier(looped / "checkpoints" / f"{name}.safetensors", 10, (1, 8, 8))
        for name in ("feedback-0.3-seed0-round1", "encoder-seed0")
    )
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(learner(x), encoder(x), atol=1e-3)


def test_the_second_round_trains_on_from_the_first(looped):
    """Its weights lie nearer to the last ones of the first round than to fresh ones."""
    last, final = (
        load_classifier(looped / "checkpoints" / f"{name}.safetensors", 10, (1, 8, 8)).head.weight
        for name in ("feedback-0.3-seed0-round1-last", "feedback-0.3-seed0")
    )
    fresh = make_classifier("small-cnn-8", 10, (1, 8, 8), [0.0], [1.0], seed=0).head.weight
    assert 0 < (final - last).norm() < (final - fresh).norm()


def test_the_same_command_again_does_nothing_and_one_round_is_the_default(looped, capsys):
    before = {path: path.stat().st_mtime_ns for path in (looped / "stages").rglob("*.json")}
    methods = ("--methods", "real", "unguided", "feedback:0.3", "--synthetic", "41", "--rounds", "2")
    assert run(looped, *methods, "--classifier.learning-rate", "0.05") == 0
    assert before == {path: path.stat().st_mtime_ns for path in (looped / "stages").rglob("*.json")}
    capsys.readouterr()
    stages = [stage.name for stage in plan(resolve(preset("smoke", rounds=1)))]
    assert not any("round" in name or "gather" in name for name in stages)


def test_labels_go_on_from_round_to_round(tmp_path):
    """Sixteen images in four rounds began at class 0 in each, and six of ten classes were never drawn."""
    assert run(tmp_path, "--methods", "unguided", "--synthetic", "16", "--rounds", "4", "--classifier.steps", "8") == 0
    with np.load(tmp_path / "synthetic" / "unguided" / "seed0.npz") as content:
        assert content["label"].tolist() == [i % 10 for i in range(16)]


def test_a_scale_that_is_found_in_every_round_is_told(tmp_path, capsys):
    more = (
        "--methods",
        "infonce:auto",
        "--synthetic",
        "40",
        "--rounds",
        "2",
        "--generation.pilot",
        "20",
        "--selection.surplus",
        "1.5",
    )
    assert run(tmp_path, *more) == 0
    told = capsys.readouterr().out
    assert "infonce-auto, seed 0, round 1: scale " in told
    assert "infonce-auto, seed 0, round 2: scale " in told
    with np.load(tmp_path / "generated" / "infonce-auto" / "seed0-round2.npz") as content:
        assert content["label"].tolist() == [i % 10 for i in range(30, 60)]


def test_the_costs_of_rounds_are_those_of_their_parts():
    plain, looped = (resolve(preset("smoke", methods=("infonce:0.3",), rounds=rounds)) for rounds in (1, 4))
    facts = Facts((1, 8, 8), tuple("0123456789"), 600, 1197)
    images = [
        disk_bytes([s for s in plan(one) if s.name.startswith(("data", "generate", "gather"))], one, facts)
        for one in (plain, looped)
    ]
    assert images[0] == pytest.approx((600 + 1197 + 500) * 72)
    assert images[1] == pytest.approx((600 + 1197 + 500 + 250 + 375 + 500) * 72)
    assert [passing_bytes(plan(one), facts) for one in (plain, looped)] == [500 * 72, 125 * 72]
    trained = [sum(stage_work for stage_work in work_of(plan(one), one, facts).values()) for one in (plain, looped)]
    assert trained[0] == pytest.approx(trained[1], rel=0.05)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rounds", "0"), "--rounds 0: must lie in 1 .. 1000"),
        (("--rounds", "30"), "each needs 2 images and a training step, there are 40 images and 30 steps"),
        (("--rounds", "2", "--part", "1/2"), "leave out --part 1/2"),
        (("--rounds", "2", "--methods", "real"), "no method generates images"),
        (("--rounds", "2", "--methods", "unguided", "noise:0.1"), "--methods noise:0.1: noise is put on images of one round"),
        (("--rounds", "2", "--classifier.keep", "best"), "not the best; use --classifier.keep last"),
    ],
)
def test_rounds_that_cannot_be_are_one_line(tmp_path, capsys, flags, message):
    assert run(tmp_path / "out", *flags, "--dry-run") == 1
    line = capsys.readouterr().err.strip()
    assert message in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()
