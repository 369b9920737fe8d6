"""What synthetic images are like in a feature space: how faithful and diverse, how far apart their classes, how right their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class DescriptionSettings:
    """Measures of the synthetic images."""

    features: Literal["judge", "encoder", "pixels"] = "judge"
    """judge: a classifier trained without attacks on training and validation images, which guides nothing; the encoder; or pixels."""
    steps: int = 400
    """Optimiser steps of the judge."""
    neighbours: int = 5
    """Neighbours of precision and recall."""
    images: int = 2000
    """At most so many synthetic images are described."""

    def __post_init__(self) -> None:
        for name in ("steps", "neighbours", "images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")


def frechet_distance(real: Array, synthetic: Array) -> float:
    """||m - m'||^2 + tr(S + S' - 2 (S S')^(1/2)) of means and covariances of features (n, k): FID's formula (Heusel et al. 2017).

    Computed by torchmetrics; grows as fewer images are compared, so compare only numbers from equally many.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = torch.nn.Identity()
    identity.num_features = real.shape[1]
    options: Any = {"normalize": False, "antialias": False, "sync_on_compute": False}  # of several processes, one computes it
    metric = FrechetInceptionDistance(feature=identity, **options).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(synthetic), real=False)
    return float(metric.compute())


def precision_recall(real: Array, synthetic: Array, neighbours: int) -> tuple[float, float]:
    """Share of synthetic features (n, k) within the manifold of the real ones, and the reverse (Kynkäänniemi et al. 2019).

    The manifold is the union of balls around its points that reach to their k-th nearest neighbour.
    """
    return _covered(synthetic, real, neighbours), _covered(real, synthetic, neighbours)


def _covered(points: Array, manifold: Array, neighbours: int) -> float:
    from scipy.spatial.distance import cdist

    k = min(neighbours, len(manifold) - 1)
    radius = np.sort(cdist(manifold, manifold), axis=1)[:, k]  # the nearest of all is the point itself
    return float((cdist(points, manifold) <= radius).any(axis=1).mean())


def class_snr_and_alignment(real: Array, real_y: Array, synthetic: Array, synthetic_y: Array) -> tuple[float, float]:
    """Means over pairs of classes i, j of

    class SNR: ||m_i - m_j|| / (2 s), s the standard deviation within the two classes along the line between their synthetic centres;
    alignment: the cosine of m_i - m_j to the real classes' difference.
    """
    classes = np.intersect1d(np.unique(real_y), np.unique(synthetic_y))
    snr, cosine = [], []
    for a, i in enumerate(classes):
        for j in classes[a + 1 :]:
            one, other = synthetic[synthetic_y == i], synthetic[synthetic_y == j]
            line = one.mean(axis=0) - other.mean(axis=0)
            truth = real[real_y == i].mean(axis=0) - real[real_y == j].mean(axis=0)
            length = np.linalg.norm(line)
            if length == 0 or min(len(one), len(other)) < 2:
                continue
            along = np.concatenate([(part - part.mean(axis=0)) @ (line / length) for part in (one, other)])
            snr.append(length / (2 * np.sqrt((along**2).sum() / (len(along) - 2)) + 1e-12))
            cosine.append(line @ truth / (length * np.linalg.norm(truth) + 1e-12))
    return (float(np.mean(snr)), float(np.mean(cosine))) if snr else (float("nan"), float("nan"))


def separation_and_diversity(features: Array, y: Array) -> tuple[float, float]:
    """Mean distance between two class centres, and mean distance of an image to its own class centre."""
    from scipy.spatial.distance import pdist

    classes, place = np.unique(y, return_inverse=True)
    centres = np.stack([features[y == k].mean(axis=0) for k in classes])
    within = np.linalg.norm(features - centres[place], axis=1).mean()
    return (float(pdist(centres).mean()) if len(classes) > 1 else 0.0), float(within)


def nearest_real(synthetic: Array, train: Array, validation: Array) -> tuple[float, float]:
    """Mean l_2 distance in pixels from a synthetic image to the nearest training image; and its ratio to that of unseen real images.

    A ratio far below 1 says that training images are repeated. NaN without validation images.
    """
    from scipy.spatial.distance import cdist

    distance = float(cdist(synthetic, train).min(axis=1).mean())
    return distance, distance / float(cdist(validation, train).min(axis=1).mean()) if len(validation) else float("nan")


def describe_images(
    features: dict[str, Array], labels: dict[str, Array], pixels: dict[str, Array], judged: dict[str, Array], neighbours: int
) -> dict[str, float]:
    """All measures. features: unit-norm, of "train", "validation", "test" and "synthetic" images; labels, pixels (flat, on [0, 1])
    likewise; judged: the judge's labels of "test" and "synthetic".

    frechet_floor and label_error_floor are the same of real test images, nan without: what perfect synthetic images would show.
    """
    real, synthetic = features["train"], features["synthetic"]
    fewer = min(len(real), len(synthetic))
    precision, recall = precision_recall(real, synthetic[:fewer], neighbours)
    snr, alignment = class_snr_and_alignment(real, labels["train"], synthetic, labels["synthetic"])
    separation, diversity = separation_and_diversity(synthetic, labels["synthetic"])
    distance, ratio = nearest_real(pixels["synthetic"], pixels["train"], pixels["validation"])
    return {
        "frechet_distance": frechet_distance(real, synthetic),
        "frechet_floor": frechet_distance(real, features["test"]) if "test" in judged else float("nan"),
        "precision": precision,
        "recall": recall,
        "class_snr": snr,
        "alignment": alignment,
        "class_separation": separation,
        "within_class_diversity": diversity,
        "label_error": float((judged["synthetic"] != labels["synthetic"]).mean()),
        "label_error_floor": float((judged["test"] != labels["test"]).mean()) if "test" in judged else float("nan"),
        "nearest_training_image": distance,
        "nearest_relative_to_unseen": ratio,
    }


def flat_pixels(x: Tensor) -> Array:
    """uint8 images as (n, CHW) on [0, 1]."""
    return (x.double() / 255).flatten(1).numpy()
