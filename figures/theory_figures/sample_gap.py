"""T6: number of samples for standard and for robust accuracy, against the dimension."""

from __future__ import annotations

from typing import Any

from command_line.drawing import MARKERS, new_figure
from figures.figure import Figure, Numbers, line, points
from figures.inputs import Files

TABLE = "gaussian_mixture/sample_gap.csv"
FIGURE = Figure(
    "The robust sample gap, and what separation saves",
    "Samples that averaging needs for a mean accuracy of 0.8 in the model of Schmidt et al. (2018): without attack, under an "
    "l_inf attack, and under that attack with synthetic classes twice as far apart. The last line shows the order of Carmon et "
    "al. (2019), not a count (T6).",
    (TABLE,),
    "n0 = 5, ‖μ‖² = d, σ = (n0 d)^(1/4), ε = 0.25",
)
SERIES = {
    "standard_samples": "no attack",
    "robust_samples": "l_inf, ε = 0.25",
    "robust_samples_separation_2": "l_inf, classes 2x apart",
    "carmon_order": r"$4\varepsilon^2\sqrt{d n_0}$, order only",
}


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, f"dim {' '.join(SERIES)}")
    return Numbers.of([row for name in SERIES for row in points(0, name, data["dim"], data[name])])


def draw(numbers: Numbers) -> Any:
    figure, (axis,) = new_figure(1)
    for i, series in numbers.all(0):
        marker = {} if series.name == "carmon_order" else {"marker": MARKERS[i], "ms": 3.5}
        line(axis, i, series, SERIES[series.name], **marker)
    axis.set(xscale="log", yscale="log", xlabel="dimension d", ylabel="samples for mean accuracy 0.8")
    axis.set_title("The robust sample gap")
    axis.legend()
    return figure
