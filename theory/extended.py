"""Cholesky factorisation in the longest floating-point type of the machine, for covariances too ill-conditioned for float64.

numpy's longdouble has 64 bits of precision on x86 with Linux, 53 like float64 elsewhere; LAPACK knows only float64. One vector operation a
column: 2 ms at d = 40, 0.4 s at d = 300.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.special import ndtr

from theory._checks import Array

Extended = np.longdouble


def factorise(matrix: Any) -> Any:
    """Lower triangular L with L L' = matrix, in the type of the matrix. Raises LinAlgError if it is not positive definite."""
    if matrix.dtype != Extended:
        return cholesky(matrix, lower=True, check_finite=False)
    rest, factor = matrix.copy(), np.zeros_like(matrix)
    for i in range(len(matrix)):
        if not rest[i, i] > 0:
            raise np.linalg.LinAlgError(f"pivot {i} is {rest[i, i]}")
        factor[i:, i] = rest[i:, i] / np.sqrt(rest[i, i])
        rest[i + 1 :, i + 1 :] -= np.outer(factor[i + 1 :, i], factor[i + 1 :, i])
    return factor


def solve(factor: Any, vector: Any) -> Any:
    """(L L')^-1 vector."""
    if factor.dtype != Extended:
        return np.asarray(cho_solve((factor, True), vector, check_finite=False))
    x = vector.astype(Extended)
    for i in range(len(x)):
        x[i] /= factor[i, i]
        x[i + 1 :] -= factor[i + 1 :, i] * x[i]
    for i in reversed(range(len(x))):
        x[i] /= factor[i, i]
        x[:i] -= factor[i, :i] * x[i]
    return x


def extended_gap(mean: Array, cov: Array, weights: Any, eps: float, p: float) -> float:
    """theory.duality_gap in extended precision, p = 1 or inf, balanced classes."""
    mu, sigma, w, radius = mean.astype(Extended), cov.astype(Extended), weights.astype(Extended), Extended(eps)
    w = w / np.abs(w).max()
    spread = w @ sigma @ w
    margin = w @ mu - radius * (np.abs(w).max() if p == 1 else np.abs(w).sum())
    shift = mu - sigma @ w * (max(margin, Extended(0)) / spread)
    norm = np.abs(shift).sum() if p == 1 else np.abs(shift).max()
    left = mu - shift * (radius / norm if norm > radius else Extended(1))
    bound = np.sqrt(left @ solve(factorise(sigma), left))
    return float(ndtr(float(bound)) - ndtr(float(margin / np.sqrt(spread))))
