"""Random shifts, mirroring and CutMix on a batch, with a given random generator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Literal["auto", "none", "crop", "crop-flip"]


def augment(x: Tensor, kind: Augmentation, generator: torch.Generator, fill: float = 0.0) -> Tensor:
    """Images (n, C, H, W), each shifted by up to H // 8 and W // 8 pixels (new ones are `fill`, black), and mirrored with probability 1/2.

    Raises ValueError for "auto", which must first be resolved for the data set.
    """
    if kind == "auto":
        raise ValueError("augmentation=auto depends on the data set: give none, crop or crop-flip")
    if kind == "none":
        return x
    n, _, height, width = x.shape
    tall, wide = max(height // 8, 1), max(width // 8, 1)
    top, left = (
        torch.randint(0, 2 * tall + 1, (2, n), generator=generator, device=x.device)
        if tall == wide
        else [torch.randint(0, 2 * pad + 1, (n,), generator=generator, device=x.device) for pad in (tall, wide)]
    )
    rows = top[:, None] + torch.arange(height, device=x.device)  # (n, H)
    columns = left[:, None] + torch.arange(width, device=x.device)
    if kind == "crop-flip":
        mirrored = torch.rand(n, generator=generator, device=x.device) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = F.pad(x, (wide, wide, tall, tall), value=fill)
    item = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[item, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def cutmix(x: Tensor, target: Tensor, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """CutMix (Yun et al. 2019): with this probability, a box in every image is replaced by the same box of another image of the batch. The
    batch shares one box, whose share of the area is uniform on [0, 1]; targets (n, K) are mixed by the share that was replaced.
    """
    share, gate, row, column = torch.rand(
        4, generator=generator, device=x.device
    )  # stay on the device, so that no step waits for them
    other = torch.randperm(len(x), generator=generator, device=x.device)
    rows, columns = (_within(size, share.sqrt(), place) for size, place in zip(x.shape[-2:], (row, column), strict=True))
    box = rows[:, None] & columns[None, :] & (gate < probability)  # (H, W)
    replaced = box.float().mean()
    return torch.where(box, x[other], x), torch.lerp(target, target[other], replaced)


def _within(size: int, share: Tensor, place: Tensor) -> Tensor:
    """(size,) bool: an interval that covers this share of 0 .. size-1 and begins at the fraction `place` in [0, 1) of the free room."""
    length = (size * share).round()
    first = (place * (size - length + 1)).floor()
    numbers = torch.arange(size, device=share.device)
    return (numbers >= first) & (numbers < first + length)
