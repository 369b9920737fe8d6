"""Exact curves for the pictures, as tables: (header, rows). Nothing is drawn here.

Every curve takes (seed, effort), used only by the one with simulated points, and is listed in CURVES under the name of its csv file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from simulations.mixtures.monte_carlo import Effort
from simulations.mixtures.theory_checks import aligned, averaged_accuracies, two_subpopulations, visited_alpha_bars
from theory import (
    AveragingLaw,
    BinaryMixture,
    ProportionalLaw,
    ddim_law,
    direction_variance,
    distinguishability_frontier,
    misalignment_ceiling,
    multiclass_direction_variance,
    optimal_class_snr,
    optimal_half_distance,
    optimal_synthetic_mean,
    optimal_synthetic_snr,
    pooled_direction_variance,
    robust_sample_gap,
    separability_threshold,
    subpopulation_law,
)

CurveTable = tuple[tuple[str, ...], list[tuple[Any, ...]]]

DIM, NORM, EPS = 20, 2.0, 0.5  # the running example: ||mu|| = 2, sigma = 1, l_2 radius 0.5
SEPARATIONS = (0.5, 1.0, 2.0)


def accuracy_against_n(seed: int, effort: Effort) -> CurveTable:
    """T4 for several class separations c; simulated at every fourth n."""
    mixture = BinaryMixture(aligned(DIM, NORM))
    rows: list[tuple[Any, ...]] = []
    for i, c in enumerate(SEPARATIONS):
        synthetic = BinaryMixture(aligned(DIM, NORM * c))
        for j in range(21):
            n = round(2 ** (j / 2))
            law = AveragingLaw(mixture, synthetic, n, EPS)
            simulation = error = math.nan
            if j % 4 == 0:
                rng = np.random.default_rng([seed, 2, i, j])
                _, measured = averaged_accuracies(mixture, synthetic, n, EPS, 2, 0, max(50, effort.replicates // 10), rng)
                simulation, error = float(measured.mean()), float(measured.std(ddof=1) / math.sqrt(len(measured)))
            rows.append((c, n, law.kappa, law.mean(), law.quantile(0.05), law.quantile(0.95), law.ceiling, simulation, error))
    return ("separation", "n", "kappa", "mean", "q05", "q95", "ceiling", "simulation", "standard_error"), rows


def ceiling(_seed: int, _effort: Effort) -> CurveTable:
    """T3b: the ceiling against the angle of the synthetic mean, and the exact mean accuracy at finite n (c = 1)."""
    mixture = BinaryMixture(aligned(DIM, NORM))
    rows: list[tuple[Any, ...]] = []
    for degrees in np.linspace(0, 90, 19):
        cosine = math.cos(math.radians(degrees))
        synthetic = BinaryMixture(aligned(DIM, NORM, cosine))
        finite = [AveragingLaw(mixture, synthetic, n, EPS).mean() for n in (5, 30)]
        rows.append((float(degrees), misalignment_ceiling(mixture, cosine, EPS), *finite))
    return ("angle_degrees", "ceiling", "n5", "n30"), rows


def linf_mean(_seed: int, _effort: Effort) -> CurveTable:
    """T3a: the real mean and the synthetic mean from which averaging learns the l_inf optimum, coordinate by coordinate."""
    mean = np.sort(np.abs(np.random.default_rng(3).normal(0, 0.6, 24)))[::-1]
    mixture = BinaryMixture(mean)
    columns = [mean, *(optimal_synthetic_mean(mixture, eps, math.inf) for eps in (0.2, 0.5))]
    return ("coordinate", "real", "eps_0.2", "eps_0.5"), [
        (i + 1, *map(float, values)) for i, values in enumerate(zip(*columns, strict=True))
    ]


def frontier(_seed: int, _effort: Effort) -> CurveTable:
    """T7: sample multiplier against the Wasserstein-2 budget in units of the total standard deviation sqrt(d) sigma."""
    rows: list[tuple[Any, ...]] = []
    for snr in (0.5, 1.0, 2.0):
        mixture = BinaryMixture(aligned(DIM, snr * math.sqrt(DIM)))  # ||mu|| / (sqrt(d) sigma) = snr
        for share in np.linspace(0, 0.6, 61):
            point = distinguishability_frontier(mixture, float(share) * math.sqrt(DIM))
            rows.append((snr, float(share), point.mean_scale, point.std_scale, point.sample_multiplier))
    return ("mean_over_total_std", "radius_over_total_std", "mean_scale", "std_scale", "sample_multiplier"), rows


def ddim_shrinkage(_seed: int, _effort: Effort) -> CurveTable:
    """T8: the effect of few DDIM steps on a class with mean 1 and standard deviation sigma."""
    rows: list[tuple[Any, ...]] = []
    for std in (0.3, 1.0, 2.0):
        for steps in (2, 3, 5, 8, 10, 15, 20, 30, 50, 100, 200, 500, 1000):
            mean_out, std_out = ddim_law(1.0, std, visited_alpha_bars(steps))
            rows.append((std, steps, float(mean_out), float(std_out) / std, float(mean_out) / (float(std_out) / std)))
    return ("std", "steps", "mean_ratio", "std_ratio", "class_snr_ratio"), rows


def class_snr(_seed: int, _effort: Effort) -> CurveTable:
    """T10, T11: V against the class SNR of one sample, for each learner; the last column has the optimum of each curve."""
    rows: list[tuple[Any, ...]] = []
    for learner, eps in (("averaging", 0.0), ("lda", 0.0), ("logistic", 0.0), ("logistic", 0.5), ("logistic", 1.0)):
        best = optimal_class_snr(learner, eps)
        for snr in np.geomspace(0.25, 5, 81):
            if snr > eps + 1e-9:
                rows.append((learner, eps, float(snr), direction_variance(float(snr), learner, eps), best))
    return ("learner", "training_eps_over_sigma", "class_snr", "variance", "optimal_class_snr"), rows


def phase_diagram(_seed: int, _effort: Effort) -> CurveTable:
    """T16: tan(angle) of logistic regression against the class SNR, for few and many samples per dimension, without and with a ridge."""
    rows: list[tuple[Any, ...]] = []
    for eps, ridge in ((0.0, 0.0), (0.0, 1e-3), (0.5, 0.0)):
        for ratio in (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0):
            for snr in np.geomspace(0.3, 10, 31):
                if snr > eps:
                    law = ProportionalLaw(float(snr), ratio, ridge=ridge, eps=eps)
                    rows.append((eps, ridge, ratio, float(snr), law.across / law.along, law.alignment, int(law.separable)))
    return ("training_eps_over_sigma", "ridge", "samples_per_dim", "class_snr", "tan_angle", "alignment", "separable"), rows


def separability(_seed: int, _effort: Effort) -> CurveTable:
    """T16: the number of samples per dimension up to which the classes are linearly separable."""
    return ("class_snr", "samples_per_dim"), [(float(snr), separability_threshold(float(snr))) for snr in np.linspace(0.1, 4.5, 45)]


def beside_real_data(_seed: int, _effort: Effort) -> CurveTable:
    """T12: the best class SNR of synthetic samples that are added to real ones, against the real class SNR."""
    rows: list[tuple[Any, ...]] = []
    for share, eps in ((0.1, 0.0), (0.5, 0.0), (0.9, 0.0), (0.5, 0.5)):
        for real in np.geomspace(0.6, 5, 17):
            best = optimal_synthetic_snr(float(real), share, eps)
            same = pooled_direction_variance([real], [1], [1], eps)
            least = pooled_direction_variance([real, best or 1e-6], [1, 1], [1 - share, share], eps)
            rows.append((share, eps, float(real), best, same / least))
    return ("share", "training_eps_over_sigma", "real_snr", "best_synthetic_snr", "gain_over_as_real"), rows


def multiclass(_seed: int, _effort: Effort) -> CurveTable:
    """T13: V against half the distance between two class means over sigma, for K classes; the last column has the optimum."""
    rows: list[tuple[Any, ...]] = []
    for classes in (2, 3, 10):
        best = optimal_half_distance(classes)
        for half in np.geomspace(0.4, 2.5, 27):
            rows.append((classes, float(half), multiclass_direction_variance(float(half), classes), best))
    return ("classes", "half_distance", "variance", "optimal_half_distance"), rows


def subpopulations(_seed: int, _effort: Effort) -> CurveTable:
    """T15: sharpening (> 0) and softening (< 0) of classes that are mixtures: class SNR, share of the sub-population near the boundary, and
    for three learners V and the ceiling of robust accuracy on the real mixture (l_2 radius 0.3)."""
    real, eps = two_subpopulations(20), 0.3
    rows: list[tuple[Any, ...]] = []
    for learner, training_eps in (("averaging", 0.0), ("logistic", 0.0), ("logistic", eps)):
        for strength in np.linspace(-0.75, 1.5, 46):
            synthetic = real.sharpened(real.means[0], float(strength))
            law = subpopulation_law(synthetic, learner, training_eps)
            about = (learner, training_eps, float(strength), synthetic.class_snr, float(synthetic.weights[1]))
            rows.append((*about, law.robust_accuracy(real, eps), law.variance))
    return ("learner", "training_eps", "strength", "class_snr", "share_near", "ceiling", "variance"), rows


def sample_gap(_seed: int, _effort: Effort) -> CurveTable:
    """T6: samples for a mean accuracy of 0.8 without and with an l_inf attack of 0.25, n0 = 5."""
    rows: list[tuple[Any, ...]] = []
    for dim in np.unique(np.geomspace(50, 100_000, 15).astype(int)):
        plain, separated = (robust_sample_gap(int(dim), 5.0, eps=0.25, accuracy=0.8, separation=c) for c in (1.0, 2.0))
        rows.append((int(dim), plain.standard_samples, plain.robust_samples, separated.robust_samples, plain.carmon_samples))
    return ("dim", "standard_samples", "robust_samples", "robust_samples_separation_2", "carmon_order"), rows


CURVES = {
    "ceiling": ceiling,
    "accuracy_against_n": accuracy_against_n,
    "linf_mean": linf_mean,
    "frontier": frontier,
    "ddim_shrinkage": ddim_shrinkage,
    "class_snr": class_snr,
    "phase_diagram": phase_diagram,
    "separability": separability,
    "beside_real_data": beside_real_data,
    "subpopulations": subpopulations,
    "multiclass": multiclass,
    "sample_gap": sample_gap,
}
