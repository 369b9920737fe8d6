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
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(200)
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
    first, weight = np.sin(math.pi / 4 * (1 + NODES)), NODE_WEIGHTS * np.cos(math.pi / 4 * (1 + NODES)) ** max(d - 2, 0)
    if d == 1:  # u_1 = +-1
        first, weight = np.ones(1), np.ones(1)
    reach = 9 / math.sqrt(order) + 9 / order
    logs = np.linspace(-reach, reach, 401)  # of (R / scale)^power / order
    density = np.exp(order * (logs - np.expm1(logs)))
    radius = scale * (order * np.exp(logs)) ** (1 / power)

    def cdf(margin: Any) -> Array:
        x = np.asarray(numbers_only(margin, "margin"))
        size = np.abs(x)[..., None]
        if d < MANY:
            inside = gammainc(order, (size / (first * scale)) ** power) @ (weight / weight.sum())
        else:
            inside = betainc(0.5, (d - 1) / 2, np.minimum((size / radius) ** 2, 1.0)) @ (density / density.sum())
        return np.asarray(0.5 + np.sign(x) * inside / 2)

    return cdf
