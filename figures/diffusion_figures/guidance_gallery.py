"""What does each guidance do to samples?"""

from __future__ import annotations

from typing import Any

from command_line.drawing import new_grid
from command_line.words import guidance_in_words
from figures.diffusion_figures.clouds import cloud_rows, draw_cloud, reach_of
from figures.figure import Figure, Numbers, Row
from figures.inputs import Files, where

TABLE, SAMPLES, CLASSES = (f"guided_gallery/{name}.csv" for name in ("gallery", "gallery_samples", "gallery_classes"))
FIGURE = Figure(
    "What each guidance does to samples, at the same price",
    "Generated samples (small marks), their class means (large: X, +) and the real classes (rings at 1 and 2 standard deviations). Each "
    "strength is the one at which theory predicts a Wasserstein-2 distance of 0.5 from the real classes. In order of the class SNR that it "
    "predicts; measured values above the panels, predicted ones in brackets. A few outermost points lie outside the frame.",
    (TABLE, SAMPLES, CLASSES),
    "two classes in the plane, class SNR 1, exact score, DDIM, 50 steps; contrastive losses see the denoised estimate at t < 700",
)


def numbers(files: Files) -> Numbers:
    settings = files.columns(TABLE, "class_snr class_snr_predicted", text="label")
    data = files.columns(SAMPLES, "label x1 x2", text="name")
    real = files.columns(CLASSES, "class mean1 mean2 std1 std2")
    rows: list[Row] = []
    for label, measured, predicted in zip(*(settings[name] for name in ("label", "class_snr", "class_snr_predicted")), strict=True):
        inside = where(data, name=label)
        panel = f"{guidance_in_words(label.partition(' at ')[0])}\nclass SNR {measured:.2f} ({predicted:.2f})"
        rows += cloud_rows(panel, real, *(data[name][inside] for name in ("label", "x1", "x2")))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_grid(len(panels), 5, 9.5, 2.25)
    reach = reach_of(numbers)
    for axis, panel in zip(axes, panels, strict=True):
        draw_cloud(axis, numbers, panel, reach)
        axis.set_title(panel, fontsize=7)
    return figure
