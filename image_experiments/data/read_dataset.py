"""Reads data sets into memory as uint8, with separate test images: those of official.py, and folders of images.

There is one reader per data set; `split` then takes training and validation images from the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from command_line.output import UserError
from image_experiments.data.class_folders import read_class_folders
from image_experiments.data.dataset import Dataset, only
from image_experiments.data.official import (
    COPIES,
    is_a_copy,
    read_cifar,
    read_digits,
    read_gtsrb,
    read_mnist,
    read_stl10,
    read_svhn,
)
from image_experiments.data.sanity_checks import check_range, with_copies_together

DatasetName = Literal["digits", "cifar10", "cifar100", "gtsrb", "svhn", "stl10", "mnist", "mnist-t10k", "images"]


def read_dataset(
    name: DatasetName, data_dir: Path | None, image_size: int, group_pattern: str | None, classes: Sequence[str] = ()
) -> Dataset:
    """Read a data set. data_dir: where its files are (None: download them); for "images" a folder or archive, required.

    image_size: resize images to this many pixels per side (0: keep their size). group_pattern: see `read_class_folders`. classes: only
    these, by name (empty: all). Raises UserError for anything that cannot be read.
    """
    data = _read(name, data_dir, image_size, group_pattern)
    data = only(data, classes) if classes else data
    for part, images in (("training", data.images), ("test", data.test_images)):
        check_range(images, f"{data.source}: {part} images")
    return with_copies_together(data)


def check_options(name: DatasetName, data_dir: Path | None, image_size: int, group_pattern: str | None) -> None:
    """Raise UserError for an option of files that the data set lacks, or that means nothing for it."""
    if name == "images" and data_dir is None:
        raise UserError("--dataset images needs --data-dir: a folder with train/CLASS/* and test/CLASS/*, or a tar or zip of one")
    if name == "digits" and image_size:
        raise UserError(f"--image-size {image_size}: digits has one size; leave it out")
    if name == "digits" and data_dir is not None:
        raise UserError(f"--data-dir {data_dir}: digits come with scikit-learn; leave it out, or choose another --dataset")
    if name not in ("images", *COPIES) and group_pattern is not None:
        raise UserError(f"--group-pattern {group_pattern}: {name} has no file names; leave it out")
    if name in COPIES and group_pattern is not None and not is_a_copy(name, data_dir):
        raise UserError(f"--group-pattern {group_pattern}: the official archives need none; leave it out")


def _read(name: DatasetName, data_dir: Path | None, image_size: int, group_pattern: str | None) -> Dataset:
    check_options(name, data_dir, image_size, group_pattern)
    if data_dir is not None and not data_dir.exists():
        raise UserError(f"--data-dir {data_dir}: no such file or folder; check the path")
    if data_dir is not None and (name == "images" or (name in COPIES and is_a_copy(name, data_dir))):
        return read_class_folders(data_dir, image_size, group_pattern)
    if name in ("mnist", "mnist-t10k"):
        return read_mnist(data_dir, image_size, test_file_alone=name == "mnist-t10k")
    if name in ("cifar10", "cifar100"):
        return read_cifar(name, data_dir, image_size)
    if name == "digits":
        return read_digits()
    return {"gtsrb": read_gtsrb, "svhn": read_svhn, "stl10": read_stl10}[name](data_dir, image_size)
