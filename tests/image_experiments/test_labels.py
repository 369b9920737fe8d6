"""Labels of generated images: from the model, from a classifier or from several, hard or soft; on disk, in selection and in training."""

import json

import numpy as np
import pytest
import torch

from command_line.output import UserError, listed
from image_experiments import preset, run_cifar
from image_experiments.data.images import Images
from image_experiments.data.npz_files import ImageFile, stream_images
from image_experiments.engine.plan import plan
from image_experiments.engine.settings import resolve
from image_experiments.models.classifier_files import load_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.synthesis.selection import MeanOf, SelectionSettings, relabel
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.training.attacks import Threat
from tests.image_experiments.test_run_cifar import SMALL

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8), np.array([0, 1, 2, 0, 1, 2])
SOFT = RNG.dirichlet([0.5] * 3, 6).astype(np.float32)


def softmax_of(classifier, images):
    """By numpy, from uint8 images (n, H, W, C)."""
    logits = classifier(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)).detach().double().numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_soft_labels_come_back_from_disk_in_any_order(tmp_path, save):
    stream_images(tmp_path / "a.npz", 6, (8, 8, 1), [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])], SOFT)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as content:
        arrays = dict(content)
    assert list(arrays) == ["image", "label", "soft_label"]
    np.testing.assert_array_equal(arrays["soft_label"], SOFT)
    save(tmp_path / "b.npz", **arrays)
    for name in "ab":
        images = Images.mapped(ImageFile(tmp_path / f"{name}.npz", 3, (8, 8, 1)))
        np.testing.assert_array_equal(images.soft(torch.tensor([5, 0, 5])), SOFT[[5, 0, 5]])
        assert len(images.identity()) == 4  # soft labels are part of what a training is made from
    with pytest.raises(ValueError, match="5 soft labels came for 6 images"):
        stream_images(tmp_path / "c.npz", 6, (8, 8, 1), [(IMAGES, LABELS)], SOFT[:5])
    stream_images(tmp_path / "d.npz", 6, (8, 8, 1), [(IMAGES, LABELS)])
    assert Images.mapped(ImageFile(tmp_path / "d.npz", 3, (8, 8, 1))).soft(torch.arange(2)) is None


@pytest.mark.parametrize(
    ("soft", "message"),
    [
        (SOFT[:, :2], r"has shape \(6, 2\)"),
        (SOFT[:5], r"has shape \(5, 3\)"),
        (LABELS, r"has shape \(6,\)"),
        (np.eye(3, dtype=np.int64)[LABELS], "type int64"),
        (np.where(np.arange(6)[:, None] == 4, np.nan, SOFT), r"soft_label 4 is \[nan, nan, nan\]"),
        (SOFT * [[1]] * 2 + [[0, -1, 0]], "add up to 1"),
        (SOFT * 0.9, "soft_label 0 is .*add up to 1"),
        (np.array([{}] * 6, dtype=object), "Python objects"),
    ],
)
def test_soft_labels_that_are_no_probabilities_are_one_line(tmp_path, soft, message):
    np.savez(tmp_path / "a.npz", image=IMAGES, label=LABELS, soft_label=soft)
    with pytest.raises(UserError, match=message) as error:
        ImageFile(tmp_path / "a.npz", 3, (8, 8, 1))
    assert "\n" not in str(error.value)


def test_labels_by_plain_loops():
    drawn = torch.tensor(LABELS)
    judged = torch.from_numpy(SOFT)
    best = [max(range(3), key=lambda k, row=row: row[k]) for row in SOFT]
    y, usable, soft = relabel("pseudo", drawn, judged)
    assert (y.tolist(), usable.tolist(), soft) == (best, list(range(6)), None)
    y, usable, soft = relabel("soft", drawn, judged)
    assert y.tolist() == best
    assert soft is judged
    y, usable, soft = relabel("agreeing", drawn, judged)
    assert (usable.tolist(), soft) == ([i for i in range(6) if best[i] == LABELS[i]], None)
    assert y[usable].tolist() == [LABELS[i] for i in usable]
    assert 0 < len(usable) < 6


def test_several_classifiers_label_by_the_mean_of_their_probabilities():
    classifiers = [make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=s).eval() for s in range(3)]
    with torch.no_grad():
        for i, classifier in enumerate(classifiers):  # far apart, so that a mean of logits would be another
            classifier.head.weight *= 20 * (i + 1)
    expected = np.mean([softmax_of(classifier, IMAGES) for classifier in classifiers], axis=0)
    of_logits = np.mean([np.log(softmax_of(classifier, IMAGES)) for classifier in classifiers], axis=0)
    with torch.no_grad():
        found = MeanOf(classifiers)(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255)).softmax(dim=1)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(np.exp(of_logits) / np.exp(of_logits).sum(axis=1, keepdims=True) - expected).max() > 0.05


def trained(tmp_path, soft, **more):
    """The classifier and the losses of a training on synthetic images alone."""
    path = stream_images(tmp_path / "a.npz", 6, (8, 8, 1), [(IMAGES, LABELS)], soft)
    synthetic = Images.mapped(ImageFile(path, 3, (8, 8, 1)))
    real = Images(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.tensor(LABELS))
    settings = ClassifierSettings(
        **{
            "network": "small-cnn-8",
            "steps": 1,
            "batch_size": 6,
            "generated_fraction": 1.0,
            "augmentation": "none",
            "average": 0.0,
            "learning_rate": 0.05,
            **more,
        }
    )
    network = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=1)
    losses = []
    images = TrainingImages(real, 3, synthetic)
    found, _ = train_classifier(
        network, images, Threat("linf", 0.1), settings, 2, on_step=lambda _s, loss: losses.append(float(loss))
    )
    return found, losses


def test_the_loss_on_soft_labels_is_their_cross_entropy(tmp_path):
    before = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=1)
    expected = -(SOFT * np.log(softmax_of(before, IMAGES))).sum(axis=1).mean()
    _, losses = trained(tmp_path, SOFT, adversary="none")  # one batch holds each image once
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    _, smoothed = trained(tmp_path, SOFT, adversary="none", label_smoothing=0.3)
    mixed = 0.7 * SOFT + 0.3 / 3
    assert smoothed[0] == pytest.approx(-(mixed * np.log(softmax_of(before, IMAGES))).sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("more", [{"adversary": "pgd"}, {"adversary": "trades"}, {"cutmix": 0.5}])
def test_certain_soft_labels_train_the_same_network_bit_for_bit(tmp_path, more):
    hard, _ = trained(tmp_path, None, steps=6, batch_size=4, attack_steps=2, **more)
    soft, _ = trained(tmp_path, np.eye(3, dtype=np.float32)[LABELS], steps=6, batch_size=4, attack_steps=2, **more)
    other, _ = trained(tmp_path, SOFT, steps=6, batch_size=4, attack_steps=2, **more)
    assert torch.equal(hard.head.weight, soft.head.weight)
    assert not torch.equal(hard.head.weight, other.head.weight)


def run(out, *more):
    return run_cifar.main([*SMALL, "--methods", "infonce:0.3", "noise:0.1", *more, "--out", str(out)])


def synthetic(out, method="infonce-0.3"):
    with np.load(out / "synthetic" / method / "seed0.npz", allow_pickle=False) as content:
        return dict(content)


def test_soft_labels_of_classifiers_that_guided_nothing(tmp_path):
    more = ("--selection.labels", "soft", "--selection.labeller", "robust", "--selection.ensemble", "2")
    assert run(tmp_path, *more, "--selection.surplus", "2", "--selection.criterion", "confidence") == 0
    checkpoints = tmp_path / "checkpoints"
    networks = [
        load_classifier(checkpoints / f"{n}-seed0.safetensors", 10, (1, 8, 8)) for n in ("labeller-robust-1", "labeller-robust-2")
    ]
    encoder = load_classifier(checkpoints / "encoder-seed0.safetensors", 10, (1, 8, 8))
    for method in ("infonce-0.3", "noise-0.1"):
        made = synthetic(tmp_path, method)
        with np.load(tmp_path / "generated" / f"{method.replace('noise-0.1', 'unguided')}" / "seed0.npz") as content:
            everything = content["image"]
        p = np.mean([softmax_of(network, everything) for network in networks], axis=0)
        kept = []
        for k in range(10):  # the most probable of each class, the classes as balanced as possible
            kept.append(sorted(np.flatnonzero(p.argmax(axis=1) == k), key=lambda i, k=k: -p[i, k]))
        ranked = sorted((rank, -p[i, k], i) for k, of in enumerate(kept) for rank, i in enumerate(of))
        chosen = sorted(i for _, _, i in ranked[:40])
        if method != "noise-0.1":
            np.testing.assert_array_equal(made["image"], everything[chosen])
        np.testing.assert_allclose(made["soft_label"], p[chosen], atol=2e-6)  # noise comes after the labels
        np.testing.assert_array_equal(made["label"], p[chosen].argmax(axis=1))
        assert np.abs(softmax_of(encoder, everything)[chosen] - p[chosen]).max() > 1e-3
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert results["select/infonce-0.3/seed0"]["relabelled"] is True
    assert "labeller/robust-2/seed0" in results


def test_images_on_which_the_labeller_disagrees_are_left_out(tmp_path, capsys):
    more = ("--selection.labels", "agreeing", "--selection.labeller", "standard")
    assert run(tmp_path, *more, "--selection.surplus", "1.2") == 1
    assert "the labeller agrees with the labels of " in (line := capsys.readouterr().err.strip().splitlines()[-1])
    assert line.endswith("40 are to be kept; use a larger --selection.surplus, with --force, which keeps the trained models")
    assert run(tmp_path, *more, "--selection.surplus", "40", "--synthetic", "10", "--force") == 0
    made = synthetic(tmp_path)
    labeller = load_classifier(tmp_path / "checkpoints" / "labeller-standard-1-seed0.safetensors", 10, (1, 8, 8))
    np.testing.assert_array_equal(softmax_of(labeller, made["image"]).argmax(axis=1), made["label"])
    result = json.loads((tmp_path / "summary.json").read_text())["results"]["select/infonce-0.3/seed0"]
    assert result["changed"] == 0
    assert 10 <= result["usable"] < result["of"] == 400


def test_soft_labels_of_a_users_file_are_used(tmp_path):
    rng = np.random.default_rng(4)
    soft = rng.dirichlet([1] * 10, 60)
    images = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "made.npz", image=images, label=soft.argmax(axis=1), soft_label=soft)
    assert run_cifar.main([*SMALL, "--methods", f"npz:{tmp_path / 'made.npz'}", "--out", str(tmp_path / "out")]) == 0
    made = synthetic(tmp_path / "out", "npz-made")
    of = {image.tobytes(): row for image, row in zip(images, soft, strict=True)}
    np.testing.assert_allclose(made["soft_label"], [of[image.tobytes()] for image in made["image"]], atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--selection.labeller", "robust"), "it would label nothing; add --selection.labels"),
        (("--selection.labels", "drawn", "--selection.labeller", "standard"), "it would label nothing"),
        (("--selection.labels", "soft", "--selection.ensemble", "3"), "there is one encoder; choose labeller robust or standard"),
        (("--selection.ensemble", "0"), "must lie in 1 .. 100"),
        (("--selection.labels", "agreeing", "--diffusion.no-conditional"), "has no drawn labels; use pseudo or soft"),
        (("--selection.labels", "drawn", "--diffusion.no-conditional"), "has no drawn labels; use pseudo or soft"),
        (("--generation.negatives", "other", "--diffusion.no-conditional"), "--generation.negatives other: goes by labels"),
        (("--generation.target", "0.5"), "--generation.target 0.5: belongs to boundary, which is not among the methods"),
        (("--generation.weaker", "0.5"), "--generation.weaker 0.5: belongs to autoguidance"),
        (("--generation.keep", "0.5"), "--generation.keep 0.5: belongs to feedback"),
    ],
)
def test_labels_that_cannot_be_are_one_line(tmp_path, capsys, flags, message):
    try:
        status = run(tmp_path / "out", *flags, "--dry-run")
    except SystemExit as stopped:  # settings that are wrong in themselves are refused by the parser
        status = stopped.code
    assert status != 0
    assert message in " ".join(capsys.readouterr().err.replace("|", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A class-conditional and an unconditional model, as anyone may have made them."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for kind, more in (("conditional", ()), ("unconditional", ("--diffusion.no-conditional",))):
        assert run_cifar.main([*SMALL, "--methods", "unguided", *more, "--until", "diffusion", "--out", str(folder / kind)]) == 0
        found[kind] = str(folder / kind / "checkpoints" / "diffusion-seed0")
    return found


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        ("unconditional", ("--methods", "cads:0.25"), "--methods cads:0.25: needs labels, and this model takes none"),
        ("unconditional", ("--methods", "feedback:0.1"), "--methods feedback:0.1: needs labels, and this model takes none"),
        ("unconditional", ("--methods", "boundary:0.1"), "--methods boundary:0.1: needs labels, and this model takes none"),
        (
            "unconditional",
            ("--selection.labels", "agreeing", "--selection.surplus", "2"),
            "--selection.labels agreeing: an unconditional model has no drawn labels",
        ),
        (
            "unconditional",
            ("--selection.labels", "drawn"),
            "--selection.labels drawn: an unconditional model has no drawn labels",
        ),
        ("conditional", ("--selection.labeller", "robust"), "it would label nothing; add --selection.labels pseudo"),
        ("conditional", ("--methods", "autoguidance:1"), "needs a weaker model of the same recipe, trained here"),
    ],
)
def test_what_a_loaded_model_does_not_go_with_is_known_before_anything_is_trained(models, tmp_path, capsys, kind, flags, message):
    assert run(tmp_path / "out", "--diffusion", models[kind], *flags) == 1
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list((tmp_path / "out").glob("checkpoints/*"))


def test_a_class_that_new_labels_leave_empty_is_told(tmp_path, capsys):
    """After 30 steps the labeller takes most images for a few classes."""
    assert run(tmp_path, "--selection.labels", "pseudo", "--selection.surplus", "2") == 0
    results = json.loads((tmp_path / "summary.json").read_text())
    counts = results["results"]["select/infonce-0.3/seed0"]["of_each_class"]
    assert sum(counts) == 40
    few = [k for k, count in enumerate(counts) if count < 2]
    assert few
    told = [line for line in results["warnings"] if line.startswith("infonce-0.3, seed 0: kept ")]
    assert told == [
        f"infonce-0.3, seed 0: kept {listed([f'{counts[k]} of class {k}' for k in few])}, an even share is 4; make more, with a larger "
        "--selection.surplus, or take other labels"
    ]


def test_labels_that_contradict_their_soft_labels_are_doubted(tmp_path, capsys):
    rng = np.random.default_rng(4)
    soft = rng.dirichlet([1] * 10, 60)
    labels = soft.argmax(axis=1)
    labels[:7] = (labels[:7] + 1) % 10
    np.savez(tmp_path / "made.npz", image=rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), label=labels, soft_label=soft)
    assert run_cifar.main([*SMALL, "--methods", f"npz:{tmp_path / 'made.npz'}", "--out", str(tmp_path / "out")]) == 0
    warnings = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
    assert any("7 of 60 labels are not the most probable class of their soft label" in line for line in warnings)


def test_the_classifier_that_keeps_labels_in_feedback_labels_nothing():
    more = {"labels": "soft", "labeller": "standard", "ensemble": 2, "surplus": 2.0}
    stages = {s.name: s for s in plan(resolve(preset("smoke", methods=("feedback:0.1",), selection=more)))}
    kept = stages["generate/feedback-0.1/seed0"].inputs["keeper"]
    labelling = [stage.name for role, stage in stages["select/feedback-0.1/seed0"].inputs.items() if role.startswith("labeller")]
    assert kept.name == "keeper/seed0"
    assert labelling == ["labeller/standard-1/seed0", "labeller/standard-2/seed0"]
    assert kept.arguments["number"] == 0


def test_who_labels_and_who_judges_is_trained_as_it_says():
    def recipes(labeller):
        selection = {"labels": "soft", "labeller": labeller, "surplus": 2.0}
        stages = plan(resolve(preset("smoke", methods=("feedback:0.1",), selection=selection)))
        return {stage.name: stage.arguments.get("settings") for stage in stages}

    standard, robust = recipes("standard"), recipes("robust")
    for name in ("judge/seed0", "keeper/seed0", "labeller/standard-1/seed0"):
        assert standard[name].adversary == "none", name
    assert robust["labeller/robust-1/seed0"] == robust["encoder/seed0"]
    assert robust["encoder/seed0"].adversary == "pgd"


def test_whether_a_classifier_takes_part_in_the_labels():
    found = {
        (labels, c): SelectionSettings(labels=labels).relabels(c) for labels in ("auto", "drawn", "soft") for c in (True, False)
    }
    expected = {("auto", True): False, ("auto", False): True, ("drawn", True): False, ("drawn", False): False}
    assert found == expected | {("soft", True): True, ("soft", False): True}


@pytest.mark.parametrize(
    ("methods", "labeller", "name"),
    [(("feedback:0.1",), "encoder", "keeper/seed0"), (("unguided",), "standard", "labeller/standard-1/seed0")],
)
def test_a_classifier_trained_without_attacks_keeps_its_last_weights(methods, labeller, name):
    """The encoder of `paper` keeps the weights that are best under attack; without attacks in training those are the very first."""
    chosen = {"labels": "soft", "labeller": labeller, "surplus": 2.0}
    stages = {stage.name: stage for stage in plan(resolve(preset("paper", methods=methods, selection=chosen)))}
    assert stages["encoder/seed0"].arguments["settings"].keep == "best"
    assert stages[name].arguments["settings"].keep == "last"
    assert stages[name].arguments["settings"].adversary == "none"


def test_dropping_labels_without_more_images_is_refused_before_training(tmp_path, capsys):
    assert run_cifar.main([*SMALL, "--selection.labels", "agreeing", "--out", str(tmp_path / "out")]) == 1
    assert (
        "--selection.labels agreeing: drops images, and as many are to be kept; make more, --selection.surplus"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({"methods": ("real",)}, False),
        ({"methods": ("unguided",)}, True),
        ({"methods": ("unguided",), "selection": {"labels": "soft", "labeller": "robust", "surplus": 1.0}}, True),
        ({"methods": ("feedback:0.1",)}, True),
    ],
)
@pytest.mark.parametrize("outside", [None, "encoder.safetensors"])
def test_weights_chosen_by_validation_images_judge_no_method_on_them(more, refused, outside, tmp_path):
    """By the encoder's recipe labellers and the keeper are trained, also if the encoder itself comes from a file."""
    named = {
        "evaluation.split": "validation",
        "classifier.keep": "last",
        "encoder_from": None if outside is None else tmp_path / outside,
    }
    settings = preset("paper", **named, **more)
    trained = refused and (outside is None or more["methods"] != ("unguided",) or "selection" in more)
    if not trained:
        resolve(settings)
        return
    with pytest.raises(UserError, match=r"--encoder\.keep best has chosen the weights by these images"):
        resolve(settings)
