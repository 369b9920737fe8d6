"""CADS: noise on the class embedding while the image is noisy, for diverse samples (Sadat et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_dp._checks import count, finite_number, non_negative, per_sample
from contrastive_dp.randomness import SampleNoise, standard_normal
from contrastive_dp.wrapped import Wrapped

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

    Row i of a call gets the i-th noise, also where noise_prediction embeds the rows in pieces, in order. So a sample is the same in any
    batch only if cads sees the batch as it is: put in_pieces inside. Beside classifier-free guidance only the conditional prediction is
    blurred: autoguidance(cads(network, ...), lambda x, t, y: network(x, t, null), scale), null the null label of each row. Inside
    classifier_free, or around it, cads would blur the null label too.

    noise_prediction: function of (x, t, labels) that calls `embedding`, for example its unet.class_embedding. timesteps: length of the
    schedule. window: (low, high), 0 <= low < high <= 1. mix: in [0, 1]. scale 0 with mix 0 only fades the embedding.
    Raises ValueError for bad settings, labels missing, and a noise prediction that does not call `embedding` (a compiled one does not).
    """
    strength = non_negative(scale, "scale")
    if len(window) != 2 or not 0 <= window[0] < window[1] <= 1:
        raise ValueError(f"window={window}: give (low, high) with 0 <= low < high <= 1, as shares of the schedule")
    if not 0 <= finite_number(mix, "mix") <= 1:
        raise ValueError(f"mix={mix:g} must lie in [0, 1]")
    annealing = _Annealing(count(timesteps, "timesteps"), strength, (window[0], window[1]), mix)
    return Wrapped(partial(_blurred, annealing=annealing, generator=generator), noise_prediction, embedding)


@dataclass(frozen=True)
class _Annealing:
    timesteps: int
    strength: float
    window: tuple[float, float]
    mix: float

    def __call__(self, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The embeddings y (n, k) at timesteps t (n,), blurred by noise (n, k)."""
        low, high = self.window
        gamma = ((high - t / self.timesteps) / (high - low)).clamp(0, 1)[:, None].to(y.dtype)
        noisy = gamma.sqrt() * y + self.strength * (1 - gamma).sqrt() * noise
        centred = (noisy - noisy.mean(dim=1, keepdim=True)) / noisy.std(dim=1, keepdim=True).clamp(min=torch.finfo(y.dtype).tiny)
        rescaled = centred * y.std(dim=1, keepdim=True) + y.mean(dim=1, keepdim=True)
        return torch.where((t <= low * self.timesteps)[:, None], y, self.mix * rescaled + (1 - self.mix) * noisy)


def _blurred(
    noise_prediction: Callable[..., Tensor],
    embedding: nn.Module,
    x: Tensor,
    t: Tensor,
    labels: Tensor | None,
    annealing: _Annealing,
    generator: Generator,
) -> Tensor:
    if labels is None:
        raise ValueError("cads needs labels: pass labels=... to the sampler")
    t = per_sample(t, x)
    blur = _Blur(annealing, t, generator)
    handle = embedding.register_forward_hook(blur)
    try:
        found = noise_prediction(x, t, labels)
    finally:
        handle.remove()
    if not blur.calls:
        raise ValueError(
            "cads: the noise prediction did not call `embedding`, so nothing was blurred: pass the module that it embeds classes "
            "with, and a network that is not compiled"
        )
    return found


class _Blur:
    """A hook on the embedding for one call of the noise prediction: one draw of noise for its rows, in whatever pieces they come."""

    def __init__(self, annealed: _Annealing, t: Tensor, generator: Generator) -> None:
        self.annealed, self.t, self.generator = annealed, t, generator
        self.calls = self.begin = 0
        self.noise = t.new_empty(0)

    def __call__(self, _module: nn.Module, _inputs: Any, y: Tensor) -> Tensor:
        n = len(self.t)
        if self.begin + len(y) > n:
            raise ValueError(f"cads: the embedding was called with {len(y)} rows for {n} samples: give every sample one row")
        if self.begin == 0:
            self.noise = standard_normal(y.new_empty(n, *y.shape[1:]), self.generator)
        rows = slice(self.begin, self.begin + len(y))
        self.calls, self.begin = self.calls + 1, (self.begin + len(y)) % n
        return self.annealed(y, self.t[rows], self.noise[rows])
