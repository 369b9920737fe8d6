"""Noise schedules: how much signal is left at each of the T noise levels, and which levels a sampler visits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contrastive_dp._checks import check_float64, count, positive


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule:
    """Forward diffusion x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, t = 0 (almost clean) .. T-1 (almost noise).

    alpha_bar: (T,) float64 on the CPU, strictly decreasing, in (0, 1). alpha_bar = 1 is clean data, one step below t = 0.
    Raises ValueError when it is not.
    """

    alpha_bar: Tensor
    levels: list[float] = field(init=False, repr=False)
    """alpha_bar as Python floats, so that samplers read it without a copy from a device."""
    _copies: dict[torch.device, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = torch.as_tensor(self.alpha_bar, dtype=torch.float64, device="cpu").clone()
        if values.ndim != 1 or len(values) < 1:
            raise ValueError(f"alpha_bar has shape {tuple(values.shape)}: it must be (T,) with T >= 1")
        if values[-1] == 0:
            raise ValueError(
                "alpha_bar ends at 0 (zero terminal SNR), where the noise prediction is the state itself: make the scheduler without "
                "rescale_betas_zero_snr, or guide its own loop by guide_states"
            )
        if not (torch.isfinite(values).all() and values.min() > 0 and values.max() < 1 and (values.diff() < 0).all()):
            raise ValueError("alpha_bar must decrease strictly and stay within (0, 1): check the betas it was made from")
        object.__setattr__(self, "alpha_bar", values)
        object.__setattr__(self, "levels", values.tolist())
        object.__setattr__(self, "_copies", {})

    @classmethod
    def linear(cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
        """alpha_bar_t = prod_{s<=t} (1 - beta_s), beta from beta_start to beta_end in equal steps (Ho, Jain, Abbeel 2020).

        The published betas are for steps=1000; with fewer steps, scale them up, otherwise the last level is not pure noise.
        """
        betas = torch.linspace(
            positive(beta_start, "beta_start"), positive(beta_end, "beta_end"), count(steps, "steps"), dtype=torch.float64
        )
        return cls(torch.cumprod(1 - betas, 0))

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
        """alpha_bar(u) = cos^2((u + offset) / (1 + offset) pi/2), normalised to alpha_bar(0) = 1, u = (t+1)/T (Nichol, Dhariwal 2021).

        beta_t = min(1 - alpha_bar(u_t) / alpha_bar(u_{t-1}), max_beta), as published.
        """
        u = torch.linspace(0, 1, count(steps, "steps") + 1, dtype=torch.float64)
        curve = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
        betas = (1 - curve[1:] / curve[:-1]).clamp(max=max_beta)
        return cls(torch.cumprod(1 - betas, 0))

    @property
    def betas(self) -> Tensor:
        """(T,) float64: beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, alpha_bar = 1 before the first."""
        levels = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar])
        return 1 - levels[1:] / levels[:-1]

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def __repr__(self) -> str:
        return f"NoiseSchedule({len(self)} steps, alpha_bar {self.levels[0]:.4g} to {self.levels[-1]:.4g})"

    def __getitem__(self, t: int) -> float:
        """alpha_bar at timestep t as a Python float; t = -1 is clean data, 1.0."""
        return 1.0 if t == -1 else self.levels[t]

    def timesteps(self, steps: int | Sequence[int]) -> list[int]:
        """Timesteps in the order visited. int: linspace(T-1, 0, steps) rounded down. Sequence: checked and returned.

        Raises ValueError for more steps than the schedule has, or a sequence that does not fall within T-1 .. 0.
        """
        total = len(self)
        if isinstance(steps, int | np.integer):
            steps = int(steps)
            if not 1 <= steps <= total:
                raise ValueError(f"steps={steps} must lie in 1..{total}, the length of the schedule")
            # exact in integers: floor((T-1) (1 - i / (steps-1)))
            return [(total - 1) * (steps - 1 - i) // (steps - 1) for i in range(steps)] if steps > 1 else [total - 1]
        chosen = [int(t) for t in steps]
        if not chosen or max(chosen) >= total or min(chosen) < 0 or any(b >= a for a, b in itertools.pairwise(chosen)):
            raise ValueError(f"steps={chosen[:5]}...: timesteps must fall strictly within {total - 1}..0")
        return chosen

    def visited(self, steps: int | Sequence[int]) -> Tensor:
        """(steps + 1,) alpha_bar in the order visited, ending at 1.0: the argument of theory.ddim_law."""
        return torch.tensor([self[t] for t in self.timesteps(steps)] + [1.0], dtype=torch.float64)

    def alpha_bar_on(self, device: torch.device) -> Tensor:
        """alpha_bar on this device, copied to it once. Raises ValueError for a device without float64."""
        if device.type == "cpu":
            return self.alpha_bar
        check_float64(device)
        if device not in self._copies:
            self._copies[device] = self.alpha_bar.to(device)
        return self._copies[device]

    def add_noise(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise. x_0, noise: (n, ...); t: (n,) int, each in 0 .. T - 1."""
        level = self.alpha_bar_on(x_0.device)[t].reshape(-1, *[1] * (x_0.ndim - 1))
        return level.sqrt().to(x_0.dtype) * x_0 + (1 - level).sqrt().to(x_0.dtype) * noise


ALIKE = 1e-5
"""By how much alpha_bar may differ from that of the same schedule in another precision."""


def check_same_schedule(network: Any, schedule: NoiseSchedule) -> None:
    """Raise ValueError if the network knows its noise levels, and at a timestep they are others than the schedule's."""
    own = getattr(network, "schedule", None)
    if not isinstance(own, NoiseSchedule) or own is schedule:
        return
    if len(own) != len(schedule) or float((own.alpha_bar - schedule.alpha_bar).abs().max()) > ALIKE:
        raise ValueError(
            f"the network was made with {own}, and is used with {schedule}: give both the same, or a timestep means two noise levels"
        )
