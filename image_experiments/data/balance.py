"""Choices in which classes are as equal in number as they come."""

from __future__ import annotations

import numpy as np

from image_experiments.data.dataset import Array


def balanced_order(labels: Array, rng: np.random.Generator) -> Array:
    """A random order of all items whose every beginning has the classes as equal in number as their sizes allow."""
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)  # the how-manieth of its class
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    return np.lexsort((rng.permutation(len(labels)), rank))


def balanced_choice(labels: Array, count: int, rng: np.random.Generator) -> Array:
    """Sorted places of `count` items, the classes as equal in number as their sizes allow."""
    return np.sort(balanced_order(labels, rng)[:count])
