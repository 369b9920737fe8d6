from types import SimpleNamespace

import numpy as np
import pytest
import torch

from contrastive_dp import NoiseSchedule
from contrastive_dp.networks import sinusoidal


@pytest.mark.parametrize(("ours", "theirs"), [(NoiseSchedule.linear(), "linear"), (NoiseSchedule.cosine(), "squaredcos_cap_v2")])
def test_schedules_equal_diffusers(ours, theirs):
    from diffusers import DDPMScheduler

    levels = DDPMScheduler(num_train_timesteps=1000, beta_schedule=theirs).alphas_cumprod
    assert torch.allclose(ours.alpha_bar.float(), levels, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 333, 1000])
def test_timesteps_are_linspace_rounded_down(schedule, steps):
    expected = np.floor(np.linspace(999, 0, steps) + 1e-9).astype(int) if steps > 1 else np.array([999])
    assert schedule.timesteps(steps) == expected.tolist()
    assert schedule.visited(steps).tolist() == [*schedule.alpha_bar[expected.copy()].tolist(), 1.0]


def test_levels_and_add_noise(schedule):
    assert schedule[-1] == 1.0
    assert schedule[0] == pytest.approx(1 - 1e-4)
    assert schedule[999] == pytest.approx(np.prod(1 - np.linspace(1e-4, 0.02, 1000)))
    x, noise = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    t = torch.tensor([0, 10, 500, 999])
    for i in range(4):
        a = float(schedule.alpha_bar[t[i]])
        assert torch.allclose(schedule.add_noise(x, t, noise)[i], a**0.5 * x[i] + (1 - a) ** 0.5 * noise[i])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoiseSchedule(torch.tensor([0.5, 0.6])), "decrease strictly"),
        (lambda: NoiseSchedule(torch.tensor([1.0, 0.6])), "within"),
        (lambda: NoiseSchedule(torch.tensor([[0.5]])), r"shape \(1, 1\)"),
        (lambda: NoiseSchedule.linear(0), "steps=0"),
        (lambda: NoiseSchedule.linear(beta_start=-1.0), "beta_start=-1"),
        (lambda: NoiseSchedule.linear().timesteps(1001), r"steps=1001 must lie in 1\.\.1000"),
        (lambda: NoiseSchedule.linear().timesteps(0), "steps=0"),
        (lambda: NoiseSchedule.linear().timesteps([5, 7]), "strictly within"),
        (lambda: NoiseSchedule.linear().timesteps([1000]), "strictly within"),
    ],
)
def test_bad_schedules_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_device_without_float64_is_named(schedule):
    for call in (
        lambda: schedule.alpha_bar_on(torch.device("mps")),
        lambda: sinusoidal(SimpleNamespace(device=torch.device("mps")), 8),
    ):
        with pytest.raises(ValueError, match="device mps has no float64, which noise levels need: use a CPU or CUDA"):
            call()


def test_numbers_of_steps_may_be_numpys():
    schedule = NoiseSchedule.linear()
    assert schedule.timesteps(np.int64(7)) == schedule.timesteps(7)
    assert schedule.timesteps(np.array([999, 500, 3])) == [999, 500, 3]
