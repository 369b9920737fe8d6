"""T7: how distinguishable can synthetic classes be within a given Wasserstein-2 distance of the real ones?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from theory._checks import non_negative
from theory.mixtures import BinaryMixture, usual_units


@dataclass(frozen=True)
class Frontier:
    """The most distinguishable classes within W2 <= radius: mean mean_scale * mu, covariance std_scale^2 * Sigma.

    sample_multiplier: how many real samples one such sample is worth to the averaging learner, (SNR ratio)^2.
    """

    radius: float
    mean_scale: float
    std_scale: float
    sample_multiplier: float


def distinguishability_frontier(mixture: BinaryMixture, radius: float) -> Frontier:
    """Largest class SNR ||mu~|| / sqrt(tr Sigma~ / d) with W2(N(mu~, Sigma~), N(mu, Sigma)) <= radius (T7).

    With M = ||mu~||, S = sqrt(tr Sigma~), m = ||mu||, s = sqrt(tr Sigma) (= sqrt(d) sigma when isotropic):
    W2^2 >= (M - m)^2 + (S - s)^2, with equality for mu~ along mu and Sigma~ proportional to Sigma, since the Bures
    fidelity obeys tr sqrt(Sigma^1/2 Sigma~ Sigma^1/2) <= sqrt(tr Sigma tr Sigma~). So the problem reduces to the plane (S, M): find the
    steepest ray that touches the disc of radius r around (s, m). With R = sqrt(m^2 + s^2), phi = atan2(m, s), psi = arcsin(r/R):
    M/S = tan(phi + psi), M = sqrt(R^2 - r^2) sin(phi + psi), S = sqrt(R^2 - r^2) cos(phi + psi),
    sample_multiplier = (tan(phi + psi) / tan(phi))^2.
    If phi + psi >= pi/2, that is r >= s, the disc reaches S = 0: every class may shrink to its mean, and the multiplier is inf
    (mean_scale 1, std_scale 0: the nearest such point).

    radius: r >= 0 in units of x; W2 is what the Frechet distance of a generator estimates (FID = W2^2 in a feature space).
    Raises ValueError for a negative radius or a zero mean (no separation to scale).
    """
    r = non_negative(radius, "radius")
    usual_units(mixture)
    m, s = float(np.linalg.norm(mixture.mean)), math.sqrt(mixture.covariance.trace)
    if m == 0:
        raise ValueError("mixture.mean is zero: the classes coincide and no scale of the mean separates them")
    if r >= s:
        return Frontier(r, 1.0, 0.0, math.inf)
    phi, psi, tangent = math.atan2(m, s), math.asin(r / math.hypot(m, s)), math.sqrt(m * m + s * s - r * r)
    mean_scale = tangent * math.sin(phi + psi) / m
    # tangent cos(phi + psi) / s, and the ratio of the two for tan(phi + psi) / tan(phi): without cancellation at r -> s
    std_scale = tangent * (s - r) * (s + r) / (s * (s * tangent + m * r))
    return Frontier(r, mean_scale, std_scale, (mean_scale / std_scale) ** 2)
