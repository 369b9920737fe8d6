"""What guided samples are worth to a learner with few or many samples per dimension: T16's prediction, fits, and T7's best at equal price.

For every guidance `guided_ddim_law` predicts, from its setting alone, the classes that it makes of the d100 problem: mean m, cosine rho of
their direction to the real one, standard deviations along and across it, and W2. T16 predicts the cosine T that a learner reaches on n / d
samples of such classes; the robust accuracy is Phi((||mu|| rho T - eps) / sigma). Beside it: learners fitted to samples that were made with
that guidance, and the best that any aligned classes within the same W2 of the real ones could give.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr

from contrastive_dp import NoiseSchedule
from simulations.guided.models import Array, Problem, Setting, problem_named
from simulations.guided.runs import generate, mean_and_error
from simulations.guided.theory import Classes, predict
from simulations.mixtures.learners import fit_adversarial, fit_averaging, fit_logistic
from theory import LinearClassifier, ProportionalLaw, robust_accuracy

PROBLEM = "d100"
SAMPLES_PER_DIM = (5, 20, 100)
LEARNERS = ("averaging", "logistic", "adversarial")
RIDGE, TRAINING_EPS = 1e-3, 0.5
"""Ridge of both logistic learners, on data of unit spread; l_2 radius of adversarial training, in units of x."""
SCALES = (0.02, 0.05, 0.1, 0.3)
FITS = 4
"""Training sets per seed, fewer where the samples of a seed are not enough."""
_AS_FOR_IMAGES = Setting(problem=PROBLEM, at="x0", relative=True, high=700)
GUIDANCES: tuple[Setting, ...] = (
    *(replace(_AS_FOR_IMAGES, guidance=name) for name in ("classifier", "anchored", "supervised", "infonce", "infonce-other")),
    *(
        replace(_AS_FOR_IMAGES, guidance=name)
        for name in ("infonce-same", "hard-negative", "particle", "feedback", "boundary", "boundary-near")
    ),
    replace(_AS_FOR_IMAGES, guidance="anchored", reverse=True),
    *(Setting(problem=PROBLEM, guidance=name) for name in ("classifier-free", "autoguidance")),
)
"""Images are guided in the same way. `feedback` is `classifier` reversed where the learner is the Bayes classifier and no judge objects."""
HEADER = (
    *Setting.__dataclass_fields__, "label", "learner", "samples_per_dim", "class_snr", "alignment", "w2",
    "accuracy_predicted", "unguided_predicted", "best_at_this_w2", "accuracy", "accuracy_error", "gain", "gain_error", "seeds",
)  # fmt: skip


def settings() -> list[Setting]:
    """No guidance, and every guidance at every scale."""
    return [Setting(problem=PROBLEM), *(replace(base, scale=scale) for base in GUIDANCES for scale in SCALES)]


@dataclass(frozen=True)
class Pair:
    """Two mirrored classes: distance of each mean from the boundary, standard deviation along that line and across it."""

    mean: float
    along: float
    across: float

    @classmethod
    def of(cls, classes: Classes) -> Pair:
        """From generated classes, whose covariances are averaged."""
        cov = classes.covs.mean(axis=0)
        mean = float(np.linalg.norm(classes.signed_mean))
        line = classes.signed_mean / mean
        along = float(line @ cov @ line)
        return cls(mean, math.sqrt(along), math.sqrt((float(np.trace(cov)) - along) / (len(cov) - 1)))


def law(pair: Pair, learner: str, samples_per_dim: float) -> float:
    """T16's cosine to the line between the classes; the ridge is on data of unit spread, as in `fit`."""
    if learner == "averaging":  # noisy across the line alone
        return ProportionalLaw(pair.mean / pair.across, samples_per_dim, "averaging").alignment
    along = max(pair.along, pair.mean / LARGEST_SNR)
    ridge, eps = RIDGE * (pair.across / along) ** 2, TRAINING_EPS / along if learner == "adversarial" else 0.0
    if eps * along >= math.hypot(pair.mean, pair.across / math.sqrt(samples_per_dim)):
        return 0.0  # the radius exceeds the length of the mean signed sample: training returns w = 0
    return ProportionalLaw(pair.mean / along, samples_per_dim, "logistic", ridge, eps, elongation=along / pair.across).alignment


LARGEST_SNR = 30.0
"""Class SNR along the line beyond which classes without any spread are treated as if they had some."""


def accuracy(problem: Problem, cosine: float) -> float:
    """Phi((||mu|| cos - eps) / sigma)."""
    real = problem.binary
    assert real is not None
    return float(ndtr((float(np.linalg.norm(real.mean)) * cosine - problem.eps) / math.sqrt(float(real.cov))))


RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
BEST_HEADER = ("learner", "samples_per_dim", "w2", "best")


def best_curve(problem: Problem, learner: str, samples_per_dim: float, angles: int = 12) -> list[float]:
    """For each of RADII, the largest predicted accuracy of mirrored, aligned classes within that W2 of the real ones.

    W2^2 = (mean - ||mu||)^2 + (along - sigma)^2 + (d - 1) (across - sigma)^2: a search of this ball; T7's has along = across.
    """
    real = problem.binary
    assert real is not None
    m, sigma, root = float(np.linalg.norm(real.mean)), math.sqrt(float(real.cov)), math.sqrt(real.dim - 1)
    found = [law(Pair(m, sigma, sigma), learner, samples_per_dim)]
    for r in RADII[1:]:
        best = found[-1]
        for tilt in np.linspace(-math.pi / 2, math.pi / 2, angles // 2 + 1):
            for angle in np.linspace(0, 2 * math.pi, angles, endpoint=False):
                in_plane = r * math.cos(tilt)
                pair = Pair(m + in_plane * math.cos(angle), sigma + in_plane * math.sin(angle), sigma + r * math.sin(tilt) / root)
                if min(pair.mean / m, pair.along / sigma, pair.across / sigma) > SMALLEST:
                    best = max(best, law(pair, learner, samples_per_dim))
        found.append(best)
    return [accuracy(problem, cosine) for cosine in found]


SMALLEST = 0.1
"""Classes are searched down to this part of the real ones' mean and standard deviations."""


def measure_value(setting: Setting, seed: int, samples_per_dim: tuple[int, ...] = SAMPLES_PER_DIM) -> list[tuple[str, int, float]]:
    """(learner, samples per dimension, robust accuracy, a mean over disjoint training sets) of learners fitted to samples of one seed."""
    torch.set_num_threads(1)
    problem = problem_named(setting.problem)
    real, dim = problem.binary, problem.mixture.dim
    assert real is not None
    x, labels = generate(setting, seed, max(samples_per_dim) * dim, NoiseSchedule.linear())
    points, y = x.double().numpy(), np.where(labels.numpy() == 1, 1.0, -1.0)
    rows = []
    for ratio in samples_per_dim:
        n = ratio * dim
        parts = [slice(i * n, (i + 1) * n) for i in range(min(len(y) // n, FITS))]
        for learner in LEARNERS:
            reached = [robust_accuracy(fit(learner, points[part], y[part]), real, problem.eps) for part in parts]
            rows.append((learner, ratio, float(np.mean(reached))))
    return rows


def fit(learner: str, x: Array, y: Array) -> LinearClassifier:
    """A learner without intercept, fitted to x (n, d), y (n,) in {-1, +1}; ridge and radius as in `law`. That of adversarial training,
    which has one, is left out."""
    if learner == "averaging":
        return fit_averaging(x, y)
    std = math.sqrt(float(np.mean([x[y == sign].var(axis=0).mean() for sign in (-1.0, 1.0)])))
    if learner == "adversarial":
        return LinearClassifier(fit_adversarial(x / std, y, TRAINING_EPS / std, 2, RIDGE).weights)
    return fit_logistic(x / std, y, 1 / (RIDGE * len(y)), intercept=False)


def tabulate(
    measured: dict[Setting, list[list[tuple[str, int, float]]]], schedule: NoiseSchedule
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """(rows of value.csv, rows of value_best.csv). measured: for each setting, what measure_value returned, seed by seed."""
    problem, plain = problem_named(PROBLEM), Setting(problem=PROBLEM)
    predicted_classes = {setting: predict(setting, schedule) for setting in measured}
    cases = [(learner, ratio) for learner, ratio, _ in measured[plain][0]]
    predicted = {(one, *case): _predicted_accuracy(problem, predicted_classes[one], *case) for one in measured for case in cases}
    best = {case: best_curve(problem, *case) for case in cases}
    for case, curve in best.items():  # what a guidance makes is possible at its price, and beyond
        reached = [
            max(predicted[one, *case] for one in measured if predicted_classes[one].w2 <= max(r, predicted_classes[plain].w2))
            for r in RADII
        ]
        best[case] = np.maximum.accumulate(np.maximum(curve, reached)).tolist()
    rows = []
    for setting, by_seed in measured.items():
        classes = predicted_classes[setting]
        for i, (learner, ratio) in enumerate(cases):
            ours, unguided = (predicted[one, learner, ratio] for one in (setting, plain))
            reached = [rows_of[i][2] for rows_of in by_seed]
            gains = [one - theirs[i][2] for one, theirs in zip(reached, measured[plain], strict=True)]
            about = (*asdict(setting).values(), setting.label, learner, ratio, classes.class_snr, classes.alignment, classes.w2)
            at_price = max(float(np.interp(classes.w2, RADII, best[learner, ratio], right=math.nan)), ours)
            told = (ours, unguided, at_price, *mean_and_error(reached), *mean_and_error(gains), len(by_seed))
            rows.append((*about, *told))
    return rows, [(*case, float(r), float(a)) for case in cases for r, a in zip(RADII, best[case], strict=True)]


def best_guidances(rows: list[tuple[Any, ...]]) -> list[str]:
    """One line per learner and samples per dimension: the guidance that theory predicts to be best there, and what was measured of it."""
    table = [dict(zip(HEADER, row, strict=True)) for row in rows]
    lines = []
    for learner, ratio in dict.fromkeys((row["learner"], row["samples_per_dim"]) for row in table):
        of = [row for row in table if (row["learner"], row["samples_per_dim"]) == (learner, ratio) and row["w2"] <= RADII[-1]]
        one = max(of, key=lambda row: float(row["accuracy_predicted"]))
        gain = f"{one['gain']:+.4f}" + (f" +- {one['gain_error']:.4f}" if one["seeds"] > 1 else "")
        lines.append(
            f"{learner}, n/d = {ratio}: best is {one['label']} {one['scale']:g}, predicted {one['accuracy_predicted']:.4f} "
            f"({one['accuracy_predicted'] - one['unguided_predicted']:+.4f} over unguided), measured {gain}; the largest found at W2 "
            f"{one['w2']:.2f}: {one['best_at_this_w2']:.4f}"
        )
    return lines


def _predicted_accuracy(problem: Problem, classes: Classes, learner: str, samples_per_dim: float) -> float:
    return accuracy(problem, classes.alignment * law(Pair.of(classes), learner, samples_per_dim))
