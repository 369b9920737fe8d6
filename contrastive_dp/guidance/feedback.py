"""Feedback guidance: towards samples that a learner finds hard (Hemmat et al. 2023), without losing their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from contrastive_dp._checks import one_of, positive, wide_type
from contrastive_dp.guidance.base import At, Guidance, GuidedRun, gradient_of, leaf_of
from contrastive_dp.guidance.logits import Classifier, logits_of, margins

Hardness = Literal["loss", "entropy", "margin"]


@dataclass(frozen=True, eq=False, repr=False)
class FeedbackGuidance(Guidance):
    """Ascend how hard a sample is for the learner, h, that is, descend L = -sum_i h(x_i) (Hemmat et al. 2023, arXiv 2310.00158):

    what="loss": h = -log p(y | x);   "entropy": h = -sum_k p(k | x) log p(k | x);   "margin": h = max_{k != y} f_k(x) - f_y(x),

    f the learner's logits, p = softmax(f). A judge keeps the label: where its p_J(y | x) <= keep and u = grad h points to less of it, the
    part along v = grad log p_J(y | x) is left out, u - (u.v / v.v) v, so that p_J(y | x) stays as it is to first order. The judge should be
    trained without the learner. None: no such constraint.

    learner, judge: see Classifier. keep: in (0, 1]; 1: project wherever h would be ascended against the label.
    Needs labels. Costs the learner and the judge, forward and backward. Other fields: see Guidance. Raises ValueError for bad settings.
    """

    learner: Classifier
    scale: float | Sequence[float] | Tensor
    judge: Classifier | None = None
    window: tuple[int, int] | None = None
    at: At = "x0"
    _: KW_ONLY
    what: Hardness = "loss"
    keep: float = 1.0
    relative: bool = False
    every: int = 1
    reverse: bool = False
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()
        one_of(self.what, "what", ("loss", "entropy", "margin"))
        if positive(self.keep, "keep") > 1:
            raise ValueError(f"keep={self.keep:g} must lie in (0, 1]: it is a probability")

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor:
        leaf = leaf_of(seen)
        with torch.enable_grad():
            logits, labels = logits_of(self.learner, leaf, run, "learner")
            up = gradient_of(self._hardness(logits, labels).sum(), leaf, "learner")
        return -up if self.judge is None else -self._keeping_labels(up, seen, self.judge, run)

    def _hardness(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.what == "loss":
            return F.cross_entropy(logits, labels, reduction="none")
        if self.what == "margin":
            return -margins(logits, labels)
        log_p = F.log_softmax(logits, dim=1)
        return -(log_p.exp() * log_p).sum(dim=1)

    def _keeping_labels(self, up: Tensor, seen: Tensor, judge: Classifier, run: GuidedRun) -> Tensor:
        """`up` without its part along the judge's gradient, where that part would lower the probability of a label below `keep`."""
        leaf = leaf_of(seen)
        with torch.enable_grad():
            logits, labels = logits_of(judge, leaf, run, "judge")
            log_p = -F.cross_entropy(logits, labels, reduction="none")
            label = gradient_of(log_p.sum(), leaf, "judge")
        wide = wide_type(up)  # in half precision the products of small gradients are 0
        u, v = up.flatten(1).to(wide), label.flatten(1).to(wide)
        along = (u * v).sum(dim=1)
        against = (along > 0) if self.reverse else (along < 0)  # reversed, samples move along -u
        unsure = log_p.detach().exp() <= self.keep
        share = torch.where(against & unsure, along / (v * v).sum(dim=1).clamp(min=torch.finfo(v.dtype).tiny), 0.0)
        return (u - share[:, None] * v).reshape(up.shape).to(up.dtype)
