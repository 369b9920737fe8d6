"""A check compares one number from theory/ with its simulation. Checks are independent: each has its own random stream."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from command_line.cluster import fan_out

HEADER = ("quantity", "setting", "theory", "simulation", "standard_error", "z")
Z_LIMIT = 5.0
"""P(any beyond 5) = 7e-4 if theory is right: of 261 normal rows 1.5e-4, of 96 with the spread of 37 fits (T16) 5e-4, of 44 skewed ones
1e-4. With --quick, whose smallest samples have wider tails, a few 1e-3."""


@dataclass(frozen=True)
class Effort:
    """How much to simulate: fresh points to attack per check, number of fits of a learner, number of small training sets."""

    test_points: int = 40_000
    fits: int = 150
    replicates: int = 4_000
    training_points: int = 60_000

    @classmethod
    def quick(cls) -> Effort:
        return cls(test_points=4_000, fits=16, replicates=160, training_points=15_000)


@dataclass(frozen=True)
class Estimate:
    """A theoretical value, its unbiased simulation, and the standard error of the simulation."""

    theory: float
    simulation: float
    standard_error: float


@dataclass(frozen=True)
class Row:
    quantity: str
    setting: str
    theory: float
    simulation: float
    standard_error: float

    @property
    def z(self) -> float:
        """(simulation - theory) / standard error; 0 if both agree exactly and there is no noise."""
        difference = self.simulation - self.theory
        return difference / self.standard_error if self.standard_error > 0 else (0.0 if difference == 0 else np.inf)

    @property
    def cells(self) -> tuple[Any, ...]:
        return self.quantity, self.setting, self.theory, self.simulation, self.standard_error, float(self.z)


def setting_of(**arguments: Any) -> str:
    """The arguments of a check in one line, for the column `setting`."""
    return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in arguments.items())


@dataclass(frozen=True)
class Check:
    """One simulation giving one or more rows: run(rng, effort, **arguments) -> {suffix of the quantity: Estimate}.

    thorough: so slow that --quick leaves it out.
    """

    quantity: str
    setting: str
    run: Callable[..., dict[str, Estimate]]
    arguments: dict[str, Any] = field(default_factory=dict)
    thorough: bool = False

    def rows(self, seed: int, effort: Effort) -> list[Row]:
        """The rows of this check. Its random stream depends on the seed and its name, not on order or number of processes."""
        rng = np.random.default_rng([seed, zlib.crc32(f"{self.quantity} {self.setting}".encode())])
        estimates = self.run(rng, effort, **self.arguments)
        return [
            Row(f"{self.quantity}{suffix}", self.setting, estimate.theory, estimate.simulation, estimate.standard_error)
            for suffix, estimate in estimates.items()
        ]


def run_all(jobs: Sequence[Callable[..., Any]], seed: int, effort: Effort, workers: int, cluster: str | None = None) -> list[Any]:
    """[job(seed, effort) for job in jobs] on `workers` processes or a Dask cluster, with a progress bar; in the order of the jobs."""
    calls = [(job, seed, effort) for job in jobs]
    return fan_out(operator.call, calls, workers, "theory against simulation", "check", cluster, "simulations")


def share(theory: float, hits: int, n: int) -> Estimate:
    """A probability against a count of independent hits, with the standard error predicted by theory."""
    return Estimate(theory, hits / n, float(np.sqrt(max(theory * (1 - theory), 0.25 / n) / n)))


def average(theory: float, values: Any) -> Estimate:
    """A mean against independent values, with the standard error from their spread."""
    sample = np.asarray(values, dtype=np.float64)
    return Estimate(theory, float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(len(sample))))
