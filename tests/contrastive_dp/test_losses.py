"""Losses against pytorch-metric-learning, against direct transcriptions in numpy, and their gradients against finite differences."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from torch.nn import functional as F

from contrastive_dp import ClassAnchored, HardNegativeMining, InfoNCE, SupervisedContrastive


def unit(n, k, seed):
    return F.normalize(torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=1)


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 3])  # class 3 has one member: no positive


@pytest.fixture
def views():
    return unit(9, 6, 1), unit(9, 6, 2)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0, 10.0])
def test_infonce_equals_pytorch_metric_learning(views, temperature):
    z, previous = views
    each = torch.arange(len(z))
    oracle = NTXentLoss(temperature=temperature)(z, each, ref_emb=previous, ref_labels=each.clone()) * len(z)
    assert float(InfoNCE(temperature)(z, previous)) == pytest.approx(float(oracle), rel=1e-8)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_supervised_equals_pytorch_metric_learning(views, temperature):
    z, _ = views
    with_positives = int((torch.bincount(LABELS)[LABELS] > 1).sum())
    oracle = SupConLoss(temperature=temperature)(z, LABELS) * with_positives
    assert float(SupervisedContrastive(temperature)(z, labels=LABELS)) == pytest.approx(float(oracle), rel=1e-8)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_anchored_equals_pytorch_metric_learning(temperature):
    z, anchors = unit(7, 6, 3), unit(11, 6, 4)
    labels, anchor_labels = torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.arange(11) % 3
    oracle = SupConLoss(temperature=temperature)(z, labels, ref_emb=anchors, ref_labels=anchor_labels) * len(z)
    assert float(ClassAnchored(anchors, anchor_labels, temperature)(z, labels=labels)) == pytest.approx(float(oracle), rel=1e-8)


def naive_hard_negative(z, previous, temperature, tau_plus, beta):
    """Robinson et al. (2021), written out sample by sample."""
    views = np.concatenate([z, previous])
    n, total = len(z), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        s = np.array([np.exp(views[i] @ views[j] / temperature) for j in range(2 * n) if j not in (i, partner)])
        pos = np.exp(views[i] @ views[partner] / temperature)
        importance = s**beta / np.mean(s**beta)
        ng = max(((importance * s).sum() - tau_plus * len(s) * pos) / (1 - tau_plus), len(s) * np.exp(-1 / temperature))
        total -= np.log(pos / (pos + ng))
    return total


@pytest.mark.parametrize(
    ("temperature", "tau_plus", "beta"),
    [(10.0, 0.1, 1.0), (0.5, 0.1, 1.0), (0.5, 0.0, 0.0), (0.5, 0.3, 2.5), (0.2, 0.6, 0.5), (0.2, 0.9, 0.0)],
)
@pytest.mark.parametrize("near", [False, True])
def test_hard_negative_equals_its_definition(views, temperature, tau_plus, beta, near):
    z, previous = views
    if near:  # positives so close that the debiased sum turns negative and the floor takes over
        previous = F.normalize(z + 0.01 * previous, dim=1)
    loss = HardNegativeMining(temperature, tau_plus, beta)(z, previous)
    assert float(loss) == pytest.approx(naive_hard_negative(z.numpy(), previous.numpy(), temperature, tau_plus, beta), rel=1e-9)


CASES = {
    "infonce": InfoNCE(0.3),
    "hard-negative": HardNegativeMining(0.7, 0.1, 1.0),
    "hard-negative, paper": HardNegativeMining(),
    "hard-negative, floor": HardNegativeMining(0.2, 0.9, 0.0),
    "supervised": lambda z, p: SupervisedContrastive(0.3)(z, labels=LABELS),
    "anchored": lambda z, p: ClassAnchored(unit(12, 6, 8), torch.arange(12) % 4, 0.3)(z, labels=LABELS),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_finite_differences(views, name):
    z, previous = views
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(CASES[name](leaf, previous), leaf)
    step = 1e-5
    for i, j in ((0, 0), (3, 2), (5, 5), (8, 1)):
        moved = [z.clone(), z.clone()]
        moved[0][i, j] += step
        moved[1][i, j] -= step
        difference = (CASES[name](moved[0], previous) - CASES[name](moved[1], previous)) / (2 * step)
        assert float(gradient[i, j]) == pytest.approx(float(difference), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", ["infonce", "hard-negative"])
def test_previous_states_are_constant(views, name):
    z, previous = views[0], views[1].clone().requires_grad_()
    loss = CASES[name](z.clone().requires_grad_(), previous)
    assert torch.autograd.grad(loss, previous, allow_unused=True)[0] is None


@pytest.mark.parametrize(
    "loss",
    [
        InfoNCE(0.001),
        HardNegativeMining(0.001),
        SupervisedContrastive(0.001),
        ClassAnchored(unit(8, 6, 1), torch.arange(8) % 4, 0.001),
    ],
)
def test_small_temperatures_neither_overflow_nor_lose_the_gradient(views, loss):
    z = views[0].float().requires_grad_()
    value = loss(z, views[1].float(), LABELS)
    (gradient,) = torch.autograd.grad(value, z)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 1


def test_a_sample_without_positives_adds_nothing_but_repels(views):
    z = views[0].clone().requires_grad_()
    alone = SupervisedContrastive()(z[[0, 3, 8]], labels=LABELS[[0, 3, 8]])
    (gradient,) = torch.autograd.grad(alone, z)
    assert gradient[8].abs().max() > 0
    assert float(SupervisedContrastive()(views[0][[0, 1]], labels=torch.tensor([0, 1]))) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InfoNCE(0.0), "temperature=0 must be > 0"),
        (lambda: InfoNCE(float("nan")), "temperature=nan is not finite"),
        (lambda: SupervisedContrastive(-1.0), "temperature=-1"),
        (lambda: HardNegativeMining(tau_plus=1.0), "tau_plus=1 must lie"),
        (lambda: HardNegativeMining(beta=-0.5), "beta=-0.5 is negative"),
        (lambda: InfoNCE()(unit(1, 3, 0), unit(1, 3, 0)), "a batch of 1 has no negatives"),
        (lambda: HardNegativeMining()(unit(1, 3, 0), unit(1, 3, 0)), "a batch of 1 has no negatives"),
        (lambda: SupervisedContrastive()(unit(1, 3, 0), labels=torch.tensor([0])), "a batch of 1 has no negatives"),
        (lambda: InfoNCE()(unit(3, 3, 0)), "previous is missing"),
        (lambda: InfoNCE()(unit(3, 3, 0), unit(4, 3, 0)), r"previous has shape \(4, 3\)"),
        (lambda: SupervisedContrastive()(unit(3, 3, 0)), "labels are missing"),
        (lambda: SupervisedContrastive()(unit(3, 3, 0), labels=torch.tensor([0.0, 1.0, 2.0])), "dtype torch.float32"),
        (lambda: SupervisedContrastive()(unit(3, 3, 0), labels=torch.tensor([0, 1])), r"shape \(2,\)"),
        (lambda: ClassAnchored(2 * unit(3, 3, 0), torch.arange(3)), "norms 2..2"),
        (lambda: ClassAnchored(unit(3, 3, 0), torch.arange(4)), r"shape \(4,\)"),
        (lambda: ClassAnchored(torch.full((2, 3), float("nan")), torch.arange(2)), "anchors contains nan"),
        (lambda: ClassAnchored(unit(3, 3, 0), torch.arange(3))(unit(2, 4, 0), labels=torch.tensor([0, 1])), "3 features, z has 4"),
        (
            lambda: ClassAnchored(unit(3, 3, 0), torch.arange(3)).check_labels(torch.tensor([0, 5, 7])),
            r"classes \[5, 7\] have no real",
        ),
    ],
)
def test_bad_losses_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_anchors_are_copied_to_a_device_once():
    loss, z, labels = ClassAnchored(unit(11, 6, 4), torch.arange(11) % 3), unit(7, 6, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    loss(z, labels=labels)
    (first,) = loss._copies.values()
    loss(z, labels=labels)
    assert [one[0] is first[0] and one[1] is first[1] for one in loss._copies.values()] == [True]
    assert loss(z.float(), labels=labels).item() == pytest.approx(loss(z, labels=labels).item(), rel=1e-5)


def test_double_precision_is_kept(views):
    """Weights of 1/3 in float32 made the loss wrong in the eighth digit."""
    z, _ = views
    logits = (z @ z.T / 0.1).numpy()
    expected = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positive = [j for j in others if LABELS[j] == LABELS[i]]
        if positive:
            expected += np.logaddexp.reduce(logits[i, others]) - np.mean(logits[i, positive])
    assert float(SupervisedContrastive(0.1)(z, labels=LABELS)) == pytest.approx(expected, rel=1e-13)


def test_usual_temperatures_and_priors(views):
    """Those of the docstrings, in which all results with default settings were made."""
    z, previous = views
    each = torch.arange(len(z))
    infonce = NTXentLoss(temperature=0.1)(z, each, ref_emb=previous, ref_labels=each.clone()) * len(z)
    assert float(InfoNCE()(z, previous)) == pytest.approx(float(infonce), rel=1e-8)
    hard = naive_hard_negative(z.numpy(), previous.numpy(), 10.0, 0.1, 1.0)
    assert float(HardNegativeMining()(z, previous)) == pytest.approx(hard, rel=1e-9)
    anchors, anchor_labels = unit(11, 6, 4), torch.arange(11) % 4
    anchored = SupConLoss(temperature=0.1)(z, LABELS, ref_emb=anchors, ref_labels=anchor_labels) * len(z)
    assert float(ClassAnchored(anchors, anchor_labels)(z, labels=LABELS)) == pytest.approx(float(anchored), rel=1e-8)
    supervised = SupConLoss(temperature=0.1)(z, LABELS) * int((torch.bincount(LABELS)[LABELS] > 1).sum())
    assert float(SupervisedContrastive()(z, labels=LABELS)) == pytest.approx(float(supervised), rel=1e-8)
