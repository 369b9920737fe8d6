"""Sample grids: real images and those of every method, rows are classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from command_line.drawing import new_figure
from command_line.output import UserError
from figures.figure import Figure, Numbers
from figures.inputs import Files, remedy

METHODS = {
    "real": "real",
    "unguided": "unguided",
    "noise-0.1": "unguided with noise .1",
    "infonce-0.3": "InfoNCE, .3",
    "anchored-0.3": "class-anchored, .3",
}
FIGURE = Figure(
    "Samples of every method",
    "Eight images of each class, a row a class: real digits, and what the same diffusion model makes without guidance, with noise"
    " added, and with guidance that spreads samples out (InfoNCE) or separates the classes (class-anchored).",
    tuple(f"digits-cpu/mosaics/{method}.png" for method in METHODS),
    "scikit-learn's digits, 8x8 pixels, DDIM 25 steps, guided for t < 700 at the denoised estimate, samples of the first seed",
)


def numbers(files: Files) -> Numbers:
    """A series a row of pixels: x the column, y the grey value 0 .. 255; of coloured images a series a row and channel."""
    rows = []
    for name, title in zip(FIGURE.inputs, METHODS.values(), strict=True):
        path = files.path(name)
        try:
            with Image.open(path) as image:
                if image.mode not in ("L", "RGB"):
                    raise ValueError(f"mode {image.mode}, neither grey nor colour")
                pixels = np.asarray(image).reshape(image.height, image.width, -1)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path}: is not a whole PNG of pixels ({error}); {remedy(name)}") from None
        for r, c in np.ndindex(pixels.shape[0], pixels.shape[2]):
            rows += [(title, f"row {r} channel {c}", float(x), float(v)) for x, v in enumerate(pixels[r, :, c])]
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), 7.0, 2.3)
    for axis, panel in zip(axes, panels, strict=True):
        of = numbers.columns["panel"] == panel
        rows, width = len(numbers.names(panel)), int(numbers.columns["x"][of].max()) + 1
        channels = len({name.split()[-1] for name in numbers.names(panel)})
        pixels = numbers.columns["y"][of].reshape(rows // channels, channels, width).transpose(0, 2, 1)
        axis.imshow(pixels[..., 0] if channels == 1 else pixels / 255, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(panel)
        axis.set_axis_off()
    return figure
