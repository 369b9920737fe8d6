"""Random choices with the classes as balanced as possible."""

from __future__ import annotations

import numpy as np

from image_experiments.data.dataset import Array


def balanced_order(labels: Array, rng: np.random.Generator) -> Array:
    """A random order of all items such that the first n, for every n, have the classes as balanced as their sizes allow."""
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)  # rank within its class
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    return np.lexsort((rng.permutation(len(labels)), rank))


def balanced_choice(labels: Array, count: int, rng: np.random.Generator) -> Array:
    """Sorted indices of `count` items, with the classes as balanced as their sizes allow."""
    return np.sort(balanced_order(labels, rng)[:count])
