"""Samplers against the exact law of DDIM on Gaussians, the exact law of DDPM, and diffusers' schedulers."""

import gc
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from contrastive_dp import (
    ContrastiveGuidance,
    InfoNCE,
    NoisePredictionMLP,
    NoiseSchedule,
    SampleNoise,
    ddim_sample,
    ddpm_sample,
    heun_sample,
    in_pieces,
)
from tests.contrastive_dp.conftest import GaussianNoise, small_unet
from theory import ddim_law


def noise_like(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50, 250, 1000])
def test_ddim_on_gaussians_is_the_law(schedule, pair, steps):
    predict, means, std = pair
    x_T, labels = noise_like(40, 3), torch.arange(40) % 2
    x = ddim_sample(predict, x_T, schedule, steps, labels)
    for k in range(2):
        mean, spread = ddim_law(means[k].numpy(), std, schedule.visited(steps).numpy())
        expected = mean + np.asarray(spread) * x_T[labels == k].numpy()
        assert np.abs(x[labels == k].numpy() - expected).max() < 1e-9


def test_ddim_in_single_precision_and_cosine_schedule():
    schedule = NoiseSchedule.cosine()
    predict = GaussianNoise(torch.tensor([[0.5, -1.0]]), 0.6, schedule)
    x_T = noise_like(30, 2).float()
    x = ddim_sample(predict, x_T, schedule, 100, torch.zeros(30, dtype=torch.int64))
    mean, std = ddim_law(np.array([0.5, -1.0]), 0.6, schedule.visited(100).numpy())
    assert x.dtype == torch.float32
    assert np.abs(x.numpy() - (mean + std * x_T.numpy())).max() < 1e-4


def ancestral_law(mean, std, schedule, timesteps, wide):
    """Mean and variance of DDPM on N(mean, std^2): x' = posterior mean (affine in x) + noise, followed exactly."""
    m, v = 0.0, 1.0
    for t, after in zip(timesteps, [*timesteps[1:], -1], strict=True):
        a, b = schedule[t], schedule[after]
        gain = a * std**2 + 1 - a  # eps = sqrt(1-a) (x - sqrt(a) mean) / gain
        beta = 1 - a / b
        # Ho et al. (2020), equation 11: (x - beta / sqrt(1-a) eps) / sqrt(1 - beta)
        slope = (1 - beta / gain) / math.sqrt(1 - beta)
        offset = beta * math.sqrt(a) * mean / gain / math.sqrt(1 - beta)
        s2 = 0.0 if after == -1 else (beta if wide else beta * (1 - b) / (1 - a))
        m, v = slope * m + offset, slope**2 * v + s2
    return m, v


@pytest.mark.parametrize(("steps", "variance"), [(None, "posterior"), (1000, "beta"), (20, "posterior"), (20, "beta")])
def test_ddpm_mean_and_covariance(schedule, steps, variance):
    """Within 4 standard errors: 9 numbers a case, false-alarm rate 6e-5 each."""
    n, mean, std = 20_000, torch.tensor([[0.9, -0.4]], dtype=torch.float64), 0.7
    predict = GaussianNoise(mean, std, schedule)
    generator = torch.Generator().manual_seed(5)
    x_T = torch.randn(n, 2, dtype=torch.float64, generator=generator)
    labels = torch.zeros(n, dtype=torch.int64)
    x = ddpm_sample(predict, x_T, schedule, steps, labels, generator=generator, variance=variance).numpy()
    visited = schedule.timesteps(steps or 1000)
    for j in range(2):
        m, v = ancestral_law(float(mean[0, j]), std, schedule, visited, variance == "beta")
        assert abs(x[:, j].mean() - m) < 4 * math.sqrt(v / n)
        assert abs(x[:, j].var() - v) < 4 * v * math.sqrt(2 / n)
    assert abs(np.cov(x.T)[0, 1]) < 4 * v / math.sqrt(n)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddim_equals_diffusers_step_for_step(schedule, clip):
    from diffusers import DDIMScheduler

    unet = small_unet()
    scheduler = DDIMScheduler(clip_sample=clip is not None)
    scheduler.set_timesteps(20)
    x_T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ours, theirs, x = [], [], x_T
    ddim_sample(
        lambda x, t: unet(x, t).sample, x_T, schedule, scheduler.timesteps.tolist(), clip=clip, on_step=lambda t, x: ours.append(x)
    )
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x, use_clipped_model_output=clip is not None).prev_sample
            theirs.append(x)
    assert len(ours) == 20
    for left, right in zip(
        ours, theirs, strict=True
    ):  # the untrained network blows states up: relative to the larger of start and state
        scale = float(torch.maximum(right.abs().max(), x_T.abs().max()))
        assert float((left - right).abs().max()) < 1e-5 * scale


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_stochastic_ddim_equals_diffusers(schedule, eta):
    from diffusers import DDIMScheduler

    unet = small_unet()
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    x = x_T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ours = ddim_sample(
        lambda x, t: unet(x, t).sample,
        x_T,
        schedule,
        scheduler.timesteps.tolist(),
        eta=eta,
        generator=torch.Generator().manual_seed(9),
    )
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):  # the last step draws nothing here, and something multiplied by 0 there
            x = scheduler.step(unet(x, t).sample, t, x, eta=eta if i < 9 else 0.0, generator=generator).prev_sample
    assert torch.allclose(ours, x, atol=2e-5 * float(x.abs().max()))


@pytest.mark.parametrize(("variance", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
def test_ddpm_equals_diffusers(variance, theirs):
    from diffusers import DDPMScheduler

    unet, schedule = small_unet(), NoiseSchedule.linear(30, 1e-3, 0.3)
    scheduler = DDPMScheduler(30, beta_start=1e-3, beta_end=0.3, clip_sample=False, variance_type=theirs)
    scheduler.set_timesteps(30)
    x = x_T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    ours = ddpm_sample(lambda x, t: unet(x, t).sample, x_T, schedule, generator=generator, variance=variance)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x, generator=generator).prev_sample
    assert torch.allclose(ours, x, atol=3e-5 * float(x.abs().max()))


class TestSampleNoise:
    def test_rows_belong_to_samples_whatever_the_split(self):
        for shape in ((3,), (2, 5), (1,), (4,)):
            whole = SampleNoise(7, 0)
            both = [whole.normal_of((50, *shape), torch.float64) for _ in range(2)]
            pieces = [SampleNoise(7, first) for first in (0, 13, 14)]
            for draw in both:
                parts = [piece.normal_of((n, *shape), torch.float64) for piece, n in zip(pieces, (13, 1, 36), strict=True)]
                assert torch.equal(torch.cat(parts), draw)
            assert not torch.equal(*both)

    def test_draws_are_standard_normal_and_differ_by_seed(self):
        """Kolmogorov-Smirnov at a false-alarm rate of 1e-3, seeds fixed."""
        draws = [SampleNoise(seed).normal_of((20_000, 3), torch.float64) for seed in (0, 1)]
        for draw in draws:
            assert kstest(draw.flatten().numpy(), "norm").pvalue > 1e-3
        for left, right in ((draws[0], draws[1]), (draws[0][:, 0], draws[0][:, 1]), (draws[0][1:], draws[0][:-1])):
            assert abs(np.corrcoef(left.flatten(), right.flatten())[0, 1]) < 4 / math.sqrt(left.numel())

    def test_ancestral_sampling_is_the_same_in_pieces(self, schedule, pair):
        predict, labels = pair[0], torch.arange(30) % 2

        def sample(first, n):
            noise = SampleNoise(3, first)
            x_T = noise.normal_of((n, 3), torch.float64)
            return ddpm_sample(predict, x_T, schedule, 25, labels[first : first + n], generator=noise)

        assert torch.equal(sample(0, 30), torch.cat([sample(0, 11), sample(11, 19)]))


def test_network_in_pieces_gives_the_same(schedule, pair):
    x_T, labels = noise_like(30, 3), torch.arange(30) % 2
    whole, pieces = (ddim_sample(f, x_T, schedule, 10, labels) for f in (pair[0], in_pieces(pair[0], 7)))
    assert torch.equal(whole, pieces)


def test_memory_does_not_grow_with_the_steps(schedule, pair):
    held = []
    gc.collect()
    gc.freeze()  # what other tests hold is not looked at

    def count_tensors(t, x):
        gc.collect()
        held.append(sum(o.numel() for o in gc.get_objects() if issubclass(type(o), torch.Tensor)))

    guidance = ContrastiveGuidance(lambda x: x, InfoNCE(), 0.1)
    ddim_sample(pair[0], noise_like(60, 3), schedule, 30, torch.arange(60) % 2, guidance=guidance, on_step=count_tensors)
    gc.unfreeze()
    assert max(held[2:]) == min(held[2:])


def test_gradients_are_not_recorded(schedule, pair):
    x_T = noise_like(4, 3).requires_grad_()
    assert not ddim_sample(pair[0], x_T, schedule, 3, torch.tensor([0, 1, 0, 1])).requires_grad


def test_nan_names_the_step_and_the_term(schedule, pair):
    def broken(x, t, labels):
        return pair[0](x, t, labels) * (math.nan if int(t[0]) == 444 else 1.0)

    labels = torch.tensor([0, 1, 0, 1])
    with pytest.raises(FloatingPointError, match="the noise prediction at timestep 444 is NaN"):
        ddim_sample(broken, noise_like(4, 3), schedule, 10, labels)
    embed = ContrastiveGuidance(lambda x: x * math.nan, InfoNCE(), 1.0, window=(400, 500))
    with pytest.raises(FloatingPointError, match="the embedding at timestep 444 is NaN"):
        ddim_sample(pair[0], noise_like(4, 3), schedule, [555, 444, 333], labels, guidance=embed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_T": torch.zeros(4, dtype=torch.float64)}, r"x_T has shape \(4,\)"),
        ({"x_T": torch.zeros(4, 3, dtype=torch.int64)}, "floating-point noise"),
        ({"x_T": torch.full((4, 3), math.inf)}, "x_T contains inf at index"),
        ({"labels": torch.tensor([0, 1])}, r"labels has shape \(2,\)"),
        ({"labels": [0, 1, 0, 1]}, "labels is list"),
        ({"steps": 2000}, r"steps=2000 must lie in 1\.\.1000"),
        ({"eta": 1.5}, "eta=1.5 must lie"),
        ({"eta": -0.1}, "eta=-0.1 is negative"),
        ({"eta": 0.5}, "pass generator="),
        ({"clip": 0.0}, "clip=0 must be > 0"),
    ],
)
def test_bad_calls_are_named(schedule, pair, change, message):
    arguments = {"x_T": noise_like(4, 3), "steps": 5, "labels": torch.tensor([0, 1, 0, 1])} | change
    with pytest.raises(ValueError, match=message):
        ddim_sample(pair[0], arguments.pop("x_T"), schedule, **arguments)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_type_reach_the_network_as_int64(schedule, kind):
    network, x_T, labels = NoisePredictionMLP(3, classes=2), noise_like(4, 3).float(), torch.tensor([0, 1, 1, 0])
    found, expected = (ddim_sample(network, x_T, schedule, 3, of) for of in (labels.to(kind), labels))
    assert torch.equal(found, expected)


def test_bad_ddpm_calls_are_named(schedule, pair):
    with pytest.raises(ValueError, match="did you mean 'posterior'"):
        ddpm_sample(pair[0], noise_like(2, 3), schedule, 5, torch.tensor([0, 1]), variance="posteriors")
    with pytest.raises(ValueError, match="pass generator="):
        ddpm_sample(pair[0], noise_like(2, 3), schedule, 5, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(2, 2\), x has \(2, 3\)"):
        ddim_sample(lambda x, t: x[:, :2], noise_like(2, 3), schedule, 5)
    with pytest.raises(ValueError, match="batch_size=0"):
        in_pieces(pair[0], 0)


def test_large_seeds_are_kept_apart():
    draws = [SampleNoise(seed).normal_of((4, 2), torch.float64) for seed in (2**53, 2**53 + 1, 2**64 - 1)]
    assert not torch.equal(draws[0], draws[1])
    with pytest.raises(ValueError, match=r"must be below 2\^64"):
        SampleNoise(2**64)


def test_wrong_kinds_of_arguments_are_named(schedule, pair):
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="x_T is ndarray: it must be a Tensor"):
        ddim_sample(pair[0], np.zeros((2, 3)), schedule, 5, labels)
    with pytest.raises(ValueError, match="schedule is list: it must be a NoiseSchedule"):
        ddim_sample(pair[0], noise_like(2, 3), [0.5], 5, labels)
    with pytest.raises(ValueError, match="guidance is InfoNCE: it must be a Guidance"):
        ddim_sample(pair[0], noise_like(2, 3), schedule, 5, labels, guidance=InfoNCE())
    with pytest.raises(ValueError, match="the noise prediction returned NoneType"):
        ddim_sample(lambda x, t, labels: None, noise_like(2, 3), schedule, 5, labels)


def test_noise_is_philoxs_of_seed_draw_and_sample():
    """By numpy from the docstring: key (seed, draw), whole blocks of four numbers a sample. A change would change every published image."""
    noise = SampleNoise(7)
    noise.normal_of((3, 5), torch.float64)
    found = noise.normal_of((3, 5), torch.float64)
    key = np.array([7, 1], dtype=np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=key, counter=[2 * 2, 0, 0, 0])).random(8)[
        :5
    ]  # sample 2: after two of two blocks
    np.testing.assert_allclose(found[2].numpy(), norm.ppf(uniform), rtol=1e-12)


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_heun_from_pure_noise_is_euler(steps):
    """With the exact prediction of N(0, 1) samples are their noise; a trapezoid over the cosine schedule's first step made them 7 times
    as wide at 20 steps, 52 times at 10."""
    schedule = NoiseSchedule.cosine()
    x_T = noise_like(30, 3)
    labels = torch.zeros(30, dtype=torch.int64)
    x = heun_sample(GaussianNoise(torch.zeros(1, 3), 1.0, schedule), x_T, schedule, steps, labels)
    assert float((x - x_T).abs().max() / x_T.abs().max()) < 0.1


def test_pieces_of_numpys_sizes():
    found = in_pieces(lambda x, _t: 2 * x, np.int64(4))(torch.ones(10, 2), torch.zeros(10))
    assert torch.equal(found, torch.full((10, 2), 2.0))
    with pytest.raises(ValueError, match="batch_size=0 must be a whole number"):
        in_pieces(lambda x, _t: x, 0)


@pytest.mark.parametrize("seed", [2**63 + 1, 2**53 + 1])
def test_numpys_large_seeds_are_kept(seed):
    """A float in between would round them."""
    assert SampleNoise(np.uint64(seed)).seed == seed
    one, other = (SampleNoise(number).normal_of((2, 3)) for number in (np.uint64(seed), seed))
    assert torch.equal(one, other)


def heun_by_hand(network, x_T, alpha_bar, timesteps, bound):
    """EDM's algorithm 1 in numpy, from the denoiser D = clip((x - sqrt(1-a) eps) / sqrt(a)): dy/dsigma = (y - D) / sigma."""
    sigma = np.append(np.sqrt(1 / alpha_bar[timesteps] - 1), 0.0)

    def slope(y, i):
        a = alpha_bar[timesteps[i]]
        x = np.sqrt(a) * y
        denoised = np.clip((x - np.sqrt(1 - a) * network(x)) / np.sqrt(a), -bound, bound)
        return (y - denoised) / sigma[i]

    y = x_T / np.sqrt(alpha_bar[timesteps[0]])
    for i in range(len(timesteps)):
        first = slope(y, i)
        euler = y + (sigma[i + 1] - sigma[i]) * first
        y = euler if i + 1 == len(timesteps) else y + (sigma[i + 1] - sigma[i]) * (first + slope(euler, i + 1)) / 2
    return y


def test_heun_clips_the_estimate_at_both_ends_of_a_step():
    """A network that is wrong everywhere, so that the bound of 0.4 bites; one that nothing reaches changes nothing."""
    schedule, timesteps = NoiseSchedule.linear(), [900, 500, 200, 30]
    x_T = noise_like(40, 3).double()
    clipped, wide, plain = (
        heun_sample(lambda x, t: torch.sin(2 * x), x_T, schedule, timesteps, clip=bound) for bound in (0.4, 1e6, None)
    )
    wanted = heun_by_hand(lambda x: np.sin(2 * x), x_T.numpy(), schedule.alpha_bar.numpy(), timesteps, 0.4)
    np.testing.assert_allclose(clipped.numpy(), wanted, atol=1e-10)
    assert float(clipped.abs().max()) <= 0.4 + 1e-12 < float(plain.abs().max())
    torch.testing.assert_close(wide, plain, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="clip=-1 must be > 0"):
        heun_sample(lambda x, t: x, x_T, schedule, timesteps, clip=-1)
