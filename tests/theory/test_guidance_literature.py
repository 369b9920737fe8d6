"""What others found of classifier-free guidance on Gaussian mixtures, checked with the exact noise prediction.

Wu et al. 2024 (arXiv 2403.01639): confidence in the class rises with guidance, and the entropy of what is drawn falls.
Pavasovic et al. 2025 (2502.07849): the distortion shrinks as the dimension grows, because classes ||mu|| ~ sqrt(d) apart are decided
early. We find that against ||mu||; in standard deviations along mu it stays.
Chidambaram et al. 2024 (2409.13074): strong guidance of classes of bounded support draws from the edge of the support.
Only the coordinate along mu is guided, so one dimension with mu = sqrt(d) is exact.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm

from theory import GaussianMixture

STEPS = 200


def guided_quantiles(mu, scale, x):
    """x_T quantiles of the class +mu, moved through DDIM with noise prediction (1 + scale) eps(x | y) - scale eps(x)."""
    mixture = GaussianMixture([[-mu], [mu]], 1.0)
    labels = np.ones(len(x), dtype=int)
    t = np.linspace(1, 0, STEPS + 1)
    alpha_bars = np.clip(np.cos(t * math.pi / 2) ** 2, 1e-5, 1.0)
    x = x[:, None].copy()
    for a, following in pairwise(alpha_bars):
        noise = (1 + scale) * mixture.noise_prediction(x, a, labels) - scale * mixture.noise_prediction(x, a)
        clean = (x - math.sqrt(1 - a) * noise) / math.sqrt(a)
        x = math.sqrt(following) * clean + math.sqrt(1 - following) * noise
    return x[:, 0]


X_T = norm.ppf((np.arange(4000) + 0.5) / 4000)
"""Equally likely quantiles: averages over them are integrals, without Monte Carlo noise."""


def entropy(x):
    """Differential entropy of a monotone map of a standard normal: E log dx/dz + entropy of z."""
    slope = np.diff(x) / np.diff(X_T)
    return float(np.log(slope[1:-1]).mean()) + 0.5 * math.log(2 * math.pi * math.e)


def test_confidence_rises_and_entropy_falls():
    drawn = [guided_quantiles(1.0, scale, X_T) for scale in (0.0, 0.5, 1.0, 2.0, 4.0)]
    confidence = [float((1 / (1 + np.exp(-2 * x))).mean()) for x in drawn]
    spread = [entropy(x) for x in drawn]
    assert drawn[0].mean() == pytest.approx(1, abs=0.01)  # unguided: the class itself
    assert spread[0] == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=0.03)
    assert (np.diff(confidence) > 0.01).all()
    assert (np.diff(spread) < -0.01).all()


def test_the_distortion_shrinks_as_the_dimension_grows_only_against_the_distance_of_the_classes():
    """The class mean moves by 0.6 to 0.7 standard deviations along mu in any dimension, so by 1 / sqrt(d) of ||mu||."""
    dims = np.array([1, 4, 16, 100])
    moved = [guided_quantiles(math.sqrt(d), 1.0, X_T).mean() - guided_quantiles(math.sqrt(d), 0.0, X_T).mean() for d in dims]
    assert min(moved) > 0.6
    assert max(moved) < 0.7
    assert (np.diff(moved / np.sqrt(dims)) < 0).all()


def test_strong_guidance_ends_at_the_outer_edge_of_a_bounded_class():
    """Two classes uniform on [0.5, 1.5] and [-1.5, -0.5], 60 narrow Gaussians each: strong guidance draws near 1.5 alone."""
    centres, std = np.linspace(0.5, 1.5, 60), 0.01
    upper = GaussianMixture(centres[:, None], [std**2] * 60)
    both = GaussianMixture(np.r_[centres, -centres][:, None], [std**2] * 120)
    alpha_bars = np.clip(np.cos(np.linspace(1, 0, STEPS + 1) * math.pi / 2) ** 2, 1e-5, 1.0)
    drawn = {}
    for scale in (0.0, 1.0, 3.0, 10.0):
        x = X_T[::20, None].copy()
        for a, following in pairwise(alpha_bars):
            noise = (1 + scale) * upper.noise_prediction(x, a) - scale * both.noise_prediction(x, a)
            clean = (x - math.sqrt(1 - a) * noise) / math.sqrt(a)
            x = math.sqrt(following) * clean + math.sqrt(1 - following) * noise
        drawn[scale] = x[:, 0]
    means = [float(x.mean()) for x in drawn.values()]
    near = [float((x > 1.4).mean()) for x in drawn.values()]
    assert means[0] == pytest.approx(1.0, abs=0.02)
    assert near[0] == pytest.approx(0.1, abs=0.02)
    assert (np.diff(means) > 0).all()
    assert near[-1] > 0.99
