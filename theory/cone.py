"""P(theta lies in a circular cone), theta normal: what the l_2-robust accuracy of the averaging learner comes down to (T5).

theta ~ N(m, C), unit vector e, k in [0, 1): theta.e >= k ||theta||. With x = theta.e ~ N(m.e, s^2), theta across e is b + g x plus
independent normal noise, and x >= 0 is in the cone iff

    R = ||noise + b + g x||^2 <= x^2 (1 / k^2 - 1).

R is a quadratic form sum_j l_j (z_j + c_j)^2. Its characteristic function

    prod_j (1 - 2 i u l_j)^{-1/2} exp(i u l_j c_j^2 / (1 - 2 i u l_j))

is inverted by the midpoint rule (Imhof 1961; Davies 1980), and x is integrated adaptively. The rule needs a characteristic
function that decays: six or so eigenvalues l_j of a like size are enough; with fewer the caller must do without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr

from theory._checks import Array
from theory._linalg import svd

REACH = 8.3  # standard deviations; the normal tail beyond is 1e-16
DECAY = 1e-8
MOST_TERMS = 4096
PRECISION = 3e-9
MOST_PIECES = 60


class _SlowDecay(Exception):
    """The characteristic function decays too slowly."""


@dataclass(frozen=True, eq=False)
class Cone:
    """theta ~ N(mean, factor factor') around the axis `unit`."""

    along: float  # m.e
    std: float  # s
    slope: Array  # g (d,), across e
    offset: Array  # b (d,)
    sizes: Array  # l (r,), eigenvalues of the noise across e; r <= d - 1
    axes: Array  # (d, r)

    @classmethod
    def of(cls, mean: Array, factor: Array, unit: Array) -> Cone:
        along = factor.T @ unit
        variance = float(along @ along)
        slope = factor @ along / variance - unit
        across = factor - np.outer(unit + slope, along)  # noise across e that is independent of x
        axes, roots, _ = svd(across)
        sizes = roots**2
        kept = sizes > 1e-14 * max(float(sizes.max()), 1e-300)
        offset = mean - (mean @ unit) * (unit + slope)
        return cls(float(mean @ unit), math.sqrt(variance), slope, offset, sizes[kept], axes[:, kept])

    @cached_property
    def _noisy(self) -> tuple[Array, Array]:
        """b and g along the axes of the noise, (r,) each."""
        return self.axes.T @ self.offset, self.axes.T @ self.slope

    def mirrored(self) -> Cone:
        """The cone of -theta.e."""
        return Cone(-self.along, self.std, -self.slope, self.offset, self.sizes, self.axes)

    def probability(self, k: float) -> float | None:
        """P(theta.e >= k ||theta||) to about 1e-9 for -1 < k < 1; None if the characteristic function decays too slowly."""
        if k < 0:
            outside = self.mirrored().probability(-k)
            return None if outside is None else 1 - outside
        if k == 0:
            return float(ndtr(self.along / self.std))
        low, high = max(0.0, self.along - REACH * self.std), max(0.0, self.along + REACH * self.std)
        if high == low:
            return 0.0
        from scipy.integrate import cubature  # 0.2 s to import, which `import theory` should not cost

        def integrand(points: Array) -> Array:
            x = points[:, 0]
            return np.asarray(np.exp(-(((x - self.along) / self.std) ** 2) / 2) * self._below(x, k))

        limits = {"rtol": 0, "atol": PRECISION * self.std, "max_subdivisions": MOST_PIECES}
        try:
            found = cubature(integrand, [low], [high], rule="gk21", points=self._edges(low, high, k), **limits)
        except _SlowDecay:
            return None
        return (
            float(np.clip(found.estimate / (self.std * math.sqrt(2 * math.pi)), 0.0, 1.0)) if found.status == "converged" else None
        )

    def _edges(self, low: float, high: float, k: float) -> list[Array]:
        """Where x enters or leaves the cone without noise, between the two, and where the answer becomes sure: not to be missed."""
        a, b, c = (
            1 / (k * k) - 1 - float(self.slope @ self.slope),
            -2 * float(self.offset @ self.slope),
            -float(self.offset @ self.offset),
        )
        roots = np.roots([a, b, c])
        edges = [float(root) for root in roots.real[np.abs(roots.imag) <= 1e-8 * np.abs(roots)]]
        edges += [sum(edges) / 2] if len(edges) == 2 else []
        grid = low + (high - low) * 2.0 ** -np.arange(60.0)
        rest, most = self._bounds(grid, k)
        state = (rest > 0).astype(int) + (rest >= most)
        edges += list(grid[1:][np.diff(state) != 0])
        return [np.array([edge]) for edge in sorted(set(edges)) if low < edge < high]

    def _bounds(self, x: Array, k: float) -> tuple[Array, Array]:
        """For each x the bound on the random part of R, and what that part exceeds with probability 1e-11 only."""
        b, g = self._noisy
        fixed = self.offset - self.axes @ b, self.slope - self.axes @ g  # where there is no noise
        rest = x * x * (1 / (k * k) - 1) - ((fixed[0] + np.outer(x, fixed[1])) ** 2).sum(axis=1)
        length = np.sqrt(((b + np.outer(x, g)) ** 2).sum(axis=1)) + math.sqrt(self.sizes.sum()) + 7 * math.sqrt(self.sizes.max())
        return rest, length**2

    def _below(self, x: Array, k: float) -> Array:
        """P(R <= bound) for each x. Raises _SlowDecay."""
        rest, most = self._bounds(x, k)
        open_ = (rest > 0) & (rest < most)  # elsewhere R is above the bound, or below it, for sure
        result = (rest >= most).astype(np.float64)
        if not open_.any():
            return result
        x, rest = x[open_], rest[open_]
        step = 2 * math.pi / float(most[open_].max())
        terms = self._terms(step)
        b, g = self._noisy
        u = (np.arange(terms) + 0.5) * step
        ratio = 1j * u[:, None] / (1 - 2j * u[:, None] * self.sizes)  # (K, r)
        flat = ratio @ (b * b) - 0.5 * np.log(1 - 2j * u[:, None] * self.sizes).sum(axis=1)
        phase = flat + np.outer(x, 2 * ratio @ (b * g)) + np.outer(x * x, ratio @ (g * g)) - 1j * np.outer(rest, u)  # (x, K)
        result[open_] = np.clip(0.5 - (np.exp(phase).imag / (np.arange(terms) + 0.5)).sum(axis=1) / math.pi, 0.0, 1.0)
        return result

    def _terms(self, step: float) -> int:
        """How many until the characteristic function is below DECAY, whatever the shifts."""
        terms = 64
        while terms <= MOST_TERMS:
            u = terms * step
            if -0.25 * float(np.log1p(4 * (u * self.sizes) ** 2).sum()) < math.log(DECAY * terms):
                return terms
            terms *= 2
        raise _SlowDecay
