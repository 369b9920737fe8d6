"""The two data models: a symmetric pair of Gaussian classes, and K Gaussian classes under diffusion noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theory._checks import Array, Remade, count, finite_array, frozen_array, open_unit, real_number, same_dimension
from theory.covariance import Covariance


@dataclass(frozen=True, eq=False, repr=False)
class BinaryMixture(Remade):
    """Two Gaussian classes mirrored about the origin: P(y=+1) = prior, x | y ~ N(y mean, cov).

    mean: (d,), units of x. cov: scalar variance, (d,) variances or (d, d) matrix, units of x squared.
    Raises ValueError for NaN, mismatched shapes, a covariance that is not symmetric positive definite, prior outside (0, 1).
    """

    mean: Any
    cov: Any = 1.0
    prior: float = 0.5
    covariance: Covariance = field(init=False, repr=False)
    """The covariance with its operations (solve, quadratic, trace, ...); `cov` is its value."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", frozen_array(self.mean, "mean", 1))
        object.__setattr__(self, "covariance", Covariance(self.cov, self.dim))
        object.__setattr__(self, "cov", self.covariance.value)
        object.__setattr__(self, "prior", open_unit(self.prior, "prior"))

    @property
    def dim(self) -> int:
        return int(self.mean.shape[0])

    @property
    def log_odds(self) -> float:
        """log(prior / (1 - prior)); 0 for balanced classes."""
        return float(np.log(self.prior) - np.log1p(-self.prior))

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw n labelled points: x (n, d) float64, y (n,) in {-1, +1}."""
        y = np.where(rng.random(count(n, "n", 0)) < self.prior, 1.0, -1.0)
        return y[:, None] * self.mean + self.covariance.sample(len(y), rng), y


@dataclass(frozen=True, eq=False, repr=False)
class GaussianMixture(Remade):
    """K Gaussian classes: P(y=k) = weights[k], x | y=k ~ N(means[k], covs[k]).

    After forward diffusion x_t = sqrt(a) x + sqrt(1-a) noise with a = alpha_bar, class k is
    N(sqrt(a) mean_k, a cov_k + (1-a) I), so score and noise prediction have closed forms (method T8).

    means: (K, d). covs: one scalar variance shared by all classes, or a sequence of K entries, each a scalar, (d,) or (d, d).
    weights: (K,) positive, summing to 1 (equal when omitted).
    Raises ValueError like BinaryMixture, for weights that do not sum to 1, and for one array (d, d) if K = d: it could be the covariance
    that all classes share, or their K diagonals.
    """

    means: Any
    covs: Any
    weights: Any = None
    covariances: tuple[Covariance, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        means = frozen_array(self.means, "means", 2)
        classes, dim = means.shape
        if classes == 0:
            raise ValueError("means has no rows: give at least one class")
        if self.covs is None:
            raise ValueError("covs is None: give one variance for all classes or one covariance a class")
        shared = np.isscalar(self.covs) or (isinstance(self.covs, np.ndarray) and self.covs.ndim == 0)
        entries = [self.covs] * classes if shared else list(self.covs)
        if not shared and not any(isinstance(entry, np.ndarray) and isinstance(self.covs, list | tuple) for entry in self.covs):
            _check_one_array(self.covs, classes, dim)
        same_dimension(len(entries), classes, "covs (one entry a class) and means")
        weights = frozen_array(np.full(classes, 1 / classes) if self.weights is None else self.weights, "weights", 1)
        same_dimension(len(weights), classes, "weights and means")
        if weights.min() <= 0 or abs(weights.sum() - 1) > 1e-9:
            raise ValueError(f"weights {weights.tolist()} must be positive and sum to 1 (they sum to {weights.sum():g})")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", tuple(Covariance(entry, dim) for entry in entries))
        object.__setattr__(self, "covs", tuple(covariance.value for covariance in self.covariances))
        object.__setattr__(self, "weights", weights)

    @property
    def dim(self) -> int:
        return int(self.means.shape[1])

    @property
    def classes(self) -> int:
        return int(self.means.shape[0])

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, np.ndarray[Any, np.dtype[np.int64]]]:
        """Draw n labelled points: x (n, d), y (n,) int in 0..K-1."""
        y = rng.choice(self.classes, size=count(n, "n", 0), p=self.weights)
        x = self.means[y]
        for k, covariance in enumerate(self.covariances):
            members = y == k
            x[members] += covariance.sample(int(members.sum()), rng)
        return x, y

    def score(self, x: Any, alpha_bar: float = 1.0, y: Any = None) -> Array:
        """Gradient of the log density of the noised mixture at x.

        Class k: s_k(x) = -(a cov_k + (1-a) I)^-1 (x - sqrt(a) mean_k). Without labels, the posterior-weighted sum of the s_k.

        x: (n, d). alpha_bar: a in (0, 1], 1 = clean data. y: (n,) int labels, or None for the whole mixture. Returns (n, d).
        """
        points, a = finite_array(x, "x", 2), _check_alpha_bar(alpha_bar)
        same_dimension(points.shape[1], self.dim, "x and means")
        noised = [covariance.noised(a) for covariance in self.covariances]
        if y is not None:
            labels = self._check_labels(y, len(points))
            score = np.empty_like(points)
            for k in np.unique(labels):
                members = labels == k
                score[members] = self._class_score(points[members], a, noised[k], k)
            return score
        by_class = np.stack([self._class_score(points, a, cov, k) for k, cov in enumerate(noised)])  # (K, n, d)
        log_joint = np.stack([self._log_joint(points, by_class[k], a, cov, k) for k, cov in enumerate(noised)])
        posterior = np.exp(log_joint - log_joint.max(axis=0))  # (K, n)
        posterior /= posterior.sum(axis=0)
        return np.asarray(np.einsum("kn,knd->nd", posterior, by_class))

    def noise_prediction(self, x: Any, alpha_bar: float, y: Any = None) -> Array:
        """Exact E[noise | x_t = x] = -sqrt(1 - alpha_bar) score(x, alpha_bar, y); arguments as in `score`."""
        return np.asarray(-np.sqrt(1 - _check_alpha_bar(alpha_bar)) * self.score(x, alpha_bar, y))

    def _class_score(self, x: Array, a: float, cov: Covariance, k: int) -> Array:
        return -cov.solve(x - np.sqrt(a) * self.means[k])

    def _log_joint(self, x: Array, score: Array, a: float, cov: Covariance, k: int) -> Array:
        # log w_k N(x; sqrt(a) mean_k, cov) up to a constant shared by all classes; score = -cov^-1 (x - mean)
        residual = x - np.sqrt(a) * self.means[k]
        log_det = 2 * np.log(np.diagonal(cov.factor)).sum() if cov.is_full else np.log(cov.variances).sum()
        return np.asarray(np.log(self.weights[k]) - 0.5 * log_det + 0.5 * (residual * score).sum(axis=1))

    def _check_labels(self, y: Any, n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        labels = np.asarray(y)
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise ValueError(f"y has shape {labels.shape} and dtype {labels.dtype}: it must be ({n},) integers")
        if n and (labels.min() < 0 or labels.max() >= self.classes):
            raise ValueError(f"y reaches from {labels.min()} to {labels.max()}: labels must lie in 0..{self.classes - 1}")
        return labels


def usual_units(*mixtures: BinaryMixture) -> None:
    """Raise ValueError in units in which powers of the spread would leave the range of floating-point numbers."""
    for mixture in mixtures:
        spread, length = math.sqrt(mixture.covariance.trace / mixture.dim), float(np.abs(mixture.mean).max())
        if not (1e-30 <= spread <= 1e30 and length <= 1e30):
            raise ValueError(
                f"mixture has standard deviations of about {spread:.3g} and means up to {length:.3g}: give x in units in which both lie "
                "below 1e30 and the first above 1e-30"
            )


def _check_one_array(covs: Any, classes: int, dim: int) -> None:
    """Raise ValueError for one (d, d) array, or lists of numbers, that could be a single covariance: symmetric, positive definite."""
    try:
        array = np.asarray(covs, dtype=np.float64)
    except (ValueError, TypeError):
        return  # entries of different shapes, or an error that Covariance will report
    if array.shape != (dim, dim) or not np.isfinite(array).all():
        return
    could_be_shared = np.array_equal(array, array.T) and np.linalg.eigvalsh(array)[0] > 0
    if classes != dim or (could_be_shared and dim > 1):
        raise ValueError(
            f"covs is one array of shape {array.shape}: give a sequence with an entry a class, [cov] * {classes} for a covariance that all "
            "share" + (", [numpy.array(v) for v in covs] for diagonals" if classes == dim else "")
        )


def _check_alpha_bar(alpha_bar: Any) -> float:
    number = real_number(alpha_bar, "alpha_bar")
    if not 0 < number <= 1:
        raise ValueError(f"alpha_bar={number:g} must lie in (0, 1]; 1 is clean data")
    return number
