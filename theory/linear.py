"""T1 and T9: exact robust accuracy of a given linear classifier, and the perturbation that attains it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from theory._checks import (
    Array,
    Remade,
    count,
    dual_exponent,
    finite_array,
    frozen_array,
    non_negative,
    norm_order,
    real_number,
    same_dimension,
)
from theory.elliptical import MarginCdf
from theory.mixtures import BinaryMixture, GaussianMixture


@dataclass(frozen=True, eq=False, repr=False)
class LinearClassifier(Remade):
    """sign(w.x + b) with sign(0) = +1. weights: (d,), bias: scalar; both must be finite."""

    weights: Any
    bias: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", frozen_array(self.weights, "weights", 1))
        object.__setattr__(self, "bias", real_number(self.bias, "bias"))

    def score(self, x: Any) -> Array:
        """w.x + b for x of shape (n, d); returns (n,)."""
        points = finite_array(x, "x", 2)
        same_dimension(points.shape[1], len(self.weights), "x and weights")
        return np.asarray(points @ self.weights + self.bias)

    def predict(self, x: Any) -> Array:
        """Labels in {-1, +1}, shape (n,), for x of shape (n, d)."""
        return np.where(self.score(x) >= 0, 1.0, -1.0)


def vector_norm(vector: Array, p: float) -> float:
    """||v||_p, scaled by its largest entry so that nothing overflows or underflows."""
    largest = float(np.abs(vector).max())
    return largest * float(np.linalg.norm(vector / largest, ord=p)) if largest else 0.0


def robust_margin(w: Array, mixture: BinaryMixture, eps: float, p: float) -> tuple[float, float]:
    """Mean w.mu - eps ||w||_q and standard deviation s = sqrt(w' Sigma w) of the attacked margin y w.(x + delta), w not zero."""
    margin = float(w @ mixture.mean) - eps * vector_norm(w, dual_exponent(p))
    return margin, math.sqrt(mixture.covariance.quadratic(w))


def robust_accuracy(
    classifier: LinearClassifier, mixture: BinaryMixture, eps: float = 0.0, p: float = 2, *, margin_cdf: MarginCdf | None = None
) -> float:
    """Accuracy of a linear classifier if every point may move by eps in l_p (T1).

    A(w, b) = pi Phi((w.mu + b - eps ||w||_q) / s) + (1 - pi) Phi((w.mu - b - eps ||w||_q) / s),
    s = sqrt(w' Sigma w), 1/p + 1/q = 1. With w = 0 the classifier is constant, and A is the share of the class it predicts.

    eps: attack radius in units of x; p: any norm in [1, inf]. margin_cdf: F instead of Phi, for classes that are elliptical with this mean
    and covariance (theory/elliptical.py: student_t_margin(3), for example). Returns a value in [0, 1].
    Raises ValueError for eps < 0, p < 1 or mismatched dimensions. Source: Bhagoji, Cullina, Mittal (2019), section 4.
    """
    radius, order = non_negative(eps, "eps"), norm_order(p)
    w, b, prior = classifier.weights, classifier.bias, mixture.prior
    same_dimension(len(w), mixture.dim, "classifier and mixture")
    scale = float(np.abs(w).max())
    if scale == 0:
        return prior if b >= 0 else 1 - prior
    margin, s = robust_margin(w / scale, mixture, radius, order)
    b = b / scale
    cdf = ndtr if margin_cdf is None else margin_cdf
    return float(prior * cdf((margin + b) / s) + (1 - prior) * cdf((margin - b) / s))


def worst_case_perturbation(classifier: LinearClassifier, y: Any, eps: float, p: float = 2) -> Array:
    """The perturbation with ||delta||_p <= eps that lowers y (w.x + b) most, for each label (T1).

    delta = -eps y v, v the unit-l_p vector with w.v = ||w||_q: w/||w||_2 (p=2), sign(w) (p=inf), one basis vector (p=1),
    v_i = sign(w_i) (|w_i| / ||w||_q)^(q-1) otherwise. It does not depend on x, and it is 0 if w = 0.

    y: (n,) labels in {-1, +1}. Returns (n, d). Raises ValueError for other labels, eps < 0 or p < 1.
    """
    labels, radius, order = check_signs(y), non_negative(eps, "eps"), norm_order(p)
    direction = _steepest_direction(classifier.weights, order)
    return np.asarray(-radius * labels[:, None] * direction)


def _steepest_direction(w: Array, p: float) -> Array:
    """argmax of w.v over ||v||_p <= 1."""
    if not w.any():
        return np.zeros_like(w)
    w = w / np.abs(w).max()
    if np.isinf(p):
        return np.sign(w)
    if p == 1:
        direction = np.zeros_like(w)
        largest = int(np.abs(w).argmax())
        direction[largest] = np.sign(w[largest])
        return direction
    q = dual_exponent(p)
    return np.asarray(np.sign(w) * (np.abs(w) / vector_norm(w, q)) ** (q - 1))


def check_signs(y: Any) -> Array:
    """Return labels as float64 (n,); ValueError for any but -1 and +1."""
    labels = finite_array(y, "y", 1)
    wrong = labels[np.abs(labels) != 1]
    if len(wrong):
        raise ValueError(f"y contains {wrong[0]:g}: labels must be -1 or +1")
    return labels


def multiclass_robust_accuracy(
    weights: Any, biases: Any, mixture: GaussianMixture, eps: float = 0.0, p: float = 2, seed: int = 0, *, points: int = 2000
) -> float:
    """Robust accuracy of argmax_k (w_k.x + b_k) on K Gaussian classes (T9).

    x of class y is robustly correct iff every margin (w_y - w_j).x + b_y - b_j beats eps ||w_y - w_j||_q, j != y.
    The K-1 margins are jointly Gaussian, so this is a Gaussian orthant probability of dimension K-1.

    weights: (K, d). biases: (K,). The covariances of the classes may differ. eps: attack radius in units of x. Exact up to rounding for
    K = 2 and to about 1e-8 for K = 3. From K = 4 on, uses scipy's randomised quasi-Monte Carlo with `points` times (K - 1) points a class,
    reproducible through `seed`. Ten classes, 2,000: standard error up to 5e-5, 0.2 s; 50,000: up to 6e-6, 2 s.
    Raises ValueError for mismatched shapes, equal rows of weights, eps < 0 or p < 1.
    """
    w, b = finite_array(weights, "weights", 2), finite_array(biases, "biases", 1)
    radius, q = non_negative(eps, "eps"), dual_exponent(norm_order(p))
    if w.shape != mixture.means.shape or b.shape != (mixture.classes,):
        raise ValueError(
            f"weights {w.shape} and biases {b.shape} do not fit the mixture: "
            f"they must be {mixture.means.shape} and ({mixture.classes},)"
        )
    if mixture.classes < 2:
        raise ValueError("the mixture has one class: robust accuracy needs at least two")
    by_class = [_class_orthant(w, b, mixture, k, radius, q, (seed, count(points, "points"))) for k in range(mixture.classes)]
    return float(np.dot(mixture.weights, by_class))


def _class_orthant(w: Array, b: Array, mixture: GaussianMixture, k: int, eps: float, q: float, effort: tuple[int, int]) -> float:
    """P(all robust margins of class k are positive). effort: seed, points."""
    others = np.arange(len(w)) != k
    differences = w[k] - w[others]  # (K-1, d)
    norms = np.array([vector_norm(row, q) for row in differences])
    if not norms.all():
        raise ValueError("two classes have equal weights: their margin is constant; merge the classes")
    margin = (differences @ mixture.means[k] + b[k] - b[others] - eps * norms) / norms  # (K-1,)
    differences = differences / norms[:, None]
    covariance = differences @ mixture.covariances[k].matvec(differences).T  # (K-1, K-1)
    if len(margin) == 1:
        return float(ndtr(margin[0] / np.sqrt(covariance[0, 0])))
    from scipy.stats import multivariate_normal  # imported here because it takes 0.4 s and only T9 needs it

    seed, points = effort
    limits = {"abseps": 1e-5, "releps": 0, "maxpts": points * len(margin)}
    return float(multivariate_normal.cdf(margin, cov=covariance, allow_singular=True, rng=np.random.default_rng(seed), **limits))
