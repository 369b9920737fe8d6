"""When to guide."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure, Numbers
from figures.image_figures.ablations import CAPTION, SETTINGS, TABLE, draw_gains, gain_rows, read_sweep
from figures.inputs import Files

FIGURE = Figure("When to guide: windows of timesteps", f"{CAPTION} InfoNCE at scale 0.3; 0 is almost clean.", (TABLE,), SETTINGS)
WINDOWS = {
    "0-200": "window-0-200",
    "0-400": "window-0-400",
    "0-700": "loss",
    "0-1000": "window-0-1000",
    "400-1000": "window-400-1000",
}


def numbers(files: Files) -> Numbers:
    choices = {f"guided at {window}": (run, "infonce-0.3") for window, run in WINDOWS.items()}
    return Numbers.of(gain_rows(read_sweep(files), choices))


def draw(numbers: Numbers) -> Any:
    return draw_gains(numbers, "InfoNCE: window of timesteps")
