"""T15: classes that are mixtures of sub-populations, and the cost of guidance that sharpens them.

Balanced classes y = +-1; within a class, sub-population j has share q_j, and x | y, j ~ N(y mu_j, sigma^2 I).

Robust accuracy of the direction w at l_2 radius eps: A(w) = sum_j q_j Phi((w.mu_j / ||w|| - eps) / sigma).

Sharpening. Guidance that drives samples of class y along y v, ||v|| = 1, ideally draws from p(x | y) exp(gamma y v.x / sigma). That is
again such a mixture (complete the square): means mu_j + gamma sigma v, shares q_j exp(gamma v.mu_j / sigma) / sum. The classes move apart
by 2 gamma sigma, and sub-populations near the boundary are dropped; with gamma < 0 the classes move together and these are kept.

Learners, n samples. Averaging: w = sum_j q_j mu_j. Logistic regression against l_2 perturbations of radius e (0: ordinary): w minimises
sum_j q_j E log(1 + exp(-t_j)), t_j = w.mu_j - e ||w|| + sigma ||w|| u, u ~ N(0, 1); it lies in the span of the mu_j, as growing ||w|| alone
raises the loss (Jensen). Coordinates c across that span, which has dimension r, are noise; for large n

    E sum_c w_c^2 / ||w||^2 = V (d - r) / n,    averaging V = sigma^2 / ||sum_j q_j mu_j||^2,
    logistic V = B / (||w|| H)^2,  B = sigma^2 E[p^2],  H = sigma^2 E[p (1 - p)] + (e / ||w||) E[p],  p = 1 / (1 + exp(t_j)), E over j too,

so that margins w.mu_j / ||w|| shrink by 1 / sqrt(1 + V (d - r) / n). If all mu_j are on one line, this is T12 with equal standard
deviations; one sub-population gives T10 and T11. Sharpening has two effects. On the ceiling: averaging weighs sub-populations by their
shares and distances, so it loses what sharpening drops and gains from softening; logistic regression depends on what is near the boundary
and, sharpened from well separated classes on, hardly changes until almost nothing of it is left. On the number of samples: as in T10, V of
averaging falls as classes separate, while that of logistic regression rises steeply beyond an optimum, which is at a smaller class SNR here
than in T10.

The laws of logistic regression are asymptotic: with few samples, well separated classes are perfectly separable, and a different law
holds. SubpopulationLaw.robust_accuracy warns if the law for any n / d (T16), applied to the sub-populations as they lie along w, gives
another accuracy.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, ndtr, softmax

from theory._checks import (
    Array,
    Remade,
    count,
    finite_array,
    frozen_array,
    non_negative,
    one_of,
    positive,
    real_number,
    same_dimension,
)
from theory._linalg import svd
from theory.proportional import MOST, logistic_tangent

LEARNERS = ("averaging", "logistic")
STEP = 0.02  # of the trapezoidal rule over u
MOST_SNR = 24.0
TRUSTED = 0.0025
"""Largest difference of accuracy from T16 without a warning. T16 is for large d: at d = 10, fits may differ by twice as much."""


@dataclass(frozen=True, eq=False, repr=False)
class SubpopulationMixture(Remade):
    """x | y, j ~ N(y means_j, std^2 I), y = +-1 with probability 1/2. means: (J, d); weights: (J,), sum 1 (default: equal)."""

    means: Any
    weights: Any = None
    std: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", frozen_array(self.means, "means", 2))
        if not len(self.means):
            raise ValueError("means is empty: give at least one sub-population")
        shares = [1 / len(self.means)] * len(self.means) if self.weights is None else self.weights
        object.__setattr__(self, "weights", frozen_array(shares, "weights", 1))
        object.__setattr__(self, "std", positive(self.std, "std"))
        if len(self.weights) != len(self.means):
            raise ValueError(f"weights has {len(self.weights)} entries for {len(self.means)} means: one of each")
        if self.weights.min() < 0 or abs(self.weights.sum() - 1) > 1e-9:
            raise ValueError(f"weights are {self.weights}: they must be >= 0 and sum to 1")
        longest = float(np.linalg.norm(self.means[self.weights > 0], axis=1).max())
        if longest > MOST_SNR * self.std:
            raise ValueError(
                f"a mean has length {longest:g}, more than {MOST_SNR:g} standard deviations: separate the classes less, or sharpen less"
            )

    @property
    def mean(self) -> Array:
        """(d,) of y x."""
        return np.asarray(self.weights @ self.means)

    @property
    def class_snr(self) -> float:
        """Distance of the class means from the boundary, divided by the standard deviation along the line between them."""
        mean = self.mean
        length = float(np.linalg.norm(mean))
        if length == 0:
            return 0.0
        along = (self.means - mean) @ (mean / length)
        return length / math.sqrt(self.std**2 + float(self.weights @ along**2))

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """x (n, d) and y (n,) in {-1, +1}."""
        total = count(n, "n")
        y = rng.choice([-1.0, 1.0], total)
        chosen = rng.choice(len(self.means), total, p=self.weights)
        return y[:, None] * self.means[chosen] + self.std * rng.standard_normal((total, self.means.shape[1])), y

    def robust_accuracy(self, direction: Any, eps: float = 0.0, shrinkage: float = 1.0) -> float:
        """sum_j q_j Phi((shrinkage w.mu_j / ||w|| - eps) / sigma) of the classifier sign(w.x), eps an l_2 radius."""
        w, radius = finite_array(direction, "direction", 1), non_negative(eps, "eps")
        same_dimension(len(w), self.means.shape[1], "direction and means")
        length = float(np.linalg.norm(w))
        if length == 0:
            raise ValueError("direction is zero: give a classifier that uses x")
        return float(self.weights @ ndtr((shrinkage * (self.means @ w) / length - radius) / self.std))

    def sharpened(self, direction: Any, strength: float) -> SubpopulationMixture:
        """The mixture p(x | y) exp(strength y v.x / std) / Z, v the unit vector along `direction`; strength < 0 moves classes together."""
        v, gamma = finite_array(direction, "direction", 1), real_number(strength, "strength")
        same_dimension(len(v), self.means.shape[1], "direction and means")
        length = float(np.linalg.norm(v))
        if length == 0:
            raise ValueError("direction is zero: sharpening needs one to move the classes along")
        unit = v / length
        with np.errstate(divide="ignore"):
            shares = softmax(np.log(self.weights) + gamma * (self.means @ unit) / self.std)
        return SubpopulationMixture(self.means + gamma * self.std * unit, shares, self.std)


@dataclass(frozen=True, eq=False)
class SubpopulationLaw:
    """What a learner learns from n samples of a SubpopulationMixture. direction: (d,), for n -> infinity; variance: V; rank: r.

    shares, distances: (J,) of the sub-populations, along the direction, and eps, the training radius; the last two over the standard
    deviation. They decide from which n on the law holds.
    """

    direction: Array
    variance: float
    rank: int
    learner: str = "logistic"
    shares: Array | None = None
    distances: Array | None = None
    eps: float = 0.0

    def robust_accuracy(self, real: SubpopulationMixture, eps: float = 0.0, n: float = math.inf) -> float:
        """Mean robust accuracy on `real` after n samples, up to O(1 / n) within the span and O(1 / d) of the spread; inf: the ceiling.

        Warns if n is too small for the law of logistic regression: if T16 gives an accuracy that differs by more than 0.0025.
        """
        if not n >= 1:
            raise ValueError(f"n={n}: give at least one sample")
        across = len(self.direction) - self.rank
        found = real.robust_accuracy(self.direction, eps, 1 / math.sqrt(1 + self.variance * across / n))
        if self.distances is not None and self.shares is not None and across > 0 and n < MOST * across:
            tangent = logistic_tangent(self.shares, self.distances, n / across, self.eps)
            exact = real.robust_accuracy(self.direction, eps, 1 / math.hypot(1, tangent))
            if abs(exact - found) > TRUSTED:
                told = f"it gives {found:.3f}, that for any n / d about {exact:.3f} (ProportionalLaw); use more"
                warnings.warn(f"n={n:g} is too small for the law of {self.learner}: {told}", stacklevel=2)
        return found


def subpopulation_law(synthetic: SubpopulationMixture, learner: str = "logistic", eps: float = 0.0) -> SubpopulationLaw:
    """T15 for `learner` trained on `synthetic`. eps: l_2 radius of adversarial training, in units of x (only logistic).

    Raises ValueError for an unknown learner, eps with averaging, and eps >= ||sum_j q_j mu_j||, where training returns w = 0.
    """
    learner, e = one_of(learner, "learner", LEARNERS), non_negative(eps, "eps")
    mean = synthetic.mean
    if float(np.linalg.norm(mean)) <= e:
        raise ValueError(f"eps={e:g} >= distance of the class means from the boundary, {np.linalg.norm(mean):g}: w = 0 is learned")
    basis = _basis(synthetic.means[synthetic.weights > 0])  # (d, r)
    if learner == "averaging":
        if e:
            raise ValueError(f"eps={e:g}: averaging does not train against an adversary; use 0, or logistic")
        return SubpopulationLaw(mean, synthetic.std**2 / float(mean @ mean), basis.shape[1], learner)
    used = synthetic.weights > 0
    within, weight, u = synthetic.means[used] @ basis, *_nodes(synthetic.means[used], synthetic.weights[used], synthetic.std)
    c = _logistic_optimum(within, weight, u, synthetic.std, e)
    length = float(np.linalg.norm(c))
    p = expit(-(within @ c - e * length)[:, None] - synthetic.std * length * u)
    variance = synthetic.std**2 * float((weight * p * p).sum())
    curvature = synthetic.std**2 * float((weight * p * (1 - p)).sum()) + e / length * float((weight * p).sum())
    known = {"shares": synthetic.weights[used], "distances": within @ c / (length * synthetic.std), "eps": e / synthetic.std}
    return SubpopulationLaw(basis @ c, variance / (length * curvature) ** 2, basis.shape[1], **known)


def _basis(means: Array) -> Array:
    """Orthonormal columns that span the means, (d, r)."""
    _, size, rows = svd(means)
    return np.asarray(rows[size > 1e-12 * size[0]].T)


def _nodes(means: Array, weights: Array, std: float) -> tuple[Array, Array]:
    """Weights (J, U) of sub-population and node, and nodes u (U,)."""
    reach = float(np.linalg.norm(means, axis=1).max()) / std + 9
    u = np.arange(-reach, 9 + STEP, STEP)
    return weights[:, None] * np.exp(-u * u / 2) * STEP / math.sqrt(2 * math.pi), u


def _logistic_optimum(within: Array, weight: Array, u: Array, std: float, eps: float) -> Array:
    """argmin over c (r,) of the population loss; within: (J, r) means in the basis of their span. BFGS on the
    logarithm of the loss, which is flat for well separated classes, then Newton."""
    from scipy.optimize import minimize  # imported here because it takes 0.2 s, which `import theory` should not

    def parts(c: Array) -> tuple[Array, Array, Array]:
        length = float(np.linalg.norm(c))
        t = (within @ c - eps * length)[:, None] + std * length * u
        return t, within[:, None, :] + (std * u - eps)[None, :, None] * (c / length), expit(-t)  # t, dt/dc (J, U, r), p

    def log_loss(c: Array) -> tuple[float, Array]:
        t, slope, p = parts(c)
        loss = float((weight * np.logaddexp(0, -t)).sum())
        return math.log(loss), -np.einsum("ju,jur->r", weight * p, slope) / loss

    def newton(c: Array) -> Array:
        _, slope, p = parts(c)
        length = float(np.linalg.norm(c))
        across = np.eye(len(c)) - np.outer(c, c) / length**2
        curvature = np.einsum("ju,jur,jus->rs", weight * p * (1 - p), slope, slope)
        curvature -= float((weight * p * (std * u - eps)).sum()) / length * across
        return np.asarray(np.linalg.solve(curvature, np.einsum("ju,jur->r", weight * p, slope)))

    mean = weight.sum(axis=1) @ within
    c = minimize(log_loss, mean / (std * float(np.linalg.norm(mean))), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    for _ in range(20):
        step = newton(c)
        if (
            np.linalg.norm(step) < 1e-11 * np.linalg.norm(c) + 1e-14 / std
        ):  # rounding of the slope, which a small c cannot fall below
            return np.asarray(c)
        c = c + step
    raise RuntimeError(f"the population optimum was not found (last step {np.linalg.norm(step):.1e}): please report the mixture")
