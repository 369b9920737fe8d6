"""Boundary guidance: holds samples at a distance from a learner's decision boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contrastive_dp._checks import (
    batch_labels,
    count,
    finite_number,
    normal_tensor,
    positive,
    signed_images,
    warn_if_training,
    wide_type,
)
from contrastive_dp.guidance.base import At, Guidance, GuidedRun, gradient_of, leaf_of, takes_float32
from contrastive_dp.guidance.logits import Classifier, checked_logits, logits_of, margins


@dataclass(frozen=True, eq=False, repr=False)
class BoundaryGuidance(Guidance):
    """Descend L = 1/2 sum_i (d_i - target)^2, d_i = m_i / ||grad m_i||_2, m_i = f_y(x_i) - max_{k != y} f_k(x_i), f the learner's logits.

    d_i is the l_2 distance of x_i to the boundary with the most probable other class, to first order and in the units of the sampler's
    inputs; negative on the wrong side. With more than two classes the boundary with another class may be nearer (DeepFool takes the least
    of all, Moosavi-Dezfooli et al. 2016, at one backward pass a class). The denominator is held constant, so one backward pass does; for a
    linear learner that is exact. Samples where the learner is flat are not pushed. Ghosh, Xu, Zhang 2025 (arXiv 2501.10466) choose images
    near the boundary of a robust learner; this makes them.

    learner: see Classifier. target: the distance to hold; `boundary_distances` gives those of real samples. width > 0: with relative=True,
    the push has full strength where |d - target| >= width, and falls to 0 at the target. Needs labels. Other fields: see Guidance.
    Raises ValueError for bad settings.
    """

    learner: Classifier
    scale: float | Sequence[float] | Tensor
    target: float = 0.0
    window: tuple[int, int] | None = None
    at: At = "x0"
    _: KW_ONLY
    width: float = 0.1
    relative: bool = False
    every: int = 1
    reverse: bool = False
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()
        finite_number(self.target, "target")
        positive(self.width, "width")

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor:
        leaf = leaf_of(seen)
        with torch.enable_grad():
            margin = margins(*logits_of(self.learner, leaf, run, "learner"))
            slope = gradient_of(margin.sum(), leaf, "learner")
        distance, norm = _distances(margin.detach(), slope)
        # in half precision the quotient overflows before the product is small
        wide = wide_type(slope)
        push = torch.where(norm > 0, (distance.to(wide) - self.target) / norm.to(wide), 0.0)
        return (slope.to(wide) * push.reshape(-1, *[1] * (slope.ndim - 1))).to(slope.dtype)

    def least_change(self, size: Tensor, a: float) -> Tensor:
        """See Guidance.least_change: the gradient's norm is |d - target|."""
        least = size * (self.width / (a**0.5 if self.at == "x0" else 1.0))
        return least.clamp(min=torch.finfo(size.dtype).tiny)  # a noise prediction of 0 has no length


@torch.inference_mode(False)  # in the caller's inference mode, gradients could not be computed
def boundary_distances(learner: Classifier, x: Tensor, labels: Tensor, batch_size: int = 512) -> Tensor:
    """(n,) l_2 distances d of samples x (n, ...) with labels (n,), as in BoundaryGuidance; negative where the learner is wrong.

    x: what the learner takes, or uint8 images, which are mapped to [-1, 1]. batch_size: so many at once. inf or -inf where the learner is
    flat. Raises ValueError for samples of another type, and for logits or labels that do not fit.
    """
    warn_if_training(learner, "learner")
    size = count(batch_size, "batch_size")
    pieces = zip(x.split(size), normal_tensor(batch_labels(labels, len(x))).split(size), strict=True)
    return torch.cat([_signed_distances(learner, p if p.is_floating_point() else signed_images(p, "x"), y) for p, y in pieces])


def _signed_distances(learner: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    leaf = leaf_of(x.to(wide_type(x)) if takes_float32(learner) else x)
    with torch.enable_grad():
        margin = margins(*checked_logits(learner, leaf, labels, "learner"))
        slope = gradient_of(margin.sum(), leaf, "learner")
    distance, norm = _distances(margin.detach(), slope)
    return torch.where(norm > 0, distance, torch.copysign(torch.full_like(distance, math.inf), margin.detach()))


def _distances(margin: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """(distances, norms of the slopes), each (n,)."""
    norm = slope.flatten(1).norm(dim=1)
    return margin / norm.clamp(min=torch.finfo(slope.dtype).tiny), norm
