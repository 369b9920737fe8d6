"""Real images as stages pass them on: one npz file for the data set, and one for each seed's split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from command_line.output import write_whole
from image_experiments.data.balance import balanced_order
from image_experiments.data.dataset import Array, Dataset
from image_experiments.data.images import Images
from image_experiments.data.npz_files import ImageFile
from image_experiments.data.splitting import Split

ARRAYS = ("image", "label", "group", "test_image", "test_label")
TEST_ORDER = 2  # seed for the order of the test images, the same in every run


@dataclass(frozen=True, eq=False)
class SplitDataset:
    """uint8 tensors (n, C, H, W) of each part. classes: names. test: ordered such that the first n are class-balanced for every n."""

    train: Images
    validation: Images
    test: Images
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width


def order_of_test_images(data: Dataset, count: int) -> Array:
    """The places of the first `count` test images (0: all), in the order that every run has."""
    return balanced_order(data.test_labels, np.random.default_rng(TEST_ORDER))[: count or None]


def save_dataset(path: Path, data: Dataset, test: int) -> Path:
    """Write the pool and `test` test images (0: all)."""
    order = order_of_test_images(data, test)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(
                stream,
                image=data.images,
                label=data.labels,
                group=data.groups,
                test_image=data.test_images[order],
                test_label=data.test_labels[order],
                classes=np.frombuffer(json.dumps(data.classes).encode(), dtype=np.uint8),
            )

    return write_whole(path, write)


def save_split(path: Path, chosen: Split) -> Path:
    """Write the indices of training and validation images."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, train=chosen.train, validation=chosen.validation)

    return write_whole(path, write)


def load_dataset(path: Path) -> Dataset:
    """Load what `save_dataset` wrote."""
    with np.load(path, allow_pickle=False) as content:
        classes = tuple(json.loads(content["classes"].tobytes()))
        image, label, group, test_image, test_label = (content[name] for name in ARRAYS)
        return Dataset(image, label, group, test_image, test_label, classes, str(path))


def load_split(data: Path, chosen: Path) -> SplitDataset:
    """Load the training, validation and test images of one seed."""
    pool = load_dataset(data)
    with np.load(chosen, allow_pickle=False) as content:
        parts = [_images(pool.images[content[name]], pool.labels[content[name]]) for name in ("train", "validation")]
    return SplitDataset(parts[0], parts[1], _images(pool.test_images, pool.test_labels), pool.classes)


def open_synthetic(path: Path, real: SplitDataset) -> Images:
    """Generated images that fit the real ones, mapped and not read. Raises UserError if they do not fit."""
    channels, height, width = real.shape
    return Images.mapped(ImageFile(path, len(real.classes), (height, width, channels)))


def _images(images: Array, labels: Array) -> Images:
    return Images(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), torch.from_numpy(labels.astype(np.int64)))
