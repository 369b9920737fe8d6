"""Splits a training pool into training and validation images, class-balanced, keeping groups together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from command_line.output import UserError
from image_experiments.data.balance import balanced_choice
from image_experiments.data.dataset import Array, Dataset


@dataclass(frozen=True, eq=False)
class Split:
    """Indices into the pool of a Dataset."""

    train: Array
    validation: Array


def split(data: Dataset, train: int, validation: int, seed: int) -> Split:
    """Class-balanced validation and training images from the pool, with no group in both.

    validation: total number, with the classes as balanced as possible. train: number out of the rest, likewise (0: all of the rest).
    Raises UserError if there are too few.
    """
    rng = np.random.default_rng([seed, 1])
    wanted = np.full(len(data.classes), validation // len(data.classes))
    wanted[rng.permutation(len(data.classes))[: validation % len(data.classes)]] += 1
    chosen: list[int] = []
    taken: list[int] = []
    for label, count in enumerate(wanted):
        members = np.flatnonzero(data.labels == label)
        groups = rng.permutation(np.unique(data.groups[members]))
        found: list[int] = members[np.isin(data.groups[members], taken)].tolist()  # of groups that reach into an earlier class
        for group in groups[~np.isin(groups, taken)][:-1]:  # keep at least one group for training
            if len(found) >= count:
                break
            found += members[data.groups[members] == group].tolist()
            taken.append(int(group))
        if len(found) < count:
            raise UserError(
                f"--validation {validation}: class {data.classes[label]!r} has {len(members)} images in {len(groups)} groups, too few to "
                f"set {count} apart; use less (0: none), or --group-pattern '' if they do not belong together"
            )
        chosen += rng.permutation(found)[:count].tolist()
    rest = np.flatnonzero(~np.isin(data.groups, taken))
    gone = np.setdiff1d(data.labels, data.labels[rest])
    if len(gone):
        raise UserError(
            f"--validation {validation}: class {data.classes[gone[0]]!r} has no training images left, as its groups are also those "
            "of other classes; use less (0: none), or --group-pattern '' if they do not belong together"
        )
    if train > len(rest):
        raise UserError(
            f"--train {train}: {len(rest)} images are left beside {validation} for validation; use at most that many, or 0 for all"
        )
    kept = rest[balanced_choice(data.labels[rest], train, rng)] if train else rest
    return Split(kept, np.sort(np.array(chosen, dtype=np.int64)))
