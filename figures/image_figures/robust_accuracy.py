"""Robust accuracy of every method and seed, under AutoAttack."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from command_line.words import attack_in_words, in_words
from figures.figure import Figure, Numbers
from figures.inputs import Files, where

TABLE = "digits-cpu/details.csv"
FIGURE = Figure(
    "Robust accuracy with real, unguided and guided synthetic images",
    "Robust accuracy of classifiers trained adversarially on 300 real digits and 2,000 synthetic ones, under PGD on all test "
    "images and under AutoAttack on the first 200. Circles are seeds, bars their mean; both panels have one scale.",
    (TABLE,),
    "scikit-learn's digits, l_inf attack eps 0.15",
)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "seed robust_accuracy eps images", text="method attack norm")
    rows = []
    for attack, norm, eps in dict.fromkeys(zip(data["attack"].tolist(), data["norm"].tolist(), data["eps"].tolist(), strict=True)):
        for i, method in enumerate(dict.fromkeys(data["method"].tolist())):
            values = data["robust_accuracy"][where(data, attack=attack, norm=norm, eps=eps, method=method)]
            images = int(data["images"][where(data, attack=attack, norm=norm, eps=eps)][0])
            panel = f"{attack_in_words(attack, norm, eps)}, {images:,} images"
            name = in_words(method)
            rows += [(panel, name, float(v), float(i)) for v in values]
            rows.append((panel, f"{name}, mean", float(np.mean(values)), float(i)))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    names = [name for name in numbers.names(panels[0]) if not name.endswith(", mean")]
    figure, axes = new_figure(len(panels), height=0.9 + 0.3 * len(names), one_scale=True)
    for axis, panel in zip(axes, panels, strict=True):
        for name in names:
            seeds, mean = numbers.series(panel, name), numbers.series(panel, f"{name}, mean")
            axis.plot(seeds.x, seeds.y, MARKERS[0], color=COLOURS[0], ms=4, alpha=0.7)
            axis.plot(mean.x, mean.y, "|", color="0.15", ms=16, mew=2)
        axis.set_yticks(range(len(names)), names if axis is axes[0] else [""] * len(names))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set(xlabel="robust accuracy", title=panel)
    return figure
