"""When should guidance separate, when diversify? Compares learners trained on guided samples of every class SNR with T10 and T11.

Constant guidance moves the generated class means by a known amount and keeps the classes Gaussian and isotropic, so each class SNR is hit
exactly. All share the same x_T, so differences between them are paired.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, stdtrit

from contrastive_dp import NoiseSchedule, SampleNoise, ddim_sample
from simulations.guided.models import Array, ExactNoisePrediction, MeanPush, balanced_labels, problem_named
from simulations.guided.runs import fit_binary, mean_and_error
from simulations.mixtures.learners import fit_adversarial
from theory import (
    BinaryMixture,
    LinearClassifier,
    ddim_law,
    direction_variance,
    large_sample_accuracy,
    optimal_class_snr,
    robust_accuracy,
)

PROBLEM = "d10"
STEPS = 50
SAMPLES, FITS = (
    8000,
    4,
)  # size of a training set, so large that the O(d/n) bias of the laws is below the noise; training sets per seed
TRAINING_EPS = 0.5  # l_2 radius of adversarial training over sigma~ (T11)
CASES = (("averaging", 0.0), ("lda", 0.0), ("logistic", 0.0), ("logistic", TRAINING_EPS))
CLASS_SNRS = (0.6, 0.75, 0.9, 1.05, 1.2, 1.35, 1.5, 1.7, 1.9, 2.2, 2.6, 3.0)
NEAR = 1.8  # the optimum is fitted to class SNRs within this factor of it
HEADER = (
    "learner", "training_eps", "class_snr", "variance_theory", "variance", "variance_error",
    "accuracy_theory", "accuracy", "accuracy_error", "optimal_class_snr",
)  # fmt: skip


def strength_for(class_snr: float, schedule: NoiseSchedule) -> float:
    """Strength of constant guidance (negative: in reverse) that gives this class SNR; the mean is affine in the strength (T8)."""
    problem = problem_named(PROBLEM)
    mean = problem.mixture.means[1]
    visited, unit = schedule.visited(STEPS).numpy(), mean / np.linalg.norm(mean)
    start, std = ddim_law(mean, 1.0, visited)
    pushed, _ = ddim_law(mean, 1.0, visited, -unit)
    return float((class_snr * std[0] - start @ unit) / ((pushed - start) @ unit))


def learn_at_every_snr(seed: int, samples: int = SAMPLES, fits: int = FITS) -> list[tuple[str, float, float, float, float]]:
    """For one seed: (learner, training_eps, class_snr, n tan^2 / (d-1) and robust accuracy, means over the fits)."""
    torch.set_num_threads(1)
    problem, schedule = problem_named(PROBLEM), NoiseSchedule.linear()
    real = problem.binary
    assert real is not None
    labels = balanced_labels(problem, 0, samples * fits)
    x_T = SampleNoise(seed).normal_of((samples * fits, real.dim), torch.float64)
    signs, rows = np.where(labels.numpy() == 1, 1.0, -1.0), []
    for class_snr in CLASS_SNRS:
        strength = strength_for(class_snr, schedule)
        levels = (abs(strength) / (1 - schedule.alpha_bar).sqrt()).tolist()
        push = MeanPush(torch.from_numpy(problem.mixture.means.copy()), levels, reverse=strength < 0)
        x = ddim_sample(ExactNoisePrediction(problem.mixture, schedule), x_T, schedule, STEPS, labels, guidance=push).numpy()
        std = float(ddim_law(0.0, 1.0, schedule.visited(STEPS).numpy())[1])
        for learner, training_eps in CASES:
            outcomes = np.array(
                [
                    _outcome(_fit(learner, training_eps * std, x[part], signs[part]), real, problem.eps, samples)
                    for part in (slice(i * samples, (i + 1) * samples) for i in range(fits))
                ]
            )
            variance, accuracy = outcomes.mean(axis=0)
            rows.append((learner, training_eps, class_snr, float(variance), float(accuracy)))
    return rows


def _fit(learner: str, eps: float, x: Array, y: Array) -> LinearClassifier:
    if eps:
        return fit_adversarial(x, y, eps, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for well separated classes scikit-learn warns that it switches to another solver
        return fit_binary(learner, x, y, 0.0, math.inf)


def _outcome(classifier: LinearClassifier, real: BinaryMixture, eps: float, n: int) -> tuple[float, float]:
    w = np.asarray(classifier.weights)
    along = float(w @ real.mean) ** 2 / float(real.mean @ real.mean)
    return n * (float(w @ w) / along - 1) / (real.dim - 1), robust_accuracy(LinearClassifier(w), real, eps)


def tabulate(by_seed: list[list[tuple[str, float, float, float, float]]], samples: int = SAMPLES) -> list[tuple[Any, ...]]:
    """Rows of learners.csv: means and standard errors over seeds, and theory; NaN where its law does not hold with so few samples."""
    problem = problem_named(PROBLEM)
    assert problem.binary is not None
    rows = []
    for i, (learner, training_eps, class_snr, _, _) in enumerate(by_seed[0]):
        variance, accuracy = (mean_and_error([rows_of[i][column] for rows_of in by_seed]) for column in (3, 4))
        theory = direction_variance(class_snr, learner, training_eps) if class_snr > training_eps else math.nan
        reached = _accuracy_in_theory(problem.binary, class_snr, learner, samples, problem.eps, training_eps)
        best = optimal_class_snr(learner, training_eps)
        rows.append((learner, training_eps, class_snr, theory, *variance, reached, *accuracy, best))
    return rows


def _accuracy_in_theory(real: BinaryMixture, class_snr: float, learner: str, n: int, eps: float, training_eps: float) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return large_sample_accuracy(real, class_snr, learner, n, eps=eps, training_eps=training_eps)
        except UserWarning:
            return math.nan


def optimum_interval(
    by_seed: list[list[tuple[str, float, float, float, float]]], training_eps: float, resamples: int = 2000
) -> dict[str, float]:
    """Class SNR at which the logistic learner's angle is smallest: fits a cubic in log class SNR to log V, with a bootstrap over seeds.

    Its percentiles are expanded to Student's width (Hesterberg 2015), as those of few seeds lie too close: nan for one seed. The same
    fit to theory's V shows the error of the cubic itself.
    """
    optimum = optimal_class_snr("logistic", training_eps)
    chosen = [
        i
        for i, (learner, eps, snr, *_) in enumerate(by_seed[0])
        if learner == "logistic" and eps == training_eps and optimum / NEAR < snr < optimum * NEAR
    ]
    snrs = np.array([by_seed[0][i][2] for i in chosen])
    variances = np.array([[rows[i][3] for i in chosen] for rows in by_seed])  # (seeds, snrs)
    rng, n = np.random.default_rng(0), len(variances)
    draws = [_minimum(snrs, variances[rng.integers(n, size=n)].mean(axis=0)) for _ in range(resamples)]
    outside = ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.025)) if n > 1 else math.nan
    low, high = np.quantile(draws, [outside, 1 - outside]) if n > 1 else (math.nan, math.nan)
    return {
        "theory": optimum,
        "estimate": _minimum(snrs, variances.mean(axis=0)),
        "low": float(low),
        "high": float(high),
        "cubic_fit_to_theory": _minimum(snrs, np.array([direction_variance(s, "logistic", training_eps) for s in snrs])),
    }


def _minimum(snrs: Array, variances: Array) -> float:
    """Where the cubic through (log snr, log V) is smallest within the range of the data."""
    x = np.log(snrs)
    cubic = np.polynomial.Polynomial.fit(x, np.log(variances), 3)
    grid = np.linspace(x[0], x[-1], 2001)
    return float(np.exp(grid[np.argmin(cubic(grid))]))
