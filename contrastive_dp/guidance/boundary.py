"""Boundary guidance: holds samples at a distance from a learner's decision boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contrastive_dp._checks import finite_number, positive
from contrastive_dp.guidance.base import At, Guidance, GuidedRun, leaf_of
from contrastive_dp.guidance.logits import Classifier, gradient_of, logits_of, margins


@dataclass(frozen=True, eq=False, repr=False)
class BoundaryGuidance(Guidance):
    """Descend L = 1/2 sum_i (d_i - target)^2, d_i = m_i / ||grad m_i||_2, m_i = f_y(x_i) - max_{k != y} f_k(x_i), f the learner's logits.

    d_i is the l_2 distance of x_i to the learner's decision boundary, to first order and in the units of the sampler's inputs; negative on
    the wrong side (Moosavi-Dezfooli et al. 2016). Its denominator is held constant, so one backward pass does; for a linear learner that is
    exact. Ghosh, Xu, Zhang 2025 (arXiv 2501.10466) choose images near the boundary of a robust learner; this makes them.

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
        return slope * ((distance - self.target) / norm).reshape(-1, *[1] * (slope.ndim - 1))

    def least_change(self, size: Tensor, a: float) -> Tensor:
        """See Guidance.least_change: the gradient's norm is |d - target|."""
        least = size * (self.width / (a**0.5 if self.at == "x0" else 1.0))
        return least.clamp(min=torch.finfo(size.dtype).tiny)  # a noise prediction of 0 has no length


def boundary_distances(learner: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    """(n,) l_2 distance of samples x (n, ...) to the learner's decision boundary, to first order; negative where it is wrong (DeepFool)."""
    leaf = leaf_of(x)
    with torch.enable_grad():
        margin = margins(learner(leaf), labels.to(leaf.device))
        slope = gradient_of(margin.sum(), leaf, "learner")
    return _distances(margin.detach(), slope)[0]


def _distances(margin: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """(distances, norms of the slopes), each (n,)."""
    norm = slope.flatten(1).norm(dim=1).clamp(min=torch.finfo(slope.dtype).tiny)
    return margin / norm, norm
