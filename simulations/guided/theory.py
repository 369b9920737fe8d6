"""What theory predicts for a guided run in advance: generated classes, distance paid, separation gained, samples saved."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq

from command_line.output import UserError
from contrastive_dp import NoiseSchedule
from simulations.guided.models import (
    ANCHORS,
    Array,
    ExactNoisePrediction,
    Problem,
    Setting,
    changed_prediction,
    make_guidance,
    problem_named,
)
from theory import AveragingLaw, BinaryMixture, LinearClassifier, gaussian_nodes, guided_ddim_law, robust_accuracy

GROUP = 256  # samples that a contrastive loss sees together: the batch of the sampler, and of the prediction's nodes
LEARNER_NODES = 2048


@dataclass(frozen=True, eq=False)
class Classes:
    """Generated classes as Gaussians: means (K, d), covs (K, d, d), and the problem that they imitate."""

    problem: Problem
    means: Array
    covs: Array

    @cached_property
    def class_snr(self) -> float:
        """kappa_1: root mean square distance of the class means from their centre over the root mean within-class variance per axis."""
        centred = self.means - self.means.mean(axis=0)
        variance = np.trace(self.covs, axis1=1, axis2=2).mean() / self.means.shape[1]
        return math.sqrt(float((centred**2).sum(axis=1).mean() / variance))

    @cached_property
    def alignment(self) -> float:
        """Cosine of the angle between the direction that averaging learns from infinitely many samples and the real robust optimum.

        More than two classes: mean cosine between generated and real class means. Of moments measured on samples it includes their noise,
        as the W2 distance does: prediction.csv has the distance of as many real samples beside it.
        """
        optimal = self.problem.optimal_direction
        if optimal is not None:
            return cosine(self.signed_mean, optimal)
        return float(np.mean([cosine(ours, real) for ours, real in zip(self.means, self.problem.mixture.means, strict=True)]))

    @cached_property
    def w2(self) -> float:
        """Wasserstein-2 distance of Gaussians with these moments to the real classes, root mean square over classes (Bures).

        W2^2 = ||m - mu||^2 + tr(C + S - 2 (S^1/2 C S^1/2)^1/2); a lower bound if the generated classes are not Gaussian (Gelbrich 1990).
        """
        squares = []
        for mean, cov, mu, real in zip(
            self.means, self.covs, self.problem.mixture.means, self.problem.mixture.covariances, strict=True
        ):
            s = real.value if real.is_full else np.diag(real.variances)
            root = _root(s)
            squares.append(((mean - mu) ** 2).sum() + np.trace(cov) + np.trace(s) - 2 * np.trace(_root(root @ cov @ root)))
        return math.sqrt(max(float(np.mean(squares)), 0.0))

    @property
    def signed_mean(self) -> Array:
        """Mean of y x, with the problem's class proportions: what averaging learns from infinitely many samples."""
        weights = self.problem.mixture.weights
        return np.asarray(weights[1] * self.means[1] - weights[0] * self.means[0])

    def averaging_accuracy(self, n: int) -> float:
        """Mean robust accuracy of averaging n generated samples: E A(theta), theta ~ N(mean of y x, weighted mean of the covs / n)."""
        real, eps = self.problem.binary, self.problem.eps
        if real is None:
            return math.nan
        cov = np.tensordot(self.problem.mixture.weights, self.covs, 1)
        theta = self.signed_mean + gaussian_nodes(real.dim, max(LEARNER_NODES, 4 * real.dim)) @ _root(cov / n)
        return float(np.mean([robust_accuracy(LinearClassifier(w), real, eps) for w in theta]))


def equivalent_kappa(problem: Problem, accuracy: float, n: int) -> float:
    """The class SNR at which n aligned isotropic samples give this mean robust accuracy to the averaging learner (T4, inverted).

    0 at or below chance, inf at or above the ceiling; nan except for two isotropic classes.
    """
    real = problem.binary
    if real is None or real.covariance.kind != "scalar" or not math.isfinite(accuracy):
        return math.nan

    def excess(log_snr: float) -> float:
        scale = math.exp(log_snr) * math.sqrt(float(real.cov)) / float(np.linalg.norm(real.mean))
        return AveragingLaw(real, BinaryMixture(scale * real.mean, real.cov), n, problem.eps).mean() - accuracy

    low, high = -7.0, 6.0
    if excess(high) <= 0:
        return math.inf
    if excess(low) >= 0:
        return 0.0
    return math.exp(float(brentq(excess, low, high, xtol=1e-10)))


@lru_cache(maxsize=128)  # many settings share the same unguided reference
def predict(setting: Setting, schedule: NoiseSchedule) -> Classes:
    """The classes that a DDIM setting generates with the exact score, by Gaussian closure (T8).

    Exact without guidance and with constant guidance. Predictions treat a network's score as exact, the batch that a contrastive loss
    compares as balanced even for unbalanced classes, and the symmetry of a mixture as unbroken (see the rotation picture).
    """
    problem = problem_named(setting.problem)
    classes, dim = problem.mixture.classes, problem.mixture.dim
    nodes = max(GROUP // classes, 4 * dim)
    labels = torch.arange(classes).repeat_interleave(nodes)
    guidance = make_guidance(setting, problem, schedule, population_anchors(problem))
    guide = guidance.start(schedule, labels) if guidance is not None else None
    noise_prediction = changed_prediction(setting, ExactNoisePrediction(problem.mixture, schedule), problem, schedule)
    timesteps = schedule.timesteps(setting.steps)

    def guided(x: Array, step: int) -> Array:
        state, t = torch.from_numpy(np.ascontiguousarray(x)), timesteps[step]
        eps = noise_prediction(state, torch.full((len(state),), t), labels)
        return np.asarray((eps if guide is None else guide(state, t, eps)).numpy())

    means, covs = guided_ddim_law(guided, classes, dim, schedule.visited(timesteps).numpy(), nodes)
    return Classes(problem, means, covs)


def population_anchors(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Quasi-random real samples of each class, as many as a run uses, in proportion to the class weights."""
    points, labels = [], []
    for k, (mean, cov) in enumerate(zip(problem.mixture.means, problem.mixture.covariances, strict=True)):
        n = max(round(ANCHORS * float(problem.mixture.weights[k])), 2 * problem.mixture.dim)
        s = cov.value if cov.is_full else np.diag(cov.variances)
        points.append(mean + gaussian_nodes(problem.mixture.dim, n) @ _root(s))
        labels += [k] * n
    return torch.from_numpy(np.concatenate(points)), torch.tensor(labels)


def scale_for(setting: Setting, schedule: NoiseSchedule, quantity: str, target: float) -> tuple[float, Classes]:
    """The smallest scale at which theory predicts this W2 distance or class SNR, found by doubling and bisection.

    quantity: "w2" or "class_snr". Raises UserError naming the reachable range if guidance cannot reach the target.
    """

    def reached(scale: float) -> float:
        return float(getattr(predict(replace(setting, scale=scale), schedule), quantity))

    name = {"w2": "--target-w2", "class_snr": "--target-snr"}[quantity]
    start, scale = reached(0.0), 1e-3
    upwards = target > start
    values = [start]
    while True:
        values.append(reached(scale) if scale < 1e3 else math.nan)
        if not math.isfinite(values[-1]):
            finite = [value for value in values if math.isfinite(value)]
            raise UserError(
                f"{name} {target:g} is out of reach of {setting.label}: it goes from {min(finite):.3g} to {max(finite):.3g} as the scale "
                "grows; choose a value between them, another guidance or --reverse"
            )
        if (values[-1] >= target) == upwards:
            break
        scale *= 2
    low = 0.0 if len(values) == 2 else scale / 2
    found = float(brentq(lambda s: reached(s) - target, low, scale, xtol=1e-6 * scale, rtol=1e-6))
    return found, predict(replace(setting, scale=found), schedule)


def cosine(left: Array, right: Array) -> float:
    """left.right / (||left|| ||right||); 0 if either is 0."""
    norm = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / norm if norm else 0.0


def _root(matrix: Array) -> Any:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
