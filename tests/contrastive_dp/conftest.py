"""Shared oracles: exact noise predictions of Gaussians, written here anew, and a small U-Net."""

import pytest
import torch

from contrastive_dp import NoiseSchedule


@pytest.fixture(autouse=True)
def seeded():
    """Draws from the global generator depend on the tests before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def schedule():
    return NoiseSchedule.linear()


class GaussianNoise:
    """E[noise | x_t] for N(means[y], stds^2 I): sqrt(1-a) (x - sqrt(a) mean) / (a std^2 + 1 - a)."""

    def __init__(self, means, std, schedule):
        self.means, self.std, self.schedule = means, std, schedule

    def __call__(self, x, t, labels):
        a = self.schedule.alpha_bar[t][:, None].to(x.dtype)
        return (1 - a).sqrt() * (x - a.sqrt() * self.means.to(x.dtype)[labels]) / (a * self.std**2 + 1 - a)


@pytest.fixture
def pair(schedule):
    """Two Gaussian classes in three dimensions: (noise prediction, means, std)."""
    means = torch.tensor([[-0.7, 0.4, 0.1], [1.1, -0.2, 0.5]], dtype=torch.float64)
    return GaussianNoise(means, 0.8, schedule), means, 0.8


def small_unet(classes=None, out_channels=3):
    from diffusers import UNet2DModel

    torch.manual_seed(3)
    return UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=out_channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
    ).eval()


class CountingEncoder(torch.nn.Module):
    """A smooth encoder of images or vectors that counts its calls."""

    def __init__(self, inputs, features=5, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(inputs, features, generator=generator, dtype=torch.float64) / inputs**0.5)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.tanh(x.flatten(1) @ self.weight.to(x.dtype)) + 0.1
