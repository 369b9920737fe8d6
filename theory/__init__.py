"""Closed forms for robust classification of Gaussian mixtures: which synthetic data make a classifier robust, and how many.

Depends on numpy and scipy only. All arrays are float64. The docstring of each public name states its equation, source and errors.
Arguments are single numbers where not said otherwise; numpy.vectorize broadcasts a function over arrays of them.
"""

from theory.averaging import AveragingLaw
from theory.confidence import Interval, MixtureEstimate, margin_interval, share_interval
from theory.ddim import ddim_law, gaussian_nodes, guided_ddim_law
from theory.elliptical import generalised_normal_margin, student_t_margin
from theory.frontier import Frontier, distinguishability_frontier
from theory.learners import (
    accuracy_from_variance,
    direction_variance,
    large_sample_accuracy,
    large_sample_threshold,
    optimal_class_snr,
)
from theory.linear import LinearClassifier, multiclass_robust_accuracy, robust_accuracy, worst_case_perturbation
from theory.mixtures import BinaryMixture, GaussianMixture
from theory.optimal import bayes_robust_accuracy, bayes_robust_classifier, duality_gap, is_trivial
from theory.pooled import (
    LinfTraining,
    linf_training,
    multiclass_direction_variance,
    optimal_half_distance,
    optimal_synthetic_snr,
    pooled_direction_variance,
)
from theory.proportional import ClassSnrOptimum, ProportionalLaw, separability_threshold
from theory.sampled import QuasiMonteCarloLaw
from theory.samples import required_samples
from theory.second_order import SampleGap, SecondOrderLaw, robust_sample_gap, schmidt_mixture
from theory.subpopulations import SubpopulationLaw, SubpopulationMixture, subpopulation_law
from theory.synthetic import (
    direction_cosine,
    learned_classifier,
    misalignment_ceiling,
    optimal_synthetic_mean,
    optimality_gap,
)
from theory.worth import sample_worth

__version__ = "0.1.0"

__all__ = [
    "AveragingLaw",
    "BinaryMixture",
    "ClassSnrOptimum",
    "Frontier",
    "GaussianMixture",
    "Interval",
    "LinearClassifier",
    "LinfTraining",
    "MixtureEstimate",
    "ProportionalLaw",
    "QuasiMonteCarloLaw",
    "SampleGap",
    "SecondOrderLaw",
    "SubpopulationLaw",
    "SubpopulationMixture",
    "accuracy_from_variance",
    "bayes_robust_accuracy",
    "bayes_robust_classifier",
    "ddim_law",
    "direction_cosine",
    "direction_variance",
    "distinguishability_frontier",
    "duality_gap",
    "gaussian_nodes",
    "generalised_normal_margin",
    "guided_ddim_law",
    "is_trivial",
    "large_sample_accuracy",
    "large_sample_threshold",
    "learned_classifier",
    "linf_training",
    "margin_interval",
    "misalignment_ceiling",
    "multiclass_direction_variance",
    "multiclass_robust_accuracy",
    "optimal_class_snr",
    "optimal_half_distance",
    "optimal_synthetic_mean",
    "optimal_synthetic_snr",
    "optimality_gap",
    "pooled_direction_variance",
    "required_samples",
    "robust_accuracy",
    "robust_sample_gap",
    "sample_worth",
    "schmidt_mixture",
    "separability_threshold",
    "share_interval",
    "student_t_margin",
    "subpopulation_law",
    "worst_case_perturbation",
]
