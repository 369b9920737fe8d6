"""The four contrastive losses, each a small frozen object: loss(z, previous=None, labels=None) -> scalar, summed over samples.

z: (n, k) unit-norm embeddings of the current states; the gradient flows only through z. previous: (n, k) unit-norm embeddings of the
same trajectories' previous states, held constant. labels: (n,) integer classes. Everything is computed from logits z.z'/temperature in
log space. A sum, not a mean, so that the gradient of a sample does not shrink as the batch grows.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from contrastive_dp._checks import batch_labels, finite, in_unit, non_negative, normal_tensor, one_of, positive, wide_type
from contrastive_dp._repr import ShortRepr


class ContrastiveLoss(Protocol):
    """The interface of a loss for ContrastiveGuidance; any object with these members works."""

    needs_previous: ClassVar[bool]
    """Whether the loss uses `previous`: if so, a step without a known previous state is not guided.

    Optional members, which let a sampler refuse before its first step: needs_labels, True if the loss needs `labels`; fewest, the least
    number of samples; check_labels(labels), which may raise or warn.
    """

    def __call__(self, z: Tensor, previous: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The loss summed over samples."""


@dataclass(frozen=True)
class InfoNCE:
    """L = -sum_i log( e^{z_i.p_i/tau} / sum_j e^{z_i.p_j/tau} ), p the previous states (van den Oord et al. 2018; the paper's main loss).

    Positive: the same trajectory's previous state. Negatives: the other trajectories' previous states; with negatives="other" only those
    of other labels, so that classes part and samples of a class do not; with "same" only those of the same label, so that classes spread.
    temperature: tau > 0. Raises ValueError for temperature <= 0, previous missing or of another shape, fewer than two samples, labels
    missing where negatives depend on them.
    """

    temperature: float = 0.1
    negatives: Literal["all", "other", "same"] = "all"
    needs_previous: ClassVar[bool] = True
    fewest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        positive(self.temperature, "temperature")
        one_of(self.negatives, "negatives", ("all", "other", "same"))

    @property
    def needs_labels(self) -> bool:
        return self.negatives != "all"

    def check_labels(self, labels: Tensor) -> None:
        """Warn if no sample has a negative, so that the loss is always 0."""
        if (self.negatives == "other" and len(labels.unique()) == 1) or (self.negatives == "same" and not _shared(labels)):
            what = "the same label" if self.negatives == "other" else "a label of its own"
            _warn_of_nothing(f'InfoNCE with negatives="{self.negatives}"', what)

    def __call__(self, z: Tensor, previous: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        keys = _check_previous(z, previous, "InfoNCE", self.fewest)
        logits = z @ keys.T / self.temperature  # (n, n)
        if self.negatives != "all":
            classes = _check_labels(labels, z, "InfoNCE")
            left_out = (classes[:, None] == classes[None, :]) == (self.negatives == "other")
            logits = logits.masked_fill(left_out & ~torch.eye(len(z), dtype=torch.bool, device=z.device), -math.inf)
        return F.cross_entropy(logits, torch.arange(len(z), device=z.device), reduction="sum")


@dataclass(frozen=True)
class HardNegativeMining:
    """Debiased contrastive loss with hard negatives up-weighted (Robinson et al. 2021, equations 3-4) over the 2n views [z; previous].

    For a view f with positive f+ (its trajectory's other view) and N = 2n - 2 negatives, s = e^{f.f'/tau}, pos = e^{f.f+/tau}:
    Ng = max( (sum_j w_j s_j - tau_plus N pos) / (1 - tau_plus), N e^{-1/tau} ), w_j = s_j^beta / mean(s^beta);
    L = -sum over views log( pos / (pos + Ng) ).

    temperature: tau > 0. tau_plus: prior probability that a negative is of the same class, in [0, 1). beta >= 0: concentration on hard
    negatives (0: none). Raises ValueError outside these ranges, for previous missing or of another shape, fewer than two samples.
    """

    temperature: float = 10.0
    tau_plus: float = 0.1
    beta: float = 1.0
    needs_previous: ClassVar[bool] = True
    fewest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        positive(self.temperature, "temperature")
        in_unit(self.tau_plus, "tau_plus")
        non_negative(self.beta, "beta")

    def __call__(self, z: Tensor, previous: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        keys = _check_previous(z, previous, "HardNegativeMining", self.fewest)
        n, negatives = len(z), 2 * len(z) - 2
        views = torch.cat([z, keys])  # (2n, k)
        logits = views @ views.T / self.temperature
        log_pos = (z * keys).sum(dim=1).repeat(2) / self.temperature  # (2n,)
        own = torch.eye(n, dtype=torch.bool, device=z.device).repeat(2, 2)  # a view itself and its positive
        log_mean = torch.logsumexp((self.beta * logits).masked_fill(own, -math.inf), dim=1) - math.log(negatives)
        log_sum = torch.logsumexp(((1 + self.beta) * logits).masked_fill(own, -math.inf), dim=1) - log_mean  # of w_j s_j
        log_ng = self._log_negative_term(log_sum, log_pos, negatives)
        return F.softplus(log_ng - log_pos).sum()

    def _log_negative_term(self, log_sum: Tensor, log_pos: Tensor, negatives: int) -> Tensor:
        """log of max((e^log_sum - tau_plus N pos) / (1 - tau_plus), N e^{-1/tau})."""
        floor = torch.full_like(log_sum, math.log(negatives) - 1 / self.temperature)
        if self.tau_plus == 0:
            return torch.maximum(log_sum, floor)
        ratio = math.log(self.tau_plus * negatives) + log_pos - log_sum  # log of subtrahend / minuend
        left = ratio < -1e-12  # if the difference is <= 0 the floor applies, but the gradient of the other branch must stay finite
        difference = log_sum + torch.log(-torch.expm1(torch.where(left, ratio, -1.0))) - math.log1p(-self.tau_plus)
        return torch.where(left & (difference > floor), difference, floor)


@dataclass(frozen=True)
class SupervisedContrastive:
    """L = -sum_i 1/|P(i)| sum_{p in P(i)} log( e^{z_i.z_p/tau} / sum_{a != i} e^{z_i.z_a/tau} ) (Khosla et al. 2020, L_out).

    P(i): the other samples of the batch with i's label; a sample without any contributes nothing but remains a negative for the others.
    The gradient flows through both ends of each pair. temperature: tau > 0.
    Raises ValueError for temperature <= 0, labels missing or misshapen, fewer than two samples.
    """

    temperature: float = 0.1
    needs_previous: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    fewest: ClassVar[int] = 2

    def __post_init__(self) -> None:
        positive(self.temperature, "temperature")

    def check_labels(self, labels: Tensor) -> None:
        """Warn if no two samples share a label, so that the loss is always 0."""
        if not _shared(labels):
            _warn_of_nothing("SupervisedContrastive", "a label of its own")

    def __call__(self, z: Tensor, previous: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        _check_batch(z, "SupervisedContrastive", self.fewest)
        classes = _check_labels(labels, z, "SupervisedContrastive")
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        logits = z @ z.T / self.temperature  # (n, n)
        same = (classes[:, None] == classes[None, :]) & ~itself
        return _pull_and_push(logits, logits.masked_fill(itself, -math.inf), same)


@dataclass(frozen=True, eq=False, repr=False)
class ClassAnchored(ShortRepr):
    """L = -sum_i 1/|P(i)| sum_{p in P(i)} log( e^{z_i.a_p/tau} / sum_j e^{z_i.a_j/tau} ), a the embeddings of real samples.

    P(i): the anchors of i's class; the denominator runs over all anchors. The classes are tied to the real data, so guidance cannot
    rotate them. The "conditional" loss of the paper, with the sum over the correct axis.

    anchors: (m, k) unit-norm embeddings of real samples (`embed_anchors` makes them). anchor_labels: (m,) integers.
    Raises ValueError for temperature <= 0, anchors that do not fit their labels or z, NaN, labels missing, and a class of the batch
    without anchors (checked once per run by ContrastiveGuidance, through `check_labels`).
    """

    anchors: Tensor
    anchor_labels: Tensor
    temperature: float = 0.1
    needs_previous: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(self.temperature, "temperature")
        if self.anchors.ndim != 2 or len(self.anchors) == 0:
            raise ValueError(f"anchors has shape {tuple(self.anchors.shape)}: give (m, k) embeddings of at least one real sample")
        finite(self.anchors, "anchors")
        batch_labels(self.anchor_labels, len(self.anchors))
        object.__setattr__(self, "anchors", normal_tensor(self.anchors))
        object.__setattr__(self, "_copies", {})
        norms = self.anchors.float().norm(dim=1)
        if (norms - 1).abs().max() > 1e-3:
            raise ValueError(
                f"anchors have norms {norms.min():.3g}..{norms.max():.3g}: they must be 1; make them with embed_anchors(embed, x)"
            )

    def check_labels(self, labels: Tensor) -> None:
        """Raise for a class without a real anchor. Copies labels to the host, so it runs once per run, not once per step."""
        missing = sorted(set(labels.unique().tolist()) - set(self.anchor_labels.unique().tolist()))
        if missing:
            raise ValueError(f"classes {missing} have no real anchors: add real samples of them or leave them out of labels")

    def __call__(self, z: Tensor, previous: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        _check_batch(z, "ClassAnchored", 1)
        classes = _check_labels(labels, z, "ClassAnchored")
        anchors, anchor_labels = self._on(z.device, z.dtype)
        if anchors.shape[1] != z.shape[1]:
            raise ValueError(f"anchors have {anchors.shape[1]} features, z has {z.shape[1]}: embed both with the same module")
        logits = z @ anchors.T / self.temperature  # (n, m)
        return _pull_and_push(logits, logits, classes[:, None] == anchor_labels[None, :])

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Anchors and their labels on a device, copied to it once."""
        copies: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = self._copies  # type: ignore[attr-defined]
        if (device, dtype) not in copies:
            with torch.inference_mode(False):
                copies[device, dtype] = self.anchors.to(device, dtype), self.anchor_labels.to(device)
        return copies[device, dtype]


def _pull_and_push(logits: Tensor, contrast: Tensor, same: Tensor) -> Tensor:
    """Sum over rows of logsumexp(contrast) - mean(logits where same), that is -mean log-probability; a row without positives gives 0."""
    counts = same.sum(dim=1, keepdim=True)
    # a quotient of whole numbers would be float32, too coarse beside logits in double precision
    weights = same.to(wide_type(logits)) / counts.clamp(min=1)  # (n, m), constant
    pushed = torch.logsumexp(contrast, dim=1) * (counts[:, 0] > 0)
    return pushed.sum() - (logits * weights).sum()


def _shared(labels: Tensor) -> bool:
    """Whether any two samples have the same label."""
    return len(labels.unique()) < len(labels)


def _warn_of_nothing(name: str, what: str) -> None:
    warnings.warn(f"every sample of this batch has {what}, so {name} does nothing: sample other classes together", stacklevel=4)


def _check_batch(z: Tensor, name: str, fewest: int) -> None:
    if z.ndim != 2:
        raise ValueError(f"{name}: z has shape {tuple(z.shape)}; embeddings must be (n, k)")
    if len(z) < fewest:
        raise ValueError(f"{name}: a batch of {len(z)} has no negatives; guide at least {fewest} samples together")


def _check_previous(z: Tensor, previous: Tensor | None, name: str, fewest: int) -> Tensor:
    _check_batch(z, name, fewest)
    if previous is None:
        raise ValueError(f"{name}: previous is missing; pass the embeddings of the same trajectories' previous states")
    if previous.shape != z.shape:
        raise ValueError(f"{name}: previous has shape {tuple(previous.shape)}, z has {tuple(z.shape)}; they must be equal")
    return previous.detach()


def _check_labels(labels: Tensor | None, z: Tensor, name: str) -> Tensor:
    if labels is None:
        raise ValueError(f"{name}: labels are missing; pass labels=... of shape ({len(z)},) to the sampler")
    return batch_labels(labels, len(z)).to(z.device)
