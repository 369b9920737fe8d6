"""DDIM and DDPM samplers. A sampler only needs a function of (x, t[, labels]): a network, a diffusers model or an exact score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from contrastive_dp._checks import (
    batch_labels,
    count,
    finite,
    non_negative,
    one_of,
    per_sample,
    positive,
    shaped_like,
    warn_if_training,
)
from contrastive_dp.guidance import Guidance, GuidedRun
from contrastive_dp.guidance.base import PURE
from contrastive_dp.nan_watch import Watch
from contrastive_dp.randomness import SampleNoise, standard_normal
from contrastive_dp.schedules import NoiseSchedule, check_same_schedule
from contrastive_dp.wrapped import Wrapped

NoisePrediction = Callable[..., Tensor]
"""noise_prediction(x, t) or, with labels, noise_prediction(x, t, labels). x: (n, ...); t, labels: (n,) int64; returns E[noise | x_t]."""
Generator = torch.Generator | SampleNoise
OnStep = Callable[[int, Tensor], None]


@torch.no_grad()
def ddim_sample(
    noise_prediction: NoisePrediction,
    x_T: Tensor,
    schedule: NoiseSchedule,
    steps: int | Sequence[int],
    labels: Tensor | None = None,
    eta: float = 0.0,
    guidance: Guidance | None = None,
    generator: Generator | None = None,
    *,
    clip: float | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample x_0 by DDIM (Song, Meng, Ermon 2021, equation 12). A step from alpha_bar a to a':

    x0_hat = (x - sqrt(1-a) eps) / sqrt(a);   s = eta sqrt((1-a')/(1-a)) sqrt(1 - a/a');
    x' = sqrt(a') x0_hat + sqrt(1 - a' - s^2) eps + s noise.   The last step goes to a' = 1.

    noise_prediction: function of (x, t), or with labels of (x, t, labels); t and labels are (n,) int64 tensors. If only the guidance needs
    labels, wrap an unconditional network: lambda x, t, labels: network(x, t).
    x_T: (n, ...) standard normal. steps: number (timesteps linspace(T-1, 0) rounded down), or the timesteps themselves. labels: (n,) int.
    eta: 0 deterministic, 1 ancestral. generator: torch.Generator or SampleNoise, needed if eta > 0. clip: bound on |x0_hat| (images: 1).
    on_step: called with (t, x') after each step. Guidance acts on eps before the step (see guidance/base.py).

    Raises ValueError for settings that do not fit; FloatingPointError naming the timestep and the term that became NaN.
    """
    labels = checked_batch(noise_prediction, x_T, labels, schedule, guidance)
    if non_negative(eta, "eta") > 1:
        raise ValueError(f"eta={eta:g} must lie in [0, 1]: 0 is deterministic, 1 ancestral")
    guide = guidance.start(schedule, labels) if guidance is not None else None
    predict_at = partial(predict, noise_prediction, labels=labels)
    return _walk(predict_at, x_T, schedule, schedule.timesteps(steps), _Fresh(eta, False, generator), guide, clip, on_step)


@torch.no_grad()
def ddpm_sample(
    noise_prediction: NoisePrediction,
    x_T: Tensor,
    schedule: NoiseSchedule,
    steps: int | Sequence[int] | None = None,
    labels: Tensor | None = None,
    guidance: Guidance | None = None,
    generator: Generator | None = None,
    *,
    variance: str = "posterior",
    clip: float | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample x_0 by ancestral sampling (Ho, Jain, Abbeel 2020, algorithm 2), over all timesteps or fewer.

    x' ~ N(posterior mean of x_{t'} given x_t and x0_hat, s^2 I), beta = 1 - a/a'. variance: "posterior", s^2 = beta (1-a')/(1-a), which is
    DDIM with eta = 1; or "beta", s^2 = beta, the published choice for CIFAR-10 (no noise in the last step). A generator is required.
    Other arguments and errors as in ddim_sample.
    """
    labels = checked_batch(noise_prediction, x_T, labels, schedule, guidance)
    one_of(variance, "variance", ("posterior", "beta"))
    visited = schedule.timesteps(len(schedule) if steps is None else steps)
    guide = guidance.start(schedule, labels) if guidance is not None else None
    predict_at = partial(predict, noise_prediction, labels=labels)
    return _walk(predict_at, x_T, schedule, visited, _Fresh(1.0, variance == "beta", generator), guide, clip, on_step)


@torch.no_grad()
def heun_sample(
    noise_prediction: NoisePrediction,
    x_T: Tensor,
    schedule: NoiseSchedule,
    steps: int | Sequence[int],
    labels: Tensor | None = None,
    guidance: Guidance | None = None,
    *,
    clip: float | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample x_0 by Heun's method in EDM's form (Karras et al. 2022, algorithm 1 without churn), of second order.

    With y = x / sqrt(a) and sigma = sqrt((1-a)/a) the probability flow is dy/dsigma = eps(x, t). A step from sigma to sigma':
    y~ = y + (sigma' - sigma) eps;   y' = y + (sigma' - sigma) (eps + eps~) / 2, eps~ at y~ and sigma'.   The last, to 0, is Euler's, as
    DDIM's, and so is one that starts at pure noise (alpha_bar < 1e-6, the cosine schedule's last level), where the slopes at both ends say
    nothing of what lies between. It costs 2 steps - 1 evaluations, one fewer from pure noise; guidance acts on each, and so does clip,
    which a trained network needs with the cosine schedule (images: 1). Other arguments and errors as in ddim_sample.
    """
    labels = checked_batch(noise_prediction, x_T, labels, schedule, guidance)
    timesteps = schedule.timesteps(steps)
    guide = guidance.start(schedule, labels) if guidance is not None else None
    watch = guide.watch if guide is not None else Watch()
    bound = bound_of(clip)

    def slope(y: Tensor, t: int) -> Tensor:
        x = y * math.sqrt(schedule[t])
        eps = predict(noise_prediction, x, t, labels)
        watch("noise prediction", t, eps)
        if guide is not None:
            eps = guide(x, t, eps)
        return eps if bound is None else denoised(x, eps, schedule[t], bound)[1]

    y = x_T / math.sqrt(schedule[timesteps[0]])
    for t, t_next in zip(timesteps, [*timesteps[1:], -1], strict=True):
        step = math.sqrt(1 / schedule[t_next] - 1) - math.sqrt(1 / schedule[t] - 1)
        eps = slope(y, t).clone()  # compiled, the network's next call may overwrite it
        if t_next >= 0 and schedule[t] >= PURE:
            eps = (eps + slope(y + step * eps, t_next)) / 2
        y = y + step * eps
        watch("state", t, y)
        if on_step is not None:
            on_step(t, y * math.sqrt(schedule[t_next]))
    watch.report()
    return y


@dataclass(frozen=True)
class _Fresh:
    """Fresh noise at each step: eta, whether its variance is beta instead of the posterior's, and its generator."""

    eta: float
    wide: bool
    generator: Generator | None


def _walk(
    predict_at: Callable[[Tensor, int], Tensor],
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: list[int],
    fresh: _Fresh,
    guide: GuidedRun | None,
    clip: float | None,
    on_step: OnStep | None,
) -> Tensor:
    """Sample from x at the first timestep down to x_0."""
    eta, generator = fresh.eta, fresh.generator
    if eta > 0 and generator is None:
        raise ValueError("this sampler draws noise: pass generator=torch.Generator().manual_seed(0) or SampleNoise(seed)")
    bound = bound_of(clip)
    watch = guide.watch if guide is not None else Watch()
    for t, t_next in zip(timesteps, [*timesteps[1:], -1], strict=True):
        a, a_next = schedule[t], schedule[t_next]
        # noise prediction plus guidance
        eps = predict_at(x, t)
        watch("noise prediction", t, eps)
        if guide is not None:
            eps = guide(x, t, eps)
        x_0, eps = denoised(x, eps, a, bound)
        # step to the next level: signal, the rest of the old noise, fresh noise
        s = eta * math.sqrt((1 - a_next) / (1 - a)) * math.sqrt(1 - a / a_next)
        x = math.sqrt(a_next) * x_0 + math.sqrt(max(1 - a_next - s * s, 0.0)) * eps
        if s > 0 and generator is not None:
            x = x + (math.sqrt(1 - a / a_next) if fresh.wide else s) * standard_normal(x, generator)
        watch("state", t, x)
        if on_step is not None:
            on_step(t, x)
    watch.report()
    return x


def predict(noise_prediction: NoisePrediction, x: Tensor, t: int, labels: Tensor | None) -> Tensor:
    """noise_prediction at one timestep for the whole batch, with its shape checked, in the type of x."""
    times = torch.full((len(x),), t, device=x.device)
    eps = noise_prediction(x, times) if labels is None else noise_prediction(x, times, labels)
    return shaped_like(x, eps).to(x.dtype)


def bound_of(clip: float | None) -> float | None:
    """clip, checked. Raises ValueError for a bound that is not positive."""
    return None if clip is None else positive(clip, "clip")


def denoised(x: Tensor, eps: Tensor, a: float, bound: float | None) -> tuple[Tensor, Tensor]:
    """The denoised estimate x0_hat = (x - sqrt(1-a) eps) / sqrt(a), clipped to [-bound, bound] if a bound is given, and the matching eps.

    Without clipping, a small error of eps is divided by sqrt(a), which at the noisiest level of the cosine schedule is 5e-5.
    """
    x_0 = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
    if bound is None:
        return x_0, eps
    x_0 = x_0.clamp(-bound, bound)
    return x_0, (x - math.sqrt(a) * x_0) / math.sqrt(1 - a)


def in_pieces(noise_prediction: NoisePrediction, batch_size: int) -> NoisePrediction:
    """The same noise prediction, evaluated on at most batch_size samples at a time: bounds memory without changing how samples interact."""
    return Wrapped(partial(_in_pieces, size=count(batch_size, "batch_size")), noise_prediction)


def _in_pieces(noise_prediction: NoisePrediction, x: Tensor, t: Tensor, labels: Tensor | None, size: int) -> Tensor:
    rest = () if labels is None else (labels.split(size),)
    parts = zip(x.split(size), per_sample(t, x).split(size), *rest, strict=True)
    # copies: compiled, the network's next call may overwrite what the last one returned
    return torch.cat([shaped_like(part[0], noise_prediction(*part)).clone() for part in parts])


def checked_batch(
    noise_prediction: NoisePrediction, x_T: Any, labels: Tensor | None, schedule: Any, guidance: Any
) -> Tensor | None:
    """The labels, int64 on the device of x_T. Raises ValueError for arguments of a sampler that are of another kind or shape, or a network
    that knows another schedule; warns of networks in training mode."""
    for name, value, kind in (("x_T", x_T, Tensor), ("schedule", schedule, NoiseSchedule), ("guidance", guidance, Guidance | None)):
        if not isinstance(value, kind):
            wanted = getattr(kind, "__name__", "Guidance")
            raise ValueError(f"{name} is {type(value).__name__}: it must be a {wanted}")
    if x_T.ndim < 2 or not x_T.is_floating_point():
        raise ValueError(f"x_T has shape {tuple(x_T.shape)} and dtype {x_T.dtype}: give floating-point noise of shape (n, ...)")
    finite(x_T, "x_T")
    warn_if_training(noise_prediction, "noise_prediction")
    check_same_schedule(noise_prediction, schedule)
    if guidance is not None:
        guidance.check_samples(len(x_T))
    return None if labels is None else batch_labels(labels, len(x_T)).to(x_T.device, torch.int64)
