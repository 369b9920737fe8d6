"""Decodes image files into arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from command_line.output import UserError
from image_experiments.data.archives import Entry
from image_experiments.data.dataset import Array

GROUND = (255, 255, 255)
"""Background for transparent images: paper white, for which most drawings with an alpha channel are made."""


@dataclass
class Met:
    """What was found in a set of images: sizes (H, W, C) with the first file of each, how many were put on the background or rotated."""

    sizes: dict[tuple[int, ...], str] = field(default_factory=dict)
    transparent: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Messages about it."""
        told = []
        if self.transparent:
            told.append(f"transparency: {len(self.transparent)} images laid over white, the first {self.transparent[0]}")
        if self.turned:
            told.append(f"orientation: {len(self.turned)} images turned as their EXIF data say, the first {self.turned[0]}")
        return told


def decode_all(entries: Sequence[Entry], image_size: int, met: Met | None = None) -> Array:
    """uint8 (n, H, W, 3), or (n, H, W, 1) where every image is grey. image_size: resize to this many pixels per side (0: keep their size).

    met: remembers what was found, so that several calls agree. Raises UserError for an image that does not decode, and for different sizes.
    """
    met = Met() if met is None else met
    decoded = []
    for entry in entries:
        image = decode(entry, image_size, met)
        met.sizes.setdefault(image.shape, entry.name)
        if len({shape[:2] for shape in met.sizes}) > 1:
            (first, name), (second, other) = list(met.sizes.items())[:2]
            raise UserError(
                f"{entry.source}: {name} is {first[1]}x{first[0]}, {other} is {second[1]}x{second[0]}; "
                "give images of one size, or --image-size to resize them"
            )
        decoded.append(image)
    if len({image.shape[2] for image in decoded} | {shape[2] for shape in met.sizes}) > 1:  # grey and colour mixed
        decoded = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in decoded]
    return np.stack(decoded)


def _bits(image: Any, content: bytes) -> int:
    """Bits per channel. Pillow opens 16-bit colour as 8-bit colour, without a word."""
    if image.format == "PNG":
        return content[24]  # of the header, whose place is fixed
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))
    if image.format == "PPM" and image.mode.startswith(("I", "F")):
        return 16 if image.mode.startswith("I") else 32
    if image.format == "PPM":  # the last argument of its decoder is the largest value
        most = image.tile[0][3][-1] if image.tile and isinstance(image.tile[0][3], tuple) else 255
        return int(most).bit_length() if isinstance(most, int) else 8
    return 32 if image.mode.startswith(("I", "F")) else 8


def decode(entry: Entry, image_size: int, met: Met | None = None) -> Array:
    """One image, uint8 (H, W, C); C is 1 for grey, otherwise 3. Rotated according to its EXIF data; transparent parts become white.

    Raises UserError if it does not decode, has several frames or more than 8 bits per channel, or is invisible on white.
    """
    from PIL import Image

    met, content = Met() if met is None else met, b""
    try:
        content = entry.read()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as opened:
                if opened.format in ("JPEG2000", "AVIF"):  # whatever its name; Pillow opens more than 8 bits as 8, without a word
                    raise ValueError(f"it is {opened.format}, save it as png")
                if (bits := _bits(opened, content)) > 8:
                    raise ValueError(f"it has {bits} bits a channel, save it with 8")
                frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)  # a photograph followed by a preview
                if frames > 1:
                    raise ValueError(f"it has {frames} frames, save one of them")
                image = _on_ground(_upright(opened, entry.name, met), entry.name, met)
        if image_size and image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow raises many different exceptions for files that are not images
        reason = " ".join(str(error).split())[:120].replace(repr(content)[:20], "")
        raise UserError(f"{entry.source}: {entry.name} cannot be decoded ({reason}); replace or remove it") from None
    values = np.asarray(image, dtype=np.uint8)
    return values[..., None] if values.ndim == 2 else values


def _upright(image: Any, name: str, met: Met) -> Any:
    """The image as a viewer shows it: cameras store the sensor's rows and record the orientation of the camera."""
    from PIL import ExifTags, ImageOps

    if image.getexif().get(ExifTags.Base.Orientation, 1) not in range(2, 9):  # others mean nothing
        return image
    met.turned.append(name)
    return ImageOps.exif_transpose(image)


def _on_ground(image: Any, name: str, met: Met) -> Any:
    """Convert to grey or RGB, on the background where transparent. Raises ValueError if nothing is visible on the background."""
    from PIL import Image

    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    layered = image.convert("RGBA")
    alpha = np.asarray(layered)[..., 3]
    if (alpha == 255).all():
        return image.convert(mode) if image.mode != "LA" else layered.convert("L")
    if not alpha.any() and np.ptp(np.asarray(layered)[..., :3].reshape(-1, 3), axis=0).any():
        raise ValueError("its alpha is 0 everywhere, so nothing of it shows, save it without alpha")
    ground = Image.new("RGBA", layered.size, (*GROUND, 255))
    ground.alpha_composite(layered)
    flat = ground.convert(mode)
    if alpha.min() < alpha.max() and np.ptp(np.asarray(flat).reshape(-1)) == 0:
        raise ValueError("its drawing is white on a transparent ground, save it on a ground that shows it")
    met.transparent.append(name)
    return flat
