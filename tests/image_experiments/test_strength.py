"""The scale and window that are chosen for a guidance whose effect on labels is known."""

import json
from pathlib import Path

import pytest
import torch

from command_line.output import UserError
from image_experiments import preset
from image_experiments.data.images import Images
from image_experiments.engine import jobs
from image_experiments.engine.settings import resolve
from image_experiments.models.classifier_files import load_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.output import tables
from image_experiments.synthesis.generation import GenerationSettings, Sampler
from image_experiments.synthesis.methods import Method, parse_method
from image_experiments.synthesis.strength import SCALES, choose_strength
from tests.image_experiments.test_run_cifar import run


@pytest.fixture
def judge():
    """Says the class whose pixel is brightest."""
    network = make_classifier("linear", 4, (1, 2, 2), [0.0], [1.0]).eval()
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(4))
        network.head.bias.zero_()
    return network


def maker(seen, spread, unguided=0.02):
    """1,000 images whose labels are wrong in `unguided` + slope scale of them; grey levels of the other pixels vary by the window."""

    def make(method, settings):
        seen.append((method, settings))
        wrong = unguided if method.kind == "unguided" else unguided + spread[settings.window]["slope"] * method.scale
        y = torch.arange(1000) % 4
        said = torch.where(torch.arange(1000) < round(1000 * wrong), (y + 1) % 4, y)
        x = torch.zeros(1000, 4)
        x += torch.rand(1000, 4, generator=torch.Generator().manual_seed(0)) * spread[settings.window]["grey"]
        x[torch.arange(1000), said] = 255
        return Images(x.to(torch.uint8).reshape(1000, 1, 2, 2), y)

    return make


SETTINGS = GenerationSettings(label_error=0.05, windows=((0, 400), (0, 700)), window=(0, 400))


def test_the_largest_scale_within_the_label_error_and_the_most_diverse_window(judge):
    seen = []
    spread = {(0, 400): {"slope": 0.1, "grey": 50}, (0, 700): {"slope": 0.25, "grey": 150}}
    found = choose_strength(maker(seen, spread), parse_method("infonce-reversed:auto"), SETTINGS, judge)
    assert found["window"] == [0, 700]
    assert found["scale"] == max(scale for scale in SCALES if round(1000 * (0.02 + 0.25 * scale)) <= 70)
    assert found["label_error"] <= 0.07
    assert found["reached"] is True
    tried = [method for method, _ in seen if method.kind != "unguided"]
    assert all(method.reverse and not method.automatic for method in tried)
    assert len(tried) <= 10  # bisection


def test_a_guidance_that_spoils_labels_at_once_gets_the_least_scale_and_says_so(judge):
    spread = {(0, 400): {"slope": 40.0, "grey": 50}, (0, 700): {"slope": 40.0, "grey": 50}}
    found = choose_strength(maker([], spread), parse_method("infonce:auto"), SETTINGS, judge)
    assert found["scale"] == SCALES[0]
    assert found["reached"] is False


def test_a_window_that_keeps_labels_goes_before_a_more_diverse_one_that_does_not(judge):
    spread = {(0, 400): {"slope": 0.1, "grey": 50}, (0, 700): {"slope": 40.0, "grey": 200}}
    found = choose_strength(maker([], spread), parse_method("infonce:auto"), SETTINGS, judge)
    assert (found["window"], found["reached"]) == ([0, 400], True)


def test_what_is_allowed_is_more_than_unguided(judge):
    spread = {(0, 400): {"slope": 0.1, "grey": 50}, (0, 700): {"slope": 0.1, "grey": 60}}
    scales = [choose_strength(maker([], spread, u), parse_method("infonce:auto"), SETTINGS, judge)["scale"] for u in (0.0, 0.3)]
    assert scales[0] == scales[1]


def test_a_harmless_guidance_gets_the_largest_scale(judge):
    spread = {(0, 400): {"slope": 0.0, "grey": 50}, (0, 700): {"slope": 0.0, "grey": 60}}
    found = choose_strength(maker([], spread), parse_method("infonce:auto"), SETTINGS, judge)
    assert found["scale"] == SCALES[-1]


def test_names():
    assert parse_method("anchored-reversed:auto").label == "anchored-reversed-auto"
    assert parse_method("infonce:auto") == Method("infonce:auto", "infonce", 0.3, automatic=True)


def test_the_judge_finds_the_strength_and_not_the_encoder_that_guides(tmp_path, monkeypatch):
    seen = []

    def chosen(_make, _method, _settings, judge, _report):
        seen.append({name: tensor.clone() for name, tensor in judge.state_dict().items()})
        return {"scale": 0.1, "window": [0, 700], "label_error": 0.0, "diversity": 1.0, "reached": True}

    monkeypatch.setattr(jobs, "choose_strength", chosen)
    assert run("--methods", "infonce:auto", "--until", "generation", out=tmp_path) == 0
    judge, encoder = (
        load_classifier(tmp_path / f"checkpoints/{kind}-seed0.safetensors", 10, (1, 8, 8)).state_dict()
        for kind in ("judge", "encoder")
    )
    assert all(torch.equal(seen[0][name], tensor) for name, tensor in judge.items())
    assert not all(torch.equal(encoder[name], tensor) for name, tensor in judge.items())


@pytest.mark.slow
def test_end_to_end_the_images_are_those_of_the_scale_that_was_found(tmp_path, capsys):
    more = (
        "--generation.windows",
        "0",
        "1000",
        "--generation.label-error",
        "0.3",
        "--generation.pilot",
        "40",
        "--evaluation.autoattack-images",
        "0",
    )
    assert run("--methods", "unguided", "infonce:auto", *more, out=tmp_path / "auto") == 0
    found = json.loads((tmp_path / "auto/summary.json").read_text())["results"]["strength/infonce-auto/seed0"]
    assert f"infonce-auto, seed 0: scale {found['scale']:.3g}, window 0 to 1000, label error" in capsys.readouterr().out
    by_hand = (
        "--methods",
        f"infonce:{found['scale']!r}",
        "--generation.window",
        "0",
        "1000",
        "--evaluation.autoattack-images",
        "0",
    )
    assert run(*by_hand, out=tmp_path / "hand") == 0
    (made,) = (tmp_path / "hand/synthetic").iterdir()
    assert (tmp_path / "auto/synthetic/infonce-auto/seed0.npz").read_bytes() == (made / "seed0.npz").read_bytes()


def test_the_largest_scale_tried_is_told_apart_from_one_within(judge):
    harmless = {window: {"slope": 0.0, "grey": 50} for window in ((0, 400), (0, 700))}
    harmful = {window: {"slope": 0.25, "grey": 50} for window in ((0, 400), (0, 700))}
    largest, within = (choose_strength(maker([], of), parse_method("infonce:auto"), SETTINGS, judge) for of in (harmless, harmful))
    assert (largest["largest"], within["largest"]) == (True, False)
    assert largest["unguided_label_error"] == within["unguided_label_error"] == pytest.approx(0.02)
    said = []
    for found in (largest, within):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                tables, "results", lambda _out, _name, found=found: {"scale": found["scale"], "window": [0, 400], "about": found}
            )
            said += tables.strength_lines(resolve(preset("smoke", methods=("infonce:auto",))), Path())
    assert said[0].endswith("label error 0.020, unguided 0.020: the largest scale tried, labels allow more")
    assert "largest" not in said[1]


def test_auto_needs_a_relative_scale():
    with pytest.raises(UserError, match=r"infonce:auto: auto tries fractions of the noise prediction; add --generation.relative"):
        resolve(preset("paper-gtsrb", methods=("infonce:auto",)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "infonce:0.1", "--generation.pilot", "40"), "--generation.pilot: belongs to a scale auto"),
        (("--methods", "infonce:0.1", "--generation.label-error", "0.1"), "--generation.label-error: belongs to a scale auto"),
        (("--methods", "infonce:0.1", "--generation.anchors", "20"), "--generation.anchors 20: belongs to anchored"),
        (("--methods", "particle:0.1", "--generation.temperature", "0.2"), "--generation.temperature 0.2: belongs to infonce or"),
        (("--methods", "unguided", "--selection.order", "lowest"), "--selection.order lowest: all images are kept"),
        (("--classifier.warmup", "30"), "--classifier.warmup 30: the learning rate would rise for all of 30 steps"),
    ],
)
def test_options_without_effect_are_refused(more, message, tmp_path, capsys):
    assert run(*more, "--dry-run", out=tmp_path / "out") == 1
    assert message in capsys.readouterr().err


def test_a_strength_is_found_on_batches_of_the_size_that_images_are_made_in(tmp_path, monkeypatch):
    """Guidance compares the images of a batch, so trials of 15 images in batches of 15 would say little of batches of 20."""
    sizes, sample = {}, Sampler.sample

    def noted(self, labels, first):
        sizes.setdefault(self.method.kind, set()).add(len(labels))
        return sample(self, labels, first)

    monkeypatch.setattr(Sampler, "sample", noted)
    more = ("--generation.windows", "0", "700", "--generation.pilot", "15")
    assert run("--methods", "infonce:auto", "--until", "generation", *more, out=tmp_path) == 0
    assert sizes == {"unguided": {20}, "infonce": {20}}


def test_windows_of_auto_are_those_of_a_loaded_model(tmp_path, capsys):
    more = ("--diffusion.timesteps", "50")
    assert run("--methods", "unguided", "--until", "diffusion", *more, out=tmp_path / "model") == 0
    (model,) = (path.parent for path in (tmp_path / "model/checkpoints").glob("diffusion-seed0/model_index.json"))
    capsys.readouterr()
    read = ("--diffusion", str(model), "--dry-run")
    assert run("--methods", "infonce:auto", *read, out=tmp_path / "a") == 1
    assert "--generation.windows 0 400: must satisfy 0 <= low < high <= 50, the model's timesteps" in capsys.readouterr().err
    assert run("--methods", "infonce:auto", *read, "--generation.windows", "0", "40", out=tmp_path / "b") == 0
