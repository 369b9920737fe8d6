"""Classifier guidance: the gradient of log p(y | x) (Dhariwal, Nichol 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from contrastive_dp.guidance.base import At, Guidance, GuidedRun, gradient_of, leaf_of
from contrastive_dp.guidance.logits import Classifier, logits_of


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierGuidance(Guidance):
    """Descend L = -sum_i log p(y_i | what the classifier sees of x_i) (Dhariwal, Nichol 2021): a baseline.

    classifier: function or module (n, ...) -> (n, K) logits, on the sampler's inputs (for images, wrap it in OnUnitRange).
    Needs labels. Other fields: see Guidance.
    """

    classifier: Classifier
    scale: float | Sequence[float] | Tensor
    window: tuple[int, int] | None = None
    at: At = "x0"
    _: KW_ONLY
    relative: bool = False
    every: int = 1
    reverse: bool = False
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor:
        leaf = leaf_of(seen)
        with torch.enable_grad():
            logits, labels = logits_of(self.classifier, leaf, run)
            return gradient_of(F.cross_entropy(logits, labels, reduction="sum"), leaf, "classifier")
