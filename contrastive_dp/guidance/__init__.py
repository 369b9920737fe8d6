"""Guidance, one file per method: what is added to the noise prediction in each sampler step."""

from contrastive_dp.guidance.base import LEAST_CHANGE, At, Guidance, GuidedRun
from contrastive_dp.guidance.classifier import ClassifierGuidance
from contrastive_dp.guidance.classifier_free import classifier_free
from contrastive_dp.guidance.contrastive import ContrastiveGuidance, Embed

__all__ = ["LEAST_CHANGE", "At", "ClassifierGuidance", "ContrastiveGuidance", "Embed", "Guidance", "GuidedRun", "classifier_free"]
