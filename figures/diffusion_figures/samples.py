"""Generated samples in the plane, before and after guidance, over the real classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from figures.figure import Figure, Numbers, points
from figures.inputs import Files, where
from figures.words import guidance_in_words

TABLE, CLASSES = "guided_diffusion/samples.csv", "guided_diffusion/classes.csv"
FIGURE = Figure(
    "Samples in the plane, without and with guidance",
    "Generated samples (small marks), their class means (large: X, +) and the real classes (ellipses at 1 and 2 standard deviations)."
    " Guidance moves the classes apart; a loss without anchors that sees the noisy state also rotates them.",
    (TABLE, CLASSES),
    "DDIM, 50 steps, exact score, samples of the first seed",
)
TURN = np.linspace(0, 2 * np.pi, 61)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "label x1 x2", text="name problem")
    real = files.columns(CLASSES, "class mean1 mean2 std1 std2", text="problem")
    rows = []
    for panel in dict.fromkeys(data["name"].tolist()):
        inside = where(data, name=panel)
        shown = np.flatnonzero(where(real, problem=data["problem"][inside][0]))
        for j in shown:
            k = int(real["class"][j])
            for reach in (1, 2):
                x, y = (real[f"mean{i}"][j] + reach * real[f"std{i}"][j] * f(TURN) for i, f in ((1, np.cos), (2, np.sin)))
                rows += points(panel, f"class {k}, real, {reach} σ", x, y)
            members = inside & (data["label"] == k)
            rows += points(panel, f"class {k}", data["x1"][members], data["x2"][members])
            rows.append((panel, f"class {k}, mean", float(data["x1"][members].mean()), float(data["x2"][members].mean())))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), max(1.9 * len(panels), 3.5), 2.2)
    cloud = np.abs(np.concatenate([numbers.columns["x"], numbers.columns["y"]]))
    reach = 1.02 * float(np.quantile(cloud, 0.999))
    for axis, panel in zip(axes, panels, strict=True):
        for i, series in enumerate(s for _, s in numbers.all(panel) if "," not in s.name):
            colour = COLOURS[i % 6]
            for level in (1, 2):
                ring = numbers.series(panel, f"{series.name}, real, {level} σ")
                axis.plot(ring.x, ring.y, color=colour, lw=0.8)
            axis.plot(series.x, series.y, MARKERS[i % 6], color=colour, ms=2, alpha=0.5, mew=0)
            centre = numbers.series(panel, f"{series.name}, mean")
            axis.plot(centre.x, centre.y, "XP"[i % 2], color=colour, ms=7, mec="black")
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.set_title(two_lines(panel), fontsize=7)
    return figure


def two_lines(name: str) -> str:
    """The title of a panel, in words: "class-anchored,\nnoisy state, λ = 0.3"."""
    label, comma, scale = name.partition(", λ")
    words = guidance_in_words(label) + comma + scale
    return words.replace(", ", ",\n", 1) if ", " in words else f"{words}\n"
