"""A noise prediction that is made of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from contrastive_dp.schedules import NoiseSchedule


class Wrapped(nn.Module):
    """The noise prediction call(x, t, labels) as a module that holds the networks it calls, so that .to(device) and .eval() reach them, and
    a sampler sees their schedule and warns of those in training mode. Functions among them are called as they are."""

    def __init__(self, call: Callable[[Tensor, Tensor, Tensor | None], Tensor], *networks: Any) -> None:
        super().__init__()
        self.call = call
        self.networks = nn.ModuleList(one for one in networks if isinstance(one, nn.Module))

    @property
    def schedule(self) -> NoiseSchedule | None:
        """That of the first network that knows one."""
        found = (getattr(one, "schedule", None) for one in self.networks)
        return next((one for one in found if isinstance(one, NoiseSchedule)), None)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.call(x, t, labels)
