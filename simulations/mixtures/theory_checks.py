"""Checks every closed form of theory/, T1-T16, against samples, fitted learners and exact attacks.

Each check function has the signature of `Check.run`. Those of T1, T2, T4 and T9 are unbiased; where theory is asymptotic (T3, T5, T6, T10
to T15) the settings keep the neglected terms an order of magnitude below the standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from simulations.mixtures.interval_checks import interval_checks
from simulations.mixtures.learners import LEARNERS, Array, fit_adversarial, fit_averaging, fit_softmax
from simulations.mixtures.monte_carlo import Check, Effort, Estimate, average, setting_of, share
from simulations.mixtures.proportional_checks import t16_checks
from theory import (
    AveragingLaw,
    BinaryMixture,
    GaussianMixture,
    LinearClassifier,
    SecondOrderLaw,
    SubpopulationMixture,
    bayes_robust_accuracy,
    bayes_robust_classifier,
    ddim_law,
    direction_variance,
    distinguishability_frontier,
    large_sample_accuracy,
    learned_classifier,
    linf_training,
    misalignment_ceiling,
    multiclass_direction_variance,
    multiclass_robust_accuracy,
    optimal_synthetic_mean,
    pooled_direction_variance,
    required_samples,
    robust_accuracy,
    robust_sample_gap,
    schmidt_mixture,
    subpopulation_law,
    worst_case_perturbation,
)

Rng = np.random.Generator
NORMS = (1.0, 2.0, math.inf)
KINDS = ("scalar", "diagonal", "full")
TEST_POINTS_A_REPLICATE = 100


def all_checks() -> list[Check]:
    """The checks of T1-T16 in order, then of intervals."""
    parts = (
        t1_checks,
        t2_checks,
        t3_checks,
        t4_checks,
        t5_t6_checks,
        t7_checks,
        t8_checks,
        t9_checks,
        t10_t11_checks,
        t12_t14_checks,
        t15_checks,
        t16_checks,
        interval_checks,
    )
    return [check for part in parts for check in part()]


# ---------------------------------------------------------------------------------------------------- shared pieces


def example_mixture(kind: str, dim: int, prior: float = 0.5, norm: float = 2.0) -> BinaryMixture:
    """A fixed mixture of the given covariance kind, average variance 1 and ||mu||_2 = norm."""
    rng = np.random.default_rng([dim, KINDS.index(kind)])
    mean = rng.standard_normal(dim)
    mean *= norm / np.linalg.norm(mean)
    if kind == "scalar":
        return BinaryMixture(mean, 1.0, prior)
    if kind == "diagonal":
        variances = rng.uniform(0.4, 1.6, dim)
        return BinaryMixture(mean, variances / variances.mean(), prior)
    factor = rng.standard_normal((dim, 2 * dim))
    cov = factor @ factor.T
    return BinaryMixture(mean, cov * dim / np.trace(cov), prior)


def radius_for(mixture: BinaryMixture, p: float, fraction: float = 0.35) -> float:
    """An attack radius at which robustness is possible: a fraction of ||mu||_p."""
    return fraction * float(np.linalg.norm(mixture.mean, ord=p))


def aligned(dim: int, norm: float, cosine: float = 1.0) -> Array:
    """A vector of the given norm at angle arccos(cosine) to the first axis."""
    vector = np.zeros(dim)
    vector[0] = norm * cosine
    if dim > 1:
        vector[1] = norm * math.sqrt(1 - cosine**2)
    return vector


def attacked_hits(classifier: LinearClassifier, mixture: BinaryMixture, eps: float, p: float, n: int, rng: Rng) -> int:
    """Sample n points, move each by its worst-case perturbation, count those still classified correctly."""
    x, y = mixture.sample(n, rng)
    x += worst_case_perturbation(classifier, y, eps, p)
    return int((classifier.predict(x) == y).sum())


def flip_labels(y: Array, label_noise: float, rng: Rng) -> Array:
    return np.where(rng.random(len(y)) < label_noise, -y, y)


def fit(learner: str, x: Array, y: Array, eps: float = 0.0, p: float = 2) -> LinearClassifier:
    return fit_adversarial(x, y, eps, p) if learner == "adversarial" else LEARNERS[learner](x, y)


# ---------------------------------------------------------------------------------------------------- T1, T2, T3


def check_fitted(rng: Rng, effort: Effort, learner: str, kind: str, p: float, dim: int, prior: float) -> dict[str, Estimate]:
    """T1: a learner fitted to 300 points and attacked on fresh ones; theory is T1 for the fitted weights."""
    mixture = example_mixture(kind, dim, prior)
    eps = radius_for(mixture, p)
    x, y = mixture.sample(300, rng)
    classifier = fit(learner, x, y, 0.1, 2)
    theory = robust_accuracy(classifier, mixture, eps, p)
    return {"": share(theory, attacked_hits(classifier, mixture, eps, p, effort.test_points, rng), effort.test_points)}


def t1_checks() -> Iterator[Check]:
    for i, learner in enumerate((*LEARNERS, "adversarial")):
        for j, kind in enumerate(KINDS):
            for p in NORMS:
                arguments = {"learner": learner, "kind": kind, "p": p, "dim": (2, 5, 20)[(i + j) % 3], "prior": (0.5, 0.3)[i % 2]}
                yield Check("T1 robust accuracy of a fitted classifier", setting_of(**arguments), check_fitted, arguments)


def check_optimum(rng: Rng, effort: Effort, kind: str, p: float, dim: int, prior: float, fraction: float) -> dict[str, Estimate]:
    """T2: the optimal classifier, attacked."""
    mixture = example_mixture(kind, dim, prior)
    eps = radius_for(mixture, p, fraction)
    hits = attacked_hits(bayes_robust_classifier(mixture, eps, p), mixture, eps, p, effort.test_points, rng)
    return {"": share(bayes_robust_accuracy(mixture, eps, p), hits, effort.test_points)}


def t2_checks() -> Iterator[Check]:
    for kind in KINDS:
        for p in NORMS:
            for dim, prior, fraction in ((3, 0.5, 0.2), (10, 0.3, 0.5), (50, 0.5, 0.7)):
                arguments = {"kind": kind, "p": p, "dim": dim, "prior": prior, "fraction": fraction}
                yield Check("T2 robust accuracy of the optimum", setting_of(**arguments), check_optimum, arguments)


def check_learned(rng: Rng, effort: Effort, learner: str, kind: str, p: float, label_noise: float) -> dict[str, Estimate]:
    """T3: a learner fitted to many samples of a shifted, differently spread synthetic mixture, attacked on the real one."""
    mixture = example_mixture(kind, 5)
    synthetic = BinaryMixture(1.3 * mixture.mean + 0.2, 1.2 * mixture.cov)
    eps = radius_for(mixture, p)
    training_eps = radius_for(synthetic, p, 0.3) if learner == "adversarial" else 0.0
    x, y = synthetic.sample(effort.training_points, rng)
    classifier = fit(learner, x, flip_labels(y, label_noise, rng), training_eps, p)
    limit = learned_classifier(synthetic, "logistic" if learner == "svm" else learner, training_eps, p, label_noise)
    theory = robust_accuracy(limit, mixture, eps, p)
    return {"": share(theory, attacked_hits(classifier, mixture, eps, p, effort.test_points, rng), effort.test_points)}


def check_optimal_mean(rng: Rng, effort: Effort, learner: str, kind: str, p: float) -> dict[str, Estimate]:
    """T3a: standard training on the optimal synthetic mean is as robust as the robust optimum of the real mixture.

    For p=inf the optimum has zero weights, whose noise costs accuracy of order 1/sqrt(n), not 1/n. Theory is then the second-order law at
    this n, which includes the kink of ||w||_1 at 0.
    """
    mixture, n = example_mixture(kind, 5), effort.training_points
    eps = radius_for(mixture, p, 0.5)
    synthetic = BinaryMixture(optimal_synthetic_mean(mixture, eps, p, learner), mixture.cov)
    hits = attacked_hits(fit(learner, *synthetic.sample(n, rng)), mixture, eps, p, effort.test_points, rng)
    theory = bayes_robust_accuracy(mixture, eps, p) if p == 2 else SecondOrderLaw(mixture, synthetic, n, eps, p).mean()
    return {"": share(theory, hits, effort.test_points)}


def check_ceiling(rng: Rng, effort: Effort, cosine: float) -> dict[str, Estimate]:
    """T3b: many well separated but rotated samples reach the ceiling, but do not exceed it."""
    mixture, eps = BinaryMixture(aligned(8, 2.0)), 0.5
    x, y = BinaryMixture(aligned(8, 6.0, cosine)).sample(effort.training_points, rng)
    hits = attacked_hits(fit_averaging(x, y), mixture, eps, 2, effort.test_points, rng)
    return {"": share(misalignment_ceiling(mixture, cosine, eps), hits, effort.test_points)}


def t3_checks() -> Iterator[Check]:
    for learner, label_noise in (
        ("averaging", 0.0),
        ("averaging", 0.2),
        ("lda", 0.0),
        ("lda", 0.2),
        ("logistic", 0.0),
        ("logistic", 0.2),
    ):
        for kind, p in (("scalar", math.inf), ("diagonal", 2.0), ("full", 2.0)):
            arguments = {"learner": learner, "kind": kind, "p": p, "label_noise": label_noise}
            yield Check("T3 learned classifier, many samples", setting_of(**arguments), check_learned, arguments)
    for kind in KINDS:
        for p in (2.0, math.inf):
            arguments = {"learner": "adversarial", "kind": kind, "p": p, "label_noise": 0.0}
            yield Check("T3 learned classifier, many samples", setting_of(**arguments), check_learned, arguments)
    arguments = {"learner": "svm", "kind": "scalar", "p": 2.0, "label_noise": 0.0}
    yield Check("T3 learned classifier, many samples", setting_of(**arguments), check_learned, arguments)
    for kind in KINDS:
        for learner, p in (("averaging", 2.0), ("averaging", math.inf), ("lda", 2.0), ("logistic", 2.0)):
            arguments = {"learner": learner, "kind": kind, "p": p}
            yield Check("T3 optimal synthetic mean", setting_of(**arguments), check_optimal_mean, arguments)
    for cosine in (1.0, 0.9, 0.7, 0.4, 0.0):
        yield Check("T3 ceiling of a rotated mean", setting_of(cosine=cosine), check_ceiling, {"cosine": cosine})


# ---------------------------------------------------------------------------------------------------- T4, T5, T6


def averaged_accuracies(
    mixture: BinaryMixture, synthetic: BinaryMixture, n: int, eps: float, p: float, n_real: int, replicates: int, rng: Rng
) -> tuple[Array, Array]:
    """Fit the averaging learner to fresh data sets; returns each exact robust accuracy and that measured on 100 attacked points."""
    exact, measured = np.empty(replicates), np.empty(replicates)
    for i in range(replicates):
        parts = [source.sample(size, rng) for source, size in ((synthetic, n), (mixture, n_real))]
        classifier = fit_averaging(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
        exact[i] = robust_accuracy(classifier, mixture, eps, p)
        measured[i] = attacked_hits(classifier, mixture, eps, p, TEST_POINTS_A_REPLICATE, rng) / TEST_POINTS_A_REPLICATE
    return exact, measured


def check_averaging_law(
    rng: Rng, effort: Effort, dim: int, n: int, c: float, std: float, cosine: float, n_real: int
) -> dict[str, Estimate]:
    """T4: mean, probability of beating the lower quartile, and probability below the median."""
    mixture, eps = BinaryMixture(aligned(dim, 2.0)), 0.5
    synthetic = BinaryMixture(aligned(dim, 2.0 * c, cosine), std**2)
    law = AveragingLaw(mixture, synthetic, n, eps, n_real)
    exact, measured = averaged_accuracies(mixture, synthetic, n, eps, 2, n_real, effort.replicates, rng)
    quartile = law.quantile(0.25)
    middle = (law.quantile(0.4) + law.quantile(0.7)) / 2
    return {
        ": mean": average(law.mean(), measured),
        ": P(accuracy >= lower quartile)": share(1 - law.cdf(quartile), int((exact >= quartile).sum()), len(exact)),
        ": cdf": share(law.cdf(middle), int((exact <= middle).sum()), len(exact)),
    }


def check_required(
    rng: Rng, effort: Effort, dim: int, c: float, cosine: float, accuracy: float, confidence: float
) -> dict[str, Estimate]:
    """T4: at the required n the target is reached with the requested confidence; at half of it, with the lower probability of the law."""
    mixture, eps = BinaryMixture(aligned(dim, 2.0)), 0.5
    synthetic = BinaryMixture(aligned(dim, 2.0 * c, cosine))
    n = required_samples(mixture, synthetic, eps=eps, accuracy=accuracy, confidence=confidence)
    estimates = {}
    for name, size in (("n", n), ("n/2", max(1, n // 2))):
        exact, _ = averaged_accuracies(mixture, synthetic, size, eps, 2, 0, effort.replicates, rng)
        theory = 1 - AveragingLaw(mixture, synthetic, size, eps).cdf(accuracy)
        estimates[f": P(accuracy met) at {name}"] = share(theory, int((exact >= accuracy).sum()), len(exact))
    return estimates


def t4_checks() -> Iterator[Check]:
    names = ("dim", "n", "c", "std", "cosine", "n_real")
    settings: list[tuple[Any, ...]] = [
        (20, 5, 1.0, 1.0, 1.0, 0),
        (2, 1, 1.0, 1.0, 1.0, 0),
        (2, 10, 0.5, 2.0, 1.0, 0),
        (5, 3, 2.0, 1.0, 1.0, 0),
        (100, 10, 1.0, 1.5, 1.0, 0),
        (20, 20, 0.5, 1.0, 1.0, 0),
        (300, 20, 1.0, 0.7, 1.0, 0),
        (20, 5, 1.0, 1.0, 0.7, 0),
        (3, 8, 1.5, 1.0, 0.5, 0),
        (50, 30, 1.0, 1.0, 0.9, 0),
        (10, 4, 1.0, 1.0, -0.3, 0),
        (20, 10, 1.5, 0.5, 0.8, 5),
        (20, 3, 2.0, 1.0, 1.0, 10),
    ]
    for values in settings:
        arguments = dict(zip(names, values, strict=True))
        yield Check("T4 averaging, exact law", setting_of(**arguments), check_averaging_law, arguments)
    for dim, c, cosine, accuracy, confidence in (
        (20, 1.0, 1.0, 0.9, 0.95),
        (5, 0.5, 1.0, 0.85, 0.9),
        (50, 1.0, 0.9, 0.85, 0.95),
        (2, 1.0, 1.0, 0.9, 0.5),
    ):
        arguments = {"dim": dim, "c": c, "cosine": cosine, "accuracy": accuracy, "confidence": confidence}
        yield Check("T4 required samples", setting_of(**arguments), check_required, arguments)


def check_second_order(rng: Rng, effort: Effort, kind: str, p: float, dim: int, n: int) -> dict[str, Estimate]:
    """T5: mean accuracy of the averaging learner against l_inf, and against l_2 with an anisotropic covariance."""
    mixture = example_mixture(kind, dim)
    synthetic = BinaryMixture(1.2 * mixture.mean, mixture.cov)
    eps = radius_for(mixture, 2.0, 0.15) / (math.sqrt(dim) if p == math.inf else 1)
    _, measured = averaged_accuracies(mixture, synthetic, n, eps, p, 0, effort.replicates // 2, rng)
    return {": mean": average(SecondOrderLaw(mixture, synthetic, n, eps, p).mean(), measured)}


def check_sample_gap(rng: Rng, effort: Effort, dim: int, n0: float, eps: float, separation: float) -> dict[str, Estimate]:
    """T6: mean accuracies at the sample sizes that the gap names, without and with the attack."""
    mixture = schmidt_mixture(dim, n0)
    synthetic = BinaryMixture(separation * mixture.mean, mixture.cov)
    gap = robust_sample_gap(dim, n0, eps=eps, accuracy=0.8, separation=separation)
    standard, robust = gap.standard_samples, gap.robust_samples
    replicates = effort.replicates // 4
    _, clean = averaged_accuracies(mixture, synthetic, standard, 0.0, math.inf, 0, replicates, rng)
    _, early = averaged_accuracies(mixture, synthetic, standard, eps, math.inf, 0, replicates, rng)
    _, attacked = averaged_accuracies(mixture, synthetic, robust, eps, math.inf, 0, replicates, rng)
    return {
        ": standard accuracy at the standard n": average(AveragingLaw(mixture, synthetic, standard, 0.0).mean(), clean),
        ": robust accuracy at the standard n": average(SecondOrderLaw(mixture, synthetic, standard, eps, np.inf).mean(), early),
        ": robust accuracy at the robust n": average(SecondOrderLaw(mixture, synthetic, robust, eps, np.inf).mean(), attacked),
    }


def t5_t6_checks() -> Iterator[Check]:
    for kind, p, dim, n in (
        ("scalar", math.inf, 50, 3),
        ("scalar", math.inf, 100, 2),
        ("scalar", math.inf, 100, 30),
        ("scalar", math.inf, 200, 10),
        ("diagonal", math.inf, 100, 5),
        ("full", math.inf, 60, 20),
        ("diagonal", 2.0, 80, 4),
        ("full", 2.0, 60, 10),
    ):
        arguments = {"kind": kind, "p": p, "dim": dim, "n": n}
        yield Check("T5 averaging, second order", setting_of(**arguments), check_second_order, arguments)
    for dim, n0, eps, separation in ((400, 4.0, 0.25, 1.0), (900, 9.0, 0.4, 1.0), (400, 4.0, 0.4, 2.0)):
        arguments = {"dim": dim, "n0": n0, "eps": eps, "separation": separation}
        yield Check("T6 robust sample gap", setting_of(**arguments), check_sample_gap, arguments)


# ---------------------------------------------------------------------------------------------------- T7, T8, T9


def check_frontier(rng: Rng, effort: Effort, dim: int, radius: float) -> dict[str, Estimate]:
    """T7: distance spent and separation gained by samples on the frontier; n / multiplier of them are worth n real samples."""
    mixture, eps, n = BinaryMixture(aligned(dim, 2.0)), 0.5, 40
    frontier = distinguishability_frontier(mixture, radius)
    synthetic = BinaryMixture(frontier.mean_scale * mixture.mean, frontier.std_scale**2)
    distances, gains = np.empty(effort.fits), np.empty(effort.fits)
    for i in range(effort.fits):
        x, y = synthetic.sample(5000, rng)
        signed = y[:, None] * x
        mean, variance = signed.mean(axis=0), float(signed.var(axis=0, ddof=1).mean())
        noise = dim * variance / len(x)  # E||sample mean - mean||^2, subtracted to keep both estimates unbiased
        distances[i] = ((mean - mixture.mean) ** 2).sum() - noise + dim * (math.sqrt(variance) - 1) ** 2
        gains[i] = (mean @ mean - noise) / variance / 4
    fewer = max(1, round(n / frontier.sample_multiplier))
    _, measured = averaged_accuracies(mixture, synthetic, fewer, eps, 2, 0, effort.replicates // 2, rng)
    return {
        ": W2 squared": average(radius**2, distances),
        ": sample multiplier": average(frontier.sample_multiplier, gains),
        ": mean accuracy at n / multiplier": average(AveragingLaw(mixture, synthetic, fewer, eps).mean(), measured),
    }


def t7_checks() -> Iterator[Check]:
    for dim, radius in ((10, 0.5), (2, 0.4), (50, 2.0)):
        yield Check("T7 frontier", setting_of(dim=dim, radius=radius), check_frontier, {"dim": dim, "radius": radius})


def visited_alpha_bars(steps: int) -> Array:
    """Noise levels of a DDIM run on the linear schedule 1e-4..0.02, T = 1000: steps at linspace(999, 0) rounded down, then clean."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return np.append(alpha_bar[np.linspace(999, 0, steps).astype(int)], 1.0)


def check_ddim(rng: Rng, effort: Effort, steps: int, std: float, push: float) -> dict[str, Estimate]:
    """T8: DDIM with the exact noise prediction of a two-class mixture, class by class, with a constant vector added to it."""
    dim, n = 3, effort.test_points
    mean = np.array([1.5, -0.5, 0.0])
    mixture = GaussianMixture(np.stack([mean, -mean]), std**2)
    alpha_bars, h = visited_alpha_bars(steps), push * np.array([1.0, 0.0, 2.0])
    x, y = rng.standard_normal((n, dim)), np.zeros(n, dtype=int)
    for a, after in pairwise(alpha_bars):
        noise = mixture.noise_prediction(x, a, y) + h
        x = math.sqrt(after) * (x - math.sqrt(1 - a) * noise) / math.sqrt(a) + math.sqrt(1 - after) * noise
    theory_mean, theory_std = ddim_law(mean, std, alpha_bars, h)
    spread = float(theory_std[0])
    standardised = (x - theory_mean) / spread
    return {
        ": mean along the first axis": average(float(theory_mean[0]), x[:, 0]),
        ": mean along the third axis": average(float(theory_mean[2]), x[:, 2]),
        ": standard deviation": Estimate(spread, spread * math.sqrt((standardised**2).mean()), spread / math.sqrt(2 * n * dim)),
    }


def t8_checks() -> Iterator[Check]:
    for steps, std, push in (
        (1, 1.0, 0.0),
        (2, 0.5, 0.0),
        (5, 1.0, 0.0),
        (10, 1.0, 0.1),
        (20, 0.3, 0.0),
        (50, 1.0, 0.05),
        (200, 2.0, 0.02),
    ):
        yield Check("T8 DDIM", setting_of(steps=steps, std=std, push=push), check_ddim, {"steps": steps, "std": std, "push": push})


def check_multiclass(rng: Rng, effort: Effort, classes: int, dim: int, p: float) -> dict[str, Estimate]:
    """T9: K classes, attacked with each of the K-1 worst-case perturbations in turn."""
    setup = np.random.default_rng([classes, dim])
    means = 1.5 * setup.standard_normal((classes, dim))
    mixture = GaussianMixture(means, setup.uniform(0.5, 1.5, classes), setup.dirichlet(np.full(classes, 5.0)))
    weights = means + 0.1 * setup.standard_normal(means.shape)
    biases, eps = -(means**2).sum(axis=1) / 2, 0.3 if p == 2 else 0.3 / math.sqrt(dim)
    x, y = mixture.sample(effort.test_points, rng)
    survives = np.ones(len(y), dtype=bool)
    for rival in range(classes):
        for k in np.flatnonzero(np.arange(classes) != rival):
            members = y == k
            push = worst_case_perturbation(LinearClassifier(weights[k] - weights[rival]), np.ones(1), eps, p)
            scores = (x[members] + push) @ weights.T + biases
            survives[members] &= scores.argmax(axis=1) == k
    theory = multiclass_robust_accuracy(weights, biases, mixture, eps, p)
    return {"": share(theory, int(survives.sum()), len(y))}


def t9_checks() -> Iterator[Check]:
    for classes, dim in ((2, 3), (3, 2), (4, 2), (4, 6), (5, 8), (10, 20)):
        for p in NORMS if classes < 10 else (2.0,):
            arguments = {"classes": classes, "dim": dim, "p": p}
            yield Check("T9 robust accuracy of K classes", setting_of(**arguments), check_multiclass, arguments)


# ---------------------------------------------------------------------------------------------------- T10, T11


def check_direction(rng: Rng, effort: Effort, learner: str, class_snr: float, training_eps: float) -> dict[str, Estimate]:
    """T10, T11: the squared tangent of the angle to mu after n samples, and the robust accuracy that follows from it."""
    dim, norm, eps = 5, 1.5, 0.4
    n = {"averaging": 2000, "lda": 4000}.get(learner, 10_000)
    mixture, synthetic = BinaryMixture(aligned(dim, norm)), BinaryMixture(aligned(dim, class_snr))
    tangents, hits = np.empty(effort.fits), 0
    per_fit = effort.test_points // effort.fits
    for i in range(effort.fits):
        x, y = synthetic.sample(n, rng)
        classifier = fit("adversarial" if training_eps else learner, x, y, training_eps, 2)
        w = classifier.weights
        tangents[i] = (w[1:] @ w[1:]) / w[0] ** 2 * n / (dim - 1)
        hits += attacked_hits(LinearClassifier(w), mixture, eps, 2, per_fit, rng)
    variance = direction_variance(class_snr, learner, training_eps)
    accuracy = large_sample_accuracy(mixture, class_snr, learner, n, eps=eps, training_eps=training_eps)
    # tan^2 is V/n times a chi-square with d-1 degrees of freedom, so its standard error is V sqrt(2 / (d-1) / fits)
    error = variance * math.sqrt(2 / (dim - 1) / effort.fits)
    return {
        ": n tan^2(angle) / (d-1)": Estimate(variance, float(tangents.mean()), error),
        ": robust accuracy": share(accuracy, hits, per_fit * effort.fits),
    }


def t10_t11_checks() -> Iterator[Check]:
    for learner in ("averaging", "lda", "logistic"):
        for class_snr in (0.5, 0.8, 1.2281411, 2.0, 2.8):
            arguments = {"learner": learner, "class_snr": class_snr, "training_eps": 0.0}
            yield Check("T10 direction", setting_of(**arguments), check_direction, arguments)
    for training_eps, class_snr in ((0.25, 0.8), (0.25, 1.3382), (0.25, 2.5), (0.5, 1.4608), (0.5, 2.5), (1.0, 1.7466), (1.0, 3.0)):
        arguments = {"learner": "logistic", "class_snr": class_snr, "training_eps": training_eps}
        yield Check("T11 direction, adversarial training", setting_of(**arguments), check_direction, arguments)


def check_pooled(
    rng: Rng, effort: Effort, real_snr: float, synthetic_snr: float, share: float, training_eps: float
) -> dict[str, Estimate]:
    """T12: the squared tangent of the angle after logistic regression on real and synthetic samples together."""
    dim, n = 6, 10_000
    counts = (round(n * (1 - share)), n - round(n * (1 - share)))
    parts = [BinaryMixture(aligned(dim, snr)) for snr in (real_snr, synthetic_snr)]
    tangents = np.empty(effort.fits)
    for i in range(effort.fits):
        drawn = [part.sample(count, rng) for part, count in zip(parts, counts, strict=True)]
        x, y = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        w = fit("adversarial" if training_eps else "logistic", x, y, training_eps, 2).weights
        tangents[i] = (w[1:] @ w[1:]) / w[0] ** 2 * n / (dim - 1)
    variance = pooled_direction_variance([real_snr, synthetic_snr], [1, 1], [1 - share, share], training_eps)
    return {": n tan^2(angle) / (d-1)": chi_square_mean(variance, tangents, dim - 1)}


def check_softmax(rng: Rng, effort: Effort, classes: int, half_distance: float) -> dict[str, Estimate]:
    """T13: the squared weights of softmax regression across the class means, divided by those along them."""
    across, n = 4, 2000 * classes
    means = np.sqrt(2) * half_distance * np.eye(classes, classes + across)
    mixture = GaussianMixture(means, 1.0)
    ratios = np.empty(effort.fits)
    for i in range(effort.fits):
        x, labels = mixture.sample(n, rng)
        w = fit_softmax(x, labels.astype(float))
        along = w[:, :classes] - w[:, :classes].mean(axis=1, keepdims=True)
        ratios[i] = (w[:, classes:] ** 2).sum() / (along**2).sum() * n / across
    variance = multiclass_direction_variance(half_distance, classes)
    return {": n (W across / W along)^2": chi_square_mean(variance, ratios, across * (classes - 1))}


def check_linf_training(rng: Rng, effort: Effort, eps: float) -> dict[str, Estimate]:
    """T14: the squared tangent of the angle to soft(mu, eps) after l_inf adversarial training, of the weights that the law
    does not keep at zero."""
    mixture, n = BinaryMixture(np.array([0.9, -0.75, 0.8, 0.7, -0.02, 0.01])), 10_000
    law = linf_training(mixture, eps)
    tangents = np.empty(effort.fits)
    for i in range(effort.fits):
        w = fit("adversarial", *mixture.sample(n, rng), eps, math.inf).weights
        kept, direction = np.where(law.direction != 0, w, 0), law.direction / np.linalg.norm(law.direction)
        along = kept @ direction
        tangents[i] = (kept @ kept - along**2) / along**2 * n / (law.active - 1)
    return {
        ": n tan^2(angle) / (active-1)": chi_square_mean(law.variance, tangents, law.active - 1),
    }


def chi_square_mean(variance: float, values: Array, degrees: int) -> Estimate:
    """Estimate of the mean `variance` of a scaled chi-square, with theory's standard error, V sqrt(2 / degrees / fits)."""
    return Estimate(variance, float(values.mean()), variance * math.sqrt(2 / degrees / len(values)))


def t12_t14_checks() -> Iterator[Check]:
    for real, synthetic, share_, e in (
        (0.6, 1.5, 0.5, 0.0),
        (2.0, 1.1, 0.7, 0.0),
        (2.5, 0.4, 0.3, 0.0),
        (1.5, 0.9, 0.5, 0.3),
        (0.8, 2.2, 0.7, 0.5),
    ):
        arguments = {"real_snr": real, "synthetic_snr": synthetic, "share": share_, "training_eps": e}
        yield Check("T12 direction, real and synthetic together", setting_of(**arguments), check_pooled, arguments)
    for classes, half in ((2, 1.0), (3, 0.8), (3, 1.3), (3, 2.2), (5, 1.4)):
        arguments = {"classes": classes, "half_distance": half}
        yield Check("T13 softmax regression", setting_of(**arguments), check_softmax, arguments)
    for e in (0.1, 0.3, 0.5):
        yield Check("T14 direction, l_inf training", setting_of(eps=e), check_linf_training, {"eps": e})


# ---------------------------------------------------------------------------------------------------- T15


def two_subpopulations(dim: int) -> SubpopulationMixture:
    """The running example: four fifths of a class are far from the boundary, one fifth is near it and in another direction."""
    means = np.zeros((2, dim))
    means[0, 0] = 2.5
    means[1, :2] = 0.2, 1.2
    return SubpopulationMixture(means, [0.8, 0.2])


def check_sharpened(rng: Rng, effort: Effort, strength: float, learner: str, training_eps: float) -> dict[str, Estimate]:
    """T15: direction and robust accuracy on the real mixture after n samples of the sharpened one."""
    dim, n, eps = 7, 10_000, 0.3
    real = two_subpopulations(dim)
    synthetic = real.sharpened(real.means[0], strength)
    law = subpopulation_law(synthetic, learner, training_eps)
    across, hits = np.empty(effort.fits), 0
    per_fit = effort.test_points // effort.fits
    for i in range(effort.fits):
        w = fit("adversarial" if training_eps else learner, *synthetic.sample(n, rng), training_eps, 2).weights
        across[i] = (w[2:] @ w[2:]) / (w[:2] @ w[:2]) * n / (dim - 2)
        x, y = real.sample(per_fit, rng)
        hits += int((y * (x @ w) / np.linalg.norm(w) > eps).sum())
    return {
        ": n tan^2(angle to the span) / (d-2)": chi_square_mean(law.variance, across, dim - 2),
        ": robust accuracy": share(law.robust_accuracy(real, eps, n), hits, per_fit * effort.fits),
    }


def t15_checks() -> Iterator[Check]:
    for learner, training_eps in (("averaging", 0.0), ("logistic", 0.0), ("logistic", 0.3)):
        for strength in (-0.5, 0.0, 0.4):
            arguments = {"strength": strength, "learner": learner, "training_eps": training_eps}
            yield Check("T15 sharpened sub-populations", setting_of(**arguments), check_sharpened, arguments)
