"""Describes synthetic images in the chosen feature space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrastive_dp import ClassifierFeatures, boundary_distances
from image_experiments.data.images import Images
from image_experiments.data.stored_dataset import SplitDataset
from image_experiments.evaluation.features import (
    DescriptionSettings,
    class_snr,
    describe_images,
    effective_dimension,
    flat_pixels,
    nearest_real,
)
from image_experiments.models.labels_and_features import pseudo_labels, unit_features


def describe_synthetic(
    settings: DescriptionSettings, real: SplitDataset, synthetic: Images, judge: nn.Module, encoder: nn.Module, split: str
) -> dict[str, float]:
    """Measures of some of the synthetic images against the real ones, see features.describe_images. Their class SNR and effective
    dimension are always measured in pixels, in the judge's features and in the encoder's, whichever of these the other measures use; their
    distance to the decision boundary is the encoder's.

    split: with "validation", where choices are made, the test images are not used and the floors are nan.
    """
    made = synthetic.some(settings.images)
    parts = {
        "train": real.train.some(settings.images),
        # no more than the synthetic ones, because a Frechet distance depends on how many images are compared (see describe_images)
        "test": real.test.some(len(made) if split == "test" else 0),
        "synthetic": made,
    }
    device = next(judge.parameters()).device
    nearest = nearest_real(flat_pixels(made.x), flat_pixels(real.train.x), flat_pixels(real.validation.x), device)  # all of them
    pixels = {name: flat_pixels(parts[name].x).astype("float64") for name in ("train", "test", "synthetic")}
    labels = {name: part.y.numpy() for name, part in parts.items()}
    embedded = {"pixels": pixels}
    for kind, classifier in (("judge", judge), ("encoder", encoder)):
        embed = ClassifierFeatures(classifier)
        used = parts if kind == settings.features else ("synthetic",)  # class SNR and effective dimension alone
        embedded[kind] = {name: unit_features(embed, parts[name].x).double().numpy() for name in used if len(parts[name])}
    features = pixels | embedded[settings.features]
    judged = {name: pseudo_labels(judge, parts[name].x).numpy() for name in ("test", "synthetic") if len(parts[name])}
    found = describe_images(features, labels, nearest, judged, settings.neighbours)
    for kind, of in embedded.items():
        known = kind == settings.features
        snr = found["class_snr_crossfit"] if known else class_snr(of["synthetic"], labels["synthetic"], with_error=False)[0]
        found[f"class_snr_crossfit_{kind}"] = snr
        found[f"effective_dimension_{kind}"] = effective_dimension(of["synthetic"], labels["synthetic"])
    return found | _distances(encoder, parts)


def _distances(encoder: nn.Module, parts: dict[str, Images]) -> dict[str, float]:
    """Mean and standard deviation of the synthetic images' l_2 distance to the encoder's decision boundary, to first order and on the
    [0, 1] scale, negative where it takes them for another class; and the mean of real test images (nan without any)."""
    distances = {name: to_boundary(encoder, parts[name]) for name in ("synthetic", "test") if len(parts[name])}
    made = distances["synthetic"]
    floor = float(distances["test"].mean()) if "test" in distances else float("nan")
    return {
        "boundary_distance": float(made.mean()),
        "boundary_distance_sd": float(made.std()),
        "boundary_distance_floor": floor,
    }


def to_boundary(encoder: nn.Module, images: Images) -> Tensor:
    """(n,) double-precision distances of uint8 images to the encoder's boundary, as `boundary_distances`, in pieces."""
    device = next(encoder.parameters()).device
    pieces = zip(images.x.split(500), images.y.split(500), strict=True)
    return torch.cat([boundary_distances(encoder, x.to(device).float() / 255, y).cpu().double() for x, y in pieces])
