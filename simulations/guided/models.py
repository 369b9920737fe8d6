"""The mixtures, embeddings and guidances of `guided_diffusion.py`, by name, and the exact noise prediction as a torch function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from contrastive_dp import (
    BoundaryGuidance,
    ClassAnchored,
    ClassifierGuidance,
    ContrastiveGuidance,
    FeedbackGuidance,
    Guidance,
    GuidedRun,
    HardNegativeMining,
    InfoNCE,
    NoiseSchedule,
    ParticleGuidance,
    SupervisedContrastive,
    autoguidance,
    boundary_distances,
    classifier_free,
    embed_anchors,
)
from theory import BinaryMixture, GaussianMixture, bayes_robust_accuracy, bayes_robust_classifier

Array = np.ndarray[Any, np.dtype[np.float64]]
ANCHORS = 400  # real samples used by class-anchored guidance
BOUNDARY = {"boundary": 1.0, "boundary-near": 0.5}  # distance to the Bayes boundary that is held, in that of the class means
WEAKER = 1.0  # variance that the weaker model of autoguidance adds to the classes, as a model that has learned less blurs them
EMBEDDING_SCALE = 2.5  # of the lifted embedding, in units of the root mean square norm of real samples


@dataclass(frozen=True, eq=False)
class Problem:
    """A mixture to generate and classify. binary: the same as a mirrored pair, if there are two classes. eps: l_2 attack radius."""

    name: str
    mixture: GaussianMixture
    eps: float
    binary: BinaryMixture | None

    @cached_property
    def optimum(self) -> float:
        """Exact robust optimum for two classes; nan for more, where no closed form is known."""
        return math.nan if self.binary is None else bayes_robust_accuracy(self.binary, self.eps)

    @cached_property
    def optimal_direction(self) -> Array | None:
        return None if self.binary is None else np.asarray(bayes_robust_classifier(self.binary, self.eps).weights)

    @cached_property
    def radius(self) -> float:
        """Root mean square norm of real samples."""
        mixture = self.mixture
        second = [m @ m + cov.trace for m, cov in zip(mixture.means, mixture.covariances, strict=True)]
        return math.sqrt(float(mixture.weights @ np.array(second)))


def _pair(name: str, mean: Array, cov: Any, eps: float = 0.3, prior: float = 0.5) -> Problem:
    binary = BinaryMixture(mean, cov, prior)
    return Problem(name, GaussianMixture(np.stack([-binary.mean, binary.mean]), [cov, cov], [1 - prior, prior]), eps, binary)


def _axis(dim: int, norm: float) -> Array:
    return norm * np.eye(dim)[0]


def _ring() -> Problem:
    angles = 2 * np.pi * np.arange(8) / 8
    return Problem("ring", GaussianMixture(3 * np.stack([np.cos(angles), np.sin(angles)], 1), 0.36), 0.3, None)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "two": lambda: _pair("two", _axis(2, 1.0), 1.0),
    "d10": lambda: _pair("d10", _axis(10, 1.5), 1.0),
    "d100": lambda: _pair("d100", _axis(100, 2.0), 1.0),
    "anisotropic": lambda: _pair("anisotropic", np.array([1.0, 0.5]), np.array([[1.0, 0.6], [0.6, 1.0]])),
    "unbalanced": lambda: _pair("unbalanced", _axis(2, 1.0), 1.0, prior=0.8),
    "ring": _ring,
}


@lru_cache(maxsize=8)
def problem_named(name: str) -> Problem:
    """The problem with this name, made once per process."""
    return PROBLEMS[name]()


def balanced_labels(problem: Problem, first: int, n: int) -> Tensor:
    """Labels of samples first .. first+n-1, a function of the index only: round robin, or in proportion to the class weights."""
    index = np.arange(first, first + n)
    weights = problem.mixture.weights
    if np.allclose(weights, weights[0]):
        return torch.from_numpy(index % len(weights))
    upper = np.floor((index + 1) * weights[1] + 1e-9) > np.floor(index * weights[1] + 1e-9)
    return torch.from_numpy(upper.astype(np.int64))


@dataclass(frozen=True, eq=False)
class ExactNoisePrediction:
    """theory's closed-form noise prediction of a mixture as noise_prediction(x, t[, labels]) in torch."""

    mixture: GaussianMixture
    schedule: NoiseSchedule

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        y = None if labels is None else labels.numpy()
        return torch.from_numpy(self.mixture.noise_prediction(x.double().numpy(), self.schedule[int(t[0])], y)).to(x.dtype)


@dataclass(frozen=True)
class Lift:
    """embed(x) = (x, r) with constant r. Once normalised, a smooth unit-norm embedding of the plane that preserves the length of x."""

    r: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.full_like(x[:, :1], self.r)], dim=1)


@dataclass(frozen=True, eq=False)
class MeanPush(Guidance):
    """L = -sum_i m_{y_i}.x_i / ||m_{y_i}||: a constant push of every sample along its class mean, of `strength` in the noise prediction.

    scale is set to strength / sqrt(1 - alpha_bar_t), so the vector added to the noise prediction is the same at every timestep and
    theory.ddim_law gives the result in closed form.
    """

    means: Tensor
    scale: list[float]
    window: tuple[int, int] | None = None
    at: Any = "xt"
    relative: bool = False
    every: int = 1
    reverse: bool = False
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor:
        directions = self.means / self.means.norm(dim=1, keepdim=True)
        return -directions[run.labels].to(seen.dtype)


@dataclass(frozen=True, eq=False)
class BayesLogits:
    """Logits of the Bayes classifier on clean data: log w_k N(x; mu_k, Sigma_k)."""

    mixture: GaussianMixture
    made: dict[torch.dtype, list[torch.distributions.MultivariateNormal]] = field(default_factory=dict, init=False)
    """The classes in each precision, which every step would factorise again."""

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype not in self.made:
            self.made[x.dtype] = self._classes(x.dtype)
        logs = [
            normal.log_prob(x) + math.log(weight) for normal, weight in zip(self.made[x.dtype], self.mixture.weights, strict=True)
        ]
        return torch.stack(logs, dim=1)

    def _classes(self, dtype: torch.dtype) -> list[torch.distributions.MultivariateNormal]:
        found = []
        for mean, cov in zip(self.mixture.means, self.mixture.covariances, strict=True):
            matrix = torch.from_numpy(np.diag(cov.variances) if not cov.is_full else cov.value.copy()).to(dtype)
            found.append(torch.distributions.MultivariateNormal(torch.from_numpy(mean.copy()).to(dtype), matrix))
        return found


LOSSES = ("infonce", "infonce-other", "infonce-same", "hard-negative", "supervised", "anchored")
"""infonce-other and infonce-same: with negatives of other classes, or of the same class, alone."""
BY_LEARNER = ("classifier", "feedback", *BOUNDARY)
ON_PREDICTION = ("classifier-free", "autoguidance")
TEMPERATURES = {"hard-negative": 10.0}
"""Those of the other losses are 0.1."""


@dataclass(frozen=True)
class Setting:
    """One cell of the experiment: what is generated, with which guidance and which solver."""

    problem: str = "two"
    score: str = "exact"
    """exact, or network-N: trained on N real samples."""
    guidance: str = "none"
    scale: float = 0.0
    low: int = 0
    high: int = 1000
    at: str = "xt"
    relative: bool = False
    every: int = 1
    reverse: bool = False
    temperature: float = 0.0
    """0: the loss's default."""
    solver: str = "ddim"
    steps: int = 50

    @property
    def label(self) -> str:
        """Short name of the guidance with its window and input."""
        if self.guidance == "none":
            return "unguided"
        window = "" if (self.low, self.high) == (0, 1000) else f" {self.low}≤t<{self.high}"
        seen = "" if self.guidance not in (*LOSSES, *BY_LEARNER, "particle") else f" at {self.at}"
        return f"{'reversed ' * self.reverse}{self.guidance}{seen}{window}"


def make_guidance(setting: Setting, problem: Problem, schedule: NoiseSchedule, anchors: tuple[Tensor, Tensor]) -> Guidance | None:
    """The guidance of a setting; None if there is none or it is part of the noise prediction. anchors: real samples and their labels."""
    if setting.guidance in ("none", *ON_PREDICTION):
        return None
    window = (setting.low, setting.high)
    shared: Any = {"window": window, "relative": setting.relative, "every": setting.every, "reverse": setting.reverse}
    if setting.guidance == "constant":
        levels = (setting.scale / (1 - schedule.alpha_bar).sqrt()).tolist()
        return MeanPush(torch.from_numpy(problem.mixture.means.copy()), levels, **shared)
    shared["at"] = setting.at
    learner, scale = BayesLogits(problem.mixture), setting.scale
    found: dict[str, Callable[[], Guidance]] = {
        "classifier": lambda: ClassifierGuidance(learner, scale, **shared),
        "feedback": lambda: FeedbackGuidance(learner, scale, **shared),
        "particle": lambda: ParticleGuidance(scale, **shared),
    }
    if setting.guidance in BOUNDARY:
        return BoundaryGuidance(learner, scale, BOUNDARY[setting.guidance] * distance_to_boundary(problem), **shared)
    if setting.guidance in found:
        return found[setting.guidance]()
    embed = Lift(EMBEDDING_SCALE * problem.radius)
    return ContrastiveGuidance(embed, make_loss(setting, embed, anchors), setting.scale, **shared)


def distance_to_boundary(problem: Problem) -> float:
    """Mean l_2 distance of the class means to the Bayes classifier's boundary, to first order, as boundary guidance measures it."""
    means = torch.from_numpy(problem.mixture.means.copy())
    return float(boundary_distances(BayesLogits(problem.mixture), means, torch.arange(len(means))).mean())


def make_loss(setting: Setting, embed: Lift, anchors: tuple[Tensor, Tensor]) -> Any:
    """The contrastive loss of a setting."""
    name, _, negatives = setting.guidance.partition("-")
    temperature = setting.temperature or TEMPERATURES.get(setting.guidance, 0.1)
    if setting.guidance == "anchored":
        return ClassAnchored(embed_anchors(embed, anchors[0]), anchors[1], temperature)
    if name == "infonce":
        chosen: Any = negatives or "all"
        return InfoNCE(temperature, chosen)
    return {"hard-negative": HardNegativeMining, "supervised": SupervisedContrastive}[setting.guidance](temperature)


def changed_prediction(
    setting: Setting, noise_prediction: Callable[..., Tensor], problem: Problem, schedule: NoiseSchedule
) -> Callable[..., Tensor]:
    """The noise prediction of a setting: the given one, or one that classifier-free guidance or autoguidance changes."""
    if setting.guidance == "classifier-free":
        return classifier_free(noise_prediction, setting.scale)
    if setting.guidance != "autoguidance":
        return noise_prediction
    real = problem.mixture
    blurred = [(cov.value if cov.is_full else np.diag(cov.variances)) + WEAKER * np.eye(real.dim) for cov in real.covariances]
    weaker = ExactNoisePrediction(GaussianMixture(real.means, blurred, real.weights), schedule)
    return autoguidance(noise_prediction, weaker, setting.scale)
