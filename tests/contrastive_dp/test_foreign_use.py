"""What users of other libraries pass: times and outputs of other kinds, half precision, compiled networks, other schedules."""

import copy
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from torch import nn
from torch.nn import functional as F

from contrastive_dp import (
    ClassifierFeatures,
    ClassifierGuidance,
    ContrastiveGuidance,
    DiffusersNoisePrediction,
    EDMNoisePrediction,
    InfoNCE,
    NoisePredictionMLP,
    NoisePredictionOf,
    NoiseSchedule,
    OnUnitRange,
    ParticleGuidance,
    SupervisedContrastive,
    TrainingSettings,
    autoguidance,
    boundary_distances,
    cads,
    classifier_free,
    ddim_sample,
    ddpm_sample,
    diffusers_sample,
    guide_states,
    heun_sample,
    in_pieces,
    schedule_of,
    train_noise_prediction,
)
from contrastive_dp._checks import per_sample
from tests.contrastive_dp.conftest import small_unet

LABELS = torch.tensor([0, 1, 0, 1])
REPEL = ParticleGuidance(0.5, bandwidth=2.0)


@pytest.mark.parametrize(
    ("form", "levels", "said"),
    [
        ("flow", FlowMatchEulerDiscreteScheduler().timesteps, "levels[0]=1000 is no level of the form 'flow'"),
        ("alpha_bar", DPMSolverMultistepScheduler().sigmas.tolist()[::-1], "is no level of the form 'alpha_bar'"),
        ("sigma", [3.0, -0.5], "levels[1]=-0.5 is no level of the form 'sigma'"),
        ("sigma", [math.inf], "levels[0]=inf is no level"),
        ("alpha_bar", [0.3, math.nan], "levels[1]=nan is no level"),
        ("flow", [0.5, -1e-9], "is no level of the form 'flow'"),
    ],
)
def test_levels_of_another_form_are_refused(form, levels, said):
    with pytest.raises(ValueError, match="levels") as error:
        guide_states(REPEL, levels, form, "noise")
    assert said in str(error.value)


@pytest.mark.parametrize("t", [0.5, 946.9, -1, 1000, torch.tensor(0.25), torch.tensor([3, 3]), "3", math.nan])
def test_a_time_that_is_no_timestep_is_refused(schedule, t):
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match="no timestep of the schedule"):
        REPEL.start(schedule)(x, t, x)


def test_a_timestep_of_any_type_is_the_same(schedule):
    x, eps = torch.randn(4, 3), torch.randn(4, 3)
    expected = REPEL.start(schedule)(x, 300, eps)
    assert not torch.equal(expected, eps)
    for t in (torch.tensor(300), torch.tensor([300]), torch.tensor(300.0), np.int64(300), 300.0):
        assert torch.equal(REPEL.start(schedule)(x, t, eps), expected)


def test_what_does_not_fit_in_a_loop_is_named(schedule):
    x, labelled = torch.randn(4, 3), ParticleGuidance(0.5).start(schedule, LABELS)
    with pytest.raises(ValueError, match=r"schedule is DDIMScheduler: it must be a NoiseSchedule; .* schedule_of"):
        REPEL.start(DDIMScheduler(), LABELS)
    with pytest.raises(ValueError, match=r"returned SimpleNamespace: it must return a tensor shaped like x \(a U-Net's .sample\)"):
        labelled(x, 300, SimpleNamespace(sample=x))
    with pytest.raises(ValueError, match=r"the noise prediction has shape \(4, 6\), x has \(4, 3\)"):
        labelled(x, 300, torch.randn(4, 6))
    with pytest.raises(ValueError, match="started with 4 labels and got 2 samples"):
        labelled(x[:2], 300, x[:2])
    with pytest.raises(ValueError, match=r"the noise prediction has shape \(4, 1\)"):
        guide_states(REPEL, [0.5], "flow", "velocity")(x, 0, x[:, :1])
    with pytest.raises(ValueError, match="0 samples to guide"):
        ClassifierGuidance(nn.Linear(3, 2), 0.1).start(schedule, LABELS[:0])
    assert boundary_distances(nn.Linear(3, 2), x[:0], LABELS[:0]).shape == (0,)


class Output(nn.Module):
    """A network that returns what a diffusers U-Net does."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x, t, labels=None):
        return self.wrap(x)


@pytest.mark.parametrize("wrap", [lambda x: SimpleNamespace(sample=x), lambda x: (x,)])
@pytest.mark.parametrize(
    "wrapper",
    [
        lambda network: network,
        lambda network: classifier_free(network, 1.5, null_label=2),
        lambda network: classifier_free(network, 1.5),
        lambda network: autoguidance(network, network, 0.5),
        lambda network: in_pieces(network, 3),
    ],
)
def test_an_output_that_is_no_tensor_is_named(schedule, wrapper, wrap):
    with pytest.raises(ValueError, match="it must return a tensor shaped like x"):
        ddim_sample(wrapper(Output(wrap)), torch.randn(4, 3), schedule, 2, LABELS)


@pytest.mark.parametrize("through", ["features", "classifier", "pixels"])
def test_gradients_of_states_in_float16_are_not_rounded_to_nothing(schedule, through):
    """Of many pixels each moves the loss by less than float16 can write; together they have a direction."""
    dim = 2**17
    generator = torch.Generator().manual_seed(3)
    linear = nn.Linear(dim, 3)
    linear.weight.data = 1e-7 * torch.randn(3, dim, generator=generator)
    linear.bias.data = torch.tensor([1.0, -0.5, 0.2])
    guidance = {
        "features": ContrastiveGuidance(
            ClassifierFeatures(nn.Sequential(linear, nn.Linear(3, 2)), value_range=(-1, 1)),
            SupervisedContrastive(),
            0.3,
            relative=True,
        ),
        "classifier": ClassifierGuidance(OnUnitRange(linear), 0.3, relative=True),
        "pixels": ParticleGuidance(0.3, relative=True, bandwidth=1e10),
    }[through]
    x, eps = (torch.randn(4, dim, generator=generator).half() for _ in range(2))
    expected, found = (
        guidance.start(schedule, LABELS)(x.to(kind), 300, eps.to(kind)).float() - eps.float()
        for kind in (torch.float32, torch.half)
    )
    assert expected.norm() > 0.005 * eps.float().norm()
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.999
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.01)
    assert guidance.start(schedule, LABELS)(x, 300, eps).dtype == torch.half


def test_distances_of_samples_in_float16_are_those_in_float32():
    """A slope of 1e-7 a pixel is less than float16 can write."""
    linear = nn.Linear(2000, 2)
    linear.weight.data, linear.bias.data = 1e-8 * torch.randn(2, 2000), torch.tensor([1e-6, 0.0])
    x = torch.randn(4, 2000).half()
    torch.testing.assert_close(boundary_distances(linear, x, LABELS), boundary_distances(linear, x.float(), LABELS))
    assert torch.isfinite(boundary_distances(linear, x, LABELS)).all()


def test_a_function_gets_half_states_as_they_are(schedule):
    """It may hide a decoder of half precision."""
    seen = []

    def embed(x):
        seen.append(x.dtype)
        return x[:, :2] * 1.5

    for network in (embed, nn.Linear(3, 2).half()):
        guidance = ContrastiveGuidance(network, SupervisedContrastive(), 0.3)
        assert guidance.start(schedule, LABELS)(torch.randn(4, 3).half(), 300, torch.randn(4, 3).half()).dtype == torch.half
    assert seen == [torch.half]


def test_one_time_for_all_is_a_time_for_each(schedule):
    """Also from another device than the states': meta stands for a GPU."""
    assert per_sample(7, torch.empty(3, 2, device="meta")).device.type == "meta"
    unet, x = small_unet(classes=3), torch.randn(4, 3, 8, 8)
    alone = DiffusersNoisePrediction(unet, schedule, "v_prediction", null_label=2)
    edm = EDMNoisePrediction(lambda y, sigma, labels: y / (1 + sigma.reshape(-1, 1, 1, 1)), schedule)
    own = NoisePredictionOf(lambda y, s: y * s.reshape(-1, 1, 1, 1), schedule, "flow", "velocity")
    for network in (
        alone,
        lambda x, t: classifier_free(alone, 0.5, null_label=2)(x, t, LABELS),
        lambda x, t: classifier_free(alone, 0.5)(x, t, LABELS),
        lambda x, t: cads(alone, unet.class_embedding, 1000, torch.Generator().manual_seed(1))(x, t, LABELS),
        in_pieces(alone, 3),
        edm,
        own,
    ):
        with torch.no_grad():
            expected = network(x, torch.full((4,), 700))
            for t in (torch.tensor(700), 700):
                assert torch.equal(network(x, t), expected)


SAMPLERS = {
    "ddim": ddim_sample,
    "ddpm": lambda *given, **more: ddpm_sample(*given, **more, generator=torch.Generator().manual_seed(0)),
    "heun": heun_sample,
}


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
def test_a_network_of_another_schedule_is_refused(schedule, sample):
    x = torch.randn(4, 3)
    for other in (NoiseSchedule.cosine(), NoiseSchedule.linear(500)):
        network = NoisePredictionOf(lambda y, s: y, other, "flow", "velocity")
        with pytest.raises(ValueError, match=r"the network was made with .* and is used with .*: give both the same"):
            sample(network, x, schedule, 3)
    rounded = NoiseSchedule(schedule.alpha_bar.float())
    assert sample(NoisePredictionOf(lambda y, s: y, rounded, "flow", "velocity"), x, schedule, 3).shape == x.shape


def test_a_network_of_another_schedule_is_refused_in_training_and_by_diffusers(schedule):
    network = NoisePredictionOf(lambda y, s: y, NoiseSchedule.cosine(), "flow", "velocity")
    with pytest.raises(ValueError, match="the network was made with"):
        diffusers_sample(network, torch.randn(4, 3), DDIMScheduler(), 5)
    trained = DiffusersNoisePrediction(small_unet(), NoiseSchedule.cosine())
    with pytest.raises(ValueError, match="the network was made with"):
        train_noise_prediction(trained, torch.randn(4, 3, 8, 8), schedule, TrainingSettings(steps=1))


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
@pytest.mark.parametrize("clip", [None, 3.0])
def test_clip_decides_and_not_the_schedulers_default(pair, kind, clip):
    """Vectors reach beyond 1: diffusers' default would cut them there."""
    predict, means, _ = pair
    predict.means = 3 * means
    scheduler = kind(timestep_spacing="leading")
    assert scheduler.config.clip_sample
    schedule = schedule_of(scheduler)
    x_T = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(50) % 2
    steps = [int(t) for t in torch.arange(0, 1000, 100).flip(0)]
    drawn = {"generator": torch.Generator().manual_seed(4)} if kind is DDPMScheduler else {}
    found = diffusers_sample(predict, x_T, scheduler, 10, labels, clip=clip, **drawn)
    assert found.abs().max() > 2
    if kind is DDIMScheduler:
        torch.testing.assert_close(found, ddim_sample(predict, x_T, schedule, steps, labels, clip=clip), rtol=1e-5, atol=1e-5)
    if clip is not None:
        assert found.abs().max() <= clip + 1e-6


@pytest.mark.parametrize("form", ["alpha_bar", "flow"])
def test_gradients_through_a_guided_loop_hold_the_push_constant(schedule, form):
    """Those of a loop that adds the pushes of an earlier one as numbers."""
    levels = [0.8, 0.5, 0.2] if form == "flow" else [schedule[t] for t in (500, 300, 100)]
    output = "velocity" if form == "flow" else "noise"
    x_T = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def walk(weight, change):
        x = x_T
        for i, (level, then) in enumerate(pairwise([*levels, 0.0 if form == "flow" else 1.0])):
            made = torch.tanh(x * weight)
            made = change(x, i, made)
            if form == "flow":
                x = x + (then - level) * made
            else:
                x_0 = (x - math.sqrt(1 - level) * made) / math.sqrt(level)
                x = math.sqrt(then) * x_0 + math.sqrt(1 - then) * made
        return x

    pushes, weight = [], torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    guide = guide_states(ParticleGuidance(2.0, bandwidth=2.0), levels, form, output)

    def guided(x, i, made):
        out = guide(x, i, made)
        pushes.append((out - made).detach())
        return out

    end = walk(weight, guided)
    (found,) = torch.autograd.grad(end.square().sum(), weight)
    assert max(float(push.abs().max()) for push in pushes) > 0.01
    again = walk(weight, lambda x, i, made: made + pushes[i])
    torch.testing.assert_close(end, again)
    torch.testing.assert_close(found, torch.autograd.grad(again.square().sum(), weight)[0])


class Masked(nn.Module):
    """A network with a mask of infinities, as of attention."""

    def __init__(self, masked):
        super().__init__()
        torch.manual_seed(2)
        self.network = NoisePredictionMLP(3, width=8)
        if masked:
            self.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))

    def forward(self, x, t):
        return self.network(x, t)


def test_the_average_of_a_network_with_a_mask_of_infinities_is_that_without(schedule, tmp_path):
    data, settings = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), TrainingSettings(steps=6, batch_size=4)
    plain, masked = (train_noise_prediction(Masked(of), data, schedule, settings) for of in (False, True))
    for ours, theirs in zip(masked.parameters(), plain.parameters(), strict=True):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, theirs)
    assert torch.equal(masked.mask, torch.full((3, 3), -math.inf).triu(1))


class Reusing(nn.Module):
    """A network that returns the same memory in every call, as one that is compiled with CUDA graphs."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift, self.memory = shift, {}

    def forward(self, x, t, labels=None):
        value = torch.tanh(x + t.reshape(-1, 1) / 1000 + self.shift + (0 if labels is None else labels.reshape(-1, 1)))
        self.memory.setdefault(x.shape, torch.empty_like(value)).copy_(value)
        return self.memory[x.shape]


@pytest.mark.parametrize(
    "sample",
    [
        lambda network, x, schedule: heun_sample(network, x, schedule, 5),
        lambda network, x, schedule: ddim_sample(classifier_free(network, 0.7), x, schedule, 5, LABELS),
        lambda network, x, schedule: ddim_sample(in_pieces(network, 2), x, schedule, 5),
        lambda network, x, schedule: ddim_sample(autoguidance(lambda x, t: 2 * network(0.5 * x, t), network, 0.5), x, schedule, 5),
        lambda network, x, schedule: diffusers_sample(network, x, PNDMScheduler(skip_prk_steps=True), 6),
        lambda network, x, schedule: ddim_sample(
            network, x, schedule, 6, guidance=ContrastiveGuidance(nn.Linear(3, 2), InfoNCE(), 0.3, every=2)
        ),
    ],
    ids=["heun", "classifier_free", "in_pieces", "autoguidance", "pndm", "guided"],
)
def test_a_compiled_network_may_overwrite_what_it_returned(sample):
    schedule, x = NoiseSchedule.linear(1000, 1e-4, 0.02), torch.randn(4, 3)
    reusing = Reusing()
    torch.manual_seed(5)
    found = sample(reusing, x, schedule)
    torch.manual_seed(5)
    expected = sample(lambda *given: reusing(*given).clone(), x, schedule)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
def test_samples_keep_the_type_of_the_noise_whatever_the_network_returns(schedule, sample, kind):
    seen = []

    def network(x, t):
        seen.append(x.dtype)
        return x.double() * 0.5

    made = sample(network, torch.randn(4, 3).to(kind), schedule, 4)
    assert {made.dtype, *seen} == {kind}


def test_zero_terminal_snr_is_named():
    with pytest.raises(ValueError, match=r"ends at 0 \(zero terminal SNR\).*without rescale_betas_zero_snr, or guide"):
        schedule_of(DDIMScheduler(rescale_betas_zero_snr=True))


WRAPPERS = {
    "classifier_free": lambda network: classifier_free(network, 0.5, null_label=2),
    "autoguidance": lambda network: autoguidance(lambda x, t, labels: 0 * x, network, 0.5),
    "cads": lambda network: cads(network, network.network[0], 1000, torch.Generator().manual_seed(0)),
    "in_pieces": lambda network: in_pieces(network, 3),
    "two": lambda network: in_pieces(classifier_free(network, 0.5, null_label=2), 3),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_is_the_networks_it_calls(schedule, wrap):
    """Their type, their mode and their schedule are its own."""

    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.dropout, self.schedule = nn.Embedding(3, 3), nn.Dropout(0.5), schedule
            self.network = nn.Sequential(self.table, self.dropout)

        def forward(self, x, t, labels):
            return x * self.network(labels)

    wrapped, x = wrap(Embedding()), torch.randn(4, 3)
    with pytest.warns(UserWarning, match="noise_prediction is in training mode"):
        ddim_sample(wrapped, x, schedule, 2, LABELS)
    made = ddim_sample(wrapped.eval().double(), x.double(), schedule, 2, LABELS)
    assert made.dtype == torch.float64
    with pytest.raises(ValueError, match="the network was made with"):
        ddim_sample(wrapped, x.double(), NoiseSchedule.cosine(), 2, LABELS)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_copy_of_a_wrapper_has_networks_of_its_own(wrap):
    t, x = torch.full((4,), 500), torch.randn(4, 3)
    network = NoisePredictionMLP(3, classes=3, width=8).eval()
    network.network = [next(one for one in network.modules() if isinstance(one, nn.Embedding))]
    nn.init.normal_(network.output.weight)  # it begins with 0
    wrapped = wrap(network)
    copied = copy.deepcopy(wrapped)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
        assert copied(x, t, LABELS).abs().max() == 0
        assert wrapped(x, t, LABELS).abs().max() > 0
