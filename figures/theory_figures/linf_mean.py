"""T3(a): the synthetic mean from which plain averaging learns the l_inf-robust optimum."""

from __future__ import annotations

from typing import Any

from command_line.drawing import COLOURS, DASHES, MARKERS, new_figure
from figures.figure import Figure, Numbers, points
from figures.inputs import Files

TABLE = "gaussian_mixture/linf_mean.csv"
FIGURE = Figure(
    "The optimal synthetic mean for an l_inf attack is not the real one",
    "Coordinates of the real class mean, sorted, and of the synthetic mean soft(μ, ε): averaging samples of the latter, without "
    "any attack in training, is as robust as adversarial training on real data (T3).",
    (TABLE,),
    "d = 24, σ = 1",
)
SERIES = {"real": "real mean μ", "eps_0.2": "soft(μ, ε), ε = 0.2", "eps_0.5": "soft(μ, ε), ε = 0.5"}


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"coordinate {' '.join(SERIES)}")
    return Numbers.of([row for name, label in SERIES.items() for row in points(0, label, data["coordinate"], data[name])])


def draw(numbers: Numbers) -> Any:
    figure, (axis,) = new_figure(1, 5.0)
    for i, series in numbers.all(0):
        if i == 0:
            axis.bar(series.x, series.y, color="0.87", edgecolor="0.5", lw=0.6, label=series.name)
            continue
        look = {"color": COLOURS[i - 1], "marker": MARKERS[i - 1], "ms": 4, "lw": 1, "ls": DASHES[i - 1]}
        axis.plot(series.x, series.y, label=series.name, **look)
    axis.set(xlabel="coordinate (sorted)", ylabel="mean (units of σ)")
    axis.set_title("l_inf: what averaging should be shown")
    axis.legend()
    return figure
