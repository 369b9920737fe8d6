"""Attacks against what is known exactly: robust accuracy of linear classifiers, the worst perturbation, gradients of nothing else."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image_experiments.data.images import Images
from image_experiments.evaluation.evaluate import evaluate_classifier
from image_experiments.evaluation.robustness import EvaluationSettings, autoattack_robustness, disagreement, pgd_robustness
from image_experiments.models.classifiers import make_classifier
from image_experiments.training.attacks import Threat, pgd, strongest
from tests.image_experiments.conftest import SPREAD, mixture_images
from theory import BinaryMixture, LinearClassifier, robust_accuracy

P = {"linf": np.inf, "l2": 2}


@pytest.fixture
def problem():
    """A mixture in 25 dimensions, and a linear network with its weights in the mixture's coordinates."""
    rng = np.random.default_rng(5)
    factor = rng.normal(size=(25, 25)) / 5
    mixture = BinaryMixture(rng.normal(size=25) * 0.5, np.eye(25) + factor @ factor.T)
    weights, bias = mixture.mean + 0.3 * rng.normal(size=25), 0.2
    network = make_classifier("linear", 2, (1, 5, 5), [0.0], [1.0]).eval()
    with torch.no_grad():
        for k, sign in enumerate((-1, 1)):  # logits +-(w.z + b) / 2 with z = (x - 0.5) / SPREAD
            network.head.weight[k] = torch.from_numpy(sign * weights / SPREAD / 2).float()
            network.head.bias[k] = sign * (bias - weights.sum() * 0.5 / SPREAD) / 2
    return mixture, LinearClassifier(weights, bias), network


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.5)])
def test_pgd_agrees_with_theory_on_a_linear_classifier(problem, norm, eps):
    mixture, classifier, network = problem
    x, y = mixture_images(mixture, 100_000, seed=1)
    found = pgd_robustness(network, x, y, Threat(norm, eps * SPREAD), EvaluationSettings(pgd_steps=10, batch_size=20_000), seed=0)
    exact = robust_accuracy(classifier, mixture, eps, P[norm])
    assert found.accuracy == pytest.approx(exact, abs=0.005)  # 3.3 standard errors of 100,000 images
    assert found.clean_accuracy == pytest.approx(robust_accuracy(classifier, mixture), abs=0.005)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.5)])
def test_autoattack_agrees_with_the_exact_margin_image_by_image(problem, norm, eps):
    """Robust iff y (w.z + b) > eps ||w||_q; at most 0.5 % of the images may fall on the wrong side."""
    mixture, classifier, network = problem
    x, y = mixture_images(mixture, 200, seed=2)
    found = autoattack_robustness(network, x, y, Threat(norm, eps * SPREAD), EvaluationSettings(batch_size=200), seed=0)
    z = (x.flatten(1).double().numpy() - 0.5) / SPREAD
    dual = np.linalg.norm(classifier.weights, 1 if norm == "linf" else 2)
    truth = (2 * y.numpy() - 1) * (z @ classifier.weights + classifier.bias) > eps * dual
    assert (found.robust.numpy() != truth).mean() <= 0.005
    assert found.warnings == []
    assert list(found.after) == ["clean", "apgd-ce", "fab", "square"]


def test_the_gradient_parts_alone_are_the_first_two_of_four():
    """Images that withstand all parts withstand these, and after them as many are left as after these within the whole."""
    torch.manual_seed(0)
    network = make_classifier("small-cnn-8", 5, (1, 8, 8), [0.5], [0.5], 3).eval()
    x = torch.rand(16, 1, 8, 8)
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    both = (EvaluationSettings(batch_size=16, autoattack_parts=parts) for parts in ("all", "apgd"))
    whole, parts = (autoattack_robustness(network, x, y, Threat("linf", 0.1), settings, 0) for settings in both)
    assert list(parts.after) == ["clean", "apgd-ce", "apgd-t"]
    assert parts.after == {name: whole.after[name] for name in parts.after}
    assert 0 < parts.accuracy < 1
    assert not (whole.robust & ~parts.robust).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_finds_the_worst_perturbation(problem, norm):
    """For a linear classifier delta = -y eps sign(w) (l_inf) or -y eps w/||w|| (l_2), whatever the start."""
    _, classifier, network = problem
    x = torch.full((6, 1, 5, 5), 0.5) + 0.05 * torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1] * 3)
    attacked = pgd(network, x, y, Threat(norm, 0.04), 40, 0.01, torch.Generator().manual_seed(3))
    w = torch.tensor(classifier.weights).float()
    direction = w.sign() if norm == "linf" else w / w.norm()
    worst = -(2 * y[:, None] - 1) * 0.04 * direction
    torch.testing.assert_close((attacked - x).flatten(1), worst, atol=2e-4, rtol=0)


@given(st.integers(0, 10_000), st.sampled_from(["linf", "l2"]), st.floats(1e-3, 2.0))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_projection_stays_in_ball_and_image_and_is_idempotent(seed, norm, eps):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    threat = Threat(norm, eps)
    for delta in (torch.randn(x.shape, generator=generator, dtype=torch.float64) * 3, threat.random(x, generator)):
        inside = threat.project(delta, x)
        length = inside.abs().amax() if norm == "linf" else inside.flatten(1).norm(dim=1).max()
        assert length <= eps * (1 + 1e-9)
        assert (x + inside).min() >= 0
        assert (x + inside).max() <= 1
        torch.testing.assert_close(threat.project(inside, x), inside, atol=1e-12, rtol=0)


def test_kl_attack_raises_the_divergence_it_is_meant_to():
    network = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.0], [1.0], seed=1).eval()
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    attacked = pgd(
        network, x, torch.zeros(16, dtype=torch.long), Threat("linf", 0.1), 10, 0.03, torch.Generator().manual_seed(1), "kl"
    )
    random = Threat("linf", 0.1).random(x, torch.Generator().manual_seed(2))

    def divergence(other):
        p, q = network(x).softmax(dim=1), network(other).softmax(dim=1)
        return (p * (p / q).log()).sum(dim=1)

    assert (divergence(attacked) > divergence(x + random)).all()
    assert (attacked - x).abs().max() <= 0.1 + 1e-6


def test_attack_leaves_no_gradient_on_the_weights():
    network = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.0], [1.0]).eval()
    pgd(network, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), Threat("linf", 0.1), 3, 0.05, torch.Generator())
    assert all(p.grad is None for p in network.parameters())


def test_random_starts_fill_the_ball():
    x = torch.full((4000, 1, 2, 2), 0.5, dtype=torch.double)
    box = Threat("linf", 0.2).random(x, torch.Generator().manual_seed(0)).flatten()
    assert float(box.mean()) == pytest.approx(0, abs=0.005)
    assert float(box.std()) == pytest.approx(0.4 / np.sqrt(12), rel=0.02)
    lengths = Threat("l2", 0.2).random(x, torch.Generator().manual_seed(0)).flatten(1).norm(dim=1)
    assert float(lengths.mean()) == pytest.approx(0.1, rel=0.03)  # uniform radius
    assert float(lengths.max()) == pytest.approx(0.2, rel=0.01)


def test_an_image_that_is_wrong_unattacked_is_not_robust():
    network = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=3).eval()
    x = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wrong = (network(x).argmax(dim=1) + 1) % 3
    backwards = lambda images: -network(images) if images.requires_grad else network(images)  # noqa: E731 (makes the attack help)
    assert not strongest(backwards, x, wrong, Threat("linf", 0.5), 10, 1, torch.Generator().manual_seed(0)).any()


def test_standard_autoattack_has_nine_targets_and_checks_square(monkeypatch):
    made = []

    class Attack:
        def __init__(self, model, **arguments):
            made.append((self, arguments))
            self.apgd, self.fab, self.apgd_targeted = (type("Part", (), {})() for _ in range(3))

        def run_standard_evaluation(self, x, y, batch_size):
            part = made[-1][1]["attacks"][0]
            return (x + 0.01 if part == "square" else x), y

    class Fragile(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot((x.flatten(1)[:, 0] > 0.5).long(), 10).float()

    monkeypatch.setattr("pyautoattack.AutoAttack", Attack)
    x = torch.full((50, 1, 5, 5), 0.495)
    found = autoattack_robustness(Fragile(), x, torch.zeros(50).long(), Threat("linf", 0.02), EvaluationSettings(batch_size=50), 3)
    assert [arguments["attacks"] for _, arguments in made] == [["apgd-ce"], ["apgd-t"], ["fab-t"], ["square"]]
    assert all(attack.fab.n_target_classes == attack.apgd_targeted.n_target_classes == 9 for attack, _ in made)
    assert all(attack.apgd.n_restarts == attack.fab.n_restarts == 1 for attack, _ in made)
    assert (made[0][1]["norm"], made[0][1]["eps"], made[0][1]["version"]) == ("Linf", 0.02, "custom")
    assert found.after == {"clean": 1, "apgd-ce": 1, "apgd-t": 1, "fab-t": 1, "square": 0}
    assert any("Square Attack has decreased" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("norm", "step", "inside"),
    [
        ("linf", 0.0199, True),
        ("linf", 0.0203, False),
        ("l2", 0.0039, True),
        ("l2", 0.0041, False),
    ],  # 25 pixels: an l2 length of 5 steps
)
def test_an_attack_that_left_the_ball_is_not_trusted(monkeypatch, norm, step, inside):
    class Attack:
        def __init__(self, model, **arguments):
            self.apgd, self.fab, self.apgd_targeted = (type("Part", (), {})() for _ in range(3))

        def run_standard_evaluation(self, x, y, batch_size):
            return x + step, y

    def classifier(x):
        return torch.nn.functional.one_hot((x.flatten(1)[:, 0] > 0.5).long(), 10).float()

    monkeypatch.setattr("pyautoattack.AutoAttack", Attack)
    x, y = torch.full((50, 1, 5, 5), 0.4), torch.zeros(50).long()
    network = torch.nn.Module()
    network.forward = classifier
    with contextlib.nullcontext() if inside else pytest.raises(FloatingPointError, match="apgd-ce left the ball"):
        autoattack_robustness(network, x, y, Threat(norm, 0.02), EvaluationSettings(batch_size=50), 3)


def test_more_restarts_are_never_weaker():
    network = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.5], [0.3], seed=3).eval()
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(dim=1)
    one = strongest(network, x, y, Threat("linf", 0.1), 1, 1, torch.Generator().manual_seed(0))
    three = strongest(network, x, y, Threat("linf", 0.1), 1, 3, torch.Generator().manual_seed(0))
    assert not (three & ~one).any()
    assert 0 < three.sum() < 64


def test_an_evaluation_makes_as_many_restarts_as_it_is_told():
    network = make_classifier("linear", 3, (1, 8, 8), [0.5], [0.3], seed=3).eval()
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    calls = {}
    for restarts in (1, 3):
        passes = []
        handle = network.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        pgd_robustness(network, x, y, Threat("linf", 1e-3), EvaluationSettings(pgd_steps=2, pgd_restarts=restarts, batch_size=8), 0)
        handle.remove()
        calls[restarts] = len(passes)
    assert calls[3] - calls[1] == 2 * (2 + 1)  # two more attacks of two steps and a look each


def test_autoattack_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    """Ten classes: the package's standard version; stopped after every batch in turn, it ends the same and repeats none."""
    network = make_classifier("small-cnn-8", 10, (1, 8, 8), [0.5], [0.3], seed=3).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))[[0, 3]]  # one that falls and one that stands
    y = network(x).argmax(dim=1)
    threat = Threat("linf", 0.008)
    whole = autoattack_robustness(network, x, y, threat, EvaluationSettings(batch_size=1), 7)
    assert list(whole.after) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert 0 < whole.accuracy < 1
    attacked, path = [], tmp_path / "autoattack.pt"

    class Stopped(Exception):
        pass

    for _ in range(30):
        before = path.read_bytes() if path.exists() else b""

        def stop(_batch, before=before):
            if path.read_bytes() != before:  # a batch was attacked and saved
                attacked.append(_batch)
                raise Stopped

        try:
            resumed = autoattack_robustness(
                network, x, y, threat, EvaluationSettings(batch_size=1), 7, checkpoint=path, on_batch=stop
            )
            break
        except Stopped:
            continue
    assert torch.equal(resumed.robust, whole.robust)
    assert resumed.after == whole.after
    assert len(attacked) == len(set(attacked)) >= 4


def test_autoattack_passes_on_the_packages_own_warnings():
    class Probabilities(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_classifier("small-cnn-8", 10, (1, 8, 8), [0.5], [0.3], seed=3).eval()

        def forward(self, x):
            return self.inner(x).softmax(dim=1)

    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = Probabilities()(x).argmax(dim=1)
    found = autoattack_robustness(Probabilities(), x, y, Threat("linf", 0.3), EvaluationSettings(batch_size=4), 7)
    assert any("probability distribution" in text for text in found.warnings)


def test_contradiction_between_pgd_and_autoattack_is_warned_of():
    robust = torch.ones(200, dtype=torch.bool)
    fooled = robust.clone()
    fooled[:30] = False
    assert disagreement(robust, robust) is None
    assert "AutoAttack is unreliable" in disagreement(pgd=fooled, autoattack=robust)
    few = robust.clone()
    few[:3] = False
    assert disagreement(pgd=few, autoattack=robust) is None  # within noise
    assert disagreement(pgd=robust, autoattack=few) is None  # AutoAttack is the stronger
    weak = robust.clone()
    weak[:80] = False
    assert "gradients mislead" in disagreement(pgd=robust, autoattack=weak)


@pytest.mark.parametrize(("norm", "eps"), [("l1", 0.1), ("linf", float("nan")), ("l2", -1.0), ("linf", float("inf"))])
def test_bad_threats_are_refused(norm, eps):
    with pytest.raises(ValueError, match=r"norm|eps"):
        Threat(norm, eps)


def test_progress_counts_the_batches_of_all_threats(tmp_path):
    network = make_classifier("small-cnn-8", 4, (1, 8, 8), [0.5], [0.3], seed=3).eval()
    x = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = Images(x, network(x.float() / 255).argmax(dim=1))
    settings, reports = EvaluationSettings(pgd_steps=2, batch_size=3, autoattack_parts="apgd-ce", autoattack_images=6), []
    threats = [Threat("linf", 1e-6), Threat("l2", 1e-6)]  # which fool nobody
    found = evaluate_classifier(
        network, images.x.float() / 255, images.y, threats, settings, 0, scratch=tmp_path, report=lambda *now: reports.append(now)
    )
    assert reports == [(done, 10) for done in range(1, 11)]  # three of PGD and two of AutoAttack, twice
    assert [(row["attack"], row["norm"], row["images"]) for row in found.rows] == [
        ("pgd-2", "linf", 9), ("apgd-ce", "linf", 6), ("pgd-2", "l2", 9), ("apgd-ce", "l2", 6),
    ]  # fmt: skip
    assert all(row["robust_accuracy"] == row["clean_accuracy"] == 1 for row in found.rows)
