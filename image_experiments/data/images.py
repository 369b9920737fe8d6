"""Labelled images as tensors, in memory or mapped from a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contrastive_dp.transfer import sent
from image_experiments.data.balance import balanced_choice, balanced_order
from image_experiments.data.npz_files import ImageFile

PIECE = 10_000
"""Images that go to a device at once."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images (n, C, H, W), uint8 as files hold them, with labels (n,).

    file: set if x and y are only memory-mapped (possibly 10^8 images); `rows` reads only the requested rows and caches nothing. p: soft
    labels (n, K) of images that are in memory, if they have any.
    """

    x: Tensor
    y: Tensor
    file: ImageFile | None = None
    p: Tensor | None = None

    @classmethod
    def mapped(cls, file: ImageFile) -> Images:
        """The images of a file, mapped but not read."""
        return cls(torch.from_numpy(file.images).permute(0, 3, 1, 2), torch.from_numpy(file.labels), file)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of some images and their labels, where the images are."""
        if self.file is None:
            place = sent(index, self.y.device)
            return self.x[place], self.y[place]
        images, labels = self.file.rows(index.numpy())
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def soft(self, index: Tensor) -> Tensor | None:
        """Copies of the soft labels (n, K) of some images, or None if the labels are not soft."""
        if self.file is None:
            return None if self.p is None else self.p[sent(index, self.p.device)]
        found = self.file.soft_rows(index.numpy())
        return None if found is None else torch.from_numpy(found).float()

    def held_on(self, device: torch.device, room: float) -> Images:
        """These images on a device, uint8 as they are, if they take at most `room` bytes; otherwise unchanged."""
        soft = None if self.file is None else self.file.soft
        size = self.x.numel() + 8 * len(self) + (0 if soft is None else 4 * soft.size)
        size += 0 if self.p is None else 4 * self.p.numel()
        if size > room:
            return self
        p = self.p if soft is None else torch.from_numpy(np.array(soft, dtype=np.float32))
        x = torch.empty(self.x.shape, dtype=torch.uint8, device=device)
        for first in range(0, len(self), PIECE):
            x[first : first + PIECE] = self.x[first : first + PIECE].contiguous().to(device)
            if self.file is not None:
                self.file.forget()  # so that a mapped file is never in memory as a whole
        return Images(x, self.y.to(device), p=None if p is None else p.to(device))

    def identity(self) -> tuple[Tensor, ...]:
        """The tensors to fingerprint: everything, or for a mapped file the number of images and a thousand of them."""
        if self.file is None:
            return (self.x, self.y) if self.p is None else (self.x, self.y, self.p)
        some = torch.linspace(0, len(self) - 1, min(1000, len(self)), dtype=torch.float64).long()
        soft = self.soft(some)
        return torch.tensor([len(self)]), *self.rows(some), *(() if soft is None else (soft,))

    def __len__(self) -> int:
        return len(self.y)

    def balanced(self, seed: int = 0) -> Images:
        """These images in a random order such that the first n, for every n, have the classes as balanced as possible."""
        order = torch.from_numpy(balanced_order(self.y.cpu().numpy(), np.random.default_rng(seed))).to(self.y.device)
        return Images(self.x[order], self.y[order])

    def some(self, count: int, seed: int = 0) -> Images:
        """At most `count` of the images, in their order, with the classes as balanced as possible."""
        if count >= len(self):
            return self
        kept = torch.from_numpy(balanced_choice(self.y.cpu().numpy(), count, np.random.default_rng(seed))).to(self.y.device)
        return Images(self.x[kept], self.y[kept])
