"""Which unguided images to keep."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures.ablations import CAPTION, SETTINGS, TABLE, draw_gains, gain_rows, read_sweep
from figures.inputs import Files

FIGURE = Figure(
    "Which images to keep",
    f"{CAPTION} The best half per class, by an encoder score, of twice as many unguided images; InfoNCE guidance for comparison.",
    (TABLE,),
    SETTINGS,
)
CHOICES = {
    "most confident": ("select-confidence", "unguided"),
    "highest entropy": ("select-entropy-highest", "unguided"),
    "best separated": ("select-class-separation", "unguided"),
    "furthest from real images": ("select-density-lowest", "unguided"),
    "no selection, InfoNCE 0.3": ("loss", "infonce-0.3"),
}


def numbers(files: Files) -> Numbers:
    return Numbers.of(gain_rows(read_sweep(files), CHOICES))


def draw(numbers: Numbers) -> Any:
    return draw_gains(numbers, "Selection of unguided images")
