"""Random numbers per sample, not per batch: item i depends only on (seed, i), however the samples are split into batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from contrastive_dp._checks import count
from contrastive_dp.transfer import sent


class SampleNoise:
    """Standard normal draws for samples first, first + 1, ...: pass it wherever a sampler takes a generator.

    Draw j of sample i comes from a fixed position in a counter-based stream (Philox, key (seed, j)), made normal by the inverse
    distribution function. So batches of any size, on any number of processes and in any order give the same samples: bit for bit on one
    kind of device; on another the last digit of a draw may differ.

    seed: whole number in 0 .. 2^64 - 1. first: index of the first sample of this batch.
    """

    def __init__(self, seed: int, first: int = 0) -> None:
        self.seed, self.first, self.draws = count(seed, "seed", 0), count(first, "first", 0), 0
        if self.seed >= 2**64:
            raise ValueError(f"seed={seed} must be below 2^64")

    def normal(self, like: Tensor) -> Tensor:
        """The next draw: standard normals of the shape, dtype and device of `like` (n, ...); row i belongs to sample first + i."""
        return self.normal_of(tuple(like.shape), like.dtype, like.device)

    def normal_of(
        self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> Tensor:
        """The next draw: standard normals of the given shape (n, ...), for example x_T."""
        width = int(np.prod(shape[1:], dtype=np.int64))
        blocks = -(-width // 4)  # Philox makes four numbers per counter value; each sample gets its own whole blocks
        stream = np.random.Philox(key=np.array([self.seed, self.draws], dtype=np.uint64))
        stream.advance(self.first * blocks)
        uniform = np.random.Generator(stream).random((shape[0], blocks * 4))[:, :width]
        self.draws += 1
        # random() is a multiple of 2^-53 in [0, 1): shift it up by half a step, and cap it, so that the result is finite
        inside = torch.from_numpy(np.minimum(uniform + 2.0**-54, 1 - 2.0**-53))
        place = torch.device(device or "cpu")
        if place.type == "cuda":
            inside = sent(inside, place)  # the inverse distribution function takes most of the time, and little on a GPU
        return torch.special.ndtri(inside).reshape(shape).to(device=place, dtype=dtype)


def standard_normal(like: Tensor, generator: torch.Generator | SampleNoise) -> Tensor:
    """Standard normals shaped like `like` from either kind of source."""
    if isinstance(generator, SampleNoise):
        return generator.normal(like)
    return sent(torch.randn(like.shape, dtype=like.dtype, device=generator.device, generator=generator), like.device)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within, the generators of the CPU and of `device`, if it is a GPU, start at `seed`; afterwards they are as before.

    torch.manual_seed would also seed all other GPUs of the caller.
    """
    card = None if device is None or device.type != "cuda" else device
    with torch.random.fork_rng(devices=[] if card is None else [card]):
        torch.default_generator.manual_seed(seed)
        if card is not None:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield


def mixed_seed(seed: int, step: int) -> int:
    """A seed for one step; torch's CPU generator uses only 32 bits, so seed and step must be mixed well."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
