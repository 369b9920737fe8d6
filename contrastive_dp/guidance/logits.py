"""What guidance by classifiers shares: logits with their shape checked, and the margin of the label."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from contrastive_dp._checks import batch_labels
from contrastive_dp.guidance.base import GuidedRun

Classifier = Callable[[Tensor], Tensor]
"""Function or module (n, ...) -> (n, K) logits, on the sampler's inputs (for images, wrap it in OnUnitRange)."""


def logits_of(classifier: Classifier, x: Tensor, run: GuidedRun, name: str = "classifier") -> tuple[Tensor, Tensor]:
    """checked_logits of the run's labels, whose range is checked once per run."""
    return checked_logits(classifier, x, run.labels, name, check_range=run.visits == 1)


def checked_logits(
    classifier: Classifier, x: Tensor, labels: Tensor | None, name: str = "classifier", check_range: bool = True
) -> tuple[Tensor, Tensor]:
    """(logits (n, K), labels (n,) int64 on their device). Raises ValueError for another shape, or labels that are none of the K classes."""
    labels = batch_labels(labels, len(x))
    logits = classifier(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{name} returned {found} for {len(x)} samples: it must return a tensor (n, classes); wrap a model that returns "
            "more, for example lambda x: model(x).logits"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            f"{name} has one class: guidance needs at least two; for a single logit f return torch.cat([-f, f], dim=1) / 2"
        )
    if check_range and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise ValueError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}, the {name} has classes 0..{logits.shape[1] - 1}"
        )
    return logits, labels.long().to(logits.device)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,) logit of the label minus the largest of the others; negative where the classifier is wrong."""
    own = labels[:, None]
    return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -math.inf).amax(dim=1)
