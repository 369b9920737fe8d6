"""T1 and T2 beyond the Gaussian: elliptical classes, x | y = y mu + R A u, A A' = Sigma, u uniform on the sphere, R > 0 independent of u.

For every w, (w.x - y w.mu) / sqrt(w' Sigma w) has one and the same distribution, that of R u_1. Only its cdf F replaces Phi in T1. F
increases, so the w that is best for balanced classes is that of T2, whatever F. If the density decreases with the Mahalanobis distance, the
bound of T2 holds too: shifted by z*, both classes are such a pair, whose Bayes rule is the nearer mean; no classifier does better than
F(||mu - z*||_{Sigma^-1}). Unequal priors would make that rule curved, so they are refused.

The functions here give F with R scaled so that Sigma is the covariance, as in BinaryMixture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import betainc, gammainc, gammaln, stdtr

from theory._checks import Array, count, numbers_only, positive

MarginCdf = Callable[[Any], Array]
"""F: cdf of a margin of mean 0 and variance 1."""
_nodes, _weights = np.polynomial.legendre.leggauss(20)
_panels = np.linspace(math.log(1e-12), math.log(math.pi / 2), 61)
ANGLES = np.exp((_panels[:-1, None] + (_panels[1] - _panels[0]) * (1 + _nodes) / 2).ravel())
ANGLE_WEIGHTS = ANGLES * np.tile(_weights, 60)
"""For integrals over (0, pi / 2), in the logarithm: near 0, margins are of any scale."""
MANY = 20
"""Dimensions from which on the average is over R."""


def student_t_margin(df: float) -> MarginCdf:
    """F of a multivariate Student t with df > 2 degrees of freedom: R u_1 is t_df, scaled to variance 1. Raises ValueError."""
    degrees = positive(df, "df")
    if degrees <= 2:
        raise ValueError(f"df={degrees:g} must be above 2: otherwise the classes have no covariance")
    scale = math.sqrt(degrees / (degrees - 2))

    def cdf(margin: Any) -> Array:
        return np.asarray(stdtr(degrees, scale * numbers_only(margin, "margin")))

    return cdf


def generalised_normal_margin(shape: float, dim: int) -> MarginCdf:
    """F of a multivariate generalised normal, density proportional to exp(-c m^shape) in the Mahalanobis distance m (Gomez et al. 1998).

    shape: 2 is Gaussian, 1 Laplace-like, above 2 lighter tails. dim: d. R^shape has a Gamma distribution and u_1 = sin(angle), so
    F(x) = 1/2 + sign(x) P(R |u_1| <= |x|) / 2: in few dimensions averaged over the angle, with density proportional to cos^(d - 2), in many
    over R, which then varies less. Raises ValueError.
    """
    power, d = positive(shape, "shape"), count(dim, "dim")
    order = d / power  # (R / scale)^power ~ Gamma(order), and E R^2 = d
    scale = math.exp(0.5 * (math.log(d) + gammaln(order) - gammaln(order + 2 / power)))
    first, weight = np.ones(1), np.ones(1)  # in one dimension, u_1 = +-1
    if 1 < d < MANY:
        first, weight = np.sin(ANGLES), ANGLE_WEIGHTS * np.cos(ANGLES) ** (d - 2)
    reach = 9 / math.sqrt(order) + 9 / order
    logs = np.linspace(-reach, min(reach, 10.0), 2001 if d >= MANY else 1)  # of (R / scale)^power / order
    density = np.exp(order * (logs - np.expm1(logs)))
    radius = scale * (order * np.exp(logs)) ** (1 / power)

    def cdf(margin: Any) -> Array:
        x = np.asarray(numbers_only(margin, "margin"))
        size = np.abs(x)[..., None]
        if d < MANY:
            with np.errstate(over="ignore"):  # to infinity, where the probability is 1
                inside = gammainc(order, (size / (first * scale)) ** power) @ (weight / weight.sum())
        else:
            inside = betainc(0.5, (d - 1) / 2, np.minimum((size / radius) ** 2, 1.0)) @ (density / density.sum())
        return np.asarray(0.5 + np.sign(x) * inside / 2)

    return cdf
