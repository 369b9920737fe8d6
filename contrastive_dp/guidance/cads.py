"""CADS: noise on the class embedding while the image is noisy, for diverse samples (Sadat et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_dp._checks import in_unit, non_negative
from contrastive_dp.randomness import SampleNoise, standard_normal

Generator = torch.Generator | SampleNoise


def cads(
    noise_prediction: Callable[..., Tensor],
    embedding: nn.Module,
    timesteps: int,
    generator: Generator,
    scale: float = 0.25,
    window: tuple[float, float] = (0.6, 0.9),
    mix: float = 1.0,
) -> Callable[..., Tensor]:
    """Condition-annealed sampling (Sadat et al. 2024, arXiv 2310.17347, algorithm 1) as a noise prediction. With s = t / timesteps and
    gamma = 1 for s <= low, 0 for s >= high, linear in between, the class embedding y (n, k) is replaced by

    y' = sqrt(gamma) y + scale sqrt(1 - gamma) n, n standard normal;   mix (standardise(y') std(y) + mean(y)) + (1 - mix) y',

    where mean and std are those of each embedding over its k entries: late in sampling the label counts in full, early it is blurred.

    noise_prediction: function of (x, t, labels) that calls `embedding`, for example its unet.class_embedding. timesteps: length of the
    schedule. window: (low, high), 0 <= low < high <= 1. mix: in [0, 1]. scale 0 with mix 0 only fades the embedding.
    Raises ValueError for bad settings.
    """
    strength = non_negative(scale, "scale")
    low, high = window
    if not 0 <= low < high <= 1:
        raise ValueError(f"window={window}: give (low, high) with 0 <= low < high <= 1, as shares of the schedule")
    if mix != 1:
        in_unit(mix, "mix")

    def annealed(y: Tensor, t: Tensor) -> Tensor:
        gamma = ((high - t / timesteps) / (high - low)).clamp(0, 1)[:, None].to(y.dtype)
        noisy = gamma.sqrt() * y + strength * (1 - gamma).sqrt() * standard_normal(y, generator)
        centred = (noisy - noisy.mean(dim=1, keepdim=True)) / noisy.std(dim=1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
        rescaled = centred * y.std(dim=1, keepdim=True) + y.mean(dim=1, keepdim=True)
        return torch.where((t <= low * timesteps)[:, None], y, mix * rescaled + (1 - mix) * noisy)

    def guided(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        hook: Any = lambda _module, _inputs, y: annealed(y, t)  # noqa: E731
        handle = embedding.register_forward_hook(hook)
        try:
            return noise_prediction(x, t, labels)
        finally:
            handle.remove()

    return guided
