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

    shape: 2 is Gaussian, 1 Laplace-like, above 2 lighter tails. dim: d. R^shape has a Gamma distribution, u_1^2 a Beta one, so
    F(x) = 1/2 + sign(x) E[P(u_1^2 <= x^2 / R^2)] / 2, the expectation by the trapezoidal rule over log R. Raises ValueError.
    """
    power, d = positive(shape, "shape"), count(dim, "dim")
    order = d / power  # R^power / (2 c) ~ Gamma(order)
    log_scale = 0.5 * (math.log(d) + gammaln(order) - gammaln(order + 2 / power))  # E R^2 = d
    reach = 10 * math.sqrt(1 / order) + 40 / order  # the left tail of log Gamma falls like exp(order x)
    logs = np.linspace(math.log(order) - reach, math.log(order) + 10 / math.sqrt(order) + min(10.0, 10 / order), 2001)
    weight = np.exp(order * logs - np.exp(logs) - gammaln(order)) * (logs[1] - logs[0])
    radius = np.exp(logs / power + log_scale)

    def cdf(margin: Any) -> Array:
        x = numbers_only(margin, "margin")
        if d == 1:  # u_1 = +-1
            inside = gammainc(order, (np.abs(x) / math.exp(log_scale)) ** power)
        else:
            inside = betainc(0.5, (d - 1) / 2, np.minimum((np.abs(x)[..., None] / radius) ** 2, 1.0)) @ weight
        return np.asarray(0.5 + np.sign(x) * inside / 2)

    return cdf
