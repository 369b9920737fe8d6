"""Theory on real data: estimate a Gaussian pair from one half, predict robust accuracies, fit and attack on the other half.

Features are standardised and centred between the classes using only the training half, so attack radii are in standard deviations of a
feature. Every prediction uses the estimated mixture. Each gap to the measurement is split in two:
  moments  the change when each class's score gets its mean and standard deviation from the held-out half
           (due to estimation error, and to different covariances of the two classes),
  shape    the rest, because the score of a class is not Gaussian.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import kstest, kurtosis, skew
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from command_line.output import UserError
from simulations.mixtures.certainty import Attack, Certainty, certainties
from simulations.mixtures.learners import Array, fit_adversarial, fit_averaging, fit_logistic, fit_shrunk_lda, fit_svm
from simulations.mixtures.tables import Table, copy_groups, groups_of
from theory import (
    BinaryMixture,
    LinearClassifier,
    bayes_robust_classifier,
    distinguishability_frontier,
    is_trivial,
    learned_classifier,
    required_samples,
    robust_accuracy,
    worst_case_perturbation,
)
from theory.samples import law_of_averages

EPS_FRACTIONS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of ||mu||_p, if no radius is given; at 1 no robustness is possible
RADIUS_FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)  # of the total standard deviation, for the frontier
PENALTY = 1e-3  # l_2, keeps the fits finite if the training half is separable
OPTIMUM = "robust optimum (theory)"
CURVE_DRAWS = 60  # training subsets per sample size of the learning curve


@dataclass(frozen=True)
class Comparison:
    """One classifier under one attack: robust accuracy as predicted, with held-out moments, and as measured."""

    p: float
    eps: float
    classifier: str
    predicted: float
    with_moments: float
    measured: float
    standard_error: float
    trivial: bool

    @property
    def moments_gap(self) -> float:
        return self.with_moments - self.predicted

    @property
    def shape_gap(self) -> float:
        return self.measured - self.with_moments


@dataclass(frozen=True)
class Shape:
    """How far the score of one held-out class is from the Gaussian that the model predicts."""

    direction: str
    label: str
    mean_shift: float  # in predicted standard deviations
    std_ratio: float
    skewness: float
    excess_kurtosis: float
    ks_p: float  # Kolmogorov-Smirnov against a Gaussian of the sample's own mean and std, so the p-value errs upwards


@dataclass(frozen=True)
class Need:
    """Number of samples from the estimated mixture with which averaging reaches the target accuracy; n is None above the ceiling."""

    p: float
    eps: float
    accuracy: float
    ceiling: float
    n: int | None


@dataclass(frozen=True)
class CurvePoint:
    """Mean robust accuracy of averaging n training samples: predicted by its law, measured over random subsets."""

    p: float
    eps: float
    n: int
    predicted: float
    measured: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything reported about one table."""

    table: Table
    mixture: BinaryMixture
    train_rows: int
    distinct_train_rows: int
    test_rows: int
    distinct_test_rows: int
    """Without copies, which say nothing new: those that intervals and standard errors count."""
    dropped: tuple[str, ...]
    shrinkage: float
    comparisons: tuple[Comparison, ...]
    shapes: tuple[Shape, ...]
    needs: tuple[Need, ...]
    certainties: tuple[Certainty, ...]
    curve: tuple[CurvePoint, ...]
    frontier: tuple[tuple[float, float, float, float], ...]  # radius, mean scale, std scale, sample multiplier


@dataclass(frozen=True, eq=False)
class _Half:
    x: Array
    y: Array


def analyse(
    table: Table,
    norms: tuple[float, ...],
    eps: tuple[float, ...],
    accuracy: float,
    confidence: float,
    radii: tuple[float, ...],
    seed: int,
) -> Analysis:
    """Split, estimate, predict, fit, attack. eps and radii: empty for the defaults, which scale with the data."""
    rng = np.random.default_rng([seed, 1])
    train, test, dropped = split_and_scale(table, seed)
    copied = copy_groups(table.x, table.y) is not None
    distinct = (without_copies(train), without_copies(test)) if copied else (train, test)
    mixture, shrinkage = estimate_mixture(train)
    grids = {p: eps or tuple(f * float(np.linalg.norm(mixture.mean, ord=p)) for f in EPS_FRACTIONS) for p in norms}
    total_std = math.sqrt(mixture.covariance.trace)
    standard = fit_standard(train)
    frontier = [distinguishability_frontier(mixture, r) for r in radii or [f * total_std for f in RADIUS_FRACTIONS]]
    shown = {p: [eps for eps in grids[p][:4:2] if not is_trivial(mixture, eps, p)] for p in norms if p != 1}
    curve = [point for p, radii in shown.items() for point in learning_curve(*distinct, mixture, radii, p, rng)]
    return Analysis(
        table=table,
        mixture=mixture,
        train_rows=len(train.y),
        distinct_train_rows=len(distinct[0].y),
        test_rows=len(test.y),
        distinct_test_rows=len(distinct[1].y),
        dropped=dropped,
        shrinkage=shrinkage,
        comparisons=tuple(
            row
            for p in norms
            for radius in grids[p]
            for row in compare(standard, train, test, mixture, radius, p, len(distinct[1].y))
        ),
        shapes=tuple(describe_shapes(test, mixture, table.classes)),
        needs=tuple(need(mixture, radius, p, accuracy, confidence) for p in norms if p != 1 for radius in grids[p]),
        certainties=tuple(how_sure(*distinct, mixture, grids, accuracy, confidence, seed)),
        curve=tuple(curve),
        frontier=tuple((f.radius, f.mean_scale, f.std_scale, f.sample_multiplier) for f in frontier),
    )


def without_copies(half: _Half) -> _Half:
    """Each different row and label once, in the order of the half: n copies of a row are no n independent rows."""
    first = np.sort(np.unique(np.column_stack([half.x, half.y]), axis=0, return_index=True)[1])
    return _Half(half.x[first], half.y[first])


def split_and_scale(table: Table, seed: int) -> tuple[_Half, _Half, tuple[str, ...]]:
    """Stratified halves, standardised and centred between the class means of the training half; constant columns are dropped.

    Equal rows stay in one half, because a copy of a training row is not new data, and so do the rows of a group.
    """
    groups = groups_of(table)
    if groups is None:
        x_train, x_test, y_train, y_test = train_test_split(table.x, table.y, test_size=0.5, stratify=table.y, random_state=seed)
    else:
        halves = StratifiedGroupKFold(2, shuffle=True, random_state=seed).split(table.x, table.y, groups)
        chosen, left = next(halves)
        x_train, x_test, y_train, y_test = table.x[chosen], table.x[left], table.y[chosen], table.y[left]
    size = np.abs(x_train).max(axis=0)
    size[size == 0] = 1.0
    x_train, x_test = x_train / size, x_test / size  # so that squares neither overflow nor underflow
    std = x_train.std(axis=0)
    varies = std > 1e-12
    if not varies.any():
        raise UserError(f"--data {table.name}: no feature varies in the training half; give features that differ between rows")
    dropped = tuple(name for name, keep in zip(table.features, varies, strict=True) if not keep)
    centre = (x_train[y_train > 0].mean(axis=0) + x_train[y_train < 0].mean(axis=0)) / 2
    train, test = (
        _Half(((x - centre) / np.where(varies, std, 1))[:, varies], y) for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return train, test, dropped


def estimate_mixture(train: _Half) -> tuple[BinaryMixture, float]:
    """Class mean, pooled Ledoit-Wolf covariance and prior from the training half, and the shrinkage used."""
    mean = (train.x[train.y > 0].mean(axis=0) - train.x[train.y < 0].mean(axis=0)) / 2
    residual = train.x - train.y[:, None] * mean
    if not mean.any():
        raise UserError("the two classes have the same mean in the training half: nothing linear separates them; check the labels")
    if np.abs(residual).max() < 1e-9:
        raise UserError(
            "the features are constant within each class: the classes are separated perfectly; remove the label from them"
        )
    pooled = LedoitWolf(assume_centered=True).fit(residual)
    return BinaryMixture(mean, pooled.covariance_, float((train.y > 0).mean())), float(pooled.shrinkage_)


def how_sure(
    train: _Half,
    test: _Half,
    mixture: BinaryMixture,
    grids: dict[float, tuple[float, ...]],
    accuracy: float,
    confidence: float,
    seed: int,
) -> list[Certainty]:
    """The intervals at every radius at which robustness is possible."""
    attacks = [
        Attack(p, eps, bayes_robust_classifier(mixture, eps, p))
        for p, radii in grids.items()
        for eps in radii
        if not is_trivial(mixture, eps, p)
    ]
    halves = (train.x, train.y), (test.x, test.y)
    return certainties(*halves, attacks, accuracy, confidence, np.random.default_rng([seed, 2]))


def fit_standard(train: _Half) -> dict[str, LinearClassifier]:
    """The learners that do not know about the attack."""
    strength = 1 / (PENALTY * len(train.y))
    return {
        "averaging": fit_averaging(train.x, train.y),
        "lda": fit_shrunk_lda(train.x, train.y),
        "logistic": fit_logistic(train.x, train.y, strength),
        "linear svm": fit_svm(train.x, train.y, strength),
    }


def compare(
    standard: dict[str, LinearClassifier],
    train: _Half,
    test: _Half,
    mixture: BinaryMixture,
    eps: float,
    p: float,
    rows_that_count: int,
) -> list[Comparison]:
    """The optimum of T2, the standard learners and adversarial training at one radius, attacked at that radius. rows_that_count: held-out
    rows without copies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the report covers the trivial radius
        optimum = bayes_robust_classifier(mixture, eps, p)
    classifiers = {OPTIMUM: optimum, **standard}
    if p != 1:
        classifiers["adversarial logistic"] = fit_adversarial(train.x, train.y, eps, p, PENALTY)
    trivial = is_trivial(mixture, eps, p)
    rows = []
    for name, classifier in classifiers.items():
        attacked = test.x + worst_case_perturbation(classifier, test.y, eps, p)
        measured = float((classifier.predict(attacked) == test.y).mean())
        error = math.sqrt(max(measured * (1 - measured), 0.25 / rows_that_count) / rows_that_count)
        predicted = robust_accuracy(classifier, mixture, eps, p)
        rows.append(Comparison(p, eps, name, predicted, with_held_out_moments(classifier, test, eps, p), measured, error, trivial))
    return rows


def with_held_out_moments(classifier: LinearClassifier, test: _Half, eps: float, p: float) -> float:
    """Robust accuracy if the score of each class were Gaussian with its held-out mean and standard deviation."""
    if not classifier.weights.any():
        return float((classifier.predict(test.x) == test.y).mean())
    cost = float(worst_case_perturbation(classifier, -np.ones(1), eps, p)[0] @ classifier.weights)  # eps ||w||_q
    total = 0.0
    for label in (-1.0, 1.0):
        margin = label * classifier.score(test.x[test.y == label]) - cost
        total += len(margin) * float(ndtr(margin.mean() / max(margin.std(ddof=1), 1e-300)))
    return total / len(test.y)


def describe_shapes(test: _Half, mixture: BinaryMixture, classes: tuple[str, str]) -> list[Shape]:
    """Held-out scores along the estimated optimum and along the mean, per class, against the model."""
    shapes = []
    for direction, w in (
        ("lda (optimum without attack)", mixture.covariance.solve(mixture.mean)),
        ("mean difference", mixture.mean),
    ):
        expected_mean, expected_std = float(w @ mixture.mean), math.sqrt(mixture.covariance.quadratic(w))
        for label, name in zip((-1.0, 1.0), classes, strict=True):
            score = test.x[test.y == label] @ w * label
            shapes.append(
                Shape(
                    direction=direction,
                    label=name,
                    mean_shift=(float(score.mean()) - expected_mean) / expected_std,
                    std_ratio=float(score.std(ddof=1)) / expected_std,
                    skewness=float(skew(score)),
                    excess_kurtosis=float(kurtosis(score)),
                    ks_p=float(kstest((score - score.mean()) / score.std(ddof=1), "norm").pvalue),
                )
            )
    return shapes


def need(mixture: BinaryMixture, eps: float, p: float, accuracy: float, confidence: float) -> Need:
    """Samples needed for the target accuracy, or None if the ceiling is below it."""
    ceiling = robust_accuracy(learned_classifier(mixture, "averaging"), mixture, eps, p)
    n = required_samples(mixture, mixture, eps=eps, accuracy=accuracy, confidence=confidence, p=p) if accuracy < ceiling else None
    return Need(p, eps, accuracy, ceiling, n)


def learning_curve(
    train: _Half, test: _Half, mixture: BinaryMixture, radii: list[float], p: float, rng: np.random.Generator
) -> list[CurvePoint]:
    """Averaging on random subsets of the training half, attacked on the held-out half; spread over subsets only."""
    sizes = [n for n in (2, 4, 8, 16, 32, 64, 128) if n <= len(train.y) // 2]
    law = law_of_averages(mixture.dim)
    points = []
    for eps in radii:
        for n in sizes:
            measured = np.empty(CURVE_DRAWS)
            for i in range(CURVE_DRAWS):
                chosen = rng.choice(len(train.y), n, replace=False)  # different rows are independent samples; a row twice is not
                classifier = fit_averaging(train.x[chosen], train.y[chosen])
                attacked = test.x + worst_case_perturbation(classifier, test.y, eps, p)
                right = classifier.predict(attacked) == test.y
                measured[i] = (right[test.y > 0].mean() + right[test.y < 0].mean()) / 2  # balanced, like the law
            error = float(measured.std(ddof=1) / math.sqrt(CURVE_DRAWS))
            points.append(CurvePoint(p, eps, n, law(mixture, mixture, n, eps, p).mean(), float(measured.mean()), error))
    return points


def verdict(analysis: Analysis) -> list[str]:
    """Plain sentences on where the Gaussian assumption fails, and by how much."""
    live = [row for row in analysis.comparisons if not row.trivial]
    if not live:
        trivial = "every radius is at or beyond ||mu||_p: no classifier beats guessing, so there is nothing to compare"
        return [f"{trivial}; use a smaller --eps", *_shape_faults(analysis.shapes)]
    return [*_gap_sizes(live), *_shape_faults(analysis.shapes)]


def _gap_sizes(rows: list[Comparison]) -> list[str]:
    lines = []
    for name in ("moments", "shape"):
        gaps = [getattr(row, f"{name}_gap") for row in rows]
        largest, worst = max(zip(gaps, rows, strict=True), key=lambda pair: abs(pair[0]))
        where = f"{worst.classifier}, p={worst.p:g}, eps={worst.eps:.3g}"
        lines.append(f"{name}: mean |gap| {np.abs(gaps).mean():.3f}, largest {largest:+.3f} ({where})")
    at_optimum = [row for row in reversed(rows) if row.classifier == OPTIMUM]
    known = {(row.p if row.eps else 0, row.eps): row for row in at_optimum}  # at eps 0 all norms are one attack
    optimum = [(row.measured - row.predicted, row.standard_error) for row in known.values()]
    gaps = [gap for gap, _ in optimum]
    beyond = sum(abs(gap) > 3 * error for gap, error in optimum)
    lines.append(
        f"predicted robust optimum: mean |measured - predicted| {np.abs(gaps).mean():.3f}, largest {max(gaps, key=abs):+.3f}, "
        f"beyond 3 standard errors of the held-out share at {beyond} of {len(gaps)} attacks (the estimate of the mixture errs too)"
    )
    return lines


def _shape_faults(shapes: tuple[Shape, ...]) -> list[str]:
    lines = []
    for shape in shapes:
        faults = []
        if not 0.8 < shape.std_ratio < 1.25:
            faults.append(f"spreads {shape.std_ratio:.2f} times as wide as the shared covariance says")
        if abs(shape.mean_shift) > 0.3:
            faults.append(f"its mean is off by {shape.mean_shift:+.2f} predicted standard deviations")
        if abs(shape.skewness) > 0.5 or abs(shape.excess_kurtosis) > 1:
            faults.append(f"skewness {shape.skewness:+.2f}, excess kurtosis {shape.excess_kurtosis:+.2f} (KS p = {shape.ks_p:.1g})")
        if faults:
            lines.append(f"class {shape.label!r} along {shape.direction}: {'; '.join(faults)}")
    return lines


def optimum_by_eps(analysis: Analysis) -> list[tuple[float, float, float, bool]]:
    """(p, eps, predicted robust optimum, trivial) at each radius."""
    return [(row.p, row.eps, row.predicted, row.trivial) for row in analysis.comparisons if row.classifier == OPTIMUM]
