"""Finds the step and the term in which a NaN arose, without waiting for the device at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

REPORT_EVERY = 10
"""Steps between checks on a device."""
MOST_NOTES = 600
"""Where the timestep does not fall, as in corrections at one noise level."""


class Watch:
    """watch(term, t, values) records values that are not finite. It raises at once on the CPU, periodically and at the end on a device."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, int, Tensor]] = []
        self.steps, self.lowest = 0, math.inf

    def __call__(self, term: str, t: int, values: Tensor) -> None:
        # the sum is finite iff every value is, except after an overflow, which deserves the same message
        if t < self.lowest:  # solvers of second order go back within a step
            if self.steps == REPORT_EVERY:
                self.report()
            self.steps, self.lowest = self.steps + 1, t
        good = torch.isfinite(values.detach().sum(dtype=torch.float32 if values.dtype.itemsize < 4 else None))
        self.noted.append((term, t, good))
        if values.device.type == "cpu" or len(self.noted) >= MOST_NOTES:
            self.report()

    def report(self) -> None:
        """Raise FloatingPointError for the first term recorded with NaN or infinity, otherwise clear the record."""
        noted, self.noted, self.steps = self.noted, [], 0
        if noted and not torch.stack(_on_one_device([good for _, _, good in noted])).all():
            term, t = next((term, t) for term, t, good in noted if not good)
            raise FloatingPointError(
                f"the {term} at timestep {t} is NaN or infinite: check what computes it, lower the guidance scale or use float32"
            )


def _on_one_device(flags: list[Tensor]) -> list[Tensor]:
    """An encoder may be on another device than the samples."""
    home = flags[-1].device
    return [flag if flag.device == home else flag.to(home) for flag in flags]
