"""Classifier guidance: the gradient of log p(y | x) (Dhariwal, Nichol 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from contrastive_dp._checks import batch_labels
from contrastive_dp.guidance.base import At, Guidance, GuidedRun, leaf_of


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierGuidance(Guidance):
    """Descend L = -sum_i log p(y_i | what the classifier sees of x_i) (Dhariwal, Nichol 2021): a baseline.

    classifier: function or module (n, ...) -> (n, K) logits, on the sampler's inputs (for images, wrap it in OnUnitRange).
    Needs labels. Other fields: see Guidance.
    """

    classifier: Callable[[Tensor], Tensor]
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
        labels = batch_labels(run.labels, len(seen))
        leaf = leaf_of(seen)
        with torch.enable_grad():
            logits = self.classifier(leaf)
            if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(seen):
                found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise ValueError(
                    f"classifier returned {found} for {len(seen)} samples: it must return a tensor (n, classes); wrap a model that returns "
                    "more, for example lambda x: model(x).logits"
                )
            if run.visits == 1 and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:  # checked once per run
                raise ValueError(
                    f"labels reach from {int(labels.min())} to {int(labels.max())}, the classifier has classes 0..{logits.shape[1] - 1}"
                )
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels.long().to(logits.device), reduction="sum"), leaf)
        return gradient
