"""Sample grids of real images and of every method, one row per class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from command_line.drawing import new_grid
from command_line.output import UserError
from command_line.words import in_words
from figures.figure import Figure, Numbers, Row
from figures.inputs import Files, remedy


def titles(*methods: str) -> dict[str, str]:
    """{method: title of its grid}."""
    return {method: "real" if method == "real" else in_words(method) for method in methods}


METHODS = titles("real", "unguided", "noise-0.1", "particle-auto", "infonce-0.3", "anchored-0.3")

DIGITS = tuple("0123456789")
WIDTH, TITLE, LETTER = 7.2, 0.3, 0.055
"""In inches: width of the figure, height of a title, width of a letter of the rows' names."""


def mosaics(folder: str, methods: Iterable[str]) -> tuple[str, ...]:
    """The files with the sample grids of an image run."""
    return tuple(f"{folder}/mosaics/{method}.png" for method in methods)


FIGURE = Figure(
    "Samples of every method",
    "Eight images of each class, a row a class: real digits, and what the same diffusion model makes without guidance, with noise"
    " added, and with guidance that spreads samples out (particle, InfoNCE) or separates the classes (class-anchored).",
    mosaics("digits-cpu", METHODS),
    "scikit-learn's digits, 8x8 pixels, DDIM 25 steps, guided for t < 700 (particle, auto: t < 400) at the denoised estimate, first seed",
)


def numbers(files: Files) -> Numbers:
    return numbers_of(dict(zip(METHODS.values(), FIGURE.inputs, strict=True)), files)


def numbers_of(grids: dict[str, str], files: Files) -> Numbers:
    """{title: PNG}: one series per pixel row, x is the column, y the grey value 0 .. 255 or, for colour, 65536 red + 256 green + blue."""
    rows: list[Row] = []
    for title, name in grids.items():
        path = files.path(name)
        try:
            with Image.open(path) as image:
                if image.mode not in ("L", "RGB"):
                    raise ValueError(f"mode {image.mode}, neither grey nor colour")
                pixels = np.asarray(image, dtype=np.int64)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path}: is not a whole PNG of pixels ({error}); {remedy(name)}") from None
        kind = "grey" if pixels.ndim == 2 else "colour"
        values = pixels if pixels.ndim == 2 else pixels @ [65536, 256, 1]
        rows += [(title, f"{kind} {r}", float(x), float(v)) for r, row in enumerate(values) for x, v in enumerate(row)]
    return Numbers.of(rows)


def draw(numbers: Numbers, classes: Sequence[str] = DIGITS) -> Any:
    """classes: names of the rows."""
    panels = numbers.panels()
    sheets = [_pixels(numbers, panel) for panel in panels]
    columns = 3 if len(panels) % 3 == 0 else 2  # large enough to recognise them
    rows, wide = sheets[0].shape[:2]
    side = (WIDTH - LETTER * max(map(len, classes))) / columns
    figure, axes = new_grid(len(panels), columns, WIDTH, side * rows / wide + TITLE)
    for i, (axis, panel, pixels) in enumerate(zip(axes, panels, sheets, strict=True)):
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(panel)
        if i % columns == 0:
            row = len(pixels) / len(classes)
            axis.set_yticks([row * (k + 0.5) - 0.5 for k in range(len(classes))], classes, fontsize=7)
            axis.tick_params(length=0)
            axis.set_xticks([])
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
        else:
            axis.set_axis_off()
    return figure


def _pixels(numbers: Numbers, panel: str) -> Any:
    """(rows, columns) grey values, or (rows, columns, 3) colours."""
    of = numbers.columns["panel"] == panel
    pixels = numbers.columns["y"][of].astype(np.int64).reshape(-1, int(numbers.columns["x"][of].max()) + 1)
    if not numbers.names(panel)[0].startswith("colour"):
        return pixels
    return np.stack([pixels >> 16, pixels >> 8 & 255, pixels & 255], axis=-1)
