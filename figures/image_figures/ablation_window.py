"""When to guide."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.words import window_in_words
from figures.figure import Figure, Numbers
from figures.image_figures.ablations import CAPTION, FIRST, SETTINGS, TABLE, draw_gains, gain_rows, read_sweep
from figures.inputs import Files

FIGURE = Figure(
    "When to guide: windows of timesteps",
    f"{CAPTION} Three seeds, not corrected for their number. InfoNCE at scale 0.3; 0 is almost clean.",
    (TABLE,),
    SETTINGS,
)


def numbers(files: Files) -> Numbers:
    data = read_sweep(files, "window_low", "window_high")
    guided = (data["method"] == "infonce-0.3") & np.array([run == FIRST or run.startswith("window-") for run in data["run"]])
    windows = zip(
        data["window_low"][guided].tolist(), data["window_high"][guided].tolist(), data["run"][guided].tolist(), strict=True
    )
    choices = {window_in_words(low, high): (run, "infonce-0.3") for low, high, run in sorted(set(windows))}
    return Numbers.of(gain_rows(data, choices))


def draw(numbers: Numbers) -> Any:
    return draw_gains(numbers, "InfoNCE: window of timesteps")
