"""Which labels the generated images get, and which of them are kept: the best scores in each class, classes as balanced as possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contrastive_dp import ClassifierFeatures, boundary_distances
from contrastive_dp.randomness import mixed_seed
from image_experiments.data.images import Images
from image_experiments.models.labels_and_features import _device, unit_features

Criterion = Literal[
    "random", "confidence", "entropy", "gradient-norm", "loss", "boundary", "class-separation", "density", "coverage"
]
Labels = Literal["auto", "drawn", "pseudo", "soft", "agreeing"]
Labeller = Literal["encoder", "robust", "standard"]
LOW_IS_GOOD = ("entropy", "gradient-norm", "boundary", "coverage")
NEIGHBOURS = 5


@dataclass(frozen=True)
class SelectionSettings:
    """How many more images are generated than kept, which labels they get, and which are kept."""

    surplus: float = 1.0
    """Images generated for each one kept."""
    criterion: Criterion = "random"
    """random; confidence: probability of the label; entropy: of the prediction; gradient-norm: of the loss (all three by the labeller);
    loss: the encoder's; boundary: distance to the encoder's decision boundary, on either side; class-separation: distance to the nearest
    other class centre minus distance to its own; density: closeness to real images; coverage: an image near each k-means centre of each
    class (last three: in the encoder's features)."""
    order: Literal["default", "highest", "lowest"] = "default"
    """Keep the highest or the lowest scores (default: the lowest for entropy, gradient-norm, boundary, coverage, else the highest)."""
    labels: Labels = "auto"
    """drawn: those asked of the model; pseudo: the labeller's most probable class; soft: the labeller's probabilities; agreeing: as drawn,
    without the images that the labeller takes for another class; auto: drawn, or pseudo if the model is unconditional."""
    labeller: Labeller = "encoder"
    """encoder: may also guide the images; robust: classifiers of the encoder's recipe, not used in guidance; standard: the same, trained
    without attacks. All are trained on the training images; where weights are kept by validation images, they see these too."""
    ensemble: int = 1
    """How many robust or standard classifiers label together: their probabilities are averaged."""

    def __post_init__(self) -> None:
        if not 1 <= self.surplus < float("inf"):
            raise ValueError(f"surplus={self.surplus} must be a finite number >= 1")
        if not 1 <= self.ensemble <= 100:
            raise ValueError(f"ensemble={self.ensemble} must lie in 1 .. 100")
        if self.ensemble > 1 and self.labeller == "encoder":
            raise ValueError(f"ensemble={self.ensemble}: there is one encoder; choose labeller robust or standard")

    def relabels(self, conditional: bool) -> bool:
        """Whether a classifier takes part in the labels of images from a model that is conditional, or is not."""
        return self.labels not in ("auto", "drawn") or (self.labels == "auto" and not conditional)


class MeanOf(nn.Module):
    """Several classifiers as one: log of the mean of their probabilities, so its softmax is that mean."""

    def __init__(self, classifiers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, x: Tensor) -> Tensor:
        logs = [F.log_softmax(classifier(x), dim=1) for classifier in self.classifiers]
        return torch.stack(logs).logsumexp(dim=0) - math.log(len(logs))


def relabel(labels: Labels, drawn: Tensor, judged: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """(labels (n,), indices of the images that may be kept, soft labels of these (m, K) or None).

    drawn: (n,) labels asked of the model. judged: (n, K) probabilities by the labeller. Soft labels come with their most probable class.
    """
    everything, most_probable = torch.arange(len(drawn)), judged.argmax(dim=1)
    if labels == "agreeing":
        return drawn, everything[most_probable == drawn], None
    return most_probable, everything, judged if labels == "soft" else None


@dataclass(frozen=True, eq=False)
class Scorers:
    """What generated images are scored with. encoder, labeller: classifiers on [0, 1], the labeller being the encoder or another; real: the
    training images."""

    encoder: nn.Module
    labeller: nn.Module
    real: Images

    @property
    def features(self) -> nn.Module:
        """The encoder's features, of images in [-1, 1]."""
        return ClassifierFeatures(self.encoder)


def scores(criterion: Criterion, by: Scorers, x: Tensor, y: Tensor, count: int, seed: int) -> Tensor:
    """(n,) one score per image. x: uint8 (n, C, H, W), y: (n,); count: how many are to be kept. With p the labeller's probabilities, f the
    encoder's logits, z its unit-norm features:

    confidence p_y; entropy -sum p log p; gradient-norm ||grad_x -log p_y||_2; loss -log softmax(f)_y; boundary |m| / ||grad_x m||_2,
    m = f_y - max_{k != y} f_k; class-separation min_{k != y} ||z - c_k|| - ||z - c_y||, c_k the centres of the real classes; density minus
    the distance of z to the 5th nearest real image; coverage the rank of z by distance within its cluster, see `ranks_in_clusters`.

    Raises ValueError for class-separation if a class has no real image and thus no centre.
    """
    if criterion == "random":
        return torch.from_numpy(np.random.default_rng([seed, 3]).random(len(x)))
    if criterion == "coverage":
        return ranks_in_clusters(unit_features(by.features, x), y, count, seed)
    missing = sorted(set(y.tolist()) - set(by.real.y.tolist()))
    if criterion == "class-separation" and missing:
        raise ValueError(
            f"selection by class-separation: classes {missing} have no real training image, so no centre; use more --train images, or "
            "another criterion"
        )
    device = _device(by.encoder)
    score: Callable[[Tensor, Tensor], Tensor]
    if criterion in ("class-separation", "density"):
        score = _by_features(criterion, by, device)
    elif criterion in ("confidence", "entropy", "gradient-norm"):
        score = partial(_by_prediction, criterion, by.labeller)
    else:
        score = partial(_by_prediction, criterion, by.encoder)
    pieces = zip(x.split(500), y.split(500), strict=True)
    return torch.cat([score(piece.to(device).float() / 255, labels.to(device)).cpu() for piece, labels in pieces])


def _by_prediction(criterion: str, classifier: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Scores from a classifier's predictions on images in [0, 1], and from their gradients."""
    if criterion == "boundary":
        return boundary_distances(classifier, x, y).abs()
    if criterion == "gradient-norm":
        seen = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(classifier(seen), y, reduction="sum"), seen)
        return gradient.flatten(1).norm(dim=1)
    with torch.no_grad():
        log_p = F.log_softmax(classifier(x), dim=1)
        if criterion == "entropy":
            return -(log_p.exp() * log_p).sum(dim=1)
        own = log_p.gather(1, y[:, None])[:, 0]
        return -own if criterion == "loss" else own.exp()


def _by_features(criterion: str, by: Scorers, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of images in [0, 1] and labels that scores them by the place of their features among those of the real images."""
    embed, real, real_y = by.features, unit_features(by.features, by.real.x).to(device), by.real.y.to(device)
    classes = real_y.unique()
    centres = torch.stack([real[real_y == k].mean(dim=0) for k in classes])

    @torch.no_grad()
    def score(x: Tensor, y: Tensor) -> Tensor:
        z = F.normalize(embed(x * 2 - 1), dim=1)
        if criterion == "density":
            return -torch.cdist(z, real).kthvalue(min(NEIGHBOURS, len(real)), dim=1).values
        distance = torch.cdist(z, centres)
        place = torch.searchsorted(classes, y)[:, None]
        own = distance.gather(1, place)[:, 0]
        return distance.scatter(1, place, float("inf")).min(dim=1).values - own

    return score


def ranks_in_clusters(z: Tensor, y: Tensor, count: int, seed: int) -> Tensor:
    """(n,) rank 0, 1, ... of each of the features z (n, k) by its distance to the centre of its cluster, within the cluster.

    Each class is clustered by k-means into as many clusters as images of it are kept (see best_of_each_class), at most MOST_CLUSTERS, so
    that the images with the lowest ranks cover the class evenly. Raises ValueError for features that are NaN or infinite.
    """
    from sklearn.cluster import KMeans

    if not bool(torch.isfinite(z).all()):
        raise ValueError(
            "selection by coverage: features of images are NaN or infinite; check the encoder, or choose another criterion"
        )
    points, labels = z.double().numpy(), y.numpy()
    classes = int(labels.max()) + 1
    quota = y[best_of_each_class(torch.zeros(len(y)), y, count, False, classes)].bincount(minlength=classes).tolist()
    rank = np.empty(len(labels), dtype=np.int64)
    for k in np.unique(labels):
        members = np.flatnonzero(labels == k)
        clusters = min(max(quota[k], 1), len(np.unique(points[members], axis=0)), MOST_CLUSTERS)
        found = KMeans(clusters, n_init=1, random_state=mixed_seed(seed, COVERAGE) % 2**32).fit(points[members])
        distance = np.linalg.norm(points[members] - found.cluster_centers_[found.labels_], axis=1)
        for cluster in range(clusters):
            of = members[found.labels_ == cluster]
            rank[of[np.argsort(distance[found.labels_ == cluster], kind="stable")]] = np.arange(len(of))
    return torch.from_numpy(rank)


COVERAGE = 12
"""Sets the beginnings of k-means apart from other random numbers of a seed."""
MOST_CLUSTERS = 1000
"""Clusters of a class; k-means with more takes long."""


def best_of_each_class(score: Tensor, y: Tensor, count: int, highest: bool, classes: int) -> Tensor:
    """Sorted indices of `count` images: those with the best scores in each class, with the classes as balanced as possible.

    In a tie the earlier image is kept. Raises ValueError if there are fewer than `count`, or if a score is NaN or infinite.
    """
    if not bool(torch.isfinite(score).all()):
        raise ValueError(
            f"{int((~torch.isfinite(score)).sum())} of {len(score)} scores are NaN or infinite: choose another criterion"
        )
    if count > len(y):
        raise ValueError(f"{count} of {len(y)} images are to be kept: generate more, with a larger surplus")
    order = torch.argsort(score, descending=highest, stable=True)
    rank = torch.empty(len(y), dtype=torch.long)
    for k in range(classes):
        members = order[y[order] == k]
        rank[members] = torch.arange(len(members))
    place = torch.empty(len(y), dtype=torch.long)
    place[order] = torch.arange(len(y))
    kept = np.lexsort((place.numpy(), rank.numpy()))[:count]
    return torch.from_numpy(np.sort(kept))


def keeps_highest(settings: SelectionSettings) -> bool:
    """Whether the highest scores are kept."""
    return settings.order == "highest" or (settings.order == "default" and settings.criterion not in LOW_IS_GOOD)
