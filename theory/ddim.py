"""T8: the result of finitely many deterministic DDIM steps on Gaussian classes; exact without guidance and with affine guidance.

What classifier-free guidance does to Gaussian mixtures is known in continuous time: it raises the confidence and lowers the entropy of the
classes (Wu et al. 2024, arXiv 2403.01639), overshoots to the edge of their support (Chidambaram et al. 2024, 2409.13074), and distorts
the less, the higher the dimension (Pavasovic et al. 2025, 2502.07849). tests/theory/test_guidance_literature.py checks the first. Of the
last it finds that the distortion shrinks against the distance of the classes, not in standard deviations along mu. Guidance in a limited
interval of noise levels: Kynkaanniemi et al. 2024, 2404.07724. The laws here are exact for finitely many steps, and for any guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import ndtri

from theory._checks import Array, count, finite_array
from theory._linalg import svd


def ddim_law(mean: Any, std: Any, alpha_bars: Any, guidance: Any = None) -> tuple[Array, Array]:
    """Mean and standard deviation of DDIM (eta = 0) samples of N(mean, std^2) with the exact noise prediction, from x_T ~ N(0, I) (T8).

    One step from a to a' maps u = x - sqrt(a) mean to g u, g = (sqrt(a a') std^2 + sqrt((1-a)(1-a'))) / (a std^2 + 1 - a). Hence
    std_out = prod g and mean_out = mean (1 - sqrt(a_T) prod g). On data of unit scale, few steps shrink a class more than they shift
    it, so acceleration alone raises the class SNR (linear schedule, std = 1, 10 steps: by a factor of 1.22). For classes much wider than
    the noise, the opposite happens (std = 10, 50 steps: 0.97).
    A vector h added to the noise prediction shifts x by (sqrt(1-a') - sqrt(a' (1-a) / a)) h in its step; later steps multiply this by g.

    mean: scalar or (d,). std: scalar or (d,) standard deviations along the axes (or principal axes). alpha_bars: (steps + 1,)
    values in (0, 1] in the order visited, ending at 1 for clean data. guidance: None, (d,) constant h, or (steps, d).
    Returns (mean, std), broadcast to the shape of mean with std. Source: Song, Meng, Ermon (2021), equation 12, with the Gaussian score.
    Raises ValueError for a std <= 0; alpha_bars outside (0, 1], decreasing or too few; or shapes that do not fit.
    """
    mu, sd = finite_array(mean, "mean", (0, 1)), finite_array(std, "std", (0, 1))
    a = finite_array(alpha_bars, "alpha_bars", 1)
    if sd.min() <= 0:
        raise ValueError(f"std={sd.min():g} must be > 0")
    _check_order(a)
    try:
        shape = np.broadcast_shapes(mu.shape, sd.shape)
        pushes = None if guidance is None else np.broadcast_to(_check_guidance(guidance), (len(a) - 1, *shape))
    except ValueError as error:
        raise ValueError(f"mean {mu.shape}, std {sd.shape} and guidance {np.shape(guidance)} do not fit: {error}") from None
    product, shift = np.ones(shape), np.zeros(shape)
    for i, (now, after) in enumerate(pairwise(a)):
        g = (np.sqrt(now * after) * sd**2 + np.sqrt((1 - now) * (1 - after))) / (
            now * sd**2 + (1 - now)
        )  # in this order: 1 - now may be 0
        product = g * product
        if pushes is not None:
            shift = g * shift + (np.sqrt(1 - after) - np.sqrt(after * (1 - now) / now)) * pushes[i]
    return np.sqrt(a[-1]) * mu - np.sqrt(a[0]) * mu * product + shift, product


def _check_guidance(guidance: Any) -> Array:
    return finite_array(guidance, "guidance", (1, 2))


def guided_ddim_law(
    noise_prediction: Callable[[Array, int], Array], classes: int, dim: int, alpha_bars: Any, nodes: int = 256
) -> tuple[Array, Array]:
    """Means and covariances of the classes after DDIM (eta = 0) with any noise prediction, guidance included, by Gaussian closure (T8).

    Each class starts as N(0, I). In a step from a to a', nodes x_i = m + R z_i represent its Gaussian N(m, C), C = R R', z_i standardised
    exactly (mean 0, covariance 1). Every node takes the step x' = sqrt(a') (x - sqrt(1-a) eps) / sqrt(a) + sqrt(1-a') eps, and
    the mean and covariance of the x'_i define the Gaussian of the next step (statistical linearisation).
    Exact if eps is affine in x within each class: the exact noise prediction of Gaussian classes, with constant or linear guidance.
    Otherwise an approximation, good if classes stay nearly Gaussian. R is the root of C nearest to cov(x, z), so node i is one trajectory.

    noise_prediction: function of x (classes * nodes, d), ordered by class, and the step 0, 1, ...; returns eps of the same shape. It may
    couple the nodes as guidance couples the samples of a batch. alpha_bars: as in ddim_law. nodes: number per class, >= 2 d.
    Returns means (K, d) and covariances (K, d, d). Raises ValueError for too few nodes, bad alpha_bars, or eps that is misshapen or NaN.
    """
    dim, classes, nodes = count(dim, "dim"), count(classes, "classes"), count(nodes, "nodes")
    a, z = finite_array(alpha_bars, "alpha_bars", 1), gaussian_nodes(dim, nodes)
    _check_order(a)
    means, roots = np.zeros((classes, dim)), np.broadcast_to(np.eye(dim), (classes, dim, dim))
    for i, (now, after) in enumerate(pairwise(a)):
        x = (means[:, None] + np.einsum("kde,ne->knd", roots, z)).reshape(-1, dim)
        eps = finite_array(noise_prediction(x, i), f"noise_prediction at step {i}", 2)
        if eps.shape != x.shape:
            raise ValueError(f"noise_prediction returned shape {eps.shape} for x of shape {x.shape}: they must be equal")
        x = math.sqrt(after / now) * x + (math.sqrt(1 - after) - math.sqrt(after * (1 - now) / now)) * eps
        by_class = x.reshape(classes, nodes, dim)
        means = by_class.mean(axis=1)
        residual = by_class - means[:, None]
        covariances = np.einsum("knd,kne->kde", residual, residual) / nodes
        roots = _nearest_roots(covariances, np.einsum("knd,ne->kde", residual, z) / nodes)
    return means, covariances


def gaussian_nodes(dim: int, nodes: int) -> Array:
    """(nodes, dim) quasi-random standard normals (Sobol), shifted and rotated to mean 0 and covariance I exactly.

    Raises ValueError for fewer than 2 dim nodes, which could not have that covariance.
    """
    dim, nodes = count(dim, "dim"), count(nodes, "nodes")
    if nodes < max(2 * dim, 4):
        raise ValueError(f"nodes={nodes} is too few for {dim} dimensions: use at least {max(2 * dim, 4)}")
    from scipy.stats import qmc  # imported here because it takes 0.3 s, which `import theory` should not

    uniform = qmc.Sobol(dim, seed=0).random(2 ** math.ceil(math.log2(nodes)))[:nodes]
    z = ndtri(np.clip(uniform, 1e-9, 1 - 1e-9))
    z -= z.mean(axis=0)
    return np.asarray(np.linalg.solve(np.linalg.cholesky(z.T @ z / nodes), z.T).T)


def _nearest_roots(covariances: Array, cross: Array) -> Array:
    """Roots R R' = C nearest to the cross-covariance B: R = S U, S = C^{1/2} symmetric, U the orthogonal polar factor of S B."""
    values, vectors = np.linalg.eigh(covariances)
    roots = np.einsum("kde,ke,kfe->kdf", vectors, np.sqrt(np.maximum(values, 0)), vectors)
    left, _, right = svd(roots @ cross)
    return np.asarray(roots @ left @ right)


def _check_order(a: Array) -> None:
    if len(a) < 2 or a.min() <= 0 or a.max() > 1 or (np.diff(a) < 0).any():
        raise ValueError("alpha_bars must hold at least two values in (0, 1], in the order visited: non-decreasing, 1 = clean data")
