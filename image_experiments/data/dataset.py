"""A data set as arrays: a training pool and test images, with labels, groups and class names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from command_line.output import UserError, did_you_mean, listed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """images: uint8 (n, H, W, C), labels: int64 (n,), of the training pool and of the test set. groups: int64 (n,); training images of one
    group (frames of a video, exact copies) are never split. classes: their names. source: what was read, with its checksum. notes: messages
    about what was left out or put together. doubts: warnings about problems that may make an experiment misleading."""

    images: Array
    labels: Array
    groups: Array
    test_images: Array
    test_labels: Array
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def checksum(self) -> str:
        """SHA-256 of all images and labels."""
        whole = hashlib.sha256()
        for array in (self.images, self.labels, self.test_images, self.test_labels):
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()

    def __post_init__(self) -> None:
        for part, images, labels in (("train", self.images, self.labels), ("test", self.test_images, self.test_labels)):
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.images.shape[1:]:
                raise UserError(
                    f"{self.source}: {part} images have shape {images.shape} and type {images.dtype}; give uint8 (n, H, W, C)"
                )
            if len(labels) != len(images) or len(labels) == 0:
                raise UserError(
                    f"{self.source}: {len(images)} {part} images and {len(labels)} labels; there must be as many, and some"
                )
            if not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise UserError(
                    f"{self.source}: {part} labels reach from {labels.min()} to {labels.max()}, classes are 0..{len(self.classes) - 1}"
                )
        counts = np.bincount(self.labels, minlength=len(self.classes))
        if len(self.classes) < 2 or (counts > 0).sum() < 2:
            raise UserError(f"{self.source}: one class ({', '.join(self.classes)}); a classifier needs at least two")
        if not counts.all():
            raise UserError(
                f"{self.source}: no training images of class {self.classes[int(counts.argmin())]!r}; add some or remove it"
            )


def described(data: Dataset) -> list[str]:
    """What was read, one message each: images and their shape, classes, groups, what was left out or put together."""
    height, width, channels = data.images.shape[1:]
    counts = [np.bincount(labels, minlength=len(data.classes)) for labels in (data.labels, data.test_labels)]
    each = [f"{name} {train}+{test}" for name, train, test in zip(data.classes, *counts, strict=True)]
    groups = len(np.unique(data.groups))
    together = (
        "each on its own"
        if groups == len(data.groups)
        else f"{groups} groups that never part, the largest of {np.bincount(data.groups).max()}"
    )
    return [
        f"read {data.source}: {len(data.labels)} training and {len(data.test_labels)} test images, {width}x{height}, "
        f"{'grey' if channels == 1 else 'colour'}",
        f"{len(data.classes)} classes, training+test: {listed(each, SHOWN)}",
        f"training images: {together}",
        *data.notes,
    ]


SHOWN = 50
"""List at most this many classes by name."""


def only(data: Dataset, classes: Sequence[str]) -> Dataset:
    """The images of these classes, numbered in the order of the data set. Raises UserError for an unknown class."""
    check_classes(classes, data.classes, data.source)
    kept = [i for i, name in enumerate(data.classes) if name in classes]
    train, test = (np.isin(labels, kept) for labels in (data.labels, data.test_labels))
    return Dataset(
        data.images[train],
        np.searchsorted(kept, data.labels[train]),
        np.unique(data.groups[train], return_inverse=True)[1],
        data.test_images[test],
        np.searchsorted(kept, data.test_labels[test]),
        tuple(data.classes[i] for i in kept),
        f"{data.source}, {len(kept)} of its {len(data.classes)} classes",
        data.notes,
        data.doubts,
    )


def check_classes(names: Sequence[str], known: Sequence[str], source: str) -> None:
    """Raise UserError for a class that the data set does not have."""
    for name in names:
        if name not in known:
            raise UserError(
                f"--classes {name}: {source} has no such class{did_you_mean(name, known)}; its classes are {', '.join(known)}"
            )
