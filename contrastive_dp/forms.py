"""Networks and samplers in other forms: noise levels as sigma (EDM, Karras) or flow time, and x_0, v or velocity in place of noise.

A state is x = signal x_0 + noise eps. Its form says how (signal, noise) follows from the level:

    alpha_bar   (sqrt(a), sqrt(1 - a))     DDPM, DDIM                          level a
    sigma       (1, sigma)                 EDM, Euler, Heun                    level sigma
    flow        (1 - s, s)                 flow matching, rectified flow       level s

All forms are the same states up to the factor sqrt(signal^2 + noise^2), at a = signal^2 / (signal^2 + noise^2). A network's output says
the same thing in other words: the noise, x0, v = sqrt(a) eps - sqrt(1 - a) x_0 (Salimans, Ho 2022), or velocity = eps - x_0 (Lipman et al.
2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_dp._checks import one_of, per_sample, positive, shaped_like, wide_type
from contrastive_dp.guidance import Guidance
from contrastive_dp.guidance.base import GuidedRun
from contrastive_dp.nan_watch import Watch
from contrastive_dp.schedules import NoiseSchedule

FORMS = ("alpha_bar", "sigma", "flow")
OUTPUTS = ("noise", "x0", "v", "velocity")


def scales(form: str, level: Any) -> tuple[Any, Any]:
    """(signal, noise) of a form at a level, floats or tensors."""
    if form == "sigma":
        return 1.0 + 0 * level, level
    if form == "flow":
        return 1 - level, level
    one_of(form, "form", FORMS)
    return level**0.5, (1 - level) ** 0.5


def level_of(form: str, alpha_bar: Any) -> Any:
    """The level of a form at alpha_bar: a itself, sigma = sqrt((1 - a) / a), or s = sigma / (1 + sigma)."""
    if one_of(form, "form", FORMS) == "alpha_bar":
        return alpha_bar
    sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
    return sigma if form == "sigma" else sigma / (1 + sigma)


def alpha_bar_of(form: str, level: Any) -> Any:
    """alpha_bar = signal^2 / (signal^2 + noise^2)."""
    signal, noise = scales(form, level)
    return signal**2 / (signal**2 + noise**2)


def to_noise(output: Tensor, kind: str, x: Tensor, signal: Any, noise: Any) -> Tensor:
    """The noise prediction that a network's output is at the state x = signal x_0 + noise eps. kind: one of OUTPUTS."""
    if one_of(kind, "kind", OUTPUTS) == "noise":
        return output
    if kind == "x0":
        return (x - signal * output) / noise
    if kind == "velocity":
        return (x + signal * output) / (signal + noise)
    size = (signal**2 + noise**2) ** 0.5
    return (signal * output + noise * x / size) / size


def per_noise(kind: str, signal: float, noise: float) -> float:
    """By how much an output changes as its noise prediction changes by 1 and the state stays: d output / d eps."""
    if one_of(kind, "kind", OUTPUTS) == "noise":
        return 1.0
    if kind == "x0":
        return -noise / signal
    return (signal + noise) / signal if kind == "velocity" else math.hypot(signal, noise) / signal


class NoisePredictionOf(nn.Module):
    """A network of any form and output as noise_prediction(x, t[, labels]) for the samplers here.

    network(state, level[, labels]): state (n, ...) in its own form, level (n,); returns its output, shaped like the state. form: one of
    FORMS, of the states it was trained on. output: one of OUTPUTS. time: function from the level (n,) to the network's own time, for
    example lambda s: 1000 * s; None: the level itself, and t for the form alpha_bar. The network gets it in float32 at least.
    Flow matching: NoisePredictionOf(network, schedule, "flow", "velocity").
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: NoiseSchedule,
        form: str,
        output: str,
        time: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.time = network, schedule, time
        self.form, self.output = one_of(form, "form", FORMS), one_of(output, "output", OUTPUTS)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        t = per_sample(t, x)
        a = self.schedule.alpha_bar_on(x.device)[t]
        level = level_of(self.form, a)
        wide = [-1] + [1] * (x.ndim - 1)
        signal, noise = (part.to(x.dtype).reshape(wide) for part in scales(self.form, level))
        state = x * (signal**2 + noise**2).sqrt()
        time = t
        if self.time is not None or self.form != "alpha_bar":  # half precision would round 875 to 876
            time = (level if self.time is None else self.time(level)).to(wide_type(x))
        made = self.network(state, time) if labels is None else self.network(state, time, labels)
        return to_noise(made, self.output, state, signal, noise)


def edm_denoiser(network: Callable[..., Tensor], sigma_data: float = 0.5) -> Callable[..., Tensor]:
    """EDM's preconditioning (Karras et al. 2022, table 1) around a raw network F: a denoiser D(x, sigma[, labels]) with output "x0".

    D = c_skip x + c_out F(c_in x, c_noise), c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2),
    c_noise = log(s) / 4, s = sigma, d = sigma_data.
    """
    data = positive(sigma_data, "sigma_data")

    def denoiser(x: Tensor, sigma: Tensor, *labels: Tensor) -> Tensor:
        s = sigma.reshape([-1] + [1] * (x.ndim - 1))
        total = s**2 + data**2
        skip, out, into = (scale.to(x.dtype) for scale in (data**2 / total, s * data / total.sqrt(), 1 / total.sqrt()))
        c_noise = (sigma.log() / 4).to(wide_type(x))  # half precision would turn its sines
        return skip * x + out * network(into * x, c_noise, *labels)

    return denoiser


class GuidedStates:
    """Guidance of somebody else's states, see guide_states: guide(x, i, output) -> the guided output of step i."""

    def __init__(self, run: GuidedRun, levels: Sequence[float], ranks: Sequence[int | None], form: str, output: str) -> None:
        self.run, self.levels, self.ranks, self.form, self.output = run, levels, ranks, form, output

    @property
    def watch(self) -> Watch:
        """Where NaNs are noted; watch.report() raises for those of the last steps on a device."""
        return self.run.watch

    def __call__(self, x: Tensor, i: int, made: Tensor) -> Tensor:
        rank = self.ranks[i]
        if rank is None:
            return made
        shaped_like(x, made)
        signal, noise = scales(self.form, float(self.levels[i]))
        eps = to_noise(made, self.output, x, signal, noise)
        change = self.run(x / math.hypot(signal, noise), rank, eps) - eps
        return made + per_noise(self.output, signal, noise) * change


def guide_states(guidance: Guidance, levels: Sequence[float], form: str, output: str, labels: Tensor | None = None) -> GuidedStates:
    """Guidance inside somebody else's sampler: guide(x, i, output) returns the guided output of step i, in the form that the sampler has.

    levels: the level at which step i evaluates the network: alpha_bar in [0, 1], sigma >= 0, or flow time in [0, 1]. In diffusers these are
    scheduler.sigmas without the last 0 (form sigma or flow), or [scheduler.alphas_cumprod[t] for t in scheduler.timesteps] (form alpha_bar,
    as in DDIM, DPM-Solver and UniPC, which have sigmas too). form: of the states x. output: what the network predicts. A guidance's
    timesteps are the ranks of the levels, 0 the cleanest: its window counts these. At pure noise (alpha_bar < 1e-6, in flow time above
    0.999) and at clean data nothing is guided.
    Raises ValueError as guidance.start does, and for levels that the form does not have.
    """
    one_of(output, "output", OUTPUTS)
    at = [float(alpha_bar_of(form, _checked_level(form, float(level), i))) for i, level in enumerate(levels)]
    known = sorted({a for a in at if 0 < a < 1}, reverse=True)
    if not known:
        raise ValueError(f"levels={list(levels)[:5]}: none lies between clean data and pure noise")
    rank = {a: t for t, a in enumerate(known)}
    run = guidance.start(NoiseSchedule(torch.tensor(known, dtype=torch.float64)), labels)
    return GuidedStates(run, levels, [rank.get(a) for a in at], form, output)


def _checked_level(form: str, level: float, i: int) -> float:
    """The level of step i. Raises ValueError for one that no state of this form has."""
    most = math.inf if one_of(form, "form", FORMS) == "sigma" else 1.0
    if not 0 <= level <= most or math.isinf(level):
        meant = {
            "sigma": "sigmas are finite and not negative",
            "flow": "flow times lie in [0, 1]: give scheduler.sigmas, not its timesteps",
            "alpha_bar": "alpha_bar lies in [0, 1]: give scheduler.alphas_cumprod at its timesteps, not its sigmas",
        }
        raise ValueError(f"levels[{i}]={level:g} is no level of the form {form!r}: {meant[form]}")
    return level
