"""The learners of theory/, fitted to actual samples. Each takes x (n, d), y (n,) in {-1, +1}."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import expit
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from theory import LinearClassifier

Array = np.ndarray[Any, np.dtype[np.float64]]


def fit_averaging(x: Array, y: Array) -> LinearClassifier:
    """w = mean of y x, no bias."""
    return LinearClassifier(y @ x / len(y))


def fit_lda(x: Array, y: Array) -> LinearClassifier:
    """scikit-learn's linear discriminant with the pooled sample covariance (needs n > d)."""
    return _from_sklearn(LinearDiscriminantAnalysis(solver="lsqr").fit(x, y))


def fit_shrunk_lda(x: Array, y: Array) -> LinearClassifier:
    """scikit-learn's linear discriminant with the Ledoit-Wolf covariance: works for any n and d."""
    return _from_sklearn(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y))


def fit_logistic(x: Array, y: Array, strength: float = math.inf, intercept: bool = True) -> LinearClassifier:
    """scikit-learn's logistic regression. strength: C, the inverse of the l_2 penalty; inf = maximum likelihood."""
    model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-8, max_iter=200, fit_intercept=intercept)
    return _from_sklearn(model.fit(x, y))


def fit_softmax(x: Array, y: Array) -> Array:
    """scikit-learn's softmax regression of labels 0 .. K-1 by maximum likelihood: weights (K, d), also for two classes."""
    model = LogisticRegression(C=math.inf, solver="newton-cg", tol=1e-7, max_iter=200).fit(x, y)
    weights: Array = model.coef_
    return weights if len(weights) > 1 else np.stack([-weights[0], weights[0]]) / 2


def fit_svm(x: Array, y: Array, strength: float = 1.0) -> LinearClassifier:
    """scikit-learn's linear support vector machine, squared hinge loss. strength: C, the inverse of the l_2 penalty."""
    return _from_sklearn(LinearSVC(C=strength, dual=False, tol=1e-6, max_iter=10_000).fit(x, y))


def fit_hard_margin(x: Array, y: Array) -> LinearClassifier | None:
    """The w of largest margin min_i y_i w.x_i / ||w||, without bias; None if the samples are not separable.

    min ||w|| subject to y_i w.x_i >= 1, as non-negative least squares (Lawson, Hanson 1974, LDP): exact, where a soft margin with a huge
    penalty hardly converges.
    """
    signed = np.vstack([(y[:, None] * x).T, np.ones(len(y))])  # (d + 1, n)
    target = np.append(np.zeros(x.shape[1]), 1.0)
    u, _ = nnls(signed, target, maxiter=50 * len(y))
    rest = signed @ u - target
    return LinearClassifier(-rest[:-1] / rest[-1]) if abs(rest[-1]) > 1e-9 else None


def _from_sklearn(model: Any) -> LinearClassifier:
    return LinearClassifier(model.coef_[0], float(model.intercept_[0]))


def fit_adversarial(x: Array, y: Array, eps: float, p: float = 2, penalty: float = 0.0) -> LinearClassifier:
    """Logistic regression trained against its exact worst case in the l_p ball, p in {2, inf}.

    Minimises mean log(1 + exp(-(y (w.x + b) - eps ||w||_q))) + penalty ||w||_2^2 / 2 (convex) by L-BFGS-B. For p=inf the l_1 norm is made
    smooth by writing w = u - v with u, v >= 0. eps: radius in units of x.
    Raises ValueError for any other p, RuntimeError if the optimiser fails.
    """
    if p not in (2, math.inf):
        raise ValueError(f"p={p}: adversarial training is implemented for p = 2 and inf")
    dim, split = x.shape[1], p == math.inf
    signed = y[:, None] * x

    def loss(v: Array) -> tuple[float, Array]:
        w, b = (v[:dim] - v[dim:-1], v[-1]) if split else (v[:-1], v[-1])
        norm = float(v[:-1].sum()) if split else float(np.linalg.norm(w))
        margin = signed @ w + b * y - eps * norm
        slope = -expit(-margin) / len(y)  # d loss / d margin
        down_w = slope @ signed + penalty * w
        down_norm = -eps * slope.sum()
        gradient_w = (
            np.concatenate([down_w + down_norm, -down_w + down_norm]) if split else down_w + down_norm * w / max(norm, 1e-300)
        )
        value = float(np.logaddexp(0, -margin).mean() + penalty * (w @ w) / 2)
        return value, np.append(gradient_w, slope @ y)

    start = signed.mean(axis=0)
    first = np.concatenate([np.maximum(start, 0), np.maximum(-start, 0), [0.0]]) if split else np.append(start, 0.0)
    bounds = [(0, None)] * (2 * dim) + [(None, None)] if split else None
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-8}
    result = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if (
        result.status == 1
    ):  # hit the iteration limit; if the line search stops at rounding level (status 2), the fit cannot be improved
        raise RuntimeError(
            f"adversarial training stopped after {result.nit} iterations: rescale the features to comparable variances"
        )
    weights = result.x[:dim] - result.x[dim:-1] if split else result.x[:-1]
    return LinearClassifier(weights, float(result.x[-1]))


LEARNERS: dict[str, Callable[[Array, Array], LinearClassifier]] = {
    "averaging": fit_averaging,
    "lda": fit_lda,
    "logistic": fit_logistic,
    "svm": fit_svm,
}
