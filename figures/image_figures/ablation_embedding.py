"""What the embedding sees, and a projection head."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures.ablations import CAPTION, SETTINGS, TABLE, draw_gains, gain_rows, read_sweep
from figures.inputs import Files

FIGURE = Figure(
    "What the embedding sees",
    f"{CAPTION} Estimate: of the clean image; noisy state: as in the paper; head: a projection trained on the features.",
    (TABLE,),
    SETTINGS,
)
CHOICES = {
    "InfoNCE 0.3, estimate": ("loss", "infonce-0.3"),
    "InfoNCE 0.3, noisy state": ("input-xt", "infonce-0.3"),
    "InfoNCE 0.3, estimate, head of 128": ("head-128", "infonce-0.3"),
    "class-anchored 0.1, estimate": ("loss", "anchored-0.1"),
    "class-anchored 0.1, noisy state": ("input-xt", "anchored-0.1"),
}


def numbers(files: Files) -> Numbers:
    return Numbers.of(gain_rows(read_sweep(files), CHOICES))


def draw(numbers: Numbers) -> Any:
    return draw_gains(numbers, "What the embedding sees")
