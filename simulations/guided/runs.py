"""One guided run: generate with one setting and one seed, measure the classes, train learners on the samples, attack them exactly."""

from __future__ import annotations

import math
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contrastive_dp import (
    NoisePredictionMLP,
    NoiseSchedule,
    SampleNoise,
    TrainingSettings,
    ddim_sample,
    ddpm_sample,
    diffusers_sample,
    train_noise_prediction,
)
from contrastive_dp.randomness import seeded
from simulations.guided.models import (
    ANCHORS,
    Array,
    ExactNoisePrediction,
    Problem,
    Setting,
    balanced_labels,
    changed_prediction,
    make_guidance,
    problem_named,
)
from simulations.guided.theory import GROUP, Classes, cosine
from simulations.mixtures.learners import fit_adversarial, fit_averaging, fit_lda, fit_logistic, fit_shrunk_lda
from theory import LinearClassifier, robust_accuracy

SIZES = (5, 10, 20, 60, 200, 600, 2000, 5000)
LEARNERS = ("averaging", "lda", "logistic", "adversarial")
LOGISTIC_STRENGTH = 100.0  # C: a few samples are separable, and maximum likelihood then has no solution
ADVERSARIAL_PENALTY = 1e-3
TEST_POINTS = 4000  # points to attack if the robust accuracy has no cheap closed form (more than two classes)


@dataclass(frozen=True)
class Effort:
    """Samples per run, maximum number of fits per learner, run and sample size, and training steps of a network.

    slow_samples: samples of a run with another solver or with more than 50 steps.
    """

    samples: int = 5120
    slow_samples: int = 2048
    averaging_fits: int = 256
    other_fits: int = 8
    training_steps: int = 1500

    def samples_for(self, setting: Setting) -> int:
        slow = setting.solver != "ddim" or setting.steps > 50
        return min(self.samples, self.slow_samples) if slow else self.samples


@dataclass(frozen=True)
class Measured:
    """The results of one run.

    accuracies: (learner, n, mean robust accuracy over disjoint training sets, number of training sets). groups: for the first groups of
    samples that were guided together, alignment and robust accuracy of averaging the whole group (two classes only).
    """

    setting: Setting
    seed: int
    class_snr: float
    alignment: float
    w2: float
    w2_floor: float
    """W2 of equally many fresh real samples: the distance due to sampling alone."""
    accuracies: list[tuple[str, int, float, int]]
    groups: list[tuple[float, float]]
    microseconds_per_sample: float


def measure(setting: Setting, seed: int, effort: Effort, learners: tuple[str, ...] = LEARNERS) -> Measured:
    """Generate, then measure class SNR, alignment, W2 and the learners' robust accuracy."""
    torch.set_num_threads(1)
    problem, schedule = problem_named(setting.problem), NoiseSchedule.linear()
    score_of(setting, seed, schedule, effort.training_steps)  # train the network before the clock starts
    begin = time.perf_counter()
    x, y = generate(setting, seed, effort.samples_for(setting), schedule, effort.training_steps)
    seconds = time.perf_counter() - begin
    points, labels = x.double().numpy(), y.numpy()
    classes = moments(problem, points, labels)
    accuracies = [row for learner in learners for row in learning_curve(problem, learner, points, labels, effort)]
    return Measured(
        setting=setting,
        seed=seed,
        class_snr=classes.class_snr,
        alignment=classes.alignment,
        w2=classes.w2,
        w2_floor=sampling_floor(setting.problem, seed, len(points)),
        accuracies=accuracies,
        groups=group_directions(problem, points, labels),
        microseconds_per_sample=seconds / len(points) * 1e6,
    )


def group_directions(problem: Problem, x: Array, y: Any, shown: int = 4) -> list[tuple[float, float]]:
    """(alignment, robust accuracy of averaging) of each of the first groups of GROUP samples; empty for more than two classes."""
    if problem.binary is None or problem.optimal_direction is None:
        return []
    rows = []
    for start in range(0, min(shown * GROUP, len(x) - GROUP + 1), GROUP):
        part = slice(start, start + GROUP)
        classifier = fit_averaging(x[part], np.where(y[part] == 1, 1.0, -1.0))
        rows.append(
            (cosine(classifier.weights, problem.optimal_direction), robust_accuracy(classifier, problem.binary, problem.eps))
        )
    return rows


@lru_cache(maxsize=64)
def sampling_floor(problem_name: str, seed: int, n: int) -> float:
    """W2 between the real classes and n fresh real samples."""
    problem = problem_named(problem_name)
    return moments(problem, *problem.mixture.sample(n, stream(seed, f"fresh samples of {problem_name}"))).w2


def generate(
    setting: Setting, seed: int, n: int, schedule: NoiseSchedule, training_steps: int = 1500, first: int = 0, on_step: Any = None
) -> tuple[Tensor, Tensor]:
    """n guided samples (float32) with their labels, in groups of GROUP that a contrastive loss sees together.

    Group i depends only on (seed, i). first: index of the first sample, a multiple of GROUP.
    """
    problem = problem_named(setting.problem)
    noise_prediction = changed_prediction(setting, score_of(setting, seed, schedule, training_steps), problem, schedule)
    anchors, classes = real_anchors(problem, seed)
    guidance = make_guidance(setting, problem, schedule, (anchors.float(), classes))
    samples, labels = [], []
    for start in range(first, first + n, GROUP):
        y = balanced_labels(problem, start, min(GROUP, first + n - start))
        noise = SampleNoise(seed, start)
        x_T = noise.normal_of((len(y), problem.mixture.dim))
        shared: Any = {"labels": y, "guidance": guidance, "on_step": on_step}
        if setting.solver == "ddim":
            x = ddim_sample(noise_prediction, x_T, schedule, setting.steps, **shared)
        elif setting.solver == "ddpm":
            x = ddpm_sample(noise_prediction, x_T, schedule, setting.steps, generator=noise, **shared)
        else:
            x = diffusers_sample(noise_prediction, x_T, fast_solver(setting.solver, schedule), setting.steps, **shared)
        samples.append(x)
        labels.append(y)
    return torch.cat(samples), torch.cat(labels)


def score_of(setting: Setting, seed: int, schedule: NoiseSchedule, training_steps: int) -> Callable[..., Tensor]:
    """The exact noise prediction, or a network trained with this seed on the setting's number of real samples."""
    problem = problem_named(setting.problem)
    if setting.score == "exact":
        return ExactNoisePrediction(problem.mixture, schedule)
    network = trained_network(setting.problem, int(setting.score.removeprefix("network-")), seed, training_steps)

    @torch.no_grad()
    def predict(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = network(x.float(), t, labels).to(x.dtype)
        return out

    return predict


@lru_cache(maxsize=4)
def trained_network(problem_name: str, n: int, seed: int, steps: int) -> torch.nn.Module:
    """A class-conditional noise-prediction network trained on n real samples, a tenth of them with "no label"."""
    problem = problem_named(problem_name)
    x, y = problem.mixture.sample(n, stream(seed, f"training data of {problem_name}, {n}"))
    with seeded(seed):
        network = NoisePredictionMLP(problem.mixture.dim, problem.mixture.classes, width=64, depth=2)
    settings = TrainingSettings(
        steps=steps,
        batch_size=256,
        learning_rate=2e-3,
        ema=0.995,
        label_dropout=0.1,
        null_label=problem.mixture.classes,
        seed=seed,
    )
    return train_noise_prediction(network, torch.from_numpy(x).float(), NoiseSchedule.linear(), settings, torch.from_numpy(y))


def real_anchors(problem: Problem, seed: int) -> tuple[Tensor, Tensor]:
    """The real samples used by class-anchored guidance in the runs of one seed."""
    x, y = problem.mixture.sample(ANCHORS, stream(seed, f"anchors of {problem.name}"))
    return torch.from_numpy(x), torch.from_numpy(y)


def fast_solver(name: str, schedule: NoiseSchedule) -> Any:
    """A second-order solver from diffusers, on our schedule."""
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    kind: Any = {"dpm-solver++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[name]
    return kind(trained_betas=schedule.betas.numpy(), solver_order=2)


def moments(problem: Problem, x: Array, y: Any) -> Classes:
    """Sample means and covariances of the generated classes."""
    members = [x[y == k] for k in range(problem.mixture.classes)]
    covs = np.stack([np.cov(part.T).reshape(x.shape[1], x.shape[1]) for part in members])
    return Classes(problem, np.stack([part.mean(axis=0) for part in members]), covs)


def learning_curve(problem: Problem, learner: str, x: Array, y: Any, effort: Effort) -> list[tuple[str, int, float, int]]:
    """(learner, n, mean robust accuracy, fits) over disjoint training sets, for each size in which every class occurs twice."""
    rows = []
    fits = effort.averaging_fits if learner == "averaging" else effort.other_fits
    if learner == "adversarial" and problem.binary is None:
        return []  # with more than two classes, the exact worst case has no closed form to train against
    for n in SIZES:
        if n > len(x) or n < 2 * problem.mixture.classes:
            continue
        sets = [slice(start, start + n) for start in range(0, len(x) - n + 1, n)][:fits]
        values = [_fitted_accuracy(problem, learner, x[part], y[part]) for part in sets if _fewest(y[part], problem) >= 2]
        if values:
            rows.append((learner, n, float(np.mean(values)), len(values)))
    return rows


def _fewest(y: Any, problem: Problem) -> int:
    return int(np.bincount(y, minlength=problem.mixture.classes).min())


def _fitted_accuracy(problem: Problem, learner: str, x: Array, y: Any) -> float:
    if problem.binary is None:
        return attacked_accuracy(problem, *fit_multiclass(problem, learner, x, y))
    return robust_accuracy(fit_binary(learner, x, np.where(y == 1, 1.0, -1.0), problem.eps), problem.binary, problem.eps)


def fit_binary(learner: str, x: Array, y: Array, eps: float, strength: float = LOGISTIC_STRENGTH) -> LinearClassifier:
    """The learners of theory/, regularised for small samples: shrunk LDA, and a weak penalty for the logistic learners."""
    if learner == "averaging":
        return fit_averaging(x, y)
    if learner == "lda":
        return fit_lda(x, y) if len(x) > 2 * x.shape[1] + 2 else fit_shrunk_lda(x, y)
    if learner == "logistic":
        return fit_logistic(x, y, strength)
    return fit_adversarial(x, y, eps, 2, ADVERSARIAL_PENALTY)


def fit_multiclass(problem: Problem, learner: str, x: Array, y: Any) -> tuple[Array, Array]:
    """Weights (K, d) and biases (K,) of argmax_k w_k.x + b_k. averaging: nearest class mean."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    if learner == "averaging":
        means = np.stack([x[y == k].mean(axis=0) for k in range(problem.mixture.classes)])
        return means, -(means**2).sum(axis=1) / 2
    model: Any = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage="auto" if len(x) <= 2 * x.shape[1] + problem.mixture.classes else None
    )
    if learner == "logistic":
        model = LogisticRegression(C=LOGISTIC_STRENGTH, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on separable data, more than 500 iterations bring no gain
        model.fit(x, y)
    return np.asarray(model.coef_), np.asarray(model.intercept_)


def attacked_accuracy(problem: Problem, weights: Array, biases: Array) -> float:
    """Share of fixed test points all of whose margins exceed eps ||w_y - w_j||_2: robust accuracy of a K-class linear classifier (T9)."""
    x, y = problem.mixture.sample(TEST_POINTS, stream(0, f"test points of {problem.name}"))
    scores = x @ weights.T + biases
    gaps = np.linalg.norm(weights[y][:, None] - weights[None], axis=2)  # (n, K)
    margins = scores[np.arange(len(y)), y][:, None] - scores - problem.eps * gaps
    margins[np.arange(len(y)), y] = np.inf
    return float((margins.min(axis=1) > 0).mean())


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream that depends on the seed and its own name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def run_row(run: Measured) -> tuple[Any, ...]:
    """The csv cells of a run; see RUN_HEADER."""
    return (*asdict(run.setting).values(), run.seed, run.class_snr, run.alignment, run.w2, run.w2_floor)


RUN_HEADER = (*Setting.__dataclass_fields__, "seed", "class_snr", "alignment", "w2", "w2_floor")


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean over seeds and its standard error (nan for one seed)."""
    sample = np.asarray(values, dtype=np.float64)
    return float(sample.mean()), float(sample.std(ddof=1) / math.sqrt(len(sample))) if len(sample) > 1 else math.nan
