"""Shuffling without a list: permutations of 10^8 images, evaluated on demand, in constant memory.

Why our own code: permutations of torch and numpy are lists, 80 MB per epoch at 10^7 images, and cannot start at step i directly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from image_experiments.data.dataset import Array

ROUNDS = 8
LEAST_BITS = 6  # of the smallest domain that the rounds mix well; numbers beyond n - 1 are skipped


class Permutation:
    """A pseudo-random permutation of 0..n-1, keyed by (seed, epoch): computes pi(i) for any i at a cost independent of n.

    A Feistel network (Luby, Rackoff 1988) on the smallest 2^b >= n: the halves (l, r) of a number become (r, l xor f_k(r)), round by
    round, where f_k is the SplitMix64 mixer (Steele, Lea, Flood 2014) keyed for the round. Numbers >= n are mapped again until they are < n
    ("cycle walking", Black, Rogaway 2002), which keeps the map one-to-one.
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        self.n, bits = n, max(LEAST_BITS, (n - 1).bit_length())
        self.high = bits // 2
        self.low = bits - self.high
        self.keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)

    def __call__(self, places: Array) -> Array:
        """pi(places), int64; places (m,) in 0..n-1."""
        found = self._once(places.astype(np.uint64))
        while len(outside := np.flatnonzero(found >= self.n)):
            found[outside] = self._once(found[outside])
        return found.astype(np.int64)

    def _once(self, numbers: Array) -> Array:
        high, low = self.high, self.low
        left, right = numbers >> np.uint64(low), numbers & np.uint64((1 << low) - 1)
        for key in self.keys:
            left, right = right, left ^ (_mixed(right ^ key) & np.uint64((1 << high) - 1))
            high, low = low, high
        return (left << np.uint64(low)) | right


def _mixed(x: Array) -> Array:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def batch_indices(n: int, batch: int, step: int, seed: int) -> Tensor:
    """Entries step*batch ... (step+1)*batch - 1 of an endless sequence of permutations of 0..n-1; permutation e is keyed by (seed, e)."""
    places = np.arange(step * batch, (step + 1) * batch)
    epochs = places // n
    found = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(epochs):
        rows = epochs == epoch
        found[rows] = Permutation(n, seed, int(epoch))(places[rows] % n)
    return torch.from_numpy(found)
