"""Contrastive-guided diffusion sampling in torch: noise schedules, DDIM and DDPM, contrastive losses, guidance, training.

A sampler only needs a function noise_prediction(x, t[, labels]); guidance is an argument. Tensors keep the dtype and device of x_T.
diffusers is imported only by `load_diffusers`. The docstring of each public name states its equation, shapes, source and errors.
"""

try:
    from contrastive_dp.adapters import DiffusersNoisePrediction, EDMNoisePrediction, diffusers_sample, load_diffusers, schedule_of
except ModuleNotFoundError as error:
    if (error.name or "").startswith("contrastive_dp"):
        raise
    raise ModuleNotFoundError(f"{error}; contrastive_dp needs it: pip install numpy torch safetensors", name=error.name) from None
from contrastive_dp.embeddings import ClassifierFeatures, OnUnitRange, ProjectionHead, embed_anchors, frozen, train_projection_head
from contrastive_dp.forms import NoisePredictionOf, edm_denoiser, guide_states
from contrastive_dp.guidance import (
    BoundaryGuidance,
    ClassifierGuidance,
    ContrastiveGuidance,
    FeedbackGuidance,
    Guidance,
    GuidedRun,
    ParticleGuidance,
    autoguidance,
    boundary_distances,
    cads,
    classifier_free,
)
from contrastive_dp.losses import ClassAnchored, ContrastiveLoss, HardNegativeMining, InfoNCE, SupervisedContrastive
from contrastive_dp.networks import NoisePredictionMLP
from contrastive_dp.processes import Processes
from contrastive_dp.randomness import SampleNoise
from contrastive_dp.samplers import ddim_sample, ddpm_sample, heun_sample, in_pieces
from contrastive_dp.schedules import NoiseSchedule
from contrastive_dp.training import TrainingSettings, train_noise_prediction

__version__ = "0.1.0"

__all__ = [
    "BoundaryGuidance",
    "ClassAnchored",
    "ClassifierFeatures",
    "ClassifierGuidance",
    "ContrastiveGuidance",
    "ContrastiveLoss",
    "DiffusersNoisePrediction",
    "EDMNoisePrediction",
    "FeedbackGuidance",
    "Guidance",
    "GuidedRun",
    "HardNegativeMining",
    "InfoNCE",
    "NoisePredictionMLP",
    "NoisePredictionOf",
    "NoiseSchedule",
    "OnUnitRange",
    "ParticleGuidance",
    "Processes",
    "ProjectionHead",
    "SampleNoise",
    "SupervisedContrastive",
    "TrainingSettings",
    "autoguidance",
    "boundary_distances",
    "cads",
    "classifier_free",
    "ddim_sample",
    "ddpm_sample",
    "diffusers_sample",
    "edm_denoiser",
    "embed_anchors",
    "frozen",
    "guide_states",
    "heun_sample",
    "in_pieces",
    "load_diffusers",
    "schedule_of",
    "train_noise_prediction",
    "train_projection_head",
]
