"""Which guidance rotates the classes, and what that costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from figures.diffusion_figures.settings import SETTING, SETTING_TEXT
from figures.figure import Figure, Numbers, points
from figures.inputs import Files

TABLE, CEILING = "guided_diffusion/rotation.csv", "guided_diffusion/ceiling.csv"
FIGURE = Figure(
    "Strong guidance without anchors rotates the classes when it sees the noisy state early",
    "A mark is a batch of 256 samples that saw one another. Left: alignment of what averaging learns with the real optimum, by "
    "the window of timesteps guided (0 is almost clean). Right: what this alignment allows at any sample size and class separation, "
    "by the formula of T3. Strengths differ: class SNRs are alike only in the windows that reach 1000.",
    (TABLE, CEILING),
    "two Gaussian classes in the plane, ‖μ‖ = 1, σ = 1, l_2 attack ε = 0.3; λ = 1 (noisy state), 0.01 (denoised estimate), 0.3 (anchored)",
)
NAMES = {
    ("supervised", "xt"): "unanchored, sees the noisy state",
    ("supervised", "x0"): "unanchored, sees the denoised estimate",
    ("anchored", "xt"): "anchored to real samples",
}
BOUND = "ceiling of T3"


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"{SETTING} alignment accuracy", text=SETTING_TEXT)
    bound = files.columns(CEILING, "alignment accuracy")
    chosen = np.array(["windows" in text.split() for text in data["designs"]])
    windows = sorted(set(zip(data["low"][chosen].tolist(), data["high"][chosen].tolist(), strict=True)))
    rows = []
    for i, ((guidance, at), name) in enumerate(NAMES.items()):
        family = chosen & (data["guidance"] == guidance) & (data["at"] == at)
        for j, (low, high) in enumerate(windows):
            of = family & (data["low"] == low) & (data["high"] == high)
            x = j + np.linspace(-0.1, 0.1, int(of.sum())) + 0.25 * (i - 1)
            rows += [(f"window {low:g}-{high:g}", name, *row[2:]) for row in points("", name, x, data["alignment"][of])]
        rows += points("ceiling", name, data["alignment"][family], data["accuracy"][family])
    return Numbers.of([*rows, *points("ceiling", BOUND, bound["alignment"], bound["accuracy"])] if len(windows) > 1 else [])


def draw(numbers: Numbers) -> Any:
    figure, (left, right) = new_figure(2, height=3.2)
    windows = [panel for panel in numbers.panels() if panel != "ceiling"]
    for i, name in enumerate(NAMES.values()):
        for j, window in enumerate(windows):
            series = numbers.series(window, name)
            left.plot(series.x, series.y, MARKERS[i], color=COLOURS[i], ms=1.8, label=name if j == 0 else None)
        series = numbers.series("ceiling", name)
        right.plot(series.x, series.y, MARKERS[i], color=COLOURS[i], ms=2.2, label=name)
    bound = numbers.series("ceiling", BOUND)
    right.plot(bound.x, bound.y, color="black", lw=1, label=BOUND)
    left.set_xticks(range(len(windows)), [window.removeprefix("window ").replace("-", "-\n") for window in windows], fontsize=7)
    left.set(xlabel="window of timesteps guided", ylabel="alignment (cosine)", title="Who rotates the classes?")
    right.set_xticks([-1, -0.5, 0, 0.5, 1])
    right.set(xlabel="alignment (cosine)", ylabel="robust accuracy", title="What is left: the ceiling of T3")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2)
    return figure
