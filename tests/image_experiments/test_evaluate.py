"""A verdict on any classifier: exact for a linear one, the run's own numbers, whole after any interruption, honest about doubts."""

import csv
import importlib
import json
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from command_line.output import UserError
from image_experiments import evaluate, run_cifar
from image_experiments.data.balance import balanced_order
from image_experiments.data.read_dataset import read_dataset
from image_experiments.evaluate import main
from image_experiments.models.classifier_files import save_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.precision import gpu_arithmetic
from image_experiments.verdict import in_another_order
from tests.image_experiments.conftest import png, write_folder
from tests.image_experiments.test_published import made, saved

EPS = 0.12
command = importlib.import_module("image_experiments.evaluate")


@pytest.fixture(scope="module")
def linear():
    """(linear classifier of digits, images, labels): small weights, so that some images are robust and some are not."""
    digits = load_digits()
    x, y = digits.images[:, None] / 16, digits.target
    fitted = LogisticRegression(C=0.05, max_iter=500).fit(x[:1000].reshape(1000, -1), y[:1000])
    classifier = make_classifier("linear", 10, (1, 8, 8), [0.0], [1.0])
    with torch.no_grad():
        classifier.head.weight.copy_(torch.from_numpy(fitted.coef_))
        classifier.head.bias.copy_(torch.from_numpy(fitted.intercept_))
    return classifier.eval(), x[1000:].astype(np.float32), y[1000:]


def exactly_robust(classifier, x, y, eps):
    """(n,) bool, in closed form: against each other class, every pixel moves as far as the ball and [0, 1] let it."""
    weight, bias = (p.detach().double().numpy() for p in (classifier.head.weight, classifier.head.bias))
    flat, found = x.reshape(len(x), -1).astype(float), np.ones(len(x), dtype=bool)
    for k in range(len(weight)):
        towards = weight[k] - weight[y]
        worst = np.clip(flat + eps * np.sign(towards), 0, 1)
        found &= ((worst * towards).sum(axis=1) + bias[k] - bias[y] < 0) | (y == k)
    return found


def test_a_linear_classifier_has_its_exact_robust_accuracy(linear):
    classifier, x, y = linear
    verdict = evaluate(classifier, x[:200], y[:200], eps=EPS, attacks=("pgd", "apgd"), batch_size=70)
    exact = exactly_robust(classifier, x[:200], y[:200], EPS)
    clean = exactly_robust(classifier, x[:200], y[:200], 0)
    assert 0.2 < exact.mean() < clean.mean() - 0.2
    assert (verdict.outcomes["clean"] == clean).all()
    assert (verdict.outcomes["apgd"] == exact).all()
    assert (verdict.outcomes["pgd-20"] >= exact).all()
    assert verdict.outcomes["pgd-20"].sum() <= exact.sum() + 16  # follows one loss; measured: 14
    assert not verdict.warnings
    assert list(verdict.table["attack"]) == ["clean", "pgd-20", "apgd"]
    row = verdict.table.iloc[2]
    assert (row["images"], row["right"], row["accuracy"]) == (200, exact.sum(), exact.mean())
    p, z, n = exact.mean(), 1.959963984540054, 200  # Wilson's interval
    middle, reach = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert (row["low"], row["high"]) == pytest.approx((middle - reach, middle + reach), rel=1e-12)
    classes = verdict.per_class
    assert list(classes["images"]) == [int((y[:200] == k).sum()) for k in range(10)]
    assert list(classes["apgd"]) == pytest.approx([exact[y[:200] == k].mean() for k in range(10)])


def test_images_in_other_forms_are_the_same_images(linear):
    classifier, x, y = linear
    of = {"attacks": ("pgd",), "eps": EPS}
    bytes_ = np.round(x[:40] * 255).astype(np.uint8)
    first = evaluate(classifier, bytes_ / np.float32(255), y[:40], **of).outcomes
    for images in (bytes_, bytes_.transpose(0, 2, 3, 1), torch.from_numpy(bytes_), torch.from_numpy(bytes_).double() / 255):
        for name, right in evaluate(classifier, images, torch.from_numpy(y[:40]), **of).outcomes.items():
            assert (right == first[name]).all()


def test_the_module_is_left_as_it_was(linear):
    classifier, x, y = linear
    module = nn.Sequential(classifier, nn.Dropout(0.5)).train()
    found = evaluate(module, x[:40], y[:40], attacks=("pgd",), eps=EPS)
    assert module.training
    assert not found.warnings  # dropout was off
    assert (found.outcomes["clean"] == exactly_robust(classifier, x[:40], y[:40], 0)).all()


def test_weights_gradients_and_trace_are_left_as_they_were(linear):
    """FAB calls backward(): its gradients came to those of the caller's next step. The package also ends a debugger's trace."""
    classifier, x, y = linear
    module = nn.Sequential(classifier).requires_grad_(True)
    module[0].head.bias.requires_grad_(False)

    def trace(*_):
        return None

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        evaluate(module, x[:12], y[:12], eps=EPS, pgd_steps=2)
        traced = sys.gettrace()
    finally:
        sys.settrace(before)
    assert traced is trace
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module[0].head.weight.requires_grad
    assert not module[0].head.bias.requires_grad
    module.requires_grad_(False)


def test_in_inference_mode_the_numbers_are_the_same(linear):
    classifier, x, y = linear
    first = evaluate(classifier, x[:20], y[:20], attacks=("pgd",), eps=EPS)
    with torch.inference_mode():
        again = evaluate(classifier, x[:20], y[:20], attacks=("pgd",), eps=EPS)
    assert again.rows == first.rows


def test_every_part_has_its_mode_again_and_gradients_are_found_anyhow(linear):
    classifier, x, y = linear
    module = nn.Sequential(nn.BatchNorm2d(1).eval(), classifier.eval(), nn.Dropout(0.5)).train()
    module[0].eval()
    before = [part.training for part in module.modules()]
    with torch.no_grad():
        first = evaluate(module, x[:30], y[:30], attacks=("pgd",), eps=EPS)
    assert [part.training for part in module.modules()] == before
    double = evaluate(nn.Sequential(module, nn.Identity()).double(), x[:30], y[:30], attacks=("pgd",), eps=EPS)
    assert (double.outcomes["clean"] == first.outcomes["clean"]).all()
    module.float()


class Arithmetic(nn.Module):
    """Notes in what arithmetic a GPU would compute."""

    def __init__(self, module):
        super().__init__()
        self.module, self.seen = module, set()

    def forward(self, x):
        self.seen.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return self.module(x)


def test_attacks_are_in_full_float32_whatever_the_caller_has_chosen(linear):
    classifier, x, y = linear
    watched = Arithmetic(classifier)
    with gpu_arithmetic(tf32=True):
        evaluate(watched, x[:20], y[:20], attacks=("pgd",), eps=EPS)
        assert torch.get_float32_matmul_precision() == "high"
    assert watched.seen == {("highest", False)}


class Pair(nn.Module):
    """Two outputs, as detectors have."""

    def forward(self, x):
        return x.flatten(1), x


class Turned(nn.Module):
    """The same classes under other numbers."""

    def __init__(self, module, order):
        super().__init__()
        self.module, self.order = module, order

    def forward(self, x):
        return self.module(x)[:, self.order]


def test_what_is_doubtful_is_told(linear):
    classifier, x, y = linear
    order = [1, 2, 0, *range(3, 10)]

    def warnings(module, images=x[:100]):
        return " ".join(evaluate(module, images, y[:100], attacks=("pgd",), eps=EPS).warnings)

    assert "another order" in warnings(Turned(classifier, [*range(1, 10), 0]))
    assert "probability distribution" in warnings(nn.Sequential(classifier, nn.Softmax(dim=1)))
    noisy = nn.Sequential(classifier)
    noisy.register_forward_hook(lambda _m, _x, out: out + 0.1 * torch.randn_like(out))
    assert "randomized" in warnings(noisy)
    flat = nn.Sequential(classifier)
    flat.register_forward_pre_hook(lambda _m, x: (x[0] * 8).round() / 8)
    assert "zero gradient" in warnings(flat)
    predicted = np.argmax(np.eye(10)[y][:, order], axis=1)
    assert in_another_order(y, y, 10) is None
    message = in_another_order(predicted, y, 10)
    right = (predicted == y).mean()
    assert message.startswith(
        f"classes seem to be in another order: accuracy {right:.1%}, but 100.0% if its class 0 is 1, 1 is 2, 2 is 0"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.full((5, 1, 8, 8), 2.0)}, "images lie in [2, 2], attacks are on [0, 1]; divide by 255"),
        ({"images": -np.ones((5, 1, 8, 8))}, "undo the normalisation"),
        ({"images": np.full((5, 1, 8, 8), np.nan)}, "images lie in [nan, nan]"),
        ({"images": np.zeros((5, 1, 8, 8), dtype=np.int64)}, "images have type torch.int64"),
        ({"images": np.zeros((5, 8, 8))}, "images have shape (5, 8, 8); give (n, C, H, W)"),
        ({"labels": np.zeros(4, dtype=int)}, "labels have shape (4,) for 5 images"),
        ({"labels": np.full(5, 10)}, "labels reach from 10 to 10, the module has 10 classes"),
        ({"module": nn.Identity()}, "the module's outputs are of shape (5, 1, 8, 8) for 5 images"),
        ({"eps": float("nan")}, "eps=nan: must be a finite number"),
        ({"eps": 8}, "did you mean 8/255?"),
        ({"attacks": ("fgsm",)}, "attacks=fgsm: unknown; use pgd, apgd, apgd-ce, autoattack"),
        ({"attacks": ("apgd", "autoattack")}, "apgd and autoattack exclude each other"),
        ({"pgd_steps": 0}, "pgd_steps=0 must be >= 1"),
        ({"pgd_step": 3}, "pgd_step=3: unknown, did you mean pgd_steps?"),
        ({"threats": ("l2:1",)}, "threats=('l2:1',): unknown"),
        ({"batch_size": 2.5}, "batch_size=2.5: give a whole number"),
        ({"attacks": ("pgd",), "autoattack_images": 5}, "autoattack_images=5: has no meaning"),
        ({"norm": "l1"}, "norm='l1'"),
        ({"eps": "8/255"}, "eps='8/255'"),
        ({"labels": np.arange(5) + 0.5}, "labels have type torch.float64"),
        ({"labels": list("abcde")}, "labels cannot be read as numbers"),
        ({"images": np.array([None] * 5)}, "images cannot be read as numbers"),
        ({"images": np.zeros((5, 1, 7, 7), dtype=np.float32)}, "the module cannot be attacked"),
        ({"images": np.ones((5, 1, 8, 8), dtype=np.uint8)}, "images hold the value 1 alone"),
        ({"module": Pair()}, "the module cannot be attacked"),
    ],
)
def test_arguments_that_cannot_be_are_one_line(linear, change, message):
    arguments = {
        "module": linear[0],
        "images": np.zeros((5, 1, 8, 8), dtype=np.float32),
        "labels": np.arange(5),
        "eps": EPS,
    } | change
    with pytest.raises(UserError) as caught:
        evaluate(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_logits_that_are_not_finite_are_one_line(linear):
    broken = nn.Sequential(linear[0])
    broken.register_forward_hook(lambda _m, _x, out: out * torch.inf)
    with pytest.raises(UserError, match="not finite"):
        evaluate(broken, linear[1][:5], linear[2][:5], eps=EPS)


@pytest.fixture
def checkpoint(linear, tmp_path):
    return save_classifier(tmp_path / "linear.safetensors", linear[0], "linear", (1, 8, 8))


DIGITS = ["--dataset", "digits", "--eps", str(EPS), "--batch-size", "20", "--threads", "1"]
TABLES = ("evaluation.csv", "per_class.csv", "per_image.csv")


def command_line(checkpoint, out, *more):
    return [str(checkpoint), *DIGITS, "--test", "60", "--attacks", "pgd", "autoattack", "--out", str(out), *more]


def test_a_run_is_evaluated_to_its_own_numbers(tmp_path):
    """Image by image."""
    out = tmp_path / "run"
    small = ["--methods", "real", "--classifier.steps", "20", "--evaluation.autoattack-images", "15", "--evaluation.pgd-steps", "5"]
    assert run_cifar.main([*small, "--seed", "3", "--test", "50", "--workers", "1", "--out", str(out)]) == 0
    found = tmp_path / "evaluated"
    flags = ["--dataset", "digits", "--seed", "3", "--test", "50", "--pgd-steps", "5", "--autoattack-images", "15"]
    assert main([str(out / "checkpoints" / "real-seed3.safetensors"), *flags, "--out", str(found)]) == 0
    with (found / "per_image.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    with np.load(out / "outcomes" / "real-seed3.npz") as outcomes:
        for name, right in outcomes.items():
            column = [row[name.partition(" ")[0]] for row in rows]
            assert [bool(int(value)) for value in column[: len(right)]] == right.tolist()
            assert set(column[len(right) :]) <= {""}
    data = read_dataset("digits", None, 0, None)
    order = balanced_order(data.test_labels, np.random.default_rng(2))[:50]
    assert [int(row["image"]) for row in rows] == order.tolist()
    assert [int(row["label"]) for row in rows] == data.test_labels[order].tolist()


def test_interrupted_at_five_moments_it_ends_with_the_same_tables(checkpoint, tmp_path, monkeypatch, capsys):
    """Within all four parts of AutoAttack: test_attacks.py."""
    gradient = ("--attacks", "pgd", "apgd")
    assert main(command_line(checkpoint, tmp_path / "whole", *gradient)) == 0
    whole, calls = {name: (tmp_path / "whole" / name).read_bytes() for name in TABLES}, 0
    original = command.judged

    def interrupted(*arguments, report, **more):
        def stop(done, total):
            nonlocal calls
            calls += 1
            report(done, total)
            raise KeyboardInterrupt

        return original(*arguments, report=stop, **more)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(command, "judged", interrupted)
        for _ in range(5):
            assert main(command_line(checkpoint, out, *gradient)) == 130
            assert "interrupted" in capsys.readouterr().err
            assert not any((out / name).exists() for name in TABLES)
    assert calls == 5  # each went a batch further, or it would stop at the first for ever
    assert main(command_line(checkpoint, out, *gradient)) == 0
    assert {name: (out / name).read_bytes() for name in TABLES} == whole
    assert not (out / "unfinished").exists()
    before = {name: (out / name).stat().st_mtime_ns for name in TABLES}
    assert main(command_line(checkpoint, out, *gradient)) == 0
    assert "unchanged: evaluation.csv" in capsys.readouterr().out
    assert {name: (out / name).stat().st_mtime_ns for name in TABLES} == before


def test_a_published_checkpoint_and_a_copy_of_the_data(tmp_path, capsys):
    """Random weights in Wang's layout and images in folders, as a newcomer has them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    names = [f"class{k}" for k in range(10)]
    for part in ("train", "test"):
        for name in names:
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                    tmp_path / "data" / part / name / f"{i}.png"
                )
    weights, _ = made("dm-wrn-16-2")
    path = saved(tmp_path / "wrn.pth.tar", weights, "model_state_dict")
    flags = ["--dataset", "images", "--data-dir", str(tmp_path / "data"), "--attacks", "pgd", "--pgd-steps", "2"]
    assert main([str(path), *flags, "--out", str(tmp_path / "out")]) == 1  # ten classes are not CIFAR-10 yet
    assert "name them, --normalisation cifar10|" in capsys.readouterr().err
    flags += ["--normalisation", "cifar10"]
    assert main([str(path), *flags, "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "wrn.pth.tar: dm-wrn-16-2, pixels normalised as for CIFAR" in output
    assert "wrn.pth.tar | dm-wrn-16-2 | images, linf 8/255 | clean " in output
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["normalisation"] == "cifar10"
    assert len(content["weights_sha256"]) == 64


def test_a_wrong_normalisation_is_noticed(linear, tmp_path, capsys, monkeypatch):
    """A classifier that was trained on pixels as they are, told to normalise them."""
    shifted = make_classifier("linear", 10, (1, 8, 8), [0.0], [1.0])
    shifted.load_state_dict(linear[0].state_dict())
    monkeypatch.setitem(command.MEANS, "odd", ((5.0,), (0.1,)))
    path = saved(tmp_path / "c.pt", {k: v for k, v in shifted.state_dict().items() if k not in ("mean", "std")})
    flags = [str(path), *DIGITS, "--network", "linear", "--test", "60", "--attacks", "pgd"]
    assert main([*flags, "--normalisation", "odd", "--out", str(tmp_path / "odd")]) == 0
    assert "with --normalisation none clean accuracy on 60 images would be" in capsys.readouterr().err
    assert main([*flags, "--out", str(tmp_path / "right")]) == 0
    assert "normalisation" not in capsys.readouterr().err


def test_a_network_of_the_same_names_that_fits_better_is_noticed():
    """Labels by pytorch-cifar's network, weights read as Wong's."""
    wong, kuangliu = (
        make_classifier(f"{name}-preact-resnet-18", 10, (3, 8, 8), [0.4] * 3, [0.2] * 3).eval() for name in ("wong", "kuangliu")
    )
    kuangliu.load_state_dict(wong.state_dict())
    x = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = kuangliu(x).argmax(dim=1)
        ours = float((wong(x).argmax(dim=1) == y).float().mean())
    assert ours < 0.9
    (told,) = command._other_network(wong, x, y, 25, "wong-preact-resnet-18")
    assert told.startswith(f"with --network kuangliu-preact-resnet-18 clean accuracy on 60 images would be 100.0%, not {ours:.1%}")
    assert not command._other_network(kuangliu, x, y, 25, "kuangliu-preact-resnet-18")
    assert not command._other_network(wong, x, y, 25, "resnet-18")


def test_what_was_read_and_what_is_doubtful_is_said(tmp_path, capsys):
    """A test image that is a copy of a training image, and one on a transparent ground."""
    rng = np.random.default_rng(0)
    write_folder(tmp_path / "data", rng)
    (tmp_path / "data/test/left/000.png").write_bytes((tmp_path / "data/train/left/000.png").read_bytes())
    layered = np.concatenate([rng.integers(0, 255, (8, 8, 3)), np.full((8, 8, 1), 100)], axis=2).astype(np.uint8)
    (tmp_path / "data/test/right/001.png").write_bytes(png(layered))
    path = saved(tmp_path / "c.pt", dict(make_classifier("linear", 2, (3, 8, 8), [0.5] * 3, [1.0] * 3).state_dict()))
    flags = [str(path), "--dataset", "images", "--data-dir", str(tmp_path / "data"), "--network", "linear", "--attacks", "pgd"]
    assert main([*flags, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "2 classes, training+test: left 12+6, right 12+6" in told.out
    assert "transparency: 1 images laid over white" in told.out
    assert "12 test images are attacked" in told.out
    doubt = "1 of 12 test images are exact copies of training images: accuracy on them says nothing of new images"
    assert told.err.count(doubt) == 1
    assert doubt in json.loads((tmp_path / "out/evaluation.json").read_text())["warnings"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps", "8"], "--eps 8: turns every image into any other"),
        (["--test", "5000"], "has 1197 test images; use fewer, or 0 for all"),
        (["--autoattack-images", "61"], "--autoattack-images 61: there are 60 test images"),
        (["--dataset", "cifar10", "--data-dir", "/nowhere"], "--data-dir /nowhere: no such file or folder"),
        (["--test", "-1"], "--test -1: must be at least 0"),
        (["--attacks", "apgd", "apgd-ce"], "exclude each other"),
        (["--normalisation", "imagenet"], "--normalisation imagenet: use auto, cifar10, pytorch-cifar, cifar100, half, none"),
        (["--normalisation", "cifar10"], "is for 3 channels, the images have 1; use none"),
        (["--device", "cuda:7"], "--device cuda:7: torch finds no such device"),
        (["--device", "abacus"], "--device abacus: torch finds no such device"),
        (["--pgd-steps", "0"], "pgd_steps=0 must be >= 1"),
        (["--classes", "0", "ten"], "--classes ten"),
        (["--classes", "0", "1"], "is for 10 classes"),
        (["--network", "small-cnn"], "says that it holds a linear; leave the option out"),
        (["--network", "nosuch"], "--network: network 'nosuch' is unknown"),
        (["--network", "wrn-28-1O", "--dataset", "cifar10", "--data-dir", "/nowhere"], "did you mean 'wrn-28-10'"),
        (["--network", "wrn-28-99999"], "is unknown"),
        (["--network", "wrn-28-10", "--dataset", "mnist-t10k", "--data-dir", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_flags_are_one_line_and_write_nothing(checkpoint, flags, message, tmp_path, capsys):
    assert main([*command_line(checkpoint, tmp_path / "out"), *flags]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ")
    assert message in error[-1]
    assert not (tmp_path / "out").exists()


def test_another_evaluation_in_the_folder_is_refused(checkpoint, tmp_path, capsys):
    flags = [str(checkpoint), *DIGITS, "--test", "40", "--attacks", "pgd", "--out", str(tmp_path / "out")]
    assert main(flags) == 0
    assert main([*flags, "--seed", "1"]) == 1
    assert "holds another" in capsys.readouterr().err
    assert main([*flags, "--seed", "1", "--force"]) == 0


def test_the_folder_of_a_run_is_left_alone(checkpoint, tmp_path, capsys):
    """Its settings.json and its unfinished trainings; --force or not."""
    for name in ("summary.json", "stages", "checkpoints"):
        out = tmp_path / name / "out"
        (out / "unfinished").mkdir(parents=True)
        (out / "unfinished" / "checkpoint.pt").write_text("precious")
        (out / "settings.json").write_text("{}")
        (out / name).write_text("{}") if name.endswith("json") else (out / name).mkdir()
        for more in ((), ("--force",)):
            assert main(command_line(checkpoint, out, *more)) == 1
            assert f"holds {name}, so it is the folder of a run" in capsys.readouterr().err
        assert (out / "settings.json").read_text() == "{}"
        assert (out / "unfinished" / "checkpoint.pt").read_text() == "precious"


def test_a_forced_evaluation_goes_on_from_nothing_of_another(checkpoint, tmp_path, monkeypatch, capsys):
    """Interrupted with one seed, forced with another: the tables are those of the other in a folder of its own."""
    flags = [str(checkpoint), *DIGITS, "--test", "100", "--attacks", "pgd", "--pgd-steps", "2"]
    assert main([*flags, "--seed", "7", "--out", str(tmp_path / "clean")]) == 0
    assert main([*flags, "--seed", "1", "--out", str(tmp_path / "other")]) == 0
    original = command.judged

    def stopping(*arguments, report, **more):
        def stop(done, total):
            if done == 2:
                raise KeyboardInterrupt

        return original(*arguments, report=stop, **more)

    with monkeypatch.context() as patch:
        patch.setattr(command, "judged", stopping)
        for more in (["--seed", "1", "--force"], ["--seed", "7", "--force"]):
            assert main([*flags, *more, "--out", str(tmp_path / "other")]) in (0, 130)
    assert not (tmp_path / "other" / "evaluation.csv").exists()  # of the seed before; two experiments never lie in one folder
    assert main([*flags, "--seed", "7", "--out", str(tmp_path / "other")]) == 0
    for name in TABLES:
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


def test_other_code_or_versions_begin_anew_in_the_same_folder(checkpoint, tmp_path, monkeypatch, capsys):
    """Batches of two versions of an attack are not put together, and numbers of the old one are not called unchanged."""
    flags = [str(checkpoint), *DIGITS, "--test", "40", "--attacks", "pgd", "--pgd-steps", "2", "--out", str(tmp_path / "out")]
    assert main(flags) == 0
    made_by = json.loads((tmp_path / "out" / "evaluation.json").read_text())["settings"]["made by"]
    assert {"judged", "read_classifier", "torch", "pyautoattack"} <= set(made_by)
    monkeypatch.setattr(command, "_made_by", lambda _network, _device: made_by | {"pyautoattack": "another"})
    original, places = command.judged, []

    def stopping(*arguments, scratch, **more):
        places.append(scratch)
        return original(*arguments, scratch=scratch, **more)

    monkeypatch.setattr(command, "judged", stopping)
    capsys.readouterr()
    assert main(flags) == 0
    assert "unchanged" not in capsys.readouterr().out
    monkeypatch.setattr(command, "_made_by", lambda _network, _device: made_by)
    assert main(flags) == 0
    assert len(set(places)) == 2
    assert main(flags) == 0
    assert "unchanged" in capsys.readouterr().out


def test_the_same_weights_and_attacks_under_another_name_are_the_same(checkpoint, tmp_path, capsys):
    flags = [*DIGITS, "--test", "40", "--out", str(tmp_path / "out"), "--attacks"]
    assert main([str(checkpoint), *flags, "pgd", "apgd-ce"]) == 0
    again = checkpoint.with_name("again.safetensors")
    again.write_bytes(checkpoint.read_bytes())
    capsys.readouterr()
    assert main([str(again), *flags, "apgd-ce", "pgd", "apgd-ce"]) == 0
    assert "unchanged" in capsys.readouterr().out


def test_a_checkpoint_that_gives_no_logits_is_told_before_anything_is_written(checkpoint, tmp_path, capsys, linear):
    broken = make_classifier("small-cnn", 10, (1, 8, 8), [0.0], [1.0]).eval()
    broken.head.weight.data.fill_(3e38)
    save_classifier(tmp_path / "c.safetensors", broken, "small-cnn", (1, 8, 8))
    assert main(command_line(tmp_path / "c.safetensors", tmp_path / "out")) == 1
    assert "outputs are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_exported_classifier_is_evaluated_by_the_command_of_its_help(tmp_path, monkeypatch, capsys):
    from image_experiments import export

    monkeypatch.chdir(tmp_path)
    small = [
        "--methods",
        "real",
        "--classifier.steps",
        "3",
        "--evaluation.autoattack-images",
        "0",
        "--evaluation.pgd-steps",
        "2",
        "--test",
        "20",
    ]
    assert run_cifar.main([*small, "--workers", "1", "--out", "results/digits-cpu"]) == 0
    assert export.main(["results/digits-cpu"]) == 0
    line = next(text for text in command.__doc__.splitlines() if "export/" in text)
    arguments = line.split("#")[0].split()[2:]
    assert main([*arguments, "--attacks", "pgd", "--test", "20"]) == 0
    assert "small-cnn" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"<!doctype html>", b"", b"rubbish", b"version https://git-lfs.github.com/spec/v1"])
def test_files_that_are_no_checkpoint_are_one_line(content, tmp_path, capsys):
    (tmp_path / "c.pt").write_bytes(content)
    assert main(command_line(tmp_path / "c.pt", tmp_path / "out")) == 1
    assert str(tmp_path / "c.pt") in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_modules_of_other_floating_types_are_attacked_in_float32(dtype, linear):
    classifier, x, y = linear
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(dtype)
    with torch.no_grad():
        module[1].weight.copy_(classifier.head.weight)
        module[1].bias.copy_(classifier.head.bias)
    found = evaluate(module, x[:60], y[:60], eps=EPS, attacks=("pgd", "apgd-ce"))
    usual = evaluate(classifier, x[:60], y[:60], eps=EPS, attacks=("pgd", "apgd-ce"))
    assert module[1].weight.dtype == dtype
    for name, right in found.outcomes.items():
        assert abs(right.mean() - usual.outcomes[name].mean()) <= (0 if dtype == torch.float64 else 0.1), name


@pytest.mark.parametrize("size", [(12, 12), (14, 14), (32, 48), pytest.param((13, 13), marks=pytest.mark.slow)])
def test_sizes_that_the_square_attack_cannot_tile_are_refused_before_any_attack(size):
    """12, 14, 18, 19 and 24 pixels: the package's tiles overhang, and after three attacks it ended with a traceback."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 3)), torch.rand(4, 1, *size)
    y = net(x).argmax(dim=1)
    if size == (13, 13):
        assert evaluate(net, x, y, norm="l2", eps=1e-6, autoattack_images=4).outcomes["autoattack"].all()
        return
    with pytest.raises(UserError, match=f"Square attack cannot tile images of {size[1]}x{size[0]} pixels"):
        evaluate(net, x, y, norm="l2", eps=1e-6, autoattack_images=4)


def test_images_that_do_not_fit_in_memory_are_said_to_be_too_many(linear):
    class Full(nn.Module):
        def forward(self, _x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="100 images at once do not fit in memory; use a smaller batch_size"):
        evaluate(Full(), linear[1], linear[2], batch_size=100)


def test_memory_that_ends_during_an_attack_is_one_line(checkpoint, tmp_path, monkeypatch, capsys):
    def full(*_arguments, **_named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(command, "judged", full)
    assert main([str(checkpoint), "--dataset", "digits", "--test", "20", "--out", str(tmp_path / "out")]) == 1
    assert "--batch-size 250: does not fit in memory; use less" in capsys.readouterr().err


def test_another_device_begins_anew(checkpoint, tmp_path, monkeypatch, capsys):
    arguments = [str(checkpoint), "--dataset", "digits", "--test", "20", "--attacks", "pgd", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert "unchanged:" in capsys.readouterr().out
    original = command._made_by
    monkeypatch.setattr(command, "_made_by", lambda network, device: {**original(network, device), "device": "NVIDIA H100"})
    assert main(arguments) == 0
    assert "unchanged:" not in capsys.readouterr().out


def test_numpys_numbers_and_what_is_no_module(linear):
    classifier, x, y = linear
    plain = evaluate(classifier, x[:20], y[:20], eps=0.125, attacks=("pgd",), batch_size=10, seed=3)
    of_numpy = evaluate(
        classifier, x[:20], y[:20], eps=np.float32(0.125), attacks=("pgd",), batch_size=np.int64(10), seed=np.int64(3)
    )
    assert plain.rows == of_numpy.rows
    with pytest.raises(UserError, match=r"module=function: give an nn\.Module"):
        evaluate(lambda images: images, x[:20], y[:20])
    with pytest.raises(UserError, match="seed=None"):
        evaluate(classifier, x[:20], y[:20], seed=None)
