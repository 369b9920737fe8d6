"""The parametric bootstrap behind theory/confidence.py: what would be estimated if a given mixture were the true one.

Redrawn estimates of (s m, C), d dimensions, n effective rows, k degrees of freedom:

    mean        N(s m, C / n),
    covariance  C times chi^2_{k d} / (k d) (scalar) or chi^2_k / k per feature (diagonal), or Wishart(C, k) / k (full).

The random numbers are the same for every s, so a statistic of a redrawn estimate is a smooth function of s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtr

from theory._checks import Array
from theory.covariance import Covariance

NEWTON_STEPS = 60
BARRIER_STEPS = 60
NO_ATTACK = 1e-9
"""An attack smaller than this against the largest entry of the mean changes the margin by less."""
GROWTH, MOST_GROWTH = 1.5, 40
REFINEMENTS = 4


@dataclass(frozen=True, eq=False)
class Spreads:
    """B covariances of one kind: values (B, 1), (B, d) or (B, d, d)."""

    values: Array
    dim: int

    @cached_property
    def spectra(self) -> tuple[Array, Array]:
        """Eigenvalues (B, d) and eigenvectors (B, d, d) of full covariances."""
        values, vectors = np.linalg.eigh(self.values)
        return values, vectors

    @cached_property
    def inverses(self) -> Array:
        """(B, d, d), of full covariances."""
        values, vectors = self.spectra
        return np.asarray((vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1))

    @cached_property
    def squares(self) -> Array:
        """tr C^2, (B,)."""
        if self.values.ndim == 3:
            return np.asarray((self.values**2).sum(axis=(1, 2)))
        return np.asarray((self.values**2).sum(axis=1) * (self.dim / self.values.shape[1]))

    def optimal_margin(self, means: Means, eps: float, p: float) -> Array:
        """min over ||z||_p <= eps of ||mean - z||_{C^-1}, (B,): the margin of the robust optimum (T2), p = 2 or inf.

        Where it is 0, because eps >= ||mean||_p, the result is ||mean||_p - eps <= 0: so it rises with the mean everywhere.
        """
        if p == 2 and self.values.shape[1:] == (1,):  # isotropic: only the length of the mean matters
            length = np.sqrt(means.squares) - eps
            return np.asarray(np.where(length > 0, length / np.sqrt(self.values[:, 0]), length))
        rows = means.rows
        eps = eps if eps > NO_ATTACK * np.abs(rows).max() else 0.0
        result = np.linalg.norm(rows, ord=p, axis=1) - eps
        live = result > 1e-12 * eps
        if live.any():
            result[live] = self._margin(live, self.values[live], rows[live], eps, p)
        return np.asarray(result)

    def _margin(self, live: Array, values: Array, means: Array, eps: float, p: float) -> Array:
        full = values.ndim == 3
        if p == 2:
            if not full:
                return _least_l2(means, values, eps)
            sizes, vectors = (part[live] for part in self.spectra)
            return _least_l2(np.einsum("bij,bi->bj", vectors, means), sizes, eps)
        if not full:
            return np.asarray(np.sqrt((np.maximum(np.abs(means) - eps, 0) ** 2 / values).sum(axis=1)))
        return _least_linf(means, self.inverses[live], eps)

    def averaging_margin(self, means: Means, eps: float, p: float, n: float) -> Array:
        """First order of the averaging learner's attacked margin after n samples (T5), (B,): h of theory/second_order.py at the means."""
        if p == 2:
            norm = np.sqrt(means.squares + self.variances.sum(axis=1) * (self.dim / self.variances.shape[1]) / n)
        else:
            rows, std = means.rows, np.sqrt(self.variances / n)
            ratio = rows / std
            folded = 2 * std * np.exp(-ratio * ratio / 2) / math.sqrt(2 * math.pi) + rows * (2 * ndtr(ratio) - 1)
            norm = folded.sum(axis=1)
        return np.asarray((means.squares - eps * norm) / np.sqrt(means.quadratics + self.squares / n))

    @property
    def variances(self) -> Array:
        """(B, 1) or (B, d)."""
        return np.diagonal(self.values, axis1=1, axis2=2) if self.values.ndim == 3 else self.values

    def matvec(self, rows: Array) -> Array:
        """C m for rows (B, d)."""
        return np.matmul(self.values, rows[:, :, None])[:, :, 0] if self.values.ndim == 3 else self.values * rows


Statistic = Callable[[Spreads, "Means"], Array]
"""Of B estimates, each a covariance and a mean: (B,)."""


@dataclass(frozen=True, eq=False)
class Means:
    """B means s m + noise, with what is quadratic in them from what is the same for every s."""

    redrawn: Redrawn
    scale: float

    @cached_property
    def rows(self) -> Array:
        """(B, d)."""
        return np.asarray(self.scale * self.redrawn.mean + self.redrawn.noise)

    @property
    def squares(self) -> Array:
        """||s m + noise||^2, (B,)."""
        return self._at(self.redrawn.squares)

    @property
    def quadratics(self) -> Array:
        """(s m + noise)' C (s m + noise), (B,)."""
        return self._at(self.redrawn.quadratics)

    def _at(self, terms: tuple[Array, Array, Array]) -> Array:
        return np.maximum(self.scale**2 * terms[0] + self.scale * terms[1] + terms[2], 0.0)


@dataclass(frozen=True, eq=False)
class Redrawn:
    """B redrawn estimates of (s mean, covariance) for any s."""

    mean: Array
    noise: Array  # (B, d)
    spreads: Spreads

    @classmethod
    def observed(cls, mean: Array, covariance: Covariance) -> Redrawn:
        """An estimate as it is, at s = 1."""
        value = covariance.value
        return cls(mean, np.zeros((1, len(mean))), Spreads(np.reshape(value, (1,) + (value.shape or (1,))), len(mean)))

    def statistic(self, statistic: Statistic, scale: float = 1.0) -> Array:
        """(B,)."""
        return statistic(self.spreads, Means(self, scale))

    @cached_property
    def squares(self) -> tuple[Array, Array, Array]:
        """Terms of ||s m + noise||^2 in s^2, s and 1."""
        return np.full(len(self.noise), self.mean @ self.mean), 2 * self.noise @ self.mean, (self.noise**2).sum(axis=1)

    @cached_property
    def quadratics(self) -> tuple[Array, Array, Array]:
        """Terms of (s m + noise)' C (s m + noise) in s^2, s and 1."""
        turned = self.spreads.matvec(np.broadcast_to(self.mean, self.noise.shape))
        return turned @ self.mean, 2 * (turned * self.noise).sum(axis=1), (self.spreads.matvec(self.noise) * self.noise).sum(axis=1)

    @classmethod
    def of(cls, mean: Array, covariance: Covariance, rows: float, degrees: int, draws: int, seed: int) -> Redrawn:
        """rows: effective rows n of the mean. degrees: k."""
        rng = np.random.default_rng(seed)
        dim = len(mean)
        normals = rng.standard_normal((draws, dim)) / math.sqrt(rows)
        if covariance.is_full:
            factor = covariance.factor @ _bartlett(dim, degrees, draws, rng)
            return cls(mean, normals @ covariance.factor.T, Spreads(factor @ factor.transpose(0, 2, 1) / degrees, dim))
        freedom, shape = (degrees * dim, (draws, 1)) if covariance.kind == "scalar" else (degrees, (draws, dim))
        values = covariance.value * rng.chisquare(freedom, shape) / freedom
        return cls(mean, normals * np.sqrt(covariance.value), Spreads(np.asarray(values), dim))

    def scales(self, statistic: Statistic, observed: float, levels: tuple[float, ...]) -> tuple[float, ...]:
        """For each level q, the s at which the observed statistic is the q-quantile of the redrawn ones; 0 if it is lower even at s = 0.

        Raises ValueError if no s reaches the observed value.
        """
        below, curve = [0.0], [self._quantiles(statistic, 0.0, levels)]

        def add(scale: float) -> None:
            place = int(np.searchsorted(below, scale))
            below.insert(place, scale)
            curve.insert(place, self._quantiles(statistic, scale, levels))

        scale = 1.0
        for _ in range(MOST_GROWTH):
            add(scale)
            if curve[-1].min() > observed:
                break
            scale *= GROWTH
        else:
            raise ValueError("the bootstrap cannot reach the estimate: the covariance is nearly singular; use more rows")
        for _ in range(REFINEMENTS):
            for i in range(len(levels)):
                add(_crossing(below, [values[i] for values in curve], observed, inside=True))
        return tuple(_crossing(below, [values[i] for values in curve], observed, inside=False) for i in range(len(levels)))

    def _quantiles(self, statistic: Statistic, scale: float, levels: tuple[float, ...]) -> Array:
        return np.asarray(np.quantile(self.statistic(statistic, scale), levels, method="weibull"))


def _crossing(scales: list[float], values: list[float], observed: float, *, inside: bool) -> float:
    """Where the increasing curve crosses the observed value, by linear interpolation; inside: at least 5 % from either end."""
    right = next(i for i, value in enumerate(values) if value > observed) if values[-1] > observed else len(values) - 1
    if right == 0:
        return scales[1] * 0.01 if inside else 0.0
    low, high = values[right - 1], values[right]
    share = min(max((observed - low) / (high - low), 0.0), 1.0) if high > low else 0.5
    if inside:
        share = min(max(share, 0.05), 0.95)
    return scales[right - 1] + share * (scales[right] - scales[right - 1])


def _bartlett(dim: int, degrees: int, draws: int, rng: np.random.Generator) -> Array:
    """Lower triangular A with A A' ~ Wishart(I, degrees), (draws, dim, dim); degrees >= dim."""
    factor = np.zeros((draws, dim, dim))
    rows, columns = np.tril_indices(dim, -1)
    factor[:, rows, columns] = rng.standard_normal((draws, len(rows)))
    diagonal = np.arange(dim)
    factor[:, diagonal, diagonal] = np.sqrt(rng.chisquare(degrees - diagonal, (draws, dim)))
    return factor


def _least_l2(means: Array, variances: Array, eps: float) -> Array:
    """min over ||z||_2 <= eps of ||m - z|| weighted by 1 / v, row by row: z = m / (1 + t v), Newton on the secular equation (T2)."""
    if eps == 0:
        return np.asarray(np.sqrt((means**2 / variances).sum(axis=1)))
    t = np.zeros((len(means), 1))
    for _ in range(NEWTON_STEPS):
        damped = 1 + t * variances
        z = means / damped
        norm = np.linalg.norm(z, axis=1, keepdims=True)
        step = (norm / eps - 1) * norm**2 / (z * z * (variances / damped)).sum(axis=1, keepdims=True)
        t += step
        if not (step > 1e-10 * t).any():
            break
    w = t * means / (1 + t * variances)
    return np.asarray(np.sqrt((w * w * variances).sum(axis=1)))


def _least_linf(means: Array, precisions: Array, eps: float) -> Array:
    """min over |z_i| <= eps of ||m - z||_P, row by row: interior point with multipliers a, b of the two bounds, to 1e-6 relative.

    Stationary: P (m - z) = a - b; a (eps - z) = b (eps + z) = tau, tau -> 0.
    """
    if eps == 0:
        return np.asarray(np.sqrt(np.einsum("bi,bij,bj->b", means, precisions, means)))
    dim = means.shape[1]
    z = np.zeros_like(means)
    pull = np.abs(np.einsum("bij,bj->bi", precisions, means))
    a = b = np.repeat(pull.max(axis=1, keepdims=True), dim, axis=1)
    upper = lower = np.full_like(means, eps)  # eps - z and eps + z, updated step by step because recomputing them would cancel
    diagonal = np.arange(dim)
    for _ in range(BARRIER_STEPS):
        w = np.einsum("bij,bj->bi", precisions, means - z)
        gap = (a * upper + b * lower).sum(axis=1, keepdims=True)
        size = np.maximum((w * (means - z)).sum(axis=1, keepdims=True), 1e-12)
        if (gap < 1e-6 * size).all() and np.abs(w - a + b).max() < 1e-6 * np.abs(w).max():
            break
        tau = 0.1 * gap / (2 * dim)
        matrix = precisions.copy()
        matrix[:, diagonal, diagonal] += a / upper + b / lower
        dz = np.linalg.solve(matrix, (w - tau / upper + tau / lower)[:, :, None])[:, :, 0]
        da, db = (tau + a * dz) / upper - a, (tau - b * dz) / lower - b
        reach = np.minimum(1.0, 0.995 * _room((upper, -dz), (lower, dz), (a, da), (b, db)))
        z, a, b = z + reach * dz, a + reach * da, b + reach * db
        upper, lower = upper - reach * dz, lower + reach * dz
    return np.asarray(np.sqrt(np.maximum(np.einsum("bi,bij,bj->b", means - z, precisions, means - z), 0)))


def _room(*pairs: tuple[Array, Array]) -> Any:
    """Row by row, the largest step that keeps every value + step * change >= 0."""
    steps = [np.where(change < 0, -value / np.where(change < 0, change, -1.0), np.inf) for value, change in pairs]
    return np.min(steps, axis=(0, 2))[:, None]
