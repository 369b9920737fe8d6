"""Mixtures shared by the theory tests: distinct random values, fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest

from theory import BinaryMixture

NORMS = (1, 2, np.inf)
KINDS = ("scalar", "diagonal", "full")


def random_mixture(kind: str, dim: int, seed: int, prior: float = 0.5, condition: float = 30.0) -> BinaryMixture:
    rng = np.random.default_rng([seed, dim])
    mean = rng.standard_normal(dim) * 1.5
    if kind == "scalar":
        return BinaryMixture(mean, rng.uniform(0.5, 2), prior)
    variances = np.geomspace(1, condition, dim) * rng.uniform(0.5, 1)
    if kind == "diagonal":
        return BinaryMixture(mean, rng.permutation(variances), prior)
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    cov = (basis * variances) @ basis.T
    return BinaryMixture(mean, (cov + cov.T) / 2, prior)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=NORMS, ids=["p1", "p2", "pinf"])
def p(request: pytest.FixtureRequest) -> float:
    return float(request.param)
