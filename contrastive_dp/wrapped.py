"""A noise prediction that is made of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from contrastive_dp.schedules import NoiseSchedule


class Wrapped(nn.Module):
    """The noise prediction call(*networks, x, t, labels) as a module that holds its networks, modules or functions.

    So .to(device), .eval() and copies reach them, and a sampler sees their schedule and warns of those in training mode. `call` must take
    the networks from its arguments: a copy has others.
    """

    def __init__(self, call: Callable[..., Tensor], *networks: Any) -> None:
        super().__init__()
        self.call = call
        self.names = [f"network{i}" for i in range(len(networks))]
        for name, network in zip(self.names, networks, strict=True):
            setattr(self, name, network)

    @property
    def networks(self) -> list[Any]:
        return [getattr(self, name) for name in self.names]

    @property
    def schedule(self) -> NoiseSchedule | None:
        """That of the first network that knows one."""
        found = (getattr(one, "schedule", None) for one in self.networks)
        return next((one for one in found if isinstance(one, NoiseSchedule)), None)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.call(*self.networks, x, t, labels)
