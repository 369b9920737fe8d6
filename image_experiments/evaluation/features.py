"""Measures of synthetic images in a feature space: fidelity, diversity, distance between classes, correctness of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from image_experiments.data.dataset import Array
from image_experiments.models.precision import gpu_arithmetic


@dataclass(frozen=True)
class DescriptionSettings:
    """Measures of the synthetic images."""

    features: Literal["judge", "encoder", "pixels"] = "judge"
    """judge: a classifier trained without attacks on training and validation images, not used for guidance; encoder; or pixels."""
    steps: int = 400
    """Optimiser steps for training the judge."""
    neighbours: int = 5
    """Number of neighbours for precision and recall."""
    images: int = 2000
    """Describe at most this many synthetic images."""

    def __post_init__(self) -> None:
        for name in ("steps", "neighbours", "images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")


def frechet_distance(real: Array, synthetic: Array) -> float:
    """||m - m'||^2 + tr(S + S' - 2 (S S')^(1/2)) of means and covariances of features (n, k): FID's formula (Heusel et al. 2017).

    Computed by torchmetrics; grows as fewer images are compared, so compare only numbers from equally many images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = torch.nn.Identity()
    identity.num_features = real.shape[1]
    options: Any = {"normalize": False, "antialias": False, "sync_on_compute": False}  # only one of several processes computes it
    metric = FrechetInceptionDistance(feature=identity, **options).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(synthetic), real=False)
    return float(metric.compute())


def precision_recall(real: Array, synthetic: Array, neighbours: int, seed: int = 0) -> tuple[float, float]:
    """Share of synthetic features (n, k) within the manifold of the real ones, and the reverse (Kynkäänniemi et al. 2019).

    The manifold is the union of balls around its points, each reaching to the k-th nearest neighbour. Balls shrink as points are added, so
    both sets are cut to the size of the smaller one, at random, because the first images of a file may all be of one class.
    """
    size, rng = min(len(real), len(synthetic)), np.random.default_rng([seed, 5])
    some = [of if len(of) == size else of[np.sort(rng.choice(len(of), size, replace=False))] for of in (real, synthetic)]
    return _covered(some[1], some[0], neighbours), _covered(some[0], some[1], neighbours)


def _covered(points: Array, manifold: Array, neighbours: int) -> float:
    from scipy.spatial.distance import cdist

    k = min(neighbours, len(manifold) - 1)
    # the nearest neighbour is the point itself; copied, as a column would keep all distances
    near = [np.partition(cdist(piece, manifold), k, axis=1)[:, k].copy() for piece in _pieces(manifold)]
    radius = np.concatenate(near)
    return float(np.concatenate([(cdist(piece, manifold) <= radius).any(axis=1) for piece in _pieces(points)]).mean())


def _pieces(rows: Array, size: int = 500) -> list[Array]:
    """Rows in pieces, so that distances to all others take little memory at a time."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def class_snr(features: Array, y: Array, seed: int = 0, with_error: bool = True) -> tuple[float, float]:
    """Class SNR by cross-fitting, and its standard error: the mean over pairs of classes i, j and over halves A, B, both ways round, of

        (m_i^B - m_j^B) . w / (2 s^B),   w = (m_i^A - m_j^A) / ||m_i^A - m_j^A||,

    where m are the centres and s^B is the standard deviation along w within the two classes of half B. The line is fitted to one half and
    measured on the other, so identical classes get 0 on average; fitting and measuring on the same points would give .5 (with 250 images
    of 128 features per class). It is the SNR along a line that half of the images can find. With few images it is smaller than the SNR
    along the line between the true centres; on average never larger if classes spread alike in all directions. Where they do not, noise
    turns the line towards narrow directions, and it may be larger: 1.04 in place of .90 with 20 images per class at centres (1, .9) apart
    and variances (1, .01), .94 with 50. On average it is at most that of the best line, sqrt(d' S^-1 d) / 2.

    features: (n, k). y: (n,) labels. Halves are drawn SPLITS times from the seed and averaged; 1 / s is corrected for its bias (Hedges
    1981). The standard error is that of a jackknife over GROUPS groups of images, drawn within classes. Exact copies within a class count
    once. It is the class SNR of the generator: one that repeats a few images with small changes gets the SNR of these few, whether or not
    the classes they come from differ.
    (nan, nan) if fewer than two classes have LEAST_OF_CLASS different images; the error is nan if a class has fewer than
    2 LEAST_OF_CLASS, and without with_error, which takes most of the time.
    """
    rng = np.random.default_rng([seed, 6])
    features, y = _without_copies(features, y)
    names, counts = np.unique(y, return_counts=True)
    kept = np.isin(y, names[counts >= LEAST_OF_CLASS])
    points, labels = features[kept], np.unique(y[kept], return_inverse=True)[1]
    if len(np.unique(labels)) < 2:
        return float("nan"), float("nan")
    first = [_rank_in_class(labels, rng) % 2 == 0 for _ in range(SPLITS)]
    value = _cross_fitted(points, labels, first)
    if not with_error or np.bincount(labels).min() < 2 * LEAST_OF_CLASS:
        return value, float("nan")
    group = _rank_in_class(labels, rng) % GROUPS
    without = [
        _cross_fitted(points[left], labels[left], [half[left] for half in first]) for left in (group != g for g in range(GROUPS))
    ]
    return value, float(np.sqrt((GROUPS - 1) / GROUPS * ((np.array(without) - np.mean(without)) ** 2).sum()))


def _without_copies(features: Array, y: Array) -> tuple[Array, Array]:
    """Every different image of a class once, sorted, so that nothing depends on the order of a file."""
    different = np.unique(np.column_stack([features, y]), axis=0)
    return different[:, :-1], different[:, -1].astype(np.int64)


SPLITS = 5
GROUPS = 10
LEAST_OF_CLASS = 4
"""Fewest images of a class such that each half has a standard deviation."""


def _rank_in_class(labels: Array, rng: np.random.Generator) -> Array:
    """Rank of each item within its class, in random order."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = rng.permutation(len(members))
    return rank


def _cross_fitted(points: Array, labels: Array, halves: list[Array]) -> float:
    """Mean of class_snr's ratio over pairs of classes and both directions of each halving; pairs with equal centres are left out."""
    ratios = [ratio for half in halves for fitted in (half, ~half) for ratio in _held_out_ratios(points, labels, fitted)]
    return float(np.mean(ratios)) if ratios else float("nan")


def _held_out_ratios(points: Array, labels: Array, fitted: Array) -> list[float]:
    """(m_i - m_j) . w / (2 s) for every pair of classes, on the images that are not `fitted`, along the line w fitted to the others."""
    from scipy.special import gammaln

    classes = range(int(labels.max()) + 1)
    parts = [(points[fitted & (labels == k)], points[~fitted & (labels == k)]) for k in classes]
    centres = [part.mean(axis=0) if len(part) else np.zeros(points.shape[1]) for part, _ in parts]
    usable = [len(part) > 0 and len(rest) > 1 for part, rest in parts]  # copies may leave one side empty
    pairs = [(i, j) for i in classes for j in classes if i < j and usable[i] and usable[j] and (centres[i] != centres[j]).any()]
    measured = [rest for _, rest in parts]
    found = []
    for i, j in pairs:
        line = centres[i] - centres[j]
        line = line / np.linalg.norm(line)
        one, other = measured[i] @ line, measured[j] @ line
        freedom = len(one) + len(other) - 2
        spread = np.sqrt(((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()) / np.sqrt(freedom)
        unbiased = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
        found.append(float(unbiased * (one.mean() - other.mean()) / (2 * spread + 1e-12)))
    return found


def effective_dimension(features: Array, y: Array) -> float:
    """(tr S)^2 / tr S^2 of the covariance S within classes: d for d equally wide directions, fewer if some carry most of the spread.

    features: (n, k), y: (n,) labels. Both traces are corrected for their bias with n - K degrees of freedom (exact for Gaussian classes;
    Srivastava 2005). nan with fewer than three degrees of freedom. Samples per effective dimension is what T16's n / d is for features.
    """
    classes, place = np.unique(y, return_inverse=True)
    freedom = len(y) - len(classes)
    if freedom < 3:
        return float("nan")
    centres = np.stack([features[y == k].mean(axis=0) for k in classes])
    rest = features - centres[place]
    # traces from the smaller of the two Gram matrices
    gram = rest @ rest.T if len(rest) < rest.shape[1] else rest.T @ rest
    trace, squares = float(np.trace(gram)) / freedom, float((gram * gram).sum()) / freedom**2
    unbiased = freedom**2 / ((freedom - 1) * (freedom + 2)) * (squares - trace**2 / freedom)
    return (trace**2 - 2 * unbiased / freedom) / unbiased if unbiased > 0 else float("nan")


def class_alignment(real: Array, real_y: Array, synthetic: Array, synthetic_y: Array) -> float:
    """Mean over pairs of classes i, j of the cosine between m_i - m_j of the synthetic class centres and that of the real ones."""
    classes = np.intersect1d(np.unique(real_y), np.unique(synthetic_y))
    centres = [[points[y == k].mean(axis=0) for k in classes] for points, y in ((real, real_y), (synthetic, synthetic_y))]
    cosines = []
    for i in range(len(classes)):
        for j in range(i):
            truth, line = (of[i] - of[j] for of in centres)
            if line.any():
                cosines.append(line @ truth / (np.linalg.norm(line) * np.linalg.norm(truth) + 1e-12))
    return float(np.mean(cosines)) if cosines else float("nan")


def separation_and_diversity(features: Array, y: Array) -> tuple[float, float]:
    """Mean distance between class centres, and mean distance of an image to the centre of its own class."""
    from scipy.spatial.distance import pdist

    classes, place = np.unique(y, return_inverse=True)
    centres = np.stack([features[y == k].mean(axis=0) for k in classes])
    within = np.linalg.norm(features - centres[place], axis=1).mean()
    return (float(pdist(centres).mean()) if len(classes) > 1 else 0.0), float(within)


def nearest_real(synthetic: Array, train: Array, validation: Array, device: torch.device | str = "cpu") -> tuple[float, float]:
    """Mean l_2 distance in pixels from a synthetic image to the nearest training image, and its ratio to that of unseen real images.

    A ratio far below 1 means that training images are copied. NaN without validation images. synthetic, train, validation: (n, pixels) on
    [0, 1]; train must hold all training images, or copies of the missing ones are not noticed.
    """
    distance = float(nearest_distances(synthetic, train, device).mean())
    unseen = float(nearest_distances(validation, train, device).mean()) if len(validation) else float("nan")
    return distance, distance / unseen if unseen else float("nan")


CANDIDATES, PIECE = 4, 4096


def nearest_distances(points: Array, among: Array, device: torch.device | str = "cpu") -> Array:
    """(n,) l_2 distance from each of `points` (n, k) to the nearest of `among` (m, k), in pieces that fit in memory.

    A matrix product in single precision finds the nearest few; their distances are then computed exactly, so a copy has distance 0.
    """
    everything = torch.from_numpy(np.ascontiguousarray(among)).to(device)
    centre = everything.mean(dim=0, dtype=torch.float64)
    found = []
    for piece in torch.from_numpy(np.ascontiguousarray(points)).to(device).split(PIECE):
        near = (piece - centre).float()
        candidates = []
        for first in range(0, len(everything), PIECE):
            some = (everything[first : first + PIECE] - centre).float()
            with gpu_arithmetic(tf32=False):
                product = torch.addmm((some * some).sum(dim=1)[None, :], near, some.T, alpha=-2)
            candidates.append(first + product.topk(min(CANDIDATES, len(some)), dim=1, largest=False).indices)
        nearest = torch.full((len(piece),), torch.inf, dtype=torch.float64, device=piece.device)
        for column in torch.cat(candidates, dim=1).T:
            nearest = torch.minimum(nearest, (piece.double() - everything[column].double()).norm(dim=1))
        found.append(nearest)
    return torch.cat(found).cpu().numpy()


def describe_images(
    features: dict[str, Array], labels: dict[str, Array], nearest: tuple[float, float], judged: dict[str, Array], neighbours: int
) -> dict[str, float]:
    """All measures. features: unit-norm, or pixels, of "train", "test" and "synthetic" images; labels likewise. nearest: the result of
    nearest_real with all training images. judged: the judge's labels for "test" and "synthetic".

    frechet_floor and label_error_floor are the values for real test images (nan without any), which perfect synthetic images would reach
    with as many images. The Frechet distance falls with the number of images, so its floor is too high if there are fewer test images.
    """
    real, synthetic = features["train"], features["synthetic"]
    precision, recall = precision_recall(real, synthetic, neighbours)
    snr, error = class_snr(synthetic, labels["synthetic"])
    separation, diversity = separation_and_diversity(synthetic, labels["synthetic"])
    return {
        "frechet_distance": frechet_distance(real, synthetic),
        "frechet_floor": frechet_distance(real, features["test"]) if "test" in judged else float("nan"),
        "precision": precision,
        "recall": recall,
        "class_snr_crossfit": snr,
        "class_snr_crossfit_error": error,
        "alignment": class_alignment(real, labels["train"], synthetic, labels["synthetic"]),
        "class_separation": separation,
        "within_class_diversity": diversity,
        "label_error": float((judged["synthetic"] != labels["synthetic"]).mean()),
        "label_error_floor": float((judged["test"] != labels["test"]).mean()) if "test" in judged else float("nan"),
        "nearest_training_image": nearest[0],
        "nearest_relative_to_unseen": nearest[1],
    }


def flat_pixels(x: Tensor) -> Array:
    """uint8 images as (n, CHW) on [0, 1], single precision."""
    return (x.float() / 255).flatten(1).numpy()
