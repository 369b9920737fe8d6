"""Guidance, one file per method: what is added to the noise prediction in each sampler step."""

from contrastive_dp.guidance.autoguidance import autoguidance
from contrastive_dp.guidance.base import LEAST_CHANGE, At, Embed, Guidance, GuidedRun
from contrastive_dp.guidance.boundary import BoundaryGuidance, boundary_distances
from contrastive_dp.guidance.cads import cads
from contrastive_dp.guidance.classifier import ClassifierGuidance
from contrastive_dp.guidance.classifier_free import classifier_free
from contrastive_dp.guidance.contrastive import ContrastiveGuidance
from contrastive_dp.guidance.feedback import FeedbackGuidance
from contrastive_dp.guidance.particle import ParticleGuidance

__all__ = [
    "LEAST_CHANGE",
    "At",
    "BoundaryGuidance",
    "ClassifierGuidance",
    "ContrastiveGuidance",
    "Embed",
    "FeedbackGuidance",
    "Guidance",
    "GuidedRun",
    "ParticleGuidance",
    "autoguidance",
    "boundary_distances",
    "cads",
    "classifier_free",
]
