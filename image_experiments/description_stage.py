"""Synthetic images described in the feature space that was chosen."""

from __future__ import annotations

import numpy as np
from torch import nn

from contrastive_dp import ClassifierFeatures
from image_experiments.adversarial import Images
from image_experiments.features import Array, DescriptionSettings, describe_images, flat_pixels
from image_experiments.real_images import RealImages
from image_experiments.selection import pseudo_labels, unit_features


def describe_synthetic(
    settings: DescriptionSettings, real: RealImages, synthetic: Images, judge: nn.Module, encoder: nn.Module
) -> dict[str, float]:
    """Measures of some of the synthetic images beside the real ones; see features.describe_images."""
    made = synthetic.some(settings.images)
    parts = {
        "train": real.train.some(settings.images),
        "validation": real.validation.some(settings.images),
        "test": real.test.some(len(made)),  # a Frechet distance depends on how many are compared
        "synthetic": made,
    }
    pixels = {name: flat_pixels(part.x) for name, part in parts.items()}
    embed = ClassifierFeatures(judge if settings.features == "judge" else encoder)

    def features_of(name: str) -> Array:
        if settings.features == "pixels" or not len(parts[name]):
            return pixels[name]
        return np.asarray(unit_features(embed, parts[name].x).double().numpy())

    features = {name: features_of(name) for name in parts}
    labels = {name: part.y.numpy() for name, part in parts.items()}
    judged = {name: pseudo_labels(judge, parts[name].x).numpy() for name in ("test", "synthetic")}
    return describe_images(features, labels, pixels, judged, settings.neighbours)
