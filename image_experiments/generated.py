"""Generated images as npz files in the field's format: `image` uint8 (N, H, W, C) and `label` (N,)."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from command_line.output import UserError, write_whole

Array = np.ndarray[Any, Any]
KEYS = (("image", "label"), ("arr_0", "arr_1"))
"""The names met in the field: Gowal et al. (2021), Rebuffi et al. (2021), Wang et al. (2023); np.savez without names."""


def write_images(path: Path, images: Array, labels: Array) -> Path:
    """Write uint8 images (N, H, W, C) and labels (N,)."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, image=images, label=labels.astype(np.int64))

    return write_whole(path, write)


def read_images(path: Path, classes: int, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Images uint8 (N, H, W, C) and labels int64 (N,) of an npz file with either pair of keys, for data of this shape (H, W, C).

    Raises UserError for a file that is missing, damaged, holds Python objects (which could run code), another shape or unknown labels.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path}: truncated or no npz file; give an npz with image and label, or make it again")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            pair = next((keys for keys in KEYS if set(keys) <= set(content.files)), None)
            if pair is None:
                raise UserError(
                    f"{path}: has {', '.join(content.files) or 'nothing'}; an npz with image and label (or arr_0, arr_1) is needed"
                )
            images, labels = np.asanyarray(content[pair[0]]), np.asanyarray(content[pair[1]])
    except ValueError as error:  # numpy's word for an object array
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise UserError(f"{path}: holds Python objects, which could run code; save plain arrays of numbers") from None
        raise UserError(f"{path}: damaged ({error}); make it again") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise UserError(f"{path}: truncated or no npz file ({error}); make it again") from None
    return _checked(path, images, labels, classes, shape)


def _checked(path: Path, images: Array, labels: Array, classes: int, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise UserError(
            f"{path}: images have shape {images.shape} and type {images.dtype}; the data need uint8 (N, {', '.join(map(str, shape))})"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0:
        raise UserError(
            f"{path}: labels have shape {labels.shape} and type {labels.dtype}; {len(images)} whole numbers are needed, at least one"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"{path}: labels reach from {labels.min()} to {labels.max()}; the data have classes 0..{classes - 1}")
    return images, labels.astype(np.int64)
