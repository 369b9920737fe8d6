"""Sanity checks of data: the scale of their pixels, exact copies, classes without images."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np

from command_line.output import UserError, listed
from image_experiments.data.dataset import Array, Dataset


def check_range(images: Array, what: str) -> None:
    """Raise UserError if uint8 images cannot be on the scale 0..255: all one value, or so dark that they were cast from another scale."""
    step = max(1, images.size // SAMPLED)
    while math.gcd(step, math.prod(images.shape[1:])) > 1:  # or the same channel or column would be looked at in every image
        step += 1
    distinct = np.flatnonzero(np.bincount(images.reshape(-1)[::step], minlength=256))
    if len(distinct) == 1:
        raise UserError(f"{what} hold the value {distinct[0]} alone: nothing can be seen in them; make the file again")
    if distinct[-1] <= DARKEST or (1 in distinct and set(distinct.tolist()) <= {0, 1, 255}):
        kind = "floats of [-1, 1] or [0, 1] cast to whole numbers" if distinct[-1] in (1, 255) else "another scale than 0..255"
        values = ", ".join(map(str, distinct[:5].tolist())) + (", ..." if len(distinct) > 5 else "")
        raise UserError(
            f"{what} hold the values {values} alone, which looks like {kind}; scale them to 0..255 before saving as uint8"
        )


SAMPLED = 10**7
"""About so many pixels are looked at."""
DARKEST = 16
"""Any set of images on the scale 0..255 has brighter pixels than this; scikit-learn's digits have 0..16 before they are scaled."""


def with_copies_together(data: Dataset) -> Dataset:
    """The data, with exact copies among the training images put in one group, and messages about how many there are and where."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    train, test = ([hashlib.sha256(image.tobytes()).digest() for image in part] for part in (data.images, data.test_images))
    number = {content: i for i, content in enumerate(dict.fromkeys(train))}
    same = np.array([number[content] for content in train])
    notes, doubts = list(data.notes), list(data.doubts)
    groups = np.unique(data.groups, return_inverse=True)[1]
    if len(number) < len(train):
        size = groups.max() + 1 + len(number)  # nodes: groups, then contents; each image joins its group to its content
        graph = coo_matrix((np.ones(len(train)), (groups, groups.max() + 1 + same)), shape=(size, size))
        groups = np.unique(connected_components(graph, directed=False)[1][groups], return_inverse=True)[1]
        notes.append(f"copies: {len(train) - len(number)} training images are exact copies of others; copies stay together")
    labelled = {content: set[int]() for content in number}
    for content, label in zip(train, data.labels.tolist(), strict=True):
        labelled[content].add(label)
    torn = sum(len(labelled[content]) > 1 for content in train)
    if torn:
        doubts.append(f"{torn} training images have exact copies in another class: one of the labels is wrong")
    untested = [
        name
        for name, count in zip(data.classes, np.bincount(data.test_labels, minlength=len(data.classes)), strict=True)
        if not count
    ]
    if untested:
        doubts.append(f"no test images of {listed(untested)}")
    seen = sum(content in number for content in test)
    if seen:
        doubts.append(
            f"{seen} of {len(test)} test images are exact copies of training images: accuracy on them says nothing of new images"
        )
    return replace(data, groups=groups, notes=tuple(notes), doubts=tuple(doubts))
