"""T3(b): a synthetic mean at an angle to the real one limits the robust accuracy to a ceiling."""

from __future__ import annotations

from typing import Any

from command_line.drawing import new_figure
from figures.figure import Figure, Numbers, guide, line, points
from figures.inputs import Files

TABLE = "gaussian_mixture/ceiling.csv"
FIGURE = Figure(
    "Rotated synthetic classes have a ceiling",
    "Mean robust accuracy of averaging synthetic samples whose class mean is rotated against the real one. With more samples, or classes "
    "further apart, it tends to the blue line, Φ((‖μ‖ cos(angle) − ε)/σ) (T3), and rises no higher while that is above one half. Far "
    "below one half, here near 90°, few samples do a little better.",
    (TABLE,),
    "d = 20, ‖μ‖ = 2, σ = 1, l_2 attack ε = 0.5, c = 1",
)
SERIES = {"ceiling": "n = ∞: the ceiling", "n30": "n = 30", "n5": "n = 5"}


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"angle_degrees {' '.join(SERIES)}")
    return Numbers.of([row for name, label in SERIES.items() for row in points(0, label, data["angle_degrees"], data[name])])


def draw(numbers: Numbers) -> Any:
    figure, (axis,) = new_figure(1)
    for i, series in numbers.all(0):
        line(axis, i, series, series.name, lw=2.2 if i == 0 else 1.3)
    guide(axis, 0.5, "guessing")
    axis.set(xlabel="angle between synthetic and real mean (degrees)", ylabel=r"mean robust accuracy (l_2, $\varepsilon$ = 0.5)")
    axis.set_title("A rotated mean has a ceiling")
    axis.legend()
    return figure
