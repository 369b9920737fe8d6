"""The command: what it writes, what it skips, what it refuses, in one line and with the right exit status."""

import contextlib
import csv
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import output
from contrastive_dp import ClassifierFeatures, files
from contrastive_dp.files import read_safetensors
from image_experiments import experiment, run_cifar
from image_experiments.data.balance import balanced_order
from image_experiments.data.images import Images
from image_experiments.engine import jobs
from image_experiments.engine.presets import preset, smoke
from image_experiments.evaluation.description import to_boundary
from image_experiments.evaluation.features import class_snr
from image_experiments.models.classifier_files import load_classifier, save_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.labels_and_features import unit_features
from image_experiments.output import tables as report
from image_experiments.output.pictures import draw_curves
from image_experiments.output.tables import differences, floor_line
from tests.image_experiments.conftest import write_folder

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--train", "60", "--validation", "20", "--test", "60", "--synthetic", "40", "--workers", "1",
    "--encoder.network", "small-cnn-8", "--encoder.steps", "30", "--encoder.batch-size", "32",
    "--classifier.network", "small-cnn-8", "--classifier.steps", "30", "--classifier.batch-size", "32",
    "--diffusion.channels", "8", "16", "--diffusion.steps", "40", "--diffusion.batch-size", "16",
    "--generation.steps", "4", "--generation.batch-size", "20",
    "--evaluation.autoattack-images", "4", "--evaluation.pgd-steps", "5", "--description.steps", "20",
    "--evaluation.autoattack-parts", "apgd-ce",  # all four are in test_attacks.py and test_export.py
]  # fmt: skip


def run(*arguments, out=None):
    return run_cifar.main([*SMALL, *arguments, *(["--out", str(out)] if out else [])])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run with every way to make synthetic images, over two seeds."""
    out = tmp_path_factory.mktemp("run") / "out"
    methods = ("real", "unguided", "noise:0.2", "supervised:0.2", "anchored-reversed:0.1")
    assert run("--methods", *methods, "--seeds", "2", "--evaluation.threats", "l2:0.4", "--tensorboard", out=out) == 0
    return out


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_has_the_fixed_columns_and_a_row_for_each_run(finished):
    table = rows(finished / "metrics.csv")
    columns = ["dataset", "method", "seed", "n_real", "n_synthetic", "clean_accuracy", "robust_accuracy", "attack", "norm", "eps"]
    assert list(table[0]) == columns
    methods = ["real", "unguided", "noise-0.2", "supervised-0.2", "anchored-reversed-0.1"]
    keys = [(row["method"], row["seed"], row["attack"], row["norm"]) for row in table]
    attacks = [("pgd-5", "linf"), ("apgd-ce", "linf"), ("pgd-5", "l2"), ("apgd-ce", "l2")]
    assert keys == [(m, s, *attack) for m in methods for s in "01" for attack in attacks]
    assert {row["n_synthetic"] for row in table if row["method"] == "real"} == {"0"}
    assert {row["n_real"] for row in table} == {"60"}
    assert {(row["norm"], row["eps"]) for row in table} == {("linf", "0.15"), ("l2", "0.4")}


def test_every_number_of_the_table_follows_from_the_outcomes_image_by_image(finished):
    for row in rows(finished / "metrics.csv"):
        outcomes = np.load(finished / "outcomes" / f"{row['method']}-seed{row['seed']}.npz")
        robust = outcomes[f"{row['attack']} {row['norm']}-{float(row['eps']):.6g}"]
        assert float(row["robust_accuracy"]) == pytest.approx(robust.mean())
        assert float(row["clean_accuracy"]) == pytest.approx(outcomes["clean"][: len(robust)].mean())
        assert not (robust & ~outcomes["clean"][: len(robust)]).any()


def test_the_files_that_were_promised_are_there(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary) == {"settings", "versions", "device", "data", "seeds", "warnings", "results", "seconds"}
    assert summary["seeds"] == [0, 1]
    assert len(summary["data"]["sha256"]) == 64
    assert summary["settings"]["classifier.steps"] == 30
    assert set(summary["seconds"]) == set(summary["results"]) | {"this call"}
    for label in ("unguided", "noise-0.2", "supervised-0.2"):
        with np.load(finished / "synthetic" / label / "seed0.npz") as content:
            assert content["image"].shape == (40, 8, 8, 1)
            assert np.bincount(content["label"]).tolist() == [4] * 10
        assert (finished / "synthetic" / label / "samples.png").read_bytes()[:4] == b"\x89PNG"
    for name in ("samples.png", "curves.png", "robust_accuracy.png", "details.csv", "description.csv", "differences.csv"):
        assert (finished / name).is_file(), name
    assert len(rows(finished / "curves" / "diffusion-seed0.csv")) == 0  # one row every 100 steps
    assert len(rows(finished / "curves" / "real-seed1.csv")) == 1
    assert list((finished / "tensorboard").rglob("events*"))
    assert not list((finished / "unfinished").iterdir())
    noisy, plain = (
        np.load(finished / "synthetic" / label / "seed1.npz")["image"].astype(float) for label in ("noise-0.2", "unguided")
    )
    inner = (plain > 100) & (plain < 155)
    assert (noisy - plain)[inner].std() / 255 == pytest.approx(0.2, rel=0.15)


def test_floors_are_told_once_a_seed_unless_only_validation_images_may_be_seen():
    described = [
        {"method": method, "seed": seed, "frechet_floor": floor, "label_error_floor": wrong}
        for method in ("unguided", "infonce-0.3")
        for seed, floor, wrong in ((0, 0.25, 0.01), (1, 0.75, 0.03))
    ]
    assert (
        floor_line(described) == "real test images in place of synthetic ones: label err. 0.0200 (0.0141), Frechet 0.5000 (0.3536)"
    )
    unseen = [row | {"frechet_floor": float("nan"), "label_error_floor": float("nan")} for row in described]
    assert floor_line(unseen) == floor_line([]) == ""


def test_synthetic_images_reach_the_classifier_and_every_batch_has_noise_of_its_own(finished):
    """Classifiers of different methods differ from the first seed on; no image of a synthetic set is drawn twice."""
    weights = {
        name: (finished / "checkpoints" / f"{name}-seed0.safetensors").read_bytes()
        for name in ("real", "unguided", "supervised-0.2")
    }
    assert len(set(weights.values())) == 3
    for seed in (0, 1):
        with np.load(finished / "synthetic" / "unguided" / f"seed{seed}.npz") as content:
            assert len({image.tobytes() for image in content["image"]}) == 40


def test_the_description_is_of_the_synthetic_images(finished):
    table = rows(finished / "description.csv")
    assert [(row["method"], row["seed"]) for row in table][:2] == [("unguided", "0"), ("unguided", "1")]
    assert len(table) == 8
    for row in table:
        assert 0 <= float(row["label_error"]) <= 1
        assert 0 <= float(row["label_error_floor"]) <= 1
        assert float(row["frechet_floor"]) >= 0
        assert row["class_snr_crossfit"] == row["class_snr_crossfit_judge"]
        assert np.isfinite(float(row["class_snr_crossfit"]))
        assert len({row[f"class_snr_crossfit_{kind}"] for kind in ("judge", "encoder", "pixels")}) == 3
        assert float(row["frechet_distance"]) > 0
        assert float(row["nearest_training_image"]) > 0


def test_the_judge_judges_and_the_encoder_has_the_boundary(finished):
    """Label error by the network that guides would be too low."""
    judge, encoder = (
        load_classifier(finished / f"checkpoints/{kind}-seed0.safetensors", 10, (1, 8, 8)) for kind in ("judge", "encoder")
    )
    with np.load(finished / "synthetic/unguided/seed0.npz") as content:
        x, y = torch.from_numpy(content["image"]).permute(0, 3, 1, 2), content["label"]
    row = next(row for row in rows(finished / "description.csv") if (row["method"], row["seed"]) == ("unguided", "0"))
    assert float(row["label_error"]) == pytest.approx(float((judge(x.float() / 255).argmax(dim=1).numpy() != y).mean()))
    assert float(row["boundary_distance"]) == pytest.approx(
        float(to_boundary(encoder, Images(x, torch.from_numpy(y))).mean()), rel=1e-4
    )
    features = unit_features(ClassifierFeatures(judge), x).double().numpy()
    assert float(row["class_snr_crossfit_judge"]) == pytest.approx(class_snr(features, y, with_error=False)[0], rel=1e-4)


def test_a_runs_evaluation_is_in_full_float32(tmp_path, monkeypatch):
    """With --tf32 too, which is for training and sampling."""
    original, seen = jobs.evaluate_classifier, []

    def spy(*arguments, **more):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return original(*arguments, **more)

    monkeypatch.setattr(jobs, "evaluate_classifier", spy)
    assert run("--methods", "real", "--tf32", "--evaluation.autoattack-images", "0", out=tmp_path) == 0
    assert seen == [("highest", False)]


def test_the_judge_sees_validation_images_and_the_encoder_does_not(tmp_path, monkeypatch):
    original, sizes = jobs.train_classifier, {}

    def spy(network, images, *arguments, **more):
        sizes[len(sizes)] = len(images.real)
        return original(network, images, *arguments, **more)

    monkeypatch.setattr(jobs, "train_classifier", spy)
    assert run("--methods", "unguided", "--until", "encoder", out=tmp_path) == 0
    train, validation = (int(SMALL[SMALL.index(flag) + 1]) for flag in ("--train", "--validation"))
    assert sorted(sizes.values()) == [train, train + validation]


def test_the_same_command_has_nothing_left_to_do(finished, capsys):
    methods = ("real", "unguided", "noise:0.2", "supervised:0.2", "anchored-reversed:0.1")
    more = ("--methods", *methods, "--seeds", "2", "--evaluation.threats", "l2:0.4")
    before = (finished / "metrics.csv").read_bytes()
    assert run(*more, "--dry-run", out=finished) == 0
    assert "0 of 45 stages" in capsys.readouterr().out
    assert run(*more, out=finished) == 0
    capsys.readouterr()
    assert (finished / "metrics.csv").read_bytes() == before
    assert run(*more, "--classifier.steps", "31", "--dry-run", out=finished) == 0
    output = capsys.readouterr().out
    assert "20 of 45 stages" in output  # classifiers and evaluations
    assert "unchanged  generate: unguided, supervised-0.2, anchored-reversed-0.1 (seeds 0, 1)" in output


def kinds(text, verb="would run"):
    return {re.match(r"\w+", line.removeprefix(f"{verb}  "))[0] for line in text.splitlines() if line.startswith(f"{verb} ")}


def test_until_stops_after_a_step_and_the_whole_run_goes_on_from_there(tmp_path, capsys, finished):
    flags = ("--methods", "unguided", "noise:0.2", "--seeds", "1", "--evaluation.threats", "l2:0.4")
    assert run(*flags, "--until", "generation", out=tmp_path / "out") == 0
    assert "7 stages, up to generation, are done" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir()) == [
        "diffusion-seed0",
        "encoder-seed0.safetensors",
        "judge-seed0.safetensors",
    ]
    assert not (tmp_path / "out" / "metrics.csv").exists()
    assert run(*flags, "--dry-run", out=tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert kinds(output) == {"describe", "classifier", "evaluate"}
    assert kinds(output, "unchanged") == {"data", "split", "diffusion", "encoder", "judge", "generate", "noise"}
    assert run(*flags, out=tmp_path / "out") == 0
    whole = [row for row in rows(finished / "metrics.csv") if row["method"] in ("unguided", "noise-0.2") and row["seed"] == "0"]
    assert rows(tmp_path / "out" / "metrics.csv") == whole
    assert run(*flags, "--until", "encoder", out=tmp_path / "out") == 0
    assert "are those of an earlier run)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("diffusion", {"data", "split", "diffusion"}),
        ("encoder", {"data", "split", "diffusion", "encoder", "judge", "strength"}),
        ("generation", {"data", "split", "diffusion", "encoder", "judge", "strength", "generate", "select"}),
        ("description", {"data", "split", "diffusion", "encoder", "judge", "strength", "generate", "select", "describe"}),
        (
            "training",
            {"data", "split", "diffusion", "encoder", "judge", "strength", "generate", "select", "describe", "classifier"},
        ),
    ],
)
def test_each_step_is_its_stages_and_those_before(tmp_path, capsys, until, expected):
    flags = ("--methods", "real", "infonce:auto", "--selection.surplus", "2", "--selection.criterion", "confidence")
    assert run(*flags, "--until", until, "--dry-run", out=tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert kinds(output) == expected
    assert "AutoAttack" not in output


def test_images_from_elsewhere_are_read_in_the_step_that_generates(tmp_path, capsys, finished):
    flags = (
        "--methods",
        f"npz:{finished / 'synthetic' / 'unguided' / 'seed0.npz'}",
        "noise-real:0.1",
        "--classifier.precision",
        "auto",
    )
    assert run(*flags, "--until", "generation", "--dry-run", out=tmp_path / "out") == 0
    assert kinds(capsys.readouterr().out) == {
        "data",
        "split",
        "encoder",
        "judge",
        "read",
        "noise",
    }  # nothing waits for the speed of classifiers


def test_dry_run_prints_the_settings_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("image_experiments.engine.cost.calibrated", lambda *_: [])  # what they cost is measured in test_cost.py
    monkeypatch.setattr("image_experiments.engine.cost.estimate", lambda *_: "")
    assert run_cifar.main(["--preset", "cpu", "--classifier.beta", "3", "--dry-run", "--out", str(tmp_path / "o")]) == 0
    output = capsys.readouterr().out
    assert output.startswith("settings: preset cpu on digits, linf eps 0.15, 3 seeds from 0, results in ")
    assert "other than the preset: --classifier.beta 3.0\n" in output
    assert "beta=3.0" in output
    assert "seeds=3" in output
    assert "would run  evaluate: real, unguided, noise-0.1, particle-auto, infonce-0.3, anchored-0.3 (seeds 0 to 2)" in output
    assert not (tmp_path / "o").exists()


def test_presets_are_complete_and_the_papers_is_the_published_one(capsys, monkeypatch):
    monkeypatch.setattr("image_experiments.engine.cost.calibrated", lambda *_: [])  # what they cost is measured in test_cost.py
    monkeypatch.setattr("image_experiments.engine.cost.estimate", lambda *_: "")
    for name in ("smoke", "cpu"):
        assert run_cifar.main(["--preset", name, "--dry-run"]) == 0
    assert run_cifar.main(["--preset", "paper", "--dry-run"]) == 0
    output = " ".join(capsys.readouterr().out.rsplit("all settings:", 1)[1].split())
    for text in ("dataset=cifar10", "eps=0.03137", "network=wrn-28-10", "adversary=trades", "beta=6.0", "channels=128 256 256 256",
                 "augmentation=crop-flip", "average=0.995", "generated_fraction=0.7", "label_smoothing=0.1"):  # fmt: skip
        assert text in output, text


def test_validation_images_choose_and_noisy_real_images_rival(tmp_path):
    """Attacked are the validation images of the split and no other; noisy copies are those of the training images, in turn."""
    more = ("--methods", "noise-real:0.1", "--evaluation.split", "validation", "--evaluation.autoattack-parts", "apgd")
    assert run(*more, "--evaluation.autoattack-images", "7", "--synthetic", "70", out=tmp_path) == 0
    (pgd, apgd) = rows(tmp_path / "metrics.csv")
    assert (pgd["attack"], apgd["attack"]) == ("pgd-5", "apgd")
    details = rows(tmp_path / "details.csv")
    assert [row["images"] for row in details] == ["20", "7"]
    with np.load(tmp_path / "data/images.npz") as pool, np.load(tmp_path / "data/split-seed0.npz") as split:
        train, labels = (pool[name][split["train"]] for name in ("image", "label"))
        validation = pool["image"][split["validation"]].transpose(0, 3, 1, 2), pool["label"][split["validation"]]
    with np.load(tmp_path / "synthetic/noise-real-0.1/seed0.npz") as content:
        made, given = content["image"].astype(float), content["label"]
    order = balanced_order(labels, np.random.default_rng([0, 5]))
    copies = order[np.arange(70) % 60]
    assert np.bincount(given, minlength=10).tolist() == [7] * 10
    assert (given == labels[copies]).all()
    inner = (train[copies] > 100) & (train[copies] < 155)
    assert (made - train[copies])[inner].std() / 255 == pytest.approx(0.1, rel=0.2)
    classifier = load_classifier(tmp_path / "checkpoints/noise-real-0.1-seed0.safetensors", 10, (1, 8, 8))
    place = balanced_order(validation[1], np.random.default_rng(0))  # so that the first are of all classes
    right = (classifier(torch.from_numpy(validation[0]).float() / 255).argmax(dim=1).numpy() == validation[1])[place]
    with np.load(tmp_path / "outcomes/noise-real-0.1-seed0.npz") as outcomes:
        assert (outcomes["clean"] == right).all()


def test_pseudo_labels_and_selection_where_the_model_is_unconditional(tmp_path):
    more = (
        "--methods",
        "infonce:0.3",
        "--diffusion.no-conditional",
        "--selection.surplus",
        "2",
        "--selection.criterion",
        "entropy",
    )
    assert run(*more, out=tmp_path) == 0
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert results["select/infonce-0.3/seed0"]["relabelled"] is True
    assert results["generate/infonce-0.3/seed0"] == {"images": 80, "conditional": False}
    with np.load(tmp_path / "synthetic/infonce-0.3/seed0.npz") as content:
        assert len(content["label"]) == 40


PUBLISHED = [("paper-gtsrb", 5000 / 128), ("paper-mnist", 100_000 / 128)]


@pytest.mark.parametrize(("name", "strength"), PUBLISHED)
def test_the_published_settings(name, strength):
    """Schedule, window and summed lambda of the public code."""
    settings = preset(name)
    assert (settings.diffusion.timesteps, settings.diffusion.schedule, settings.generation.window) == (250, "cosine", (51, 150))
    assert (settings.generation.relative, settings.generation.at, settings.generation.batch_size) == (False, "xt", 128)
    guided = [method for method in settings.parsed_methods() if method.scale]
    assert [method.kind for method in guided] == ["infonce", "hard-negative"]
    assert all(method.scale == pytest.approx(strength, rel=0.01) for method in guided)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in PUBLISHED])
def test_the_published_settings_run_reduced(tmp_path, name):
    """On digits with small networks."""
    guided = [method for method in preset(name).parsed_methods() if method.scale]
    reduced = ("--preset", name, "--dataset", "digits", "--diffusion.blocks", "1", "--diffusion.attention", "False", "False")
    part = ("--classifier.validate-every", "30", "--encoder.validate-every", "30", "--classifier.adversary", "pgd")
    part += ("--classifier.warmup", "2", "--encoder.warmup", "2")
    fixed = [word for part in ("encoder", "diffusion", "generation", "classifier") for word in (f"--{part}.precision", "float32")]
    fixed += [word for part in ("encoder", "diffusion", "generation", "classifier") for word in (f"--{part}.compile", "no")]
    assert run(*reduced, *part, *fixed, out=tmp_path) == 0
    assert {row["method"] for row in rows(tmp_path / "metrics.csv")} == {"real", "unguided", *(method.label for method in guided)}


def test_images_and_encoders_from_elsewhere(tmp_path, finished):
    """A folder of images, generated images as npz and an encoder's weights: all that a reader may bring."""
    write_folder(tmp_path / "set", np.random.default_rng(0), train=60, test=20)
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "made.npz", rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8), np.arange(50) % 2)
    encoder = make_classifier("small-cnn-8", 2, (3, 8, 8), [0.0] * 3, [1.0] * 3)
    torch.save({"state_dict": {f"module.{k}": v for k, v in encoder.state_dict().items()}}, tmp_path / "e.pt")
    more = (
        "--dataset",
        "images",
        "--data-dir",
        str(tmp_path / "set"),
        "--methods",
        "real",
        f"npz:{tmp_path / 'made.npz'}",
        "--test",
        "20",
    )
    sizes = ("--train", "40", "--validation", "8", "--evaluation.autoattack-images", "2")
    assert run(*more, *sizes, "--encoder-from", str(tmp_path / "e.pt"), out=tmp_path / "out") == 0
    table = rows(tmp_path / "out" / "metrics.csv")
    assert [(row["dataset"], row["method"], row["n_synthetic"]) for row in table if row["attack"] == "apgd-ce"] == [
        ("images", "real", "0"),
        ("images", "npz-made", "40"),
    ]
    assert run(*more, *sizes, "--encoder-from", str(tmp_path / "e.pt"), "--encoder.network", "linear", out=tmp_path / "out") == 1


def test_differences_are_paired_by_seed_with_students_interval():
    accuracy = {"real": [0.5, 0.6, 0.7], "unguided": [0.55, 0.62, 0.78], "infonce-0.3": [0.6, 0.65, 0.85]}
    table = [
        {"method": m, "seed": s, "attack": "pgd-20", "norm": "linf", "eps": 0.1, "robust_accuracy": value}
        for m, values in accuracy.items()
        for s, value in enumerate(values)
    ]
    (gain,) = [row for row in differences(table) if (row["method"], row["baseline"]) == ("infonce-0.3", "unguided")]
    paired = np.array([0.05, 0.03, 0.07])
    reach = 4.30265273 * paired.std(ddof=1) / np.sqrt(3)  # the 97.5 % quantile of Student's t with 2 degrees of freedom
    assert (gain["gain"], gain["low"], gain["high"]) == pytest.approx((0.05, 0.05 - reach, 0.05 + reach))
    assert len(differences(table)) == 4
    assert np.isnan(differences([row for row in table if row["seed"] == 0])[0]["low"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--preset", "papr"),
            "--preset papr: unknown, did you mean paper?; use one of smoke, cpu, cifar10-gpu, paper, paper-gtsrb, paper-mnist",
        ),
        (("--preset=cpus",), "did you mean cpu"),
        (("--methods", "real", "infonse"), "did you mean infonce"),
        (("--methods", "real", "real"), "named twice"),
        (("--classes", "3", "8", "3"), "--classes: 3 is named twice"),
        (
            ("--dataset", "cifar10", "--classes", "cats", "dog", "--dry-run"),
            "--classes cats: cifar10 has no such class, did you mean cat?",
        ),
        (
            ("--dataset", "cifar10", "--data-dir", "official", "--group-pattern", "(a)"),
            "--group-pattern (a): the official archives need none",
        ),
        (("--methods",), "--methods: name at least one"),
        (("--eps", "nan"), "--eps nan: must be a finite number > 0"),
        (("--eps", "-1"), "--eps -1.0"),
        (("--seed", "1", "--eps", "8/0", "--test", "5"), "--eps 8/0: is no number; write 0.03 or 8/255"),
        (("--eps=large",), "--eps large: is no number; write 0.03 or 8/255"),
        (("--data-dir", "large", "--eps", "large"), "--data-dir or --eps large: is no number"),
        (("--generation.steps", "0"), "--generation.steps 0 must be >= 1"),
        (("--generation.windows", "5", "2"), "--generation.windows 5 2 must hold pairs"),
        (("--generation.every", "30"), "--generation.every 30 is more than --generation.steps "),
        (("--diffusion.attention", "True"), "--diffusion: attention has 1 entries"),
        (("--evaluation.threats", "x, eta=3"), "--evaluation.threats 'x, eta=3': write NORM:EPS"),
        (("--evaluation.threats", "linf:8/0"), "--evaluation.threats 'linf:8/0': write NORM:EPS"),
        (("--train", "-5"), "--train -5"),
        (("--seeds", "0"), "--seeds 0"),
        (("--device", "gpu"), "--device gpu: use auto, cpu, cuda"),
        (("--device", "cuda:7"), "torch finds"),
        (("--generation.window", "700", "100"), "--generation.window 700 100: must satisfy"),
        (("--dataset", "images"), "--dataset images needs --data-dir"),
        (("--dataset", "images", "--data-dir", "nowhere"), "--data-dir nowhere: no such file or folder"),
        (("--data-dir", "."), "digits come with scikit-learn"),
        (("--image-size", "32"), "digits has one size"),
        (("--methods", "classifier-free:1"), "add --diffusion.label-dropout"),
        (("--validation", "0", "--classifier.keep", "best"), "set some apart"),
        (("--train", "590"), "--train 590: 580 images are left"),
        (("--test", "5000"), "there are 1197 test images"),
        (("--methods", "npz:nowhere.npz"), "nowhere.npz: no such file"),
        (("--encoder-from", "nowhere.pt", "--methods", "unguided"), "--encoder-from nowhere.pt: no such file"),
        (("--classifier.network", "wrn-28"), "did you mean 'wrn-28-10'"),
        (("--selection.criterion", "density"), "keeps all there are; make more, --selection.surplus 2"),
        (("--validation", "0", "--evaluation.split", "validation"), "no validation images are set apart"),
        (("--methods", "noise-real-reversed"), "noise-real cannot be reversed"),
        (("--methods", "noise:auto"), "noise has no scale auto"),
        (("--methods", "infonce:auto", "--diffusion.no-conditional"), "this model takes no labels; give a number"),
        (
            ("--methods", "infonce:auto", "--diffusion.timesteps", "250", "--generation.window", "0", "200"),
            "--generation.windows 0 400: must satisfy 0 <= low < high <= 250, the timesteps of the diffusion",
        ),
        (("--evaluation.threats", "linf:0.15"), "one is named twice, or is --norm and --eps"),
        (("--until", "generation", "--part", "1/2"), "--part 1/2 stops after generation; leave one of them out"),
        (("--until", "diffusion", "--methods", "real"), "--until diffusion: these methods skip this step, or --diffusion"),
    ],
)
def test_bad_input_is_one_line_and_status_1(tmp_path, capsys, arguments, message):
    assert run(*arguments, out=tmp_path / "out") == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert message in error[0]
    assert not (tmp_path / "out" / "metrics.csv").exists()


def test_a_data_set_of_ones_own_without_its_folder_leaves_nothing_behind(tmp_path, capsys):
    assert run("--dataset", "images", out=tmp_path / "out") == 1
    assert "needs --data-dir" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--classifier.learning-rate", "nan", "--classifier.learning-rate nan must be a finite number > 0"),
        ("--diffusion.channels", "10", "must be multiples of 8"),
        ("--diffusion.blocks", str(10**30), "must lie in 1 .. 32"),
        ("--diffusion.channels", "8000", "give at most 4096"),
        ("--diffusion.timesteps", str(10**9), "must lie in 2 .. 100000"),
        ("--evaluation.threats", "linf", "write NORM:EPS"),
        ("--diffusion.ema", "1.5", "--diffusion.ema 1.5 must lie in"),
        ("--generation.initial-std", "0", "--generation.initial-std 0.0 must be a finite number > 0"),
        ("--generation.label-error", "1", "--generation.label-error 1.0 must lie in (0, 1)"),
    ],
)
def test_a_bad_value_of_a_part_is_one_line_that_names_the_flag(tmp_path, capsys, flag, value, message):
    assert run(flag, value, out=tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {flag.partition('.')[0]}")
    assert message in line


def test_an_unknown_choice_is_status_2_and_names_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run("--generation.solver", "euler", out=tmp_path)
    assert ended.value.code == 2
    assert "ddim" in capsys.readouterr().err


def test_an_unknown_flag_is_status_2_and_names_the_nearest(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run("--clasifier.steps", "5", out=tmp_path)
    assert ended.value.code == 2
    assert "--classifier.steps" in capsys.readouterr().err


def test_a_failing_run_leaves_earlier_results_untouched(finished):
    def contents():
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = contents()
    assert run("--methods", "real", "npz:nowhere.npz", out=finished) == 1
    assert run("--preset", "papr", out=finished) == 1
    assert contents() == before


@pytest.mark.parametrize(
    ("limit", "stage"), [(30_000, "data"), pytest.param(120_000, "classifier/real/seed0", marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(limit, stage, tmp_path):
    """Simulated by the largest file that a process may write: the system then refuses to write as on a full disk. The data or the weights
    do not fit."""
    run_real = ["image_experiments/run_cifar.py", *SMALL, "--methods", "real", "--classifier.network", "small-cnn-32"]
    command = [sys.executable, *run_real, "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    failed = subprocess.run(command, cwd=ROOT, env=environment, preexec_fn=little_room, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    (error,) = [line for line in failed.stderr.splitlines() if "error:" in line]
    assert error.startswith(f"error: {stage}: ")
    assert "free some space" in error
    assert "Traceback" not in failed.stderr
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]  # nothing half-written is left
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "metrics.csv").is_file()


def test_half_written_files_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    keep = [
        ".hidden",
        "a.123.npz",
        ".a.npz",
        "sub/.libfoo.1.hmac",
        ".notes.2024.md",
        ".metrics.4711.csv",
        "synthetic/.seed0.99.npz",
    ]
    ours = output.temporary_name("metrics.csv"), f"synthetic/real/{files.temporary_name('seed0.npz')}"
    assert output.TEMPORARY == files.TEMPORARY
    for name in (*keep, *ours):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "checkpoints" / files.temporary_name("diffusion-seed0") / "unet").mkdir(parents=True)
    with experiment.only_run_in(tmp_path):
        assert all((tmp_path / name).exists() for name in keep)
        assert not list(tmp_path.rglob(f"{files.TEMPORARY}*"))


def test_the_network_that_guides_is_not_the_one_that_is_judged(finished):
    """Encoder and classifier on real images have the same settings here: with one seed they were one network."""
    encoder, classifier = (
        read_safetensors(finished / "checkpoints" / f"{kind}-seed0.safetensors")[0] for kind in ("encoder", "real")
    )
    for name in (name for name in encoder if name.endswith("weight")):
        assert (encoder[name] - classifier[name]).abs().max() > 0.01


@pytest.mark.parametrize(("fraction", "counts"), [("0", ("60", "0")), ("0.01", ("60", "0")), ("1", ("0", "40"))])
def test_images_that_no_batch_holds_are_not_counted(finished, tmp_path, fraction, counts):
    flags = ("--methods", "unguided", "--classifier.generated-fraction", fraction, "--evaluation.autoattack-images", "0")
    flags += ("--reuse", str(finished))
    assert run(*flags, out=tmp_path) == 0
    assert {(row["n_real"], row["n_synthetic"]) for row in rows(tmp_path / "metrics.csv")} == {counts}


def test_another_experiment_does_not_overwrite_the_first(tmp_path, capsys):
    flags = ("--methods", "real", "--evaluation.autoattack-images", "0", "--eps", "0.1")
    assert run(*flags, out=tmp_path / "out") == 0
    before = (tmp_path / "out" / "metrics.csv").read_bytes()
    capsys.readouterr()
    assert run(*flags[:-1], "0.2", "--classifier.attack-steps", "4", out=tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "holds another experiment (eps 0.1 there, 0.2 here; classifier.attack-steps 3 there, 4 here)" in error
    assert f"give another --out, for example {tmp_path / 'out-2'}, or --force to overwrite" in error
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == before
    assert run(*flags, "--seeds", "2", "--workers", "2", out=tmp_path / "out") == 0  # one seed more is the same experiment
    assert run(*flags, out=tmp_path / "out") == 1  # and one less would drop what is there
    assert "all seeds 1 there, none here" in capsys.readouterr().err
    assert run(*flags[:-1], "0.2", "--force", out=tmp_path / "out") == 0
    assert {row["eps"] for row in rows(tmp_path / "out" / "metrics.csv")} == {"0.2"}
    capsys.readouterr()
    weights = next((tmp_path / "out" / "checkpoints").glob("encoder*"), None) or next((tmp_path / "out" / "checkpoints").iterdir())
    assert run(*flags[:-1], "0.2", "--encoder-from", str(weights), out=tmp_path / "out") == 1  # none there, one here
    assert "content of --encoder-from default there," in capsys.readouterr().err
    assert run(*flags[:-1], "7", out=tmp_path / "new") == 1  # what is refused for another reason claims no folder
    assert run(*flags, "--until", "encoder", "--methods", "unguided", out=tmp_path / "new") == 0


def test_what_was_read_is_said_before_it_is_used(tmp_path, capsys):
    write_folder(tmp_path / "set", np.random.default_rng(3))
    (tmp_path / "set" / "train" / "left" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "set" / "test" / "left" / "again.png").write_bytes((tmp_path / "set" / "train" / "left" / "000.png").read_bytes())
    flags = ("--dataset", "images", "--data-dir", str(tmp_path / "set"), "--train", "10", "--validation", "4", "--test", "0")
    for more in (("--dry-run",), ()):
        assert run(*flags, "--methods", "real", *more, out=tmp_path / "out") == 0
        said = capsys.readouterr()
        assert f"read {tmp_path / 'set'}: 24 training and 13 test images, 8x8, colour" in said.out
        assert "2 classes, training+test: left 12+7, right 12+6" in said.out
        assert "left out, hidden: 1 (1 without a suffix), the first train/left/.DS_Store" in said.out
        assert "warning: 1 of 13 test images are exact copies of training images" in said.err
    assert "of these 10 to train on and 4 for validation, by seed" in said.out
    assert said.out.index("read ") < said.out.index("of these")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert any("exact copies of training images" in text for text in summary["warnings"])


def test_an_encoder_that_sees_the_images_wrongly_is_said(tmp_path, capsys):
    """Weights of a run, as for images that are normalised by the caller: mean and deviation left out."""
    flags = ("--encoder.steps", "150", "--train", "300", "--evaluation.autoattack-images", "0", "--methods", "unguided")
    assert run(*flags, "--until", "encoder", out=tmp_path / "first") == 0
    right = tmp_path / "first" / "checkpoints" / "encoder-seed0.safetensors"
    tensors = {name: tensor for name, tensor in read_safetensors(right)[0].items() if name not in ("mean", "std")}
    tensors["body.0.weight"] = -tensors["body.0.weight"]
    torch.save(tensors, tmp_path / "wrong.pt")
    for file, good in ((right, True), (tmp_path / "wrong.pt", False)):
        more = ("--encoder-from", str(file), "--until", "encoder")
        assert run(*flags, *more, out=tmp_path / file.stem) == 0
        said = capsys.readouterr()
        assert f"encoder/seed0, {file.name}: 0." in said.out
        assert ("it may expect images that are normalised" in said.err) is not good


def test_errors_show_where_they_arose_on_demand(tmp_path, capsys):
    for more, shown in (((), False), (("--traceback",), True)):
        assert run_cifar.main(["--eps", "8", "--out", str(tmp_path), *more]) == 1
        error = capsys.readouterr().err
        assert ("Traceback (most recent call last)" in error) == shown
        assert error.splitlines()[-1].startswith("error: --eps 8.0")


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "look_at_data", interrupted)
    assert run("--methods", "real", out=tmp_path) == 130
    assert "run the same command to go on from the last checkpoint" in capsys.readouterr().err


def test_two_runs_do_not_write_one_folder(tmp_path, capsys):
    with experiment.only_run_in(tmp_path):
        assert run("--methods", "real", out=tmp_path) == 1
    assert "another run is writing there" in capsys.readouterr().err


def test_a_training_that_failed_is_said(monkeypatch, tmp_path):
    """ln 4 = 1.386 is the loss of guessing among four classes."""
    loss = {"classifier/real/seed5": 1.05, "classifier/real/seed6": 1.385, "classifier/unguided/seed5": 1.37}

    def results(out, name):
        assert out == tmp_path
        return {"classes": list("abcd")} if name == "data" else {"warnings": [], "last_loss": loss.get(name, 0.3)}

    monkeypatch.setattr(report, "results", results)
    settings = replace(smoke(), methods=("real", "unguided"), seed=5, seeds=2)
    assert report.warnings_of(settings, tmp_path) == []  # its one look takes the beginning of training in
    long = replace(settings, classifier=replace(settings.classifier, steps=400, validate_every=200))
    said = report.warnings_of(long, tmp_path)
    assert [text.partition(":")[0] for text in said] == ["real, seed 6", "unguided, seed 5"]
    assert "training loss ended at 1.385, guessing is 1.386: it learned almost nothing under attack" in said[0]


def test_the_first_validation_images_are_of_all_classes(tmp_path, monkeypatch):
    """Files of a folder are read class by class, and AutoAttack sees the first images alone."""
    write_folder(tmp_path / "data", np.random.default_rng(0), train=60, test=20)
    seen = []
    monkeypatch.setattr(jobs, "evaluate_classifier", lambda _c, _x, y, *_a, **_n: seen.append(y) or pytest.skip("seen"))
    more = (
        "--dataset",
        "images",
        "--data-dir",
        str(tmp_path / "data"),
        "--train",
        "30",
        "--test",
        "0",
        "--evaluation.split",
        "validation",
    )
    with contextlib.suppress(pytest.skip.Exception):
        run("--methods", "real", *more, out=tmp_path / "out")
    (labels,) = seen
    assert len(labels) == 20
    for n in (2, 4, 10, 20):
        assert labels[:n].double().mean() == 0.5


def test_an_encoder_keeps_its_name(tmp_path, capsys):
    """Two networks of the same shapes differ in what no weight shows; the file says which it is."""
    file = tmp_path / "encoder.safetensors"
    save_classifier(file, make_classifier("wrn-10-1-relu", 10, (1, 8, 8), [0.5], [0.3]), "wrn-10-1-relu", (1, 8, 8))
    flags = ("--methods", "infonce:0.3", "--encoder-from", str(file), "--dry-run")
    for network in ("wrn-10-1", "small-cnn-8"):
        assert run(*flags, "--encoder.network", network, out=tmp_path / "out") == 1
        assert f"--encoder.network {network}: {file} says that it holds a wrn-10-1-relu; name that" in capsys.readouterr().err
    assert run(*flags, "--encoder.network", "wrn-10-1-relu", out=tmp_path / "out") == 0


def test_a_description_of_other_images_does_not_stay(tmp_path):
    """With --no-describe a description stays, if the images are still those that it describes."""
    flags = ("--methods", "unguided", "--evaluation.autoattack-images", "0")
    assert run(*flags, out=tmp_path) == 0
    described = rows(tmp_path / "description.csv")
    assert len(described) == 1
    assert run(*flags, "--no-describe", "--force", out=tmp_path) == 0
    assert rows(tmp_path / "description.csv") == described
    assert run("--methods", "unguided", "infonce:0.3", *flags[2:], "--no-describe", out=tmp_path) == 0
    assert rows(tmp_path / "description.csv") == described  # a method more
    assert run(*flags, "--no-describe", "--force", "--generation.steps", "5", out=tmp_path) == 0
    assert rows(tmp_path / "description.csv") == []


def test_curves_are_those_of_the_seeds_of_this_run(tmp_path):
    (tmp_path / "curves").mkdir()
    for seed in range(3):
        (tmp_path / f"curves/diffusion-seed{seed}.csv").write_text(
            "step,loss,clean_accuracy,robust_accuracy\n100,0.5,,\n200,0.4,,\n"
        )
    for models, lines in ((3, 3), (1, 1), (0, 0)):
        figure = draw_curves(tmp_path, [], 0, models)
        assert len(figure.axes[0].lines) == lines
        figure.clear()
