"""Which labels the generated images get, and which of them are kept: the best scores in each class, classes as balanced as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from image_experiments.models.labels_and_features import _device, unit_features

Criterion = Literal["random", "confidence", "entropy", "gradient-norm", "class-separation", "density"]
Labels = Literal["auto", "drawn", "pseudo", "soft", "agreeing"]
Labeller = Literal["encoder", "robust", "standard"]
LOW_IS_GOOD = ("entropy", "gradient-norm")
NEIGHBOURS = 5


@dataclass(frozen=True)
class SelectionSettings:
    """How many more images are generated than kept, which labels they get, and which are kept."""

    surplus: float = 1.0
    """Images generated for each one kept."""
    criterion: Criterion = "random"
    """random; confidence: probability of the label; entropy: of the prediction; gradient-norm: of the loss, all three of the labeller;
    class-separation: distance to the nearest other class centre minus distance to its own; density: closeness to real images, both in the
    encoder's features."""
    order: Literal["default", "highest", "lowest"] = "default"
    """Keep the highest or the lowest scores (default: the lowest for entropy and gradient-norm, otherwise the highest)."""
    labels: Labels = "auto"
    """drawn: those asked of the model; pseudo: the labeller's most probable class; soft: the labeller's probabilities; agreeing: as drawn,
    without the images that the labeller takes for another class; auto: drawn, or pseudo if the model is unconditional."""
    labeller: Labeller = "encoder"
    """encoder: which may have guided the images, too; robust: classifiers of the encoder's recipe that guide nothing; standard: the same,
    trained without attacks. All see the training images alone."""
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


def scores(
    criterion: Criterion, labeller: nn.Module, features: nn.Module, x: Tensor, y: Tensor, real_x: Tensor, real_y: Tensor, seed: int
) -> Tensor:
    """(n,) one score per image. x: uint8 (n, C, H, W), y: (n,); real_x, real_y: training images. With p = softmax(labeller(x)):

    confidence p_y; entropy -sum p log p; gradient-norm ||grad_x -log p_y||_2; class-separation min_{k != y} ||f - c_k|| - ||f - c_y||, f
    the unit-norm features and c_k the centres of the real classes; density minus the distance of f to the 5th nearest real image.

    Raises ValueError for class-separation if a class has no real image and thus no centre.
    """
    if criterion == "random":
        return torch.from_numpy(np.random.default_rng([seed, 3]).random(len(x)))
    missing = sorted(set(y.tolist()) - set(real_y.tolist()))
    if criterion == "class-separation" and missing:
        raise ValueError(
            f"selection by class-separation: classes {missing} have no real training image, so no centre; use more --train images, or "
            "another criterion"
        )
    device = _device(labeller)
    real = unit_features(features, real_x).to(device) if criterion in ("class-separation", "density") else torch.empty(0)
    found = [
        _score(criterion, labeller, features, piece.to(device).float() / 255, labels.to(device), real, real_y.to(device)).cpu()
        for piece, labels in zip(x.split(500), y.split(500), strict=True)
    ]
    return torch.cat(found)


def _score(criterion: str, labeller: nn.Module, features: nn.Module, x: Tensor, y: Tensor, real: Tensor, real_y: Tensor) -> Tensor:
    if criterion == "gradient-norm":
        seen = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(labeller(seen), y, reduction="sum"), seen)
        return gradient.flatten(1).norm(dim=1)
    with torch.no_grad():
        if criterion in ("confidence", "entropy"):
            log_p = F.log_softmax(labeller(x), dim=1)
            return log_p.gather(1, y[:, None])[:, 0].exp() if criterion == "confidence" else -(log_p.exp() * log_p).sum(dim=1)
        z = F.normalize(features(x * 2 - 1), dim=1)
        if criterion == "density":
            return -torch.cdist(z, real).kthvalue(min(NEIGHBOURS, len(real)), dim=1).values
        classes = real_y.unique()
        distance = torch.cdist(z, torch.stack([real[real_y == k].mean(dim=0) for k in classes]))
        place = torch.searchsorted(classes, y)[:, None]
        own = distance.gather(1, place)[:, 0]
        return distance.scatter(1, place, float("inf")).min(dim=1).values - own


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
