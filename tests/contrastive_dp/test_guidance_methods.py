"""Guidance by a learner, by repulsion, by a weaker model and by a blurred label: values by plain loops, gradients by finite differences."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from contrastive_dp import (
    BoundaryGuidance,
    ClassAnchored,
    ClassifierGuidance,
    ContrastiveGuidance,
    FeedbackGuidance,
    HardNegativeMining,
    InfoNCE,
    NoiseSchedule,
    ParticleGuidance,
    SampleNoise,
    SupervisedContrastive,
    autoguidance,
    boundary_distances,
    cads,
    classifier_free,
    ddim_sample,
    in_pieces,
)
from contrastive_dp.guidance import particle
from contrastive_dp.guidance.particle import lean_squared_distances, squared_distances
from tests.contrastive_dp.conftest import small_unet
from theory import ddim_law

N, K, T = 7, 3, 300
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_particle_guidance_in_half_precision_is_that_of_float32(kind):
    x, eps = (draw(seed, N, 2, 3).to(kind) for seed in (1, 2))
    schedule = NoiseSchedule.linear()
    pushed = [
        ParticleGuidance(scale=0.3, relative=True).start(schedule, LABELS)(x.to(of), T, eps.to(of)).float()
        for of in (kind, torch.float32)
    ]
    assert torch.allclose(pushed[0], pushed[1], atol=0.02)
    assert (pushed[1] - eps.float()).norm(dim=(1, 2)).min() > 0.1


def network(seed, classes=K):
    """A smooth classifier of (n, 2, 3) samples, in double precision."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, classes)).double()


def hardness(what, logits, labels):
    log_p = log_softmax(logits, axis=1)
    if what == "loss":
        return np.array([-row[y] for row, y in zip(log_p, labels, strict=True)])
    if what == "entropy":
        return np.array([-sum(math.exp(v) * v for v in row) for row in log_p])
    return np.array([max(v for k, v in enumerate(row) if k != y) - row[y] for row, y in zip(logits, labels, strict=True)])


def by_differences(of, x, step=1e-6):
    """Gradient of a function of x, entry by entry."""
    found = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        up, down = x.clone(), x.clone()
        up[index] += step
        down[index] -= step
        found[index] = (of(up) - of(down)) / (2 * step)
    return found


def pushed(guidance, x, eps, labels=LABELS):
    return guidance.start(NoiseSchedule.cosine(1000), labels)(x, T, eps) - eps


def seen_of(x, eps, at, a):
    return x if at == "xt" else (x - math.sqrt(1 - a) * eps) / math.sqrt(a)


@pytest.fixture(scope="module")
def a():
    return NoiseSchedule.cosine(1000)[T]


@pytest.fixture(scope="module")
def batch():
    return draw(1, N, 2, 3), draw(2, N, 2, 3)


@pytest.mark.parametrize("at", ["x0", "xt"])
@pytest.mark.parametrize("what", ["loss", "entropy", "margin"])
def test_feedback_ascends_the_learners_hardness(batch, a, what, at):
    (x, eps), learner = batch, network(0)

    @torch.no_grad()
    def total(state):
        return float(hardness(what, learner(seen_of(state, eps, at, a)).numpy(), LABELS.tolist()).sum())

    push = pushed(FeedbackGuidance(learner, 0.7, what=what, at=at), x, eps)
    torch.testing.assert_close(push, -0.7 * math.sqrt(1 - a) * by_differences(total, x), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(pushed(FeedbackGuidance(learner, 0.7, what=what, at=at, reverse=True), x, eps), -push)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_judge_takes_out_what_would_cost_the_label(batch, a, reverse):
    """Against the definition, sample by sample, with gradients by finite differences; keep lies between the judge's probabilities."""
    (x, eps), learner, judge, keep = batch, network(0), network(5), 0.3
    seen = seen_of(x, eps, "x0", a)

    def gradient(of):
        return by_differences(lambda s: of(s).sum(), seen).numpy().reshape(N, -1)

    def log_p(s):
        return log_softmax(judge(s).detach().numpy(), axis=1)[np.arange(N), LABELS]

    u = gradient(lambda s: hardness("loss", learner(s).detach().numpy(), LABELS.tolist()))
    v = gradient(log_p)
    p, sign = np.exp(log_p(seen)), -1 if reverse else 1
    expected, cases = np.empty_like(u), set()
    for i in range(N):
        costs = sign * (u[i] @ v[i]) < 0 and p[i] <= keep
        cases.add((bool(sign * (u[i] @ v[i]) < 0), bool(p[i] <= keep)))
        expected[i] = u[i] - (u[i] @ v[i]) / (v[i] @ v[i]) * v[i] if costs else u[i]
    assert len(cases) >= 3  # samples of several kinds
    found = pushed(FeedbackGuidance(learner, 1.0, judge, keep=keep, reverse=reverse), x, eps).reshape(N, -1).numpy()
    np.testing.assert_allclose(found, -sign * math.sqrt(1 - a) / math.sqrt(a) * expected, rtol=1e-5, atol=1e-7)
    always = pushed(FeedbackGuidance(learner, 1.0, judge), x, eps).reshape(N, -1).numpy()
    assert ((-always * v).sum(axis=1) > -1e-6).all()  # a step down the push never costs the judge's certainty, to first order


@pytest.mark.parametrize("size", [4e-3, 3e-5])
def test_a_judge_is_heard_in_half_precision(size):
    """Confident labels have small gradients, whose products are 0 in float16: the part against the label stayed in."""

    class Judge(nn.Module):
        def forward(self, x):
            pull = (x.float() @ torch.tensor([[size], [0.0]])).to(x.dtype)
            return torch.cat([pull, -pull], dim=1) * 0.5

    class Learner(Judge):
        def forward(self, x):
            return super().forward(x) + torch.cat([x[:, 1:], -x[:, 1:]], dim=1)

    x = torch.zeros(3, 2, dtype=torch.float16)
    run = FeedbackGuidance(Learner(), 1.0, Judge(), at="xt").start(NoiseSchedule.linear(), torch.zeros(3, dtype=torch.int64))
    found = run.guidance.gradient(x, run, 5)
    assert found.dtype == torch.float16
    assert (found[:, 0].abs() < 0.02 * size).all()  # along the judge's gradient
    assert (found[:, 1].abs() > 0.4).all()


def linear(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).double()


@pytest.mark.parametrize("at", ["x0", "xt"])
def test_the_boundary_of_a_linear_learner_is_exact(batch, a, at):
    (x, eps), learner, labels, target = batch, linear(3), LABELS % 2, 0.4
    weights = (learner[1].weight[1] - learner[1].weight[0]).detach().numpy()
    bias = float((learner[1].bias[1] - learner[1].bias[0]).detach())
    norm = np.linalg.norm(weights)
    sign = 2 * labels.numpy() - 1
    distance = sign * (seen_of(x, eps, at, a).flatten(1).numpy() @ weights + bias) / norm
    assert distance.min() < 0 < distance.max()
    np.testing.assert_allclose(boundary_distances(learner, seen_of(x, eps, at, a), labels).numpy(), distance, rtol=1e-10)
    gradient = (distance - target)[:, None] * (sign[:, None] * weights / norm)
    found = pushed(BoundaryGuidance(learner, 0.6, target, at=at), x, eps, labels).reshape(N, -1).numpy()
    factor = 0.6 * math.sqrt(1 - a) / (math.sqrt(a) if at == "x0" else 1)
    np.testing.assert_allclose(found, factor * gradient, rtol=1e-10, atol=1e-12)
    # relative: at full strength as long as the noise prediction is, from `width` on, and in proportion below
    width = float(np.sort(np.abs(distance - target))[3])
    found = pushed(BoundaryGuidance(learner, 0.2, target, at=at, width=width, relative=True), x, eps, labels)
    share = found.flatten(1).norm(dim=1) / eps.flatten(1).norm(dim=1)
    np.testing.assert_allclose(share, 0.2 * np.minimum(np.abs(distance - target) / width, 1), rtol=1e-10)


def test_samples_end_at_the_distance_that_is_held():
    """Exact noise prediction of N(0, 1), a linear learner: along w the samples gather at the target, across they stay as they were."""
    schedule, learner, target = NoiseSchedule.cosine(1000), linear(3), 0.8
    weights = (learner[1].weight[1] - learner[1].weight[0]).detach().reshape(2, 3)
    bias = float((learner[1].bias[1] - learner[1].bias[0]).detach())
    x_T, labels = draw(4, 400, 2, 3), torch.arange(400) % 2

    def noise_prediction(x, t, labels):
        return x * math.sqrt(1 - schedule[int(t[0])])

    plain = ddim_sample(noise_prediction, x_T, schedule, 100, labels)
    guidance = BoundaryGuidance(learner, 2.0, target, relative=True, width=0.3)
    found = ddim_sample(noise_prediction, x_T, schedule, 100, labels, guidance=guidance)
    sign = 2 * labels - 1
    distance = [sign * ((x * weights).sum(dim=(1, 2)) + bias) / weights.norm() for x in (plain, found)]
    assert (distance[0] - target).abs().mean() > 0.8
    assert (distance[1] - target).abs().mean() < 0.1
    along = weights / weights.norm()
    across = [x - (x * along).sum(dim=(1, 2), keepdim=True) * along for x in (plain, found)]
    torch.testing.assert_close(*across, rtol=1e-9, atol=1e-9)


def test_the_boundary_of_a_network_to_first_order(batch):
    """d d_i / d x_i = grad m / ||grad m|| with the denominator held constant, against margins by numpy and finite differences."""
    (x, eps), learner = batch, network(7)

    def margin(s):
        return -hardness("margin", learner(s).detach().numpy(), LABELS.tolist())

    slope = by_differences(lambda s: margin(s).sum(), x).numpy().reshape(N, -1)
    norm = np.linalg.norm(slope, axis=1)
    expected = ((margin(x) / norm + 0.2) / norm)[:, None] * slope
    found = pushed(BoundaryGuidance(learner, 1.0, -0.2, at="xt"), x, eps).reshape(N, -1).numpy()
    np.testing.assert_allclose(found, math.sqrt(1 - NoiseSchedule.cosine(1000)[T]) * expected, rtol=1e-5, atol=1e-8)


def energy(z, labels, bandwidth):
    """By loops over pairs; (energy, the bandwidth)."""
    pairs = [(i, j) for i in range(len(z)) for j in range(i) if labels is None or labels[i] == labels[j]]
    squares = sorted(float(((z[i] - z[j]) ** 2).sum()) for i, j in pairs)
    if bandwidth is None:
        bandwidth = squares[(len(squares) - 1) // 2] / math.log(1 + 2 * len(pairs) / len(z))
    return sum(math.exp(-square / bandwidth) for square in squares), bandwidth


@pytest.mark.parametrize("bandwidth", [None, 1.7])
@pytest.mark.parametrize("same_class", [True, False])
def test_particles_repel_by_the_kernel_of_their_distance(batch, bandwidth, same_class):
    x, eps = batch
    guidance = ParticleGuidance(1.0, bandwidth=bandwidth, same_class=same_class, at="xt")
    labels = LABELS.tolist() if same_class else None
    value, used = energy(x.numpy(), labels, bandwidth)
    assert float(guidance.energy(x.flatten(1), LABELS)) == pytest.approx(value, rel=1e-12)
    expected = by_differences(lambda s: energy(s.numpy(), labels, used)[0], x)  # the bandwidth is held constant
    found = pushed(guidance, x, eps) / math.sqrt(1 - NoiseSchedule.cosine(1000)[T])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    unlabelled = guidance.start(NoiseSchedule.cosine(1000))(x, T, eps) - eps
    everyone = pushed(replace(guidance, same_class=False), x, eps)
    torch.testing.assert_close(unlabelled, everyone)


def test_particles_in_features_and_without_company(batch, a):
    (x, eps), features = batch, network(8, classes=5)
    embed = nn.Sequential(features, nn.Tanh())

    @torch.no_grad()
    def total(state):
        return energy(embed(seen_of(state, eps, "x0", a)).numpy(), LABELS.tolist(), 0.9)[0]

    found = pushed(ParticleGuidance(0.4, embed, bandwidth=0.9), x, eps)
    torch.testing.assert_close(found, 0.4 * math.sqrt(1 - a) * by_differences(total, x), rtol=1e-5, atol=1e-8)
    with pytest.warns(UserWarning, match=f"{N} of {N} samples are alone in their class"):
        alone = pushed(ParticleGuidance(1.0, relative=True), x, eps, torch.arange(N))
    assert torch.equal(alone, torch.zeros_like(alone))
    in_twos = pushed(ParticleGuidance(0.4, embed, bandwidth=0.9, batch_size=2), x, eps)
    torch.testing.assert_close(in_twos, found, rtol=1e-12, atol=1e-14)
    same = x[:1].repeat(N, 1, 1)
    assert torch.isfinite(pushed(ParticleGuidance(1.0), same, eps[:1].repeat(N, 1, 1))).all()


def test_two_particles_move_apart_on_their_line():
    x, eps = draw(3, 2, 4), torch.zeros(2, 4, dtype=torch.float64)
    found = pushed(ParticleGuidance(1.0, bandwidth=2.0, at="xt"), x, eps, torch.zeros(2, dtype=torch.int64))
    apart = x[0] - x[1]
    force = -(2 / 2.0) * apart * math.exp(-float(apart @ apart) / 2.0) * math.sqrt(1 - NoiseSchedule.cosine(1000)[T])
    torch.testing.assert_close(found, torch.stack([force, -force]))


def exact(schedule, mean, std):
    """The noise prediction of N(mean, std^2)."""

    def predict(x, t, labels=None):
        a = schedule[int(t[0])]
        return math.sqrt(1 - a) * (x - math.sqrt(a) * mean) / (a * std**2 + 1 - a)

    return predict


def test_autoguidance_on_gaussians_in_closed_form():
    """Strong N(1, .5^2), weak N(.4, .9^2): every step is linear in x, so the samples' law follows from a recursion of two numbers."""
    schedule, scale = NoiseSchedule.linear(1000), 0.6
    strong, weak = (1.0, 0.5), (0.4, 0.9)
    guided = autoguidance(exact(schedule, *strong), exact(schedule, *weak), scale)
    x_T = draw(5, 3000, 1)
    found = ddim_sample(guided, x_T, schedule, 40).numpy().ravel()
    slope, shift = 1.0, 0.0  # x = slope x_T + shift
    levels = [schedule[t] for t in schedule.timesteps(40)] + [1.0]
    for now, after in itertools.pairwise(levels):
        gain = {law: math.sqrt(1 - now) / (now * law[1] ** 2 + 1 - now) for law in (strong, weak)}
        k = gain[weak] + (1 + scale) * (gain[strong] - gain[weak])
        c = sum(w * gain[law] * math.sqrt(now) * law[0] for w, law in ((-scale, weak), (1 + scale, strong)))
        keep, noise = math.sqrt(after / now), math.sqrt(1 - after) - math.sqrt(after * (1 - now) / now)
        slope, shift = (keep + noise * k) * slope, (keep + noise * k) * shift - noise * c
    np.testing.assert_allclose(found, slope * x_T.numpy().ravel() + shift, rtol=1e-9, atol=1e-9)
    mean, std = ddim_law(1.0, 0.5, np.array(levels))
    assert abs(shift - mean) > 0.05  # and not the unguided law
    assert abs(slope - std) > 0.01
    zero = ddim_sample(autoguidance(exact(schedule, *strong), exact(schedule, *weak), 0), x_T, schedule, 40)
    torch.testing.assert_close(zero, ddim_sample(exact(schedule, *strong), x_T, schedule, 40))
    with pytest.raises(ValueError, match="scale=-1 is negative"):
        autoguidance(guided, guided, -1)


def embedded(labels, t, seed=0, first=0, **settings):
    """What a network is given in place of class embeddings."""
    embedding, taken = nn.Embedding(4, 64), []
    with torch.no_grad():
        embedding.weight.copy_(draw(6, 4, 64) * torch.tensor([[0.5], [1], [2], [3]]) + 0.3)
    plain = embedding(labels).detach()

    def predict(x, t, labels):
        taken.append(embedding(labels).detach())
        return x

    guided = cads(predict, embedding, 1000, SampleNoise(seed, first), **settings)
    guided(torch.zeros(len(labels), 2), torch.full((len(labels),), t), labels)
    assert torch.equal(embedding(labels).detach(), plain)  # the hook is gone
    return plain.double().numpy(), taken[0].double().numpy()


class Counting(nn.Module):
    """Counts rows that go forward, and that come backward."""

    def __init__(self, of):
        super().__init__()
        self.of, self.rows, self.back = of, 0, 0

    def forward(self, x, *others):
        self.rows += len(x)
        out = self.of(x, *others)
        if out.requires_grad:
            out.register_hook(lambda gradient: setattr(self, "back", self.back + len(gradient)))
        return out


@pytest.mark.parametrize(
    ("make", "costs"),
    [
        (lambda f, g: ClassifierGuidance(f, 0.1), {"f": (4, 4)}),
        (lambda f, g: BoundaryGuidance(f, 0.1), {"f": (4, 4)}),
        (lambda f, g: FeedbackGuidance(f, 0.1), {"f": (4, 4)}),
        (lambda f, g: FeedbackGuidance(f, 0.1, g), {"f": (4, 4), "g": (4, 4)}),
        (lambda f, g: ParticleGuidance(0.1), {}),
        (lambda f, g: ParticleGuidance(0.1, f), {"f": (4, 4)}),
        (lambda f, g: ContrastiveGuidance(f, SupervisedContrastive(), 0.1), {"f": (4, 4)}),
        (lambda f, g: ContrastiveGuidance(f, ClassAnchored(torch.eye(K), torch.arange(K)), 0.1), {"f": (4, 4)}),
        (lambda f, g: ContrastiveGuidance(f, InfoNCE(), 0.1), {"f": (4, 3)}),  # the first step has no step before it
        (lambda f, g: ContrastiveGuidance(f, HardNegativeMining(), 0.1), {"f": (4, 3)}),
        ("free", {"eps": (8, 0)}),
        ("auto", {"eps": (4, 0), "f": (4, 0)}),
        ("cads", {"eps": (4, 0)}),
    ],
)
def test_a_guided_step_costs_its_networks_once(make, costs):
    """Rows over four steps of N samples: what a step costs, forward and backward. The noise prediction itself goes forward once."""
    torch.manual_seed(0)
    embedding = nn.Embedding(K + 1, 6).double()
    f, g = (Counting(nn.Linear(6, K).double()) for _ in range(2))
    eps = Counting(lambda x, t, labels: 0.1 * x + 0.01 * embedding(labels))
    weak = Counting(lambda x, t, labels: 0.1 * x)
    predict, guidance = eps, None
    if make == "free":
        predict = classifier_free(eps, 0.5, K)
    elif make == "auto":
        predict = autoguidance(eps, weak, 0.5)
    elif make == "cads":
        predict = cads(eps, embedding, 1000, torch.Generator().manual_seed(0))
    else:
        guidance = make(f, g)
    ddim_sample(predict, draw(1, N, 6), NoiseSchedule.linear(), [420, 410, 400, 390], LABELS, guidance=guidance)
    expected = {"eps": (4, 0), "f": (0, 0), "g": (0, 0)} | costs
    found = {"eps": eps, "f": weak if make == "auto" else f, "g": g}
    assert {name: (one.rows / N, one.back / N) for name, one in found.items()} == expected


def test_one_timestep_for_all_is_one_for_each():
    """As loops of diffusers pass it."""
    torch.manual_seed(3)
    embedding = nn.Embedding(K + 1, 6).double()
    x, one = draw(1, N, 6), torch.tensor(T)

    def predict(x, t, labels):
        return 0.1 * x * t[:, None] / T + 0.01 * embedding(labels)

    for wrap in (
        lambda: classifier_free(predict, 0.5, K),
        lambda: cads(predict, embedding, 400, torch.Generator().manual_seed(0)),
    ):
        torch.testing.assert_close(wrap()(x, one, LABELS), wrap()(x, torch.full((N,), T), LABELS), rtol=0, atol=0)


def test_late_in_sampling_the_label_counts_in_full():
    for t in (0, 599, 600):
        plain, found = embedded(torch.arange(4), t)
        np.testing.assert_array_equal(plain, found)


def test_early_in_sampling_the_label_is_noise_of_the_same_mean_and_spread():
    plain, found = embedded(torch.arange(4).repeat(500), 950)
    np.testing.assert_allclose(found.mean(axis=1), plain.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.std(axis=1, ddof=1), plain.std(axis=1, ddof=1), rtol=1e-5)
    for k in range(4):  # what is left of the label: nothing, 500 samples x 64 entries, |z| < 4
        of = plain[k] - plain[k].mean()
        shares = (found[k::4] - found[k::4].mean(axis=1, keepdims=True)) @ of / (of @ of)
        assert abs(shares.mean()) < 4 * shares.std(ddof=1) / math.sqrt(500)


def test_in_between_it_is_a_mixture():
    """gamma = .5 at t = 750: without rescaling sqrt(.5) y + s sqrt(.5) n; mean and variance of the noise over 2,000 samples, |z| < 4."""
    labels = torch.full((2000,), 2)
    plain, found = embedded(labels, 750, scale=0.4, mix=0.0)
    rest = (found - math.sqrt(0.5) * plain) / (0.4 * math.sqrt(0.5))
    assert abs(rest.mean()) < 4 / math.sqrt(rest.size)
    assert abs(rest.var() - 1) < 4 * math.sqrt(2 / rest.size)
    _, rescaled = embedded(labels, 750, scale=0.4, mix=1.0)
    _, mixed = embedded(labels, 750, scale=0.4, mix=0.25)
    np.testing.assert_allclose(mixed, 0.25 * rescaled + 0.75 * found, atol=1e-5)


def test_the_noise_of_a_sample_does_not_depend_on_its_batch():
    _, whole = embedded(torch.tensor([3, 1, 2, 0]), 800)
    _, part = embedded(torch.tensor([2, 0]), 800, first=2)
    np.testing.assert_array_equal(whole[2:], part)
    with pytest.raises(ValueError, match="as shares of the schedule"):
        embedded(torch.tensor([1]), 0, window=(0.9, 0.6))


def test_the_noise_of_a_sample_does_not_depend_on_the_pieces_that_are_embedded():
    """Rows come in order and in pieces of any size, as of in_pieces."""
    unet, schedule = small_unet(classes=4), NoiseSchedule.cosine(50)
    model = lambda x, t, labels: unet(x, t, labels).sample  # noqa: E731
    x_T, labels = draw(7, 5, 3, 8, 8).float(), torch.tensor([0, 1, 2, 3, 0])
    whole, pieces = (
        ddim_sample(cads(of, unet.class_embedding, 50, SampleNoise(0)), x_T, schedule, 5, labels)
        for of in (model, in_pieces(model, 2))
    )
    torch.testing.assert_close(pieces, whole, rtol=1e-3, atol=1e-3)
    doubled = lambda x, t, labels: model(*(torch.cat([one, one]) for one in (x, t, labels)))[: len(x)]  # noqa: E731
    with pytest.raises(ValueError, match="called with 10 rows for 5 samples"):
        cads(doubled, unet.class_embedding, 50, SampleNoise(0))(x_T, torch.full((5,), 40), labels)


def test_a_unet_is_blurred_and_afterwards_as_before():
    unet, schedule = small_unet(classes=4), NoiseSchedule.cosine(50)
    model = lambda x, t, labels: unet(x, t, labels).sample  # noqa: E731
    x_T, labels = draw(7, 4, 3, 8, 8).float(), torch.arange(4)
    plain = ddim_sample(model, x_T, schedule, 5, labels)
    blurred = ddim_sample(cads(model, unet.class_embedding, 50, SampleNoise(0), scale=1.0), x_T, schedule, 5, labels)
    assert not torch.allclose(plain, blurred, atol=1e-4)
    assert torch.equal(plain, ddim_sample(model, x_T, schedule, 5, labels))


@pytest.mark.parametrize("negatives", ["all", "other", "same"])
def test_infonce_with_negatives_of_some_labels_by_loops(negatives):
    z, previous = (nn.functional.normalize(draw(seed, N, 5), dim=1) for seed in (11, 12))
    expected = 0.0
    for i in range(N):
        used = [j for j in range(N) if j == i or negatives == "all" or (LABELS[i] == LABELS[j]) == (negatives == "same")]
        scores = [float(z[i] @ previous[j]) / 0.2 for j in used]
        expected -= math.log(softmax(scores)[used.index(i)])
    loss = InfoNCE(0.2, negatives)
    assert float(loss(z, previous, LABELS)) == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: loss(s, previous, LABELS), z.requires_grad_())
    if negatives != "all":
        with pytest.raises(ValueError, match="labels are missing"):
            loss(z, previous)
        guidance = ContrastiveGuidance(lambda x: x.flatten(1), loss, 0.3, relative=True)
        found = ddim_sample(lambda x, t, labels: x, draw(1, N, 2, 3), NoiseSchedule.cosine(50), 5, LABELS, guidance=guidance)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: FeedbackGuidance(f, 1.0, what="los"), "did you mean 'loss'"),
        (lambda f: FeedbackGuidance(f, 1.0, keep=1.2), "it is a probability"),
        (lambda f: FeedbackGuidance(f, 1.0, keep=0.0), "keep=0 must be > 0"),
        (lambda f: FeedbackGuidance(f, -1.0), "is negative"),
        (lambda f: BoundaryGuidance(f, 1.0, math.nan), "target=nan is not finite"),
        (lambda f: BoundaryGuidance(f, 1.0, width=0), "width=0 must be > 0"),
        (lambda _f: ParticleGuidance(1.0, bandwidth=-2), "bandwidth=-2 must be > 0"),
        (lambda _f: InfoNCE(negatives="others"), "did you mean 'other'"),
    ],
)
def test_settings_that_cannot_be_name_value_and_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make(network(0))


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (FeedbackGuidance(lambda x: x, 1.0), r"learner returned \(7, 2, 3\) for 7 samples"),
        (FeedbackGuidance(network(0), 1.0, lambda x: [x]), "judge returned a list"),
        (FeedbackGuidance(network(0, 2), 1.0), r"labels reach from 0 to 2, the learner has classes 0\.\.1"),
        (BoundaryGuidance(lambda x: x.flatten(1).detach(), 1.0), "learner has no gradient at the samples"),
        (ParticleGuidance(1.0, lambda x: x), r"embed returned shape \(7, 2, 3\)"),
        (ParticleGuidance(1.0, lambda x: x.flatten(1).detach()), "embed has no gradient at the samples"),
    ],
)
def test_networks_that_do_not_fit_name_what_they_returned(batch, guidance, message):
    with pytest.raises(ValueError, match=message):
        pushed(guidance, *batch)


class Probe(nn.Module):
    """Trainable weights on frozen features, which hide that nothing reaches the samples."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3).double()

    def forward(self, x):
        return self.fc(x.detach().flatten(1))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda f: ClassifierGuidance(f, 1.0), "classifier"),
        (lambda f: FeedbackGuidance(network(0), 1.0, f), "judge"),
        (lambda f: ContrastiveGuidance(f, SupervisedContrastive(), 1.0), "embed"),
        (lambda f: ParticleGuidance(1.0, f, batch_size=3), "embed"),
    ],
)
def test_trainable_weights_alone_are_no_gradient(batch, make, name):
    with pytest.raises(ValueError, match=f"{name} has no gradient at the samples"):
        pushed(make(Probe()), *batch)


def test_labels_are_needed_where_they_are_used(batch):
    for guidance in (FeedbackGuidance(network(0), 1.0), BoundaryGuidance(network(0), 1.0)):
        with pytest.raises(ValueError, match="needs labels"):
            guidance.start(NoiseSchedule.cosine(50))
    with pytest.raises(ValueError, match="sample at least 2 together"):
        pushed(ParticleGuidance(1.0), batch[0][:1], batch[1][:1], LABELS[:1])


class Flat(nn.Module):
    """Logits that depend on the samples with positive sum alone."""

    def forward(self, x):
        total = x.flatten(1).sum(dim=1).relu()
        return torch.stack([total, -total + 0.5, 0 * total], dim=1)


def test_where_a_learner_is_flat_nothing_is_pushed(batch):
    x, eps = batch
    flat = x.flatten(1).sum(dim=1) <= 0
    assert 0 < flat.sum() < N
    for relative in (False, True):
        found = pushed(BoundaryGuidance(Flat(), 1.0, 0.3, at="xt", relative=relative), x, eps)
        assert torch.isfinite(found).all()
        assert torch.equal((found == 0).all(dim=(1, 2)), flat)
    distances = boundary_distances(Flat(), x, LABELS)
    assert torch.equal(boundary_distances(Flat(), x, LABELS, batch_size=3), distances)
    assert torch.equal(torch.isinf(distances), flat)
    assert (distances[flat & (LABELS == 1)] > 0).all()


def test_distances_of_uint8_images_are_those_in_minus_one_to_one():
    images = torch.randint(0, 256, (5, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    learner, labels = network(0).float(), torch.arange(5) % 3
    assert torch.equal(boundary_distances(learner, images, labels), boundary_distances(learner, images / 127.5 - 1, labels))
    with pytest.raises(ValueError, match=r"x has dtype torch\.int64: give floating-point samples"):
        boundary_distances(learner, images.long(), labels)
    bright = images.float()[:, None]  # (n, 1, 2, 3): what a learner for [0, 255] takes
    assert not torch.isnan(boundary_distances(lambda x: learner(x[:, 0]), bright, labels)).any()


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_loss_that_does_not_depend_on_the_embeddings_is_named(batch, batch_size):
    class Constant:
        needs_previous = False

        def __call__(self, z, previous=None, labels=None):
            return z.detach().sum()

    with pytest.raises(ValueError, match="loss has no gradient at the embeddings"):
        pushed(ContrastiveGuidance(lambda x: x.flatten(1), Constant(), 1.0, batch_size=batch_size), *batch)


def test_the_distance_is_that_to_the_most_probable_other_class():
    """Classes 1 and 2 at distances .3 and 1; 2 is the more probable of them: 1, an upper bound of the distance to the nearest."""
    learner = nn.Linear(2, 3).double()
    with torch.no_grad():
        learner.weight.copy_(torch.tensor([[0, 0], [10, 0], [0, 0.5]]))
        learner.bias.copy_(torch.tensor([3.0, 0, 2.5]))
    x = torch.zeros(1, 2, dtype=torch.float64)
    assert float(boundary_distances(learner, x, torch.tensor([0]))) == pytest.approx(1.0)
    assert float(boundary_distances(learner, x, torch.tensor([1]))) == pytest.approx(-3 / 10)
    with torch.inference_mode():
        assert float(boundary_distances(learner, torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]))) == pytest.approx(1.0)
    for labels, message in (
        (torch.tensor([7]), r"labels reach from 7 to 7, the learner has classes 0\.\.2"),
        (torch.tensor([0, 1]), r"give an integer tensor of shape \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            boundary_distances(learner, x, labels)
    with pytest.raises(ValueError, match="learner has one class: guidance needs at least two"):
        boundary_distances(nn.Linear(2, 1).double(), x, torch.tensor([0]))


@pytest.mark.parametrize("far", [10.0, 1e3, 1e4])
def test_distances_between_particles_keep_their_digits_far_from_each_other(far):
    """Classes at +-far, spread 1, single precision, against double: products of large numbers lost them."""
    z = draw(21, 12, 5) + far * torch.where(torch.arange(12) % 2 == 0, 1.0, -1.0)[:, None].double()
    labels, guidance = torch.arange(12) % 2, ParticleGuidance(1.0)
    gradients = []
    for points in (z, z.float()):
        leaf = points.clone().requires_grad_()
        (found,) = torch.autograd.grad(guidance.energy(leaf, labels), leaf)
        gradients.append(found.double())
    assert (gradients[0] - gradients[1]).abs().max() < 2e-6 * far * gradients[0].abs().max()


@pytest.mark.parametrize("far", [0.0, 1e3])
def test_a_gpus_lean_distances_have_the_same_gradient(far):
    """Against automatic differentiation; pairs of distance 1e-3 and 0, in single precision too."""
    z = draw(23, 9, 4)
    z[1], z[2] = z[0] + 1e-3, z[0]
    z = z + far * torch.where(torch.arange(9) % 2 == 0, 1.0, -1.0)[:, None].double()
    weights = torch.exp(-draw(24, 9, 9).abs())
    for points, tolerance in ((z, 1e-12), (z.float(), 1e-6)):
        leaf = points.clone().requires_grad_()
        lean = lean_squared_distances(leaf)
        assert torch.equal(lean, squared_distances(points))
        (found,) = torch.autograd.grad((lean * weights).sum(), leaf)
        (expected,) = torch.autograd.grad((squared_distances(leaf := points.double().requires_grad_()) * weights).sum(), leaf)
        assert found.dtype == points.dtype
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize(("bandwidth", "labelled"), [(None, True), (3.0, True), (None, False)])
def test_pairs_of_each_class_alone_push_as_all_pairs_do_on_a_gpu(monkeypatch, bandwidth, labelled):
    """To the bit: pairs of different classes add zeros there."""
    z, labels = draw(31, 40, 6).float(), torch.randint(-1, 4, (40,), generator=torch.Generator().manual_seed(32))
    z[5] = z[11]
    guidance, found = ParticleGuidance(1.0, bandwidth=bandwidth), []
    for host in (True, False):
        monkeypatch.setattr(particle, "_on_host", lambda _z, host=host: host)
        leaf = z.clone().requires_grad_()
        energy = guidance.energy(leaf, labels if labelled else None)
        found.append((energy.detach(), *torch.autograd.grad(energy, leaf)))
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][0], found[1][0])


@pytest.mark.parametrize("copies", [2, 6, 8])
def test_copies_are_no_obstacle(copies):
    z = draw(22, 8, 3).float()
    z[:copies] = z[0]
    x, eps = z.reshape(8, 1, 3), draw(23, 8, 1, 3).float()
    found = pushed(ParticleGuidance(1.0, at="xt"), x, eps, torch.zeros(8, dtype=torch.int64))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0], found[copies - 1])  # copies stay copies


def test_a_label_that_is_not_blurred_is_said():
    embedding = nn.Embedding(2, 4)
    noise = SampleNoise(0)
    x, t, labels = torch.zeros(2, 2), torch.full((2,), 900), torch.arange(2)
    with pytest.raises(ValueError, match="did not call `embedding`, so nothing was blurred"):
        cads(lambda x, t, labels: x, embedding, 1000, noise)(x, t, labels)
    with pytest.raises(ValueError, match="cads needs labels"):
        cads(lambda x, t, labels: x, embedding, 1000, noise)(x, t)
    for bad, message in (
        ({"mix": 2}, "mix=2 must lie in"),
        ({"window": (0.5,)}, "as shares of the schedule"),
        ({"scale": math.nan}, "scale=nan"),
    ):
        with pytest.raises(ValueError, match=message):
            cads(lambda x, t, labels: x, embedding, 1000, noise, **bad)
    with pytest.raises(ValueError, match="timesteps=0 must be a whole number >= 1"):
        cads(lambda x, t, labels: x, embedding, 0, noise)
