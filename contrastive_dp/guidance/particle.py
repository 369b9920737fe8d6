"""Particle guidance: the samples of a batch repel each other, so that they are diverse (Corso et al. 2023)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from contrastive_dp._checks import batch_labels, count, positive, wide_type
from contrastive_dp.guidance.base import At, Embed, Guidance, GuidedRun, embedding_of, gradient_through
from contrastive_dp.schedules import NoiseSchedule


@dataclass(frozen=True, eq=False, repr=False)
class ParticleGuidance(Guidance):
    """Descend L = sum_{i < j} exp(-||z_i - z_j||^2 / h), z what the guidance sees, or its embedding (Corso et al. 2023, arXiv 2310.13102).

    The sum runs over pairs with the same label, or over all pairs without labels or with same_class=False.
    embed: function or module (n, ...) -> (n, k), taken as it is, not normalised; None: the pixels themselves. bandwidth: h > 0; None: the
    squared median distance of the pairs over log(n), n the mean number of samples that repel each other, as in the paper; held constant.
    batch_size: encode at most this many samples at once; this bounds memory and gives the same result, for one more forward pass.
    Other fields: see Guidance. Warns if most samples are alone in their class.
    Raises ValueError for bad settings, or an embedding of the wrong shape.
    """

    scale: float | Sequence[float] | Tensor
    embed: Embed | None = None
    window: tuple[int, int] | None = None
    at: At = "x0"
    _: KW_ONLY
    bandwidth: float | None = None
    same_class: bool = True
    relative: bool = False
    every: int = 1
    reverse: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        self._check()
        if self.bandwidth is not None:
            positive(self.bandwidth, "bandwidth")
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", count(self.batch_size, "batch_size"))

    @property
    def fewest(self) -> int:
        return 2

    def start(self, schedule: NoiseSchedule, labels: Tensor | None = None) -> GuidedRun:
        run = super().start(schedule, labels)
        if labels is not None and len(labels) > 1 and self.same_class:
            _, members = labels.unique(return_counts=True)
            alone = int((members == 1).sum())
            if 2 * alone > len(labels):
                warnings.warn(
                    f"{alone} of {len(labels)} samples are alone in their class in this batch, so particle guidance does nothing to them: "
                    "sample a class together, or give same_class=False",
                    stacklevel=3,
                )
        return run

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor:
        self.check_samples(len(seen))
        gradient, _ = gradient_through(self._encode, lambda z: self.energy(z, run.labels), seen, self.batch_size)
        return gradient

    def _encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.embed is None else embedding_of(self.embed, x)

    def energy(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """L of points z (n, k) with labels (n,), if there are any."""
        z = z.to(wide_type(z))  # torch has no distances in half precision
        square, paired = self._squares(z, None if labels is None or not self.same_class else batch_labels(labels, len(z)))
        kernel = torch.exp(-square / self._bandwidth(square.detach(), paired, len(z)))
        return torch.where(paired, kernel, 0.0).sum() / 2  # every pair stands twice

    @staticmethod
    def _squares(z: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Squared distances of points, one after the other, and which of them belong to pairs that repel each other.

        On a CPU those within each class alone; on a GPU all, since it would have to be waited for how many a class has.
        """
        classes = None if labels is None else labels.to(z.device)
        if classes is None or not _on_host(z):
            paired = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
            if classes is not None:
                paired &= classes[:, None] == classes[None, :]
            square: Tensor = lean_squared_distances(z) if z.is_cuda else squared_distances(z)  # (n, n)
            return square.flatten(), paired.flatten()
        members = [z[classes == label] for label in classes.unique()]
        squares = [squared_distances(points).flatten() for points in members]
        return torch.cat(squares), torch.cat([~torch.eye(len(points), dtype=torch.bool).flatten() for points in members])

    def _bandwidth(self, square: Tensor, paired: Tensor, n: int) -> Tensor | float:
        if self.bandwidth is not None:
            return self.bandwidth
        counted = paired & (square > 0)  # copies do not count
        # nanmedian would wait for a GPU; sorting takes longer on a CPU
        middle = lower_median(square, counted) if square.is_cuda else torch.where(counted, square, math.nan).nanmedian()
        together = 1 + paired.sum().to(square.dtype) / n
        # without a pair, the median is not finite and the kernel is not used
        return torch.nan_to_num(middle / torch.log(together), nan=1.0, posinf=1.0).clamp(min=torch.finfo(square.dtype).tiny)


def _on_host(z: Tensor) -> bool:
    return z.device.type == "cpu"


def squared_distances(z: Tensor) -> Tensor:
    """(n, n) ||z_i - z_j||^2 of points z (n, k); not by products, which lose the digits of small distances between large numbers."""
    return torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square()


def lean_squared_distances(z: Tensor) -> Tensor:
    """The same with a backward pass in the memory of n^2 + n k numbers; that of torch.cdist takes n^2 k on a GPU."""
    apply: Any = _SquaredDistances.apply
    out: Tensor = apply(z)
    return out


class _SquaredDistances(torch.autograd.Function):
    """With W the gradient by the squared distances, that by z is 2 (diag(V 1) - V) z, V = W + W^T, in double precision."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return squared_distances(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_square: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        both = (by_square + by_square.mT).double()
        wide = z.double() - z.double().mean(dim=0)
        return (2 * (both.sum(dim=1, keepdim=True) * wide - both @ wide)).to(z.dtype)


def lower_median(values: Tensor, kept: Tensor) -> Tensor:
    """The lower median of the values where `kept`, without waiting for the device; inf if there is none."""
    ascending = torch.where(kept, values, math.inf).flatten().sort().values
    return ascending.gather(0, (kept.sum() - 1).clamp(min=0).div(2, rounding_mode="floor")[None])[0]
