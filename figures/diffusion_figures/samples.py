"""Generated samples in the plane, before and after guidance, over the real classes."""

from __future__ import annotations

from typing import Any

from command_line.drawing import new_figure
from command_line.words import guidance_in_words
from figures.diffusion_figures.clouds import cloud_rows, draw_cloud, reach_of
from figures.figure import Figure, Numbers, Row
from figures.inputs import Files, where

TABLE, CLASSES = "guided_diffusion/samples.csv", "guided_diffusion/classes.csv"
FIGURE = Figure(
    "Samples in the plane, without and with guidance",
    "Generated samples (small marks), their class means (large: X, +) and the real classes (rings at 1 and 2 standard deviations). "
    "A few outermost points lie outside the frame. Losses with anchors, or at low noise, "
    "move the classes apart, InfoNCE "
    "spreads them, and a loss without anchors that sees the noisy state rotates them.",
    (TABLE, CLASSES),
    "DDIM, 50 steps, exact score, samples of the first seed",
)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "label x1 x2", text="name problem")
    real = files.columns(CLASSES, "class mean1 mean2 std1 std2", text="problem")
    rows: list[Row] = []
    for panel in dict.fromkeys(data["name"].tolist()):
        inside = where(data, name=panel)
        shown = where(real, problem=data["problem"][inside][0])
        classes = {name: column[shown] for name, column in real.items()}
        rows += cloud_rows(panel, classes, *(data[name][inside] for name in ("label", "x1", "x2")))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), max(1.9 * len(panels), 3.5), 2.2)
    for axis, panel in zip(axes, panels, strict=True):
        draw_cloud(axis, numbers, panel, reach_of(numbers))
        axis.set_title(two_lines(panel), fontsize=7)
    return figure


def two_lines(name: str) -> str:
    """The title of a panel, in words: "class-anchored,\nnoisy state, λ = 0.3"."""
    label, comma, scale = name.partition(", λ")
    words = guidance_in_words(label) + comma + scale
    return words.replace(", ", ",\n", 1) if ", " in words else f"{words}\n"
