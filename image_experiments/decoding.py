"""Image files to arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from command_line.output import UserError
from image_experiments.archives import Entry

Array = np.ndarray[Any, Any]


def decode_all(entries: Sequence[Entry], image_size: int, sizes: dict[tuple[int, ...], str] | None = None) -> Array:
    """uint8 (n, H, W, 3), or (n, H, W, 1) where every image is grey. image_size: resized to that many pixels a side (0: as they are).

    sizes: remembers the size met first, so that several calls agree. Raises UserError for an image that does not decode, and for two sizes.
    """
    sizes = {} if sizes is None else sizes
    decoded = []
    for entry in entries:
        image = decode(entry, image_size)
        sizes.setdefault(image.shape, entry.name)
        if len({shape[:2] for shape in sizes}) > 1:
            (first, name), (second, other) = list(sizes.items())[:2]
            raise UserError(
                f"{entry.source}: {name} is {first[1]}x{first[0]}, {other} is {second[1]}x{second[0]}; "
                "give images of one size, or --image-size to resize them"
            )
        decoded.append(image)
    if len({image.shape[2] for image in decoded} | {shape[2] for shape in sizes}) > 1:  # grey among colour
        decoded = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in decoded]
    return np.stack(decoded)


def decode(entry: Entry, image_size: int) -> Array:
    """One image, uint8 (H, W, C); C is 1 for grey, else 3; transparency is dropped."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(entry.content)) as opened:
                if opened.mode.startswith(("I", "F")):
                    raise ValueError(f"{opened.mode} has more than 8 bits a channel, save it with 8")
                image = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
        if image_size and image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow raises a dozen kinds for what is no image
        reason = " ".join(str(error).split())[:120].replace(repr(entry.content)[:20], "")
        raise UserError(f"{entry.source}: {entry.name} cannot be decoded ({reason}); replace or remove it") from None
    values = np.asarray(image, dtype=np.uint8)
    return values[..., None] if values.ndim == 2 else values
