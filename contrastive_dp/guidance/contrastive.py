"""Contrastive guidance: the gradient of a contrastive loss of the batch (Ouyang, Xie, Cheng 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from contrastive_dp._checks import count
from contrastive_dp.guidance.base import At, Embed, Guidance, GuidedRun, embedding_of, gradient_through, leaf_of
from contrastive_dp.losses import ContrastiveLoss
from contrastive_dp.schedules import NoiseSchedule


@dataclass(frozen=True, eq=False, repr=False)
class ContrastiveGuidance(Guidance):
    """Descend a contrastive loss L of the embeddings of a batch of samples (Ouyang, Xie, Cheng 2023):

    eps_hat = eps + scale_t sqrt(1 - alpha_bar_t) grad_x L, L summed over samples, of x_t or of x0_hat with eps held constant.

    embed: any function or module (n, ...) -> (n, k); its output is normalised to unit length here. loss: InfoNCE, HardNegativeMining,
    SupervisedContrastive, ClassAnchored or your own (see ContrastiveLoss). batch_size: encode at most this many samples at once; this
    bounds memory and gives the same result, for one more forward pass. The previous state's embedding is stored, not recomputed.
    A loss that needs the previous state starts at the second visited step; previous is the last state at another timestep, as solvers of
    second order visit one twice. Other fields: see Guidance.
    Raises ValueError for bad settings or an embedding of the wrong shape; FloatingPointError naming the step if it has NaN.
    """

    embed: Embed
    loss: ContrastiveLoss
    scale: float | Sequence[float] | Tensor
    window: tuple[int, int] | None = None
    at: At = "x0"
    relative: bool = False
    _: KW_ONLY
    every: int = 1
    reverse: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        self._check()
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", count(self.batch_size, "batch_size"))

    @property
    def fewest(self) -> int:
        return getattr(self.loss, "fewest", 1)

    def start(self, schedule: NoiseSchedule, labels: Tensor | None = None) -> GuidedRun:
        if labels is None and getattr(self.loss, "needs_labels", False):
            raise ValueError(f"{type(self.loss).__name__} needs labels: pass labels=... to the sampler")
        run = super().start(schedule, labels)
        if labels is not None and hasattr(self.loss, "check_labels"):
            self.loss.check_labels(labels)
        return run

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor | None:
        previous = self._previous(run, t)
        if previous is None and self.loss.needs_previous:
            run.keep(t, self._encode_all(seen, run, t))
            return None
        gradient, z = gradient_through(
            lambda x: self._encode(x, run, t), lambda z: self.loss(z, previous, run.labels), seen, self.batch_size
        )
        run.keep(t, z)
        return gradient

    def _previous(self, run: GuidedRun, t: int) -> Tensor | None:
        """Embeddings of the last state at another timestep; if the loss needs them and they are not known, they are made, and noted."""
        at, what = run.before(t) or (t, None)
        if isinstance(what, tuple):
            if not self.loss.needs_previous:
                return None
            what = self._encode_all(run.see(*what), run, t)
            run.keep(at, what)
        return what

    def _encode_all(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor:
        """Embeddings without gradient, in pieces."""
        return torch.cat([self._encode(leaf_of(piece), run, t) for piece in seen.split(self.batch_size or len(seen))])

    def _encode(self, x: Tensor, run: GuidedRun, t: int) -> Tensor:
        """Unit-norm embeddings of x."""
        raw = embedding_of(self.embed, x)
        run.watch("embedding", t, raw)
        return F.normalize(raw.float() if raw.dtype.itemsize < 4 else raw, dim=1)  # in half precision a length of 0 gives NaN
