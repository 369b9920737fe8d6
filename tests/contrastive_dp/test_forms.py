"""Networks and samplers in other forms: the same noise, the same samples, exact on Gaussians, of the order that their names promise."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from contrastive_dp import (
    BoundaryGuidance,
    ClassifierFeatures,
    ClassifierGuidance,
    ContrastiveGuidance,
    Guidance,
    InfoNCE,
    NoisePredictionOf,
    NoiseSchedule,
    OnUnitRange,
    SupervisedContrastive,
    ddim_sample,
    edm_denoiser,
    guide_states,
    heun_sample,
)
from contrastive_dp.forms import FORMS, OUTPUTS, alpha_bar_of, level_of, per_noise, scales, to_noise
from contrastive_dp.nan_watch import Watch
from theory import GaussianMixture, ddim_law

MEANS, STD = np.array([[1.0, -0.5, 0.3], [-0.8, 0.6, 0.0]]), 0.6
MIXTURE = GaussianMixture(MEANS, STD**2)
EVERY = [(form, output) for form in FORMS for output in OUTPUTS]


def said_by(output, x, eps, signal, noise):
    """A network's output that means `eps` at the state x, from the definitions."""
    x_0, size = (x - noise * eps) / signal, (signal**2 + noise**2) ** 0.5
    return {"noise": eps, "x0": x_0, "v": (signal * eps - noise * x_0) / size, "velocity": eps - x_0}[output]


def exact_network(form, output, seen=None):
    """What a perfect network of this form and output says, its time the level; by class if it gets labels."""

    def network(state, level, labels=None):
        out = []
        for i, value in enumerate(level.tolist()):
            signal, noise = (float(part) for part in scales(form, value))
            size = math.hypot(signal, noise)
            row, label = state[i : i + 1].numpy(), None if labels is None else labels[i : i + 1].numpy()
            eps = MIXTURE.noise_prediction(row / size, (signal / size) ** 2, label)
            out.append(said_by(output, row, eps, signal, noise))
        if seen is not None:
            seen.append(level)
        return torch.from_numpy(np.concatenate(out))

    return network


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Guidance):
    """A gradient of ones of the noisy state."""

    scale: float
    window: None = None
    at: str = "xt"
    relative: bool = False
    every: int = 1
    reverse: bool = False

    def gradient(self, seen, run, t):
        return torch.ones_like(seen)


@pytest.fixture(scope="module")
def schedule():
    return NoiseSchedule.linear()


@pytest.mark.parametrize("form", FORMS)
def test_levels_of_all_forms_are_one_another(form):
    for a in (1e-4, 0.3, 0.9, 0.9999):
        level = level_of(form, a)
        signal, noise = scales(form, level)
        assert alpha_bar_of(form, level) == pytest.approx(a, rel=1e-12)
        assert (signal / noise) ** 2 == pytest.approx(a / (1 - a), rel=1e-12)
    expected = {"alpha_bar": 0.36, "sigma": 4 / 3, "flow": 4 / 7}
    assert level_of(form, 0.36) == pytest.approx(expected[form], rel=1e-14)


@pytest.mark.parametrize(("form", "output"), EVERY)
def test_every_network_is_the_exact_noise_prediction(form, output, schedule):
    rng = np.random.default_rng(1)
    x, labels = torch.from_numpy(rng.standard_normal((5, 3))), torch.tensor([0, 1, 1, 0, 1])
    time = {"alpha_bar": lambda a: a}.get(form)
    ours = NoisePredictionOf(exact_network(form, output), schedule, form, output, time)
    for t in (0, 13, 500, 999):
        a, times = schedule[t], torch.full((5,), t)
        for given in (None, labels):
            found = ours(x, times) if given is None else ours(x, times, given)
            exact = MIXTURE.noise_prediction(x.numpy(), a, None if given is None else given.numpy())
            assert np.abs(found.numpy() - exact).max() < 1e-9


def test_the_networks_own_time(schedule):
    seen = []

    def network(state, time):
        seen.append(time)
        return state

    x, times = torch.ones(2, 3), torch.tensor([4, 999])
    a = schedule.alpha_bar[times]
    NoisePredictionOf(network, schedule, "alpha_bar", "noise")(x, times)
    NoisePredictionOf(network, schedule, "flow", "velocity", lambda s: 1000 * s)(x, times)
    NoisePredictionOf(network, schedule, "sigma", "x0", lambda sigma: sigma.log() / 4)(x, times)
    assert seen[0].tolist() == [4, 999]
    torch.testing.assert_close(seen[1].double(), 1000 * (1 - a).sqrt() / (a.sqrt() + (1 - a).sqrt()), rtol=1e-6, atol=0)
    torch.testing.assert_close(seen[2].double(), ((1 - a) / a).log() / 8, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_change_of_noise_is_a_change_of_output(output):
    """By a finite difference of the definitions."""
    x, eps = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    for signal, noise in ((0.8, 0.6), (1.0, 2.5), (0.3, 0.7)):
        one, other = (said_by(output, x, e, signal, noise) for e in (eps, eps + 1))
        torch.testing.assert_close(other - one, torch.full_like(x, per_noise(output, signal, noise)), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(to_noise(one, output, x, signal, noise), eps, rtol=1e-12, atol=1e-12)


def test_edms_preconditioning_is_that_of_its_paper():
    """Against table 1, term by term, with a raw network that is linear."""
    x, sigma, data = torch.randn(4, 2, 3, dtype=torch.float64), torch.tensor([0.002, 0.5, 1.0, 80.0], dtype=torch.float64), 0.7
    found = edm_denoiser(lambda state, time: 3 * state + time.reshape(-1, 1, 1), data)(x, sigma)
    for i, s in enumerate(sigma.tolist()):
        skip, out = data**2 / (s**2 + data**2), s * data / math.sqrt(s**2 + data**2)
        raw = 3 * x[i] / math.sqrt(s**2 + data**2) + math.log(s) / 4
        torch.testing.assert_close(found[i], skip * x[i] + out * raw, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [10, 50, 250])
@pytest.mark.parametrize(("form", "output"), EVERY)
def test_ddim_with_any_network_is_the_law(form, output, steps, schedule):
    """Of one class, which is Gaussian: x_0 = mean + product x_T, exactly (T8)."""
    time = (lambda a: a) if form == "alpha_bar" else None
    network = NoisePredictionOf(exact_network(form, output), schedule, form, output, time)
    x_T = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3)))
    labels = torch.tensor([0, 1])
    made = ddim_sample(network, x_T, schedule, steps, labels=labels).numpy()
    for k in (0, 1):
        mean, product = ddim_law(MEANS[k], STD, schedule.visited(steps).numpy())
        assert np.abs(made[k] - (mean + product * x_T[k].numpy())).max() < 1e-9


def fine(levels=6401, low=1e-3, high=80.0):
    """A schedule of geometric sigmas."""
    return NoiseSchedule(1 / (1 + torch.logspace(math.log10(low), math.log10(high), levels, dtype=torch.float64) ** 2))


def limit(x_T, a):
    """Where the probability flow of N(m, s^2) takes x_T of level a: m + s (x_T - sqrt(a) m) / sqrt(a s^2 + 1 - a)."""
    return MEANS[0] + STD * (x_T - math.sqrt(a) * MEANS[0]) / math.sqrt(a * STD**2 + 1 - a)


@pytest.mark.parametrize(("sample", "order"), [(ddim_sample, 1), (heun_sample, 2)])
def test_samplers_have_the_order_of_their_names(sample, order):
    """The error falls as steps^-order: over each doubling, within .15 of it."""
    schedule = fine()
    x_T = torch.from_numpy(np.random.default_rng(3).standard_normal((1, 3)))
    exact = limit(x_T.numpy(), schedule[len(schedule) - 1])
    network, labels = NoisePredictionOf(exact_network("sigma", "x0"), schedule, "sigma", "x0"), torch.tensor([0])
    steps = (50, 100, 200)
    errors = [np.abs(sample(network, x_T, schedule, n, labels=labels).numpy() - exact).max() for n in steps]
    for few, many in pairwise(errors):
        assert math.log2(few / many) == pytest.approx(order, abs=0.15)
    assert errors[-1] < (0.05 if order == 1 else 1e-3)


def test_heuns_step_is_the_published_one(schedule):
    """Two steps written out, with guidance, on a network that is not exact."""
    x_T = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def network(x, t):
        return torch.tanh(x) + t.reshape(-1, 1) / 1000

    guidance = ContrastiveGuidance(
        lambda x: x @ torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=x.dtype), SupervisedContrastive(), 0.2
    )
    labels, high, low = torch.tensor([0, 1, 0]), 900, 300
    seen = []
    made = heun_sample(
        lambda x, t, _y: network(x, t), x_T, schedule, [high, low], labels, guidance, on_step=lambda t, x: seen.append((t, x))
    )
    guide = guidance.start(schedule, labels)

    def slope(y, t):
        x = y * math.sqrt(schedule[t])
        return guide(x, t, network(x, torch.full((3,), t)))

    sigma = [math.sqrt((1 - schedule[t]) / schedule[t]) for t in (high, low)]
    y = x_T / math.sqrt(schedule[high])
    d = slope(y, high)
    ahead = y + (sigma[1] - sigma[0]) * d
    y = y + (sigma[1] - sigma[0]) * (d / 2 + slope(ahead, low) / 2)
    assert [t for t, _ in seen] == [high, low]
    torch.testing.assert_close(seen[0][1], y * math.sqrt(schedule[low]), rtol=1e-12, atol=1e-12)
    assert torch.equal(seen[-1][1], made)
    y = y - sigma[1] * slope(y, low)
    torch.testing.assert_close(made, y, rtol=1e-12, atol=1e-12)


def euler(form, output, levels, x, network, guide):
    """Somebody else's sampler: Euler's method in its own form, on the output as it comes."""
    for i, (now, after) in enumerate(pairwise(levels)):
        made = guide(x, i, network(x, torch.full((len(x),), now, dtype=x.dtype)))
        signal, noise = scales(form, now)
        eps = to_noise(made, output, x, signal, noise)
        if form == "sigma":
            x = x + (after - now) * eps
        elif (form, output) == ("flow", "velocity"):
            x = x + (after - now) * made  # as FlowMatchEulerDiscreteScheduler
        else:
            x_0 = (x - noise * eps) / signal
            signal, noise = scales(form, after)
            x = signal * x_0 + noise * eps
    return x


@pytest.mark.parametrize("loss", ["constant", "supervised", "infonce"])
@pytest.mark.parametrize(("form", "output"), EVERY)
def test_guidance_in_every_form_is_that_of_ddim(form, output, loss, schedule):
    """DDIM, Euler in sigma and Euler in flow time are one method: guided, too, they give the same samples."""
    ours = NoiseSchedule(schedule.alpha_bar[::50])
    pull = torch.tensor([[1.0, 0.2, -0.5], [0.3, -1.0, 0.4]], dtype=torch.float64).T
    kinds = {"supervised": SupervisedContrastive(), "infonce": InfoNCE()}
    guidance = ContrastiveGuidance(
        lambda x: x @ pull, kinds.get(loss, SupervisedContrastive()), 0.3, relative=loss == "infonce", window=(2, 15)
    )
    if loss == "constant":
        guidance = Constant(0.4)
    labels = torch.tensor([0, 1, 0, 1, 1])
    x_T = torch.from_numpy(np.random.default_rng(5).standard_normal((5, 3)))
    network = NoisePredictionOf(exact_network("flow", "velocity"), ours, "flow", "velocity")
    expected = ddim_sample(network, x_T, ours, len(ours), labels=labels, guidance=guidance)
    last = {"alpha_bar": 1.0}.get(form, 0.0)
    levels = [*(float(level_of(form, a)) for a in ours.levels[::-1]), last]
    signal, noise = scales(form, levels[0])
    guide = guide_states(guidance, levels[:-1], form, output, labels)
    made = euler(
        form, output, levels, x_T * math.hypot(signal, noise), lambda x, t: exact_network(form, output)(x, t, labels), guide
    )
    assert (made - expected).abs().max() < 1e-9
    if loss == "constant":
        mean, product = ddim_law(
            MEANS[0], STD, [*ours.levels[::-1], 1.0], guidance=[[0.4 * math.sqrt(1 - a)] * 3 for a in ours.levels[::-1]]
        )
        assert np.abs(made[0].numpy() - (mean + product * x_T[0].numpy())).max() < 1e-9


@pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler"])
def test_guidance_inside_diffusers_samplers(kind, schedule):
    """Flow matching and Euler as diffusers has them, with three lines more than its own loop: DDIM's samples at the same levels."""
    import diffusers

    flow = kind.startswith("Flow")
    scheduler = getattr(diffusers, kind)() if flow else getattr(diffusers, kind)(beta_schedule="linear")
    scheduler.set_timesteps(25)
    form, output = ("flow", "velocity") if flow else ("sigma", "noise")
    levels = scheduler.sigmas.tolist()
    labels, guidance = torch.tensor([0, 1, 1, 0]), ContrastiveGuidance(lambda x: x[:, :2] * 1.5, SupervisedContrastive(), 0.3)
    inside = [float(alpha_bar_of(form, level)) for level in levels[:-1] if alpha_bar_of(form, level) > 0]
    ours = NoiseSchedule(torch.tensor(inside[::-1], dtype=torch.float64))
    noise = torch.from_numpy(np.random.default_rng(6).standard_normal((4, 3))).float()
    guide = guide_states(guidance, levels[:-1], form, output, labels)
    x = noise * scheduler.init_noise_sigma if not flow else noise
    start = None
    for i, t in enumerate(scheduler.timesteps):
        if start is None and 0 < alpha_bar_of(form, levels[i]) < 1:
            start = x / math.hypot(*scales(form, levels[i]))
        level = torch.full((4,), levels[i], dtype=torch.float64)
        made = (
            exact_network(form, output)(x.double(), level, labels).float()
            if levels[i] < 1 or not flow
            else -torch.from_numpy(MEANS[labels]).float() + x
        )
        x = scheduler.step(guide(x, i, made), t, x).prev_sample
    network = NoisePredictionOf(exact_network("flow", "velocity"), ours, "flow", "velocity")
    expected = ddim_sample(network, start.double(), ours, len(ours), labels=labels, guidance=guidance)
    assert (x.double() - expected).abs().max() < 2e-4


@pytest.mark.parametrize("size", [None, 2, 3])
def test_guidance_in_latent_space_goes_through_the_decoder(size):
    """The gradient of the loss of decoded states is the decoder's transpose times that of the loss; the same in pieces of bounded size."""
    rng = torch.Generator().manual_seed(9)
    decoder, encoder = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((3, 12), (12, 4)))
    labels, a = torch.tensor([0, 1, 0, 1, 1]), 0.7
    schedule = NoiseSchedule([0.95, a])
    z, eps = (torch.randn(5, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    most = []

    def embed(latent):
        most.append(len(latent))
        return (latent @ decoder) @ encoder

    guidance = ContrastiveGuidance(embed, SupervisedContrastive(), 0.2, at="xt", batch_size=size)
    found = guidance.start(schedule, labels)(z, 1, eps)
    images = (z @ decoder).requires_grad_(True)
    loss = SupervisedContrastive()(torch.nn.functional.normalize(images @ encoder, dim=1), None, labels)
    (of_images,) = torch.autograd.grad(loss, images)
    torch.testing.assert_close(found, eps + 0.2 * math.sqrt(1 - a) * of_images @ decoder.T, rtol=1e-10, atol=1e-12)
    assert max(most) <= (size or 5)


def test_bad_forms_are_named(schedule):
    guidance = Constant(0.1)
    for call, message in (
        (lambda: NoisePredictionOf(lambda x, t: x, schedule, "karras", "noise"), "form"),
        (lambda: NoisePredictionOf(lambda x, t: x, schedule, "flow", "score"), "output"),
        (lambda: guide_states(guidance, [0.5], "flow", "score"), "output"),
        (lambda: guide_states(guidance, [1.0, 0.0], "flow", "velocity"), "none lies between"),
        (lambda: edm_denoiser(lambda x, t: x, -1), "sigma_data"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_solvers_that_visit_a_level_twice_compare_with_the_level_before(schedule):
    """Heun looks at t' from a trial state and from the corrected one; the previous state of both is the corrected one at t."""
    seen = []

    class Told(InfoNCE):
        def __call__(self, z, previous=None, labels=None):
            seen.append((z.detach().clone(), previous.clone()))
            return super().__call__(z, previous, labels)

    network = NoisePredictionOf(exact_network("flow", "velocity"), schedule, "flow", "velocity")
    guidance = ContrastiveGuidance(lambda x: x[:, :2] * 1.5, Told(), 0.05)
    x_T = torch.from_numpy(np.random.default_rng(7).standard_normal((4, 3)))
    heun_sample(network, x_T, schedule, [900, 700, 500, 300], guidance=guidance)
    trial_700, corrected_700, trial_500, corrected_500, trial_300, corrected_300 = seen
    for trial, corrected in ((trial_700, corrected_700), (trial_500, corrected_500), (trial_300, corrected_300)):
        assert torch.equal(trial[1], corrected[1])
        assert not torch.equal(trial[0], corrected[0])
    assert torch.equal(trial_500[1], corrected_700[0])
    assert torch.equal(trial_300[1], corrected_500[0])


def test_pure_noise_is_forgotten():
    """The state before is none to compare with if it was pure noise, nor is one before that."""
    schedule = NoiseSchedule.cosine()
    x, y, e = (torch.from_numpy(np.random.default_rng(i).standard_normal((4, 3))) for i in range(3))
    guidance = ContrastiveGuidance(lambda x: x, InfoNCE(), 0.3)
    guide = guidance.start(schedule)
    assert torch.equal(guide(x, 999, e), e)
    assert torch.equal(guide(y, 950, e), e)  # nothing yet
    assert not torch.equal(guide(x, 900, e), e)
    again = guidance.start(schedule)
    again(y, 950, e)
    again(x, 999, e)
    assert torch.equal(again(x, 900, e), e)


def test_nearly_pure_noise_is_not_guided(schedule):
    """diffusers' UniPC begins a flow at 1 - 1e-6, where a push on the noise moves x_0 a million times as far."""
    import diffusers

    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
    scheduler.set_timesteps(12)
    levels = scheduler.sigmas[:-1].tolist()
    assert 1 - 1e-5 < levels[0] < 1
    labels = torch.tensor([0, 1, 1, 0])
    guidance = ContrastiveGuidance(lambda x: x[:, :2] * 1.5, SupervisedContrastive(), 0.1, relative=True)
    guide = guide_states(guidance, levels, "flow", "velocity", labels)
    x = torch.from_numpy(np.random.default_rng(8).standard_normal((4, 3)))
    first = exact_network("flow", "velocity")(x, torch.full((4,), levels[0], dtype=torch.float64), labels)
    assert torch.equal(guide(x, 0, first), first)
    for i, t in enumerate(scheduler.timesteps):
        made = exact_network("flow", "velocity")(x, torch.full((4,), levels[i], dtype=torch.float64), labels)
        x = scheduler.step(guide(x, i, made), t, x).prev_sample
    assert (x - torch.from_numpy(MEANS[labels])).abs().max() < 6 * STD
    guide.watch.report()


def test_the_networks_own_time_in_half_precision(schedule):
    """A level of 0.876 times 1,000 is 876, which bfloat16 cannot write."""
    seen = []

    def network(state, time):
        seen.append(time)
        return torch.zeros_like(state)

    predict = NoisePredictionOf(network, schedule, "flow", "velocity", time=lambda s: 1000 * s)
    t = torch.full((2,), 870)
    predict(torch.randn(2, 3).bfloat16(), t)
    predict(torch.randn(2, 3).double(), t)
    assert seen[0].dtype == torch.float32
    assert (seen[0].double() - seen[1]).abs().max() < 1e-4


def test_edm_in_half_precision(schedule):
    """The raw network is of half precision itself, and sees such states; its time is exact, as in EDM's own code, whose embedding has waves
    of 16 c_noise."""
    torch.manual_seed(1)
    linear = nn.Linear(4, 3)
    linear16 = nn.Linear(4, 3).bfloat16()
    linear16.load_state_dict(linear.state_dict())
    made, times = [], []

    def raw(x, c_noise, layer):
        times.append(c_noise)
        return layer(torch.cat([x, c_noise.to(x.dtype).expand(len(x), 1)], dim=1))

    for layer, kind in ((linear, torch.float32), (linear16, torch.bfloat16)):
        denoiser = edm_denoiser(partial(raw, layer=layer))
        network = NoisePredictionOf(lambda x, s, of=denoiser: of(x, s.reshape(-1, 1)), schedule, "sigma", "x0")
        made.append(network(torch.ones(2, 3, dtype=kind), torch.full((2,), 400)))
    assert made[1].dtype == torch.bfloat16
    a = schedule[400]
    assert all(float(c_noise.flatten()[0]) == pytest.approx(math.log((1 - a) / a) / 8, abs=1e-6) for c_noise in times)
    torch.testing.assert_close(made[1].float(), made[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_states_of_another_type_than_the_encoder(kind, schedule):
    """EDM's loop goes on in double precision, a latent one in half: the encoder sees its own, and the push has the type of the state."""
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 2))
    x, eps = (torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    labels = torch.tensor([0, 1, 0, 1])
    for guidance in (
        ContrastiveGuidance(ClassifierFeatures(classifier), SupervisedContrastive(), 0.3, relative=True),
        ClassifierGuidance(OnUnitRange(classifier), 0.3, relative=True),
    ):
        expected, found = (
            guidance.start(schedule, labels)(x.to(of), 300, eps.to(of)).double() - eps.to(of).double()
            for of in (torch.float32, kind)
        )
        torch.testing.assert_close(
            found, expected, rtol=0.05 if kind == torch.bfloat16 else 1e-4, atol=0.02 if kind == torch.bfloat16 else 1e-6
        )
        assert guidance.start(schedule, labels)(x.to(kind), 300, eps.to(kind)).dtype == kind


class OnADevice:
    """Values that say they are on a GPU."""

    dtype, device = torch.float32, torch.device("cuda")

    def __init__(self, value):
        self.value = torch.tensor([value])

    def detach(self):
        return self.value


def test_a_device_is_asked_for_nan_every_ten_steps(monkeypatch):
    elsewhere = Watch()  # an encoder on another device: its flags are gathered on one
    elsewhere("state", 5, torch.zeros(2, device="meta"))
    with pytest.raises(NotImplementedError, match="meta"):  # the move is asked for; torch.stack would refuse unlike devices
        elsewhere("embedding", 5, torch.zeros(2))
    watch, reports = Watch(), []
    original = Watch.report
    monkeypatch.setattr(Watch, "report", lambda self: (reports.append(step), original(self)))
    for step in range(25):
        for t in (100 - step, 99 - step, 100 - step):  # as a solver of second order
            watch("state", t, OnADevice(1.0))
    assert reports == [9, 19]  # its first step visits two timesteps
    for step in range(601):  # noqa: B007, what stays at one timestep is checked too
        watch("state", 50, OnADevice(1.0))
    assert reports[2:] == [582]  # of 600 notes 18 were there
    watch("state", 3, OnADevice(math.nan))
    with pytest.raises(FloatingPointError, match="the state at timestep 3 is NaN"):
        watch.report()


@pytest.mark.parametrize("every", [2, 5, 10])
def test_a_push_every_k_steps_is_that_many_times_as_strong_and_compares_with_the_step_before(every, schedule):
    """Ten steps of InfoNCE, whose first has none before it: of the others every k-th is guided, k times as strongly."""
    seen = []

    class Told(InfoNCE):
        def __call__(self, z, previous=None, labels=None):
            seen.append(previous.clone())
            return super().__call__(z, previous, labels)

    guidance = ContrastiveGuidance(lambda x: x[:, :2] * 1.5, Told(), 0.05, every=every)
    guide, weights, states = guidance.start(schedule), 0, []
    rng = np.random.default_rng(9)
    for step, t in enumerate(range(900, 400, -50)):
        x, eps = (torch.from_numpy(rng.standard_normal((4, 3))) for _ in range(2))
        before = len(seen)
        moved = not torch.equal(guide(x, t, eps), eps)
        assert moved == (len(seen) > before) == (step > 0 and (step - 1) % every == 0)
        weights += every * moved
        if moved:
            expected = torch.nn.functional.normalize(states[-1][:, :2] * 1.5, dim=1)
            torch.testing.assert_close(seen[-1], expected)
        states.append((x - math.sqrt(1 - schedule[t]) * eps) / math.sqrt(schedule[t]))
    assert weights == every * len(range(1, 10, every))


def test_half_precision_at_its_limits(schedule):
    """Features of zero have no direction, and a learner that is almost flat is far from its boundary: both pushes are finite."""
    x, eps = (torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)).half() for seed in (1, 2))
    labels = torch.tensor([0, 1, 0])
    dead = ContrastiveGuidance(lambda x: x[:, :2].clamp(min=60000.0) * 0, SupervisedContrastive(), 0.1)
    assert torch.equal(dead.start(schedule, labels)(x, 300, eps), eps)
    weight = torch.tensor([[0.005, 0, 0, 0], [-0.005, 0, 0, 0]]).half()
    far = BoundaryGuidance(lambda x: x @ weight.T + torch.tensor([5.0, -5.0]).half(), 0.001, at="xt")
    found = far.start(schedule, torch.zeros(3, dtype=torch.long))(x, 300, eps)
    assert torch.isfinite(found).all()
    assert (found - eps).abs().max() > 0.1


@pytest.mark.parametrize("size", [None, 1])
def test_states_are_not_checked_as_images_in_pieces_either(size, schedule):
    """An estimate that is nowhere negative and beyond 2 looks like an image in [0, 255] and is none."""
    torch.manual_seed(0)
    embed = ClassifierFeatures(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 2)))
    x, eps = torch.rand(4, 3, 2, 2) * 3 + 0.1, torch.zeros(4, 3, 2, 2)
    guidance = ContrastiveGuidance(embed, SupervisedContrastive(), 0.1, batch_size=size)
    assert torch.isfinite(guidance.start(schedule, torch.tensor([0, 1, 0, 1]))(x, 100, eps)).all()


def test_features_of_vectors_are_those_of_the_classifier():
    """value_range=(-1, 1) passes values on unchanged, also small ones, and maps images of 8 bits."""
    linear = nn.Linear(3, 2)
    embed = ClassifierFeatures(nn.Sequential(nn.Identity(), linear), value_range=(-1.0, 1.0))
    small = torch.tensor([[1e-8, -3e-9, 0.25]])
    assert torch.equal(embed(small), small)
    assert torch.allclose(embed(torch.tensor([[0, 255, 254]], dtype=torch.uint8)), torch.tensor([[-1.0, 1.0, 254 / 127.5 - 1]]))


def test_heun_with_skipped_steps_compares_with_the_level_before(schedule):
    """Of its visits (900; 800 trial, 800; 700 trial, 700; ...) the first and every third are guided, here also a second one at a level."""
    seen = []

    class Told(InfoNCE):
        def __call__(self, z, previous=None, labels=None):
            seen.append((z.detach().clone(), previous.clone()))
            return super().__call__(z, previous, labels)

    exact, visited = NoisePredictionOf(exact_network("flow", "velocity"), schedule, "flow", "velocity"), []

    def network(x, t):
        eps, a = exact(x, t), schedule[int(t[0])]
        estimate = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        visited.append((int(t[0]), torch.nn.functional.normalize(estimate[:, :2], dim=1)))
        return eps

    guidance = ContrastiveGuidance(lambda x: x[:, :2] * 1.5, Told(), 1e-6, every=3)
    x_T = torch.from_numpy(np.random.default_rng(7).standard_normal((4, 3)))
    heun_sample(network, x_T, schedule, [900, 800, 700, 600, 500], guidance=guidance)
    assert len(seen) == 3
    for z, previous in seen:
        (level,) = [t for t, known in visited if torch.allclose(known, z, atol=1e-12)]
        (before,) = [t for t, known in visited if torch.allclose(known, previous, atol=1e-12)]
        assert before > level
