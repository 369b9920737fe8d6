"""One covariance in three storage formats (scalar, diagonal, full) with a common set of operations.

The first two never build a d x d matrix, so a million dimensions take a million numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky

from theory._checks import Array, Remade, frozen_array, same_dimension

SYMMETRY_TOLERANCE = 1e-10  # relative to both standard deviations; larger than rounding errors, smaller than any intended asymmetry


@dataclass(frozen=True, eq=False, repr=False)
class Covariance(Remade):
    """A symmetric positive definite covariance of R^dim.

    value: scalar variance sigma^2, (d,) variances, or (d, d) matrix; units of x squared.
    Raises ValueError if it is not finite, not symmetric, not positive definite or of the wrong dimension.
    """

    value: Any
    dim: int

    def __post_init__(self) -> None:
        value = frozen_array(self.value, "cov", (0, 1, 2))
        object.__setattr__(self, "value", value)
        if value.ndim:
            same_dimension(value.shape[0], self.dim, "cov and mean")
        if value.ndim < 2:
            if value.min() <= 0:
                raise ValueError(f"cov has variance {value.min():g}: every variance must be > 0")
            return
        if value.shape[0] != value.shape[1]:
            raise ValueError(f"cov has shape {value.shape}: a full covariance must be square")
        gap, std = np.abs(value - value.T), np.sqrt(np.abs(value.diagonal()))
        if (gap > SYMMETRY_TOLERANCE * np.outer(std, std)).any():
            raise ValueError(f"cov is not symmetric: |cov - cov.T| reaches {gap.max():.3g}; pass (cov + cov.T) / 2")
        _ = self.factor  # so that a covariance that is not positive definite fails here, not later

    @property
    def kind(self) -> str:
        """'scalar', 'diagonal' or 'full'."""
        return ("scalar", "diagonal", "full")[self.value.ndim]

    @property
    def is_full(self) -> bool:
        return bool(self.value.ndim == 2)

    @cached_property
    def factor(self) -> Array:
        """Lower Cholesky factor L with L L' = cov (full storage only)."""
        try:
            return np.asarray(cholesky(self.value, lower=True, check_finite=False))
        except np.linalg.LinAlgError:
            smallest = float(np.linalg.eigvalsh(self.value)[0])
            raise ValueError(
                f"cov is not positive definite: its smallest eigenvalue is {smallest:.3g}; "
                "add a multiple of the identity or estimate it with shrinkage"
            ) from None

    @property
    def variances(self) -> Array:
        """The diagonal, (d,); for scalar storage a read-only view that takes no memory."""
        diagonal = np.diagonal(self.value) if self.is_full else self.value
        return np.broadcast_to(diagonal, (self.dim,))

    @property
    def trace(self) -> float:
        """Total variance tr(cov)."""
        return float(self.value * self.dim) if self.value.ndim == 0 else float(self.variances.sum())

    def matvec(self, vectors: Array) -> Array:
        """cov @ v for vectors of shape (d,) or (n, d)."""
        return np.asarray(vectors @ self.value if self.is_full else vectors * self.value)

    def solve(self, vectors: Array) -> Array:
        """cov^-1 v for vectors of shape (d,) or (n, d)."""
        if self.is_full:
            return np.asarray(cho_solve((self.factor, True), vectors.T, check_finite=False).T)
        return np.asarray(vectors / self.value)

    def quadratic(self, vector: Array) -> float:
        """v' cov v."""
        return float(vector @ self.matvec(vector))

    def mahalanobis(self, vector: Array) -> float:
        """sqrt(v' cov^-1 v)."""
        return math.sqrt(max(float(vector @ self.solve(vector)), 0.0))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """n draws of N(0, cov), shape (n, d)."""
        noise = rng.standard_normal((n, self.dim))
        return np.asarray(noise @ self.factor.T if self.is_full else noise * np.sqrt(self.value))

    def noised(self, alpha_bar: float) -> Covariance:
        """alpha_bar cov + (1 - alpha_bar) I: the covariance after forward diffusion to alpha_bar."""
        if self.is_full:
            return Covariance(alpha_bar * self.value + (1 - alpha_bar) * np.eye(self.dim), self.dim)
        return Covariance(alpha_bar * self.value + (1 - alpha_bar), self.dim)
