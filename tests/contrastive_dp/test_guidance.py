"""Guidance: the push against finite differences and closed forms, its independence of the batch, windows, scales, errors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch.nn import functional as F

from contrastive_dp import (
    ClassAnchored,
    ClassifierGuidance,
    ContrastiveGuidance,
    Guidance,
    HardNegativeMining,
    InfoNCE,
    NoiseSchedule,
    ParticleGuidance,
    SupervisedContrastive,
    classifier_free,
    ddim_sample,
    ddpm_sample,
    diffusers_sample,
    embed_anchors,
    heun_sample,
)
from tests.contrastive_dp.conftest import CountingEncoder
from theory import ddim_law

N = 8
LABELS = torch.arange(N) % 3


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def encoder():
    return CountingEncoder(3 * 4 * 4)


@pytest.fixture
def batch():
    """States, noise predictions, and those of the step before; image-shaped."""
    return [draw(seed, N, 3, 4, 4) for seed in (1, 2, 3, 4)]


def losses(encoder):
    anchors = embed_anchors(encoder, draw(9, 12, 3, 4, 4))
    return {
        "infonce": InfoNCE(0.2),
        "hard-negative": HardNegativeMining(0.5),
        "supervised": SupervisedContrastive(0.2),
        "anchored": ClassAnchored(anchors, torch.arange(12) % 3, 0.2),
    }


def denoised(x, eps, a):
    return (x - math.sqrt(1 - a) * eps) / math.sqrt(a)


NAMES = ("infonce", "hard-negative", "supervised", "anchored")


@pytest.mark.parametrize("at", ["x0", "xt"])
@pytest.mark.parametrize("name", NAMES)
def test_push_is_lambda_sqrt_one_minus_a_times_the_gradient(schedule, encoder, batch, name, at):
    x, eps, x_before, eps_before = batch
    loss, t, t_before, scale = losses(encoder)[name], 300, 350, 0.7
    a, b = schedule[t], schedule[t_before]

    @torch.no_grad()
    def of_state(state):
        seen = state if at == "xt" else denoised(state, eps, a)
        seen_before = x_before if at == "xt" else denoised(x_before, eps_before, b)
        return float(loss(F.normalize(encoder(seen), dim=1), F.normalize(encoder(seen_before), dim=1), LABELS))

    guide = ContrastiveGuidance(encoder, loss, scale, at=at, window=(0, 320)).start(schedule, LABELS)
    assert torch.equal(guide(x_before, t_before, eps_before), eps_before)  # outside the window: seen, not guided
    push = guide(x, t, eps) - eps
    step = 1e-5
    for index in ((0, 0, 0, 0), (3, 2, 1, 3), (7, 1, 2, 0)):
        up, down = x.clone(), x.clone()
        up[index] += step
        down[index] -= step
        gradient = (of_state(up) - of_state(down)) / (2 * step)
        assert float(push[index]) == pytest.approx(scale * math.sqrt(1 - a) * gradient, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_kept_embeddings_give_the_gradient_of_encoding_both_states_anew(schedule, encoder, batch, name):
    """Against the form of the public code: both states encoded with graph, backward through everything."""
    x, eps, x_before, eps_before = batch
    loss = losses(encoder)[name]
    guide = ContrastiveGuidance(encoder, loss, 1.0, at="x0").start(schedule, LABELS)
    guide(x_before, 350, eps_before)
    before = encoder.calls
    push = guide(x, 300, eps) - eps
    assert encoder.calls == before + 1
    leaf = denoised(x, eps, schedule[300]).requires_grad_()
    previous = encoder(denoised(x_before, eps_before, schedule[350]))
    loss(F.normalize(encoder(leaf), dim=1), F.normalize(previous, dim=1), LABELS).backward()
    a = schedule[300]
    assert torch.allclose(push, math.sqrt((1 - a) / a) * leaf.grad, rtol=1e-6)
    assert not push.requires_grad


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_encoding_in_pieces_changes_nothing(schedule, encoder, batch, name, batch_size):
    whole = ContrastiveGuidance(encoder, losses(encoder)[name], 1.0)
    results = []
    for guidance in (whole, replace(whole, batch_size=batch_size)):
        guide = guidance.start(schedule, LABELS)
        guide(batch[2], 350, batch[3])
        results.append(guide(batch[0], 300, batch[1]))
    assert torch.allclose(*results, rtol=1e-12, atol=1e-14)


def test_lambda_means_the_same_for_every_batch_size(schedule, encoder):
    """1,024 samples, or the same with the same keys in pieces: the same gradient for each sample."""
    n, loss = 1024, InfoNCE(0.2)
    x, previous = draw(1, n, 48), F.normalize(draw(2, n, 5), dim=1)
    leaf = x.clone().requires_grad_()
    (whole,) = torch.autograd.grad(loss(F.normalize(encoder(leaf), dim=1), previous), leaf)
    z = F.normalize(encoder(x), dim=1)
    for start in (0, 300, 1000):  # a few samples move, the others only stand by as negatives
        part = slice(start, start + 24)
        piece = x[part].clone().requires_grad_()
        state = z.clone()
        state[part] = F.normalize(encoder(piece), dim=1)
        (gradient,) = torch.autograd.grad(loss(state, previous), piece)
        assert torch.allclose(gradient, whole[part], rtol=1e-10, atol=1e-13)
    anchored = ClassAnchored(F.normalize(draw(5, 30, 5), dim=1), torch.arange(30) % 3, 0.2)
    labels, eps = torch.arange(n) % 3, draw(3, n, 48)
    guidance = ContrastiveGuidance(encoder, anchored, 2.0)
    whole = guidance.start(schedule, labels)(x, 300, eps)
    for part in (slice(0, 1), slice(1, 500), slice(500, n)):
        assert torch.allclose(guidance.start(schedule, labels[part])(x[part], 300, eps[part]), whole[part], rtol=1e-12)


def test_guided_trajectories_in_pieces_of_keys_that_do_not_couple(schedule, pair):
    """ClassAnchored couples samples to anchors alone: any split of the batch gives the same samples, bit for bit."""
    anchors = F.normalize(draw(5, 30, 3), dim=1)
    guidance = ContrastiveGuidance(lambda x: x, ClassAnchored(anchors, torch.arange(30) % 2), 0.3, window=(0, 700))
    x_T, labels = draw(1, 50, 3), torch.arange(50) % 2
    whole = ddim_sample(pair[0], x_T, schedule, 20, labels, guidance=guidance)
    pieces = [ddim_sample(pair[0], x_T[p], schedule, 20, labels[p], guidance=guidance) for p in (slice(0, 13), slice(13, 50))]
    assert torch.allclose(torch.cat(pieces), whole, rtol=0, atol=1e-12)


class Towards(Guidance):
    """Constant gradient: the simplest guidance of one's own."""

    def __init__(self, vector, scale, at="xt", window=None, every=1, reverse=False, relative=False):
        self.vector, self.scale, self.at, self.window = vector, scale, at, window
        self.every, self.reverse, self.relative = every, reverse, relative
        self._check()

    def gradient(self, seen, run, t):
        return self.vector.expand_as(seen)


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 1000])
@pytest.mark.parametrize("window", [None, (100, 600)])
def test_constant_guidance_is_the_closed_form(schedule, pair, steps, window):
    predict, means, std = pair
    vector, scale = torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64), 0.04
    x_T, labels = draw(1, 20, 3), torch.ones(20, dtype=torch.int64)
    x = ddim_sample(predict, x_T, schedule, steps, labels, guidance=Towards(vector, scale, window=window))
    visited = schedule.timesteps(steps)
    low, high = window or (0, 1000)
    pushes = np.array([scale * math.sqrt(1 - schedule[t]) * vector.numpy() * (low <= t < high) for t in visited])
    mean, spread = ddim_law(means[1].numpy(), std, schedule.visited(steps).numpy(), pushes)
    assert np.abs(x.numpy() - (mean + spread * x_T.numpy())).max() < 1e-9


def test_scheduled_scale_every_reverse_and_relative(schedule):
    vector, eps, x = torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 2)
    scales = torch.linspace(0, 1, 1000).tolist()
    guide = Towards(vector, scales).start(schedule)
    for t in (999, 500, 10, 0):
        assert torch.allclose(guide(x, t, eps), eps + scales[t] * math.sqrt(1 - schedule[t]) * vector, rtol=1e-6)
    assert torch.equal(
        Towards(vector, torch.tensor(scales)).start(schedule)(x, 500, eps), Towards(vector, scales).start(schedule)(x, 500, eps)
    )
    plain, back = (Towards(vector, 0.5, reverse=r).start(schedule)(x, 700, eps) - eps for r in (False, True))
    assert torch.allclose(plain, -back)
    relative = Towards(vector, 0.5, relative=True).start(schedule)(x, 700, eps) - eps
    assert torch.allclose(relative, 0.5 * torch.tensor([[1.0], [2.0]]) * vector / 5)
    assert torch.equal(Towards(0 * vector, 0.5, relative=True).start(schedule)(x, 700, eps), eps)
    guide = Towards(vector, 0.5, every=3).start(schedule)
    pushed = [(guide(x, t, eps) - eps).norm() > 0 for t in (900, 800, 700, 600, 500, 400, 300)]
    assert pushed == [True, False, False, True, False, False, True]
    assert torch.allclose(Towards(vector, 0.5, every=3).start(schedule)(x, 700, eps) - eps, 3 * plain)


def test_guidance_at_x0_divides_by_sqrt_a(schedule):
    vector, eps, x = torch.tensor([3.0, 4.0]), torch.ones(2, 2), torch.zeros(2, 2)
    at_x0, at_xt = (Towards(vector, 0.5, at=at).start(schedule)(x, 700, eps) - eps for at in ("x0", "xt"))
    assert torch.allclose(at_x0, at_xt / math.sqrt(schedule[700]))


def test_a_loss_of_previous_states_starts_at_the_second_step(schedule, encoder, batch):
    guide = ContrastiveGuidance(encoder, InfoNCE(), 1.0).start(schedule)
    assert torch.equal(guide(batch[2], 350, batch[3]), batch[3])
    assert not torch.equal(guide(batch[0], 300, batch[1]), batch[1])
    assert not torch.equal(
        ContrastiveGuidance(encoder, SupervisedContrastive(), 1.0).start(schedule, LABELS)(batch[0], 300, batch[1]), batch[1]
    )


@pytest.mark.parametrize("at", ["x0", "xt"])
def test_classifier_guidance_is_the_gradient_of_the_log_likelihood(schedule, at):
    weight, bias = draw(1, 4, 3), draw(2, 3)
    x, eps, labels, a = draw(3, N, 4), draw(4, N, 4), LABELS, schedule[400]
    push = ClassifierGuidance(lambda v: v @ weight + bias, 0.3, at=at).start(schedule, labels)(x, 400, eps) - eps
    seen = x if at == "xt" else denoised(x, eps, a)
    probability = torch.softmax(seen @ weight + bias, dim=1)
    gradient = (probability - F.one_hot(labels, 3)) @ weight.T  # of -log softmax
    assert torch.allclose(push, 0.3 * math.sqrt(1 - a) * gradient / (1 if at == "xt" else math.sqrt(a)), rtol=1e-10)


def test_classifier_free_guidance():
    def predict(x, t, labels=None):
        return x * (1.0 if labels is None else labels[:, None].to(x.dtype))

    x, t, labels = draw(1, 3, 2), torch.zeros(3, dtype=torch.int64), torch.tensor([2, 3, 4])
    guided = classifier_free(predict, 0.5)(x, t, labels)
    assert torch.allclose(guided, x + 1.5 * (x * labels[:, None] - x))
    assert torch.allclose(classifier_free(predict, 0.0)(x, t, labels), predict(x, t, labels))
    with_null = classifier_free(predict, 0.5, null_label=1)(x, t, labels)
    assert torch.allclose(with_null, guided)
    with pytest.raises(ValueError, match="needs labels"):
        classifier_free(predict, 0.5)(x, t)
    with pytest.raises(ValueError, match="scale=-1 is negative"):
        classifier_free(predict, -1.0)


def test_guidance_works_inside_inference_mode(schedule, pair, encoder):
    encoder = CountingEncoder(3)
    guidance = ContrastiveGuidance(encoder, InfoNCE(), 0.5, window=(0, 800))
    x_T, labels = draw(1, 6, 3), torch.arange(6) % 2
    plain = ddim_sample(pair[0], x_T, schedule, 8, labels, guidance=guidance)
    with torch.inference_mode():
        assert torch.equal(ddim_sample(pair[0], x_T, schedule, 8, labels, guidance=guidance), plain)
    assert encoder.weight.grad is None


def test_one_description_serves_several_runs_at_once(schedule, encoder, batch):
    guidance = ContrastiveGuidance(encoder, InfoNCE(), 1.0)
    alone = guidance.start(schedule)
    alone(batch[2], 350, batch[3])
    expected = alone(batch[0], 300, batch[1])
    one, other = guidance.start(schedule), guidance.start(schedule)
    one(batch[2], 350, batch[3])
    other(batch[1], 350, batch[0])
    assert torch.equal(one(batch[0], 300, batch[1]), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": -0.1}, "scale=-0.1 is negative: it must be >= 0; to ascend the loss use reverse=True"),
        ({"scale": math.nan}, "scale=nan is not finite"),
        ({"scale": [0.1, -1.0]}, r"scale\[1\]=-1 is negative"),
        ({"scale": [0.1, 0.2]}, "scale has 2 values, the schedule 1000 timesteps"),
        ({"window": (500, 400)}, r"window=\(500, 400\)"),
        ({"window": (-1, 400)}, r"window=\(-1, 400\)"),
        ({"window": (0, 1001)}, "lies outside the schedule's 1000 timesteps"),
        ({"at": "x_0"}, "at='x_0' is unknown.*did you mean 'x0'"),
        ({"every": 0}, "every=0 must be a whole number >= 1"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_guidance_is_named(schedule, encoder, change, message):
    with pytest.raises(ValueError, match=message):
        replace(ContrastiveGuidance(encoder, InfoNCE(), 1.0), **change).start(schedule)


def test_bad_batches_are_named(schedule, batch):
    x, eps = batch[0], batch[1]
    with pytest.raises(
        ValueError, match=r"embed returned shape \(8, 3, 4, 4\) for 8 samples: it must return a tensor of shape \(8, k\)"
    ):
        ContrastiveGuidance(lambda v: v, SupervisedContrastive(), 1.0).start(schedule, LABELS)(x, 300, eps)
    with pytest.raises(ValueError, match="embed returned tuple"):
        ContrastiveGuidance(lambda v: (v, v), SupervisedContrastive(), 1.0).start(schedule, LABELS)(x, 300, eps)
    with pytest.raises(ValueError, match="ClassifierGuidance needs labels"):
        ClassifierGuidance(lambda v: v.flatten(1), 1.0).start(schedule)
    with pytest.raises(ValueError, match=r"classifier returned \(8, 3, 4, 4\)"):
        ClassifierGuidance(lambda v: v, 1.0).start(schedule, LABELS)(x, 300, eps)
    guide = ContrastiveGuidance(lambda v: v.flatten(1), InfoNCE(), 1.0).start(schedule)
    guide(x[:1], 300, eps[:1])
    with pytest.raises(ValueError, match="a batch of 1 has no negatives"):  # in a loop of one's own, without labels to count
        guide(x[:1], 200, eps[:1])
    with pytest.raises(FloatingPointError, match="the embedding at timestep 300 is NaN"):
        ContrastiveGuidance(lambda v: v.flatten(1) * math.nan, SupervisedContrastive(), 1.0).start(schedule, LABELS)(x, 300, eps)
    anchors = ClassAnchored(F.normalize(draw(5, 4, 48), dim=1), torch.arange(4) % 2)
    with pytest.raises(ValueError, match=r"classes \[2\] have no real anchors"):
        ContrastiveGuidance(lambda v: v.flatten(1), anchors, 1.0).start(schedule, LABELS)


def anchored():
    return ClassAnchored(F.normalize(draw(5, 4, 6), dim=1), torch.arange(4) % 2)


@pytest.mark.parametrize(
    "loss", [SupervisedContrastive(), InfoNCE(negatives="other"), InfoNCE(negatives="same"), anchored()], ids=repr
)
def test_missing_labels_are_refused_before_the_first_step(schedule, loss):
    """Not at the window's edge, after hundreds of evaluations of the network."""
    calls = []
    guidance = ContrastiveGuidance(lambda v: v, loss, 1.0, window=(0, 10))
    with pytest.raises(ValueError, match="needs labels: pass labels"):
        ddim_sample(lambda x, t: calls.append(t) or x, draw(1, 6, 6), schedule, 50, guidance=guidance)
    assert not calls


@pytest.mark.parametrize(
    ("guidance", "labels"),
    [
        (ContrastiveGuidance(lambda v: v, InfoNCE(), 1.0, window=(0, 10)), None),
        (ContrastiveGuidance(lambda v: v, HardNegativeMining(), 1.0, window=(0, 10)), None),
        (ContrastiveGuidance(lambda v: v, SupervisedContrastive(), 1.0, window=(0, 10)), torch.tensor([0])),
        (ParticleGuidance(1.0, window=(0, 10)), None),
    ],
)
def test_a_single_sample_is_refused_before_the_first_step(schedule, guidance, labels):
    calls = []
    with pytest.raises(ValueError, match=r"1 sample cannot be guided.*sample at least 2 together"):
        ddim_sample(lambda x, t, y=None: calls.append(t) or x, draw(1, 1, 6), schedule, 50, labels, guidance=guidance)
    assert not calls
    one = ContrastiveGuidance(lambda v: v, anchored(), 1.0)  # compares with anchors alone
    assert ddim_sample(lambda x, t, y=None: x, draw(1, 1, 6), schedule, 5, torch.tensor([0]), guidance=one).shape == (1, 6)


@pytest.mark.parametrize(
    ("loss", "idle", "busy"),
    [
        (InfoNCE(negatives="other"), [1, 1, 1], [1, 1, 2]),
        (InfoNCE(negatives="same"), [0, 1, 2], [0, 1, 1]),
        (SupervisedContrastive(), [0, 1, 2], [0, 1, 1]),
    ],
)
def test_a_loss_that_does_nothing_to_a_batch_warns(schedule, loss, idle, busy):
    guidance = ContrastiveGuidance(lambda v: v, loss, 1.0)
    with pytest.warns(UserWarning, match=f"so {type(loss).__name__}.* does nothing"):
        guide = guidance.start(schedule, torch.tensor(idle))
    x, eps = draw(1, 3, 6), draw(2, 3, 6)
    guide(x, 300, eps)
    assert torch.equal(guide(x + 0.1, 200, eps), eps)
    guide = guidance.start(schedule, torch.tensor(busy))  # without a warning
    guide(x, 300, eps)
    assert not torch.equal(guide(x + 0.1, 200, eps), eps)


def test_windows_fit_the_schedule_they_are_used_with(encoder):
    guidance = ContrastiveGuidance(encoder, InfoNCE(), 1.0, window=(0, 200))
    guidance.start(NoiseSchedule.cosine(200))
    with pytest.raises(ValueError, match="outside the schedule's 100 timesteps"):
        guidance.start(NoiseSchedule.cosine(100))


def test_the_previous_embedding_is_that_of_the_step_before(schedule, encoder, batch):
    """Three guided steps in a row: each push equals a fresh run's from the step before, whole and in pieces."""
    states = [(batch[0], 400, batch[1]), (batch[2], 350, batch[3]), (batch[1], 300, batch[0]), (batch[3], 250, batch[2])]
    for batch_size in (None, 3):
        guidance = ContrastiveGuidance(encoder, InfoNCE(0.2), 1.0, batch_size=batch_size)
        guide = guidance.start(schedule)
        pushed = [guide(*state) for state in states]
        for i in (1, 2, 3):
            fresh = guidance.start(schedule)
            fresh(*states[i - 1])
            assert torch.allclose(fresh(*states[i]), pushed[i], rtol=1e-10)


def test_scale_zero_is_outside_the_window(schedule, encoder, batch):
    scales = [1.0] * 320 + [0.0] * 680
    zero = ContrastiveGuidance(encoder, InfoNCE(), scales).start(schedule)
    window = ContrastiveGuidance(encoder, InfoNCE(), 1.0, window=(0, 320)).start(schedule)
    for guide in (zero, window):
        guide(batch[2], 350, batch[3])
    assert torch.equal(zero(batch[0], 300, batch[1]), window(batch[0], 300, batch[1]))


def test_a_callers_own_tensors_are_neither_kept_nor_changed(schedule, encoder, batch):
    x_before = batch[2].clone()
    guide = ContrastiveGuidance(encoder, InfoNCE(), 1.0, at="xt", window=(0, 320)).start(schedule)
    guide(x_before, 350, batch[3])
    x_before.mul_(0)  # a loop that updates its state in place
    expected = ContrastiveGuidance(encoder, InfoNCE(), 1.0, at="xt", window=(0, 320)).start(schedule)
    expected(batch[2], 350, batch[3])
    assert torch.equal(guide(batch[0], 300, batch[1]), expected(batch[0], 300, batch[1]))
    x = batch[0].clone()
    ContrastiveGuidance(lambda v: v.mul_(2).flatten(1), InfoNCE(), 1.0, at="xt").start(schedule)(x, 350, batch[1])
    assert torch.equal(x, batch[0])


def test_classifier_free_evaluates_each_sample_at_its_own_time():
    def predict(x, t, labels=None):
        return x * t[:, None].to(x.dtype) * (1.0 if labels is None else labels[:, None].to(x.dtype))

    x, t, labels = draw(1, 4, 2), torch.tensor([1, 5, 9, 13]), torch.tensor([2, 3, 4, 5])
    assert torch.allclose(classifier_free(predict, 0.5, null_label=1)(x, t, labels), classifier_free(predict, 0.5)(x, t, labels))


def test_more_bad_batches_are_named(schedule, batch):
    x, eps = batch[0], batch[1]
    flat = ClassifierGuidance(lambda v: v.flatten(1)[:, :2], 1.0)
    with pytest.raises(ValueError, match=r"labels reach from 0 to 2, the classifier has classes 0\.\.1"):
        flat.start(schedule, LABELS)(x, 300, eps)
    with pytest.raises(ValueError, match="embed has no gradient at the samples"):
        ContrastiveGuidance(lambda v: v.flatten(1).detach(), SupervisedContrastive(), 1.0).start(schedule, LABELS)(x, 300, eps)
    with pytest.raises(ValueError, match="labels is list"):
        ContrastiveGuidance(lambda v: v.flatten(1), SupervisedContrastive(), 1.0).start(schedule, [0, 1])
    for window in ((0, 0.7), 5):
        with pytest.raises(ValueError, match="give whole timesteps"):
            ContrastiveGuidance(lambda v: v.flatten(1), InfoNCE(), 1.0, window=window)
    with pytest.raises(FloatingPointError, match="the state at timestep 300 is NaN"):
        ContrastiveGuidance(lambda v: v.flatten(1), SupervisedContrastive(), 1.0).start(schedule, LABELS)(x * math.nan, 300, eps)
    with pytest.raises(FloatingPointError, match="the guidance gradient at timestep 300 is NaN"):
        Towards(torch.full((4,), math.nan, dtype=torch.float64), 1.0).start(schedule)(x, 300, eps)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_relative_push_in_half_precision_is_that_of_float32(schedule, kind):
    """|gradient| |eps| and |eps|^2 are above what float16 can hold (65,504), the push is not."""
    eps = torch.randn(2, 90_000, generator=torch.Generator().manual_seed(0))
    vector = 40 * torch.randn(90_000, generator=torch.Generator().manual_seed(1))
    x = torch.zeros_like(eps)
    exact, found = (
        Towards(vector.to(of), 0.3, relative=True).start(schedule)(x.to(of), 700, eps.to(of)).float()
        for of in (torch.float32, kind)
    )
    size = (exact - eps).norm(dim=1) / eps.norm(dim=1)
    assert torch.allclose(size, torch.tensor(0.3), atol=1e-4)
    assert torch.allclose((found - eps).norm(dim=1) / eps.norm(dim=1), size, atol=2e-3)


def test_ancestral_sampling_is_guided_as_its_recursion_says(schedule, pair):
    """Both draw the same noise, so the difference of a constant push follows Ho et al.'s step without it."""
    predict, _, std = pair
    h, scale, steps = torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64), 0.4, [900, 500, 100]
    x_T, labels = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 2
    shift = 0.0
    for t, after in zip(steps, [*steps[1:], -1], strict=True):
        a, b = schedule[t], schedule[after]
        beta, gain = 1 - a / b, a * std**2 + 1 - a
        shift = ((1 - beta / gain) * shift - beta / math.sqrt(1 - a) * scale * math.sqrt(1 - a)) / math.sqrt(1 - beta)
    guided, plain = (
        ddpm_sample(predict, x_T, schedule, steps, labels, guidance=guidance, generator=torch.Generator().manual_seed(0))
        for guidance in (Towards(h, scale), None)
    )
    assert torch.allclose(guided - plain, (shift * h).expand_as(guided), atol=1e-10)


def by_hand(network, x, schedule, timesteps, h, scale, bound):
    """DDIM whose estimate is clipped after the push."""
    for t, after in zip(timesteps, [*timesteps[1:], -1], strict=True):
        a, b = schedule[t], schedule[after]
        eps = network(x, torch.full((len(x),), t)) + scale * math.sqrt(1 - a) * h
        estimate = ((x - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-bound, bound)
        eps = (x - math.sqrt(a) * estimate) / math.sqrt(1 - a)
        x = math.sqrt(b) * estimate + math.sqrt(1 - b) * eps
    return x


def test_the_estimate_is_clipped_after_the_push_and_to_its_bound(schedule, pair):
    predict, _, _ = pair
    h, scale, labels = torch.tensor([0.9, -0.7, 0.2], dtype=torch.float64), 0.8, torch.zeros(20, dtype=torch.int64)
    x_T = 1.5 * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def network(x, t):
        return predict(x, t, labels)

    for timesteps in ([900, 300], [700, 500, 20]):
        found = ddim_sample(predict, x_T, schedule, timesteps, labels, guidance=Towards(h, scale), clip=0.5)
        wanted = by_hand(network, x_T, schedule, timesteps, h, scale, 0.5)
        assert torch.allclose(found, wanted, atol=1e-10)
        assert not torch.allclose(wanted, by_hand(network, x_T, schedule, timesteps, h, scale, 1.0), atol=1e-3)
    solver = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    solver.set_timesteps(4)
    visited = [int(t) for t in solver.timesteps]
    found = diffusers_sample(predict, x_T, solver, 4, labels, guidance=Towards(h, scale), clip=0.5)
    levels = NoiseSchedule(solver.alphas_cumprod.double())
    last = by_hand(network, x_T, levels, visited, h, scale, 0.5)
    assert torch.allclose(found.clamp(-0.5, 0.5), last, atol=1e-4)


def test_heun_clips_after_the_push_too(schedule, pair):
    """One step to clean data is DDIM's; of two, the first goes on from the mean of the slopes at both ends."""
    predict, _, _ = pair
    h, scale, labels = torch.tensor([0.9, -0.7, 0.2], dtype=torch.float64), 0.8, torch.zeros(20, dtype=torch.int64)
    x_T = 1.5 * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def slope(y, t):
        a = schedule[t]
        x = math.sqrt(a) * y
        eps = predict(x, torch.full((len(x),), t), labels) + scale * math.sqrt(1 - a) * h
        return (y - ((x - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-0.5, 0.5)) / sigma(t)

    def sigma(t):
        return math.sqrt(1 / schedule[t] - 1)

    y = x_T / math.sqrt(schedule[700])
    first, step = slope(y, 700), sigma(300) - sigma(700)
    y = y + step * (first + slope(y + step * first, 300)) / 2
    y = y - sigma(300) * slope(y, 300)
    found = heun_sample(predict, x_T, schedule, [700, 300], labels, guidance=Towards(h, scale), clip=0.5)
    torch.testing.assert_close(found, y, rtol=1e-10, atol=1e-10)


def test_every_counts_the_steps_within_the_window(schedule):
    guidance = Towards(torch.ones(2, dtype=torch.float64), 0.5, window=(0, 600), every=2)
    run, eps = guidance.start(schedule), torch.zeros(3, 2, dtype=torch.float64)
    pushed = [bool(run(torch.zeros_like(eps), t, eps).abs().sum()) for t in (900, 800, 700, 500, 400, 300)]
    assert pushed == [False, False, False, True, False, True]


class Unchecked(Guidance):
    """As in docs/extend.md: it checks nothing itself."""

    def __init__(self, **settings):
        usual = {"scale": 1.0, "window": None, "at": "x0", "relative": False, "every": 1, "reverse": False}
        for name, value in {**usual, **settings}.items():
            setattr(self, name, value)

    def gradient(self, seen, run, t):
        return torch.ones_like(seen)


@pytest.mark.parametrize("settings", [{"at": "X0"}, {"window": (700, 0)}, {"every": 0}, {"scale": -1.0}])
def test_settings_of_ones_own_guidance_are_checked_when_it_starts(schedule, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name}="):
        Unchecked(**settings).start(schedule)
    assert repr(Unchecked()) == "Unchecked()"


def test_numpys_numbers_are_numbers(schedule, pair):
    predict, _, _ = pair
    x_T, labels, vector = draw(1, 6, 3), torch.arange(6) % 2, torch.ones(3, dtype=torch.float64)
    plain = Towards(vector, np.linspace(0, 1, 1000).tolist(), window=(0, 700))
    of_numpy = Towards(vector, np.linspace(0, 1, 1000), window=tuple(np.array([0, 700])))
    found = [ddim_sample(predict, x_T, schedule, 10, labels, guidance=guidance) for guidance in (plain, of_numpy)]
    assert torch.equal(*found)
    guidance = ContrastiveGuidance(lambda x: x, InfoNCE(), scale=0.1, batch_size=np.int64(4))
    assert type(guidance.batch_size) is int
    ddim_sample(predict, x_T, schedule, 3, labels, guidance=guidance)
