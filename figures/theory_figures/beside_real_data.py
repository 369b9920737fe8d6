"""T12, T13: how far apart synthetic classes should be when added to real data, and for more than two classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from figures.figure import Figure, Numbers, guide, line, points, ticks
from figures.inputs import Files, where

TABLE, CLASSES = "gaussian_mixture/beside_real_data.csv", "gaussian_mixture/multiclass.csv"
FIGURE = Figure(
    "Synthetic data should compensate for the real data",
    "Left: the synthetic class SNR at which logistic regression on real and synthetic samples together learns fastest, against the real "
    "class SNR, for shares of synthetic samples; grey: the optimum for synthetic data alone, and (rising) synthetic as separated as "
    "real (T12). Right: relative sample need of softmax regression for K classes "
    "against half the distance of two class means over σ; large marks are optima (T13).",
    (TABLE, CLASSES),
    "isotropic classes, n/d large",
)
BEST, ALONE = ", optimum", "synthetic data alone"


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "share training_eps_over_sigma real_snr best_synthetic_snr")
    rows = []
    for share, eps in dict.fromkeys(zip(data["share"].tolist(), data["training_eps_over_sigma"].tolist(), strict=True)):
        of = where(data, share=share, training_eps_over_sigma=eps)
        name = f"{share:.0%} synthetic" + (f", adversarial, ε/σ = {eps:g}" if eps else "")
        rows += points("beside real data", name, data["real_snr"][of], data["best_synthetic_snr"][of])
    many = files.columns(CLASSES, "classes half_distance variance optimal_half_distance")
    for classes in np.unique(many["classes"]):
        of = where(many, classes=classes)
        x, y, best = many["half_distance"][of], many["variance"][of], float(many["optimal_half_distance"][of][0])
        rows += points("classes", f"{classes:g} classes", x, y)
        rows.append(("classes", f"{classes:g} classes{BEST}", best, float(np.exp(np.interp(np.log(best), np.log(x), np.log(y))))))
    alone = float(many["optimal_half_distance"][many["classes"] == 2][0])  # synthetic data only: T13 with two classes
    return Numbers.of([*rows, ("beside real data", ALONE, 0.0, alone)])


def draw(numbers: Numbers) -> Any:
    figure, (left, right) = new_figure(2, height=3.5)
    for i, name in enumerate(name for name in numbers.names("beside real data") if name != ALONE):
        line(left, i, numbers.series("beside real data", name), name, marker=MARKERS[i], ms=3)
    guide(left, float(numbers.series("beside real data", ALONE).y[0]), label=ALONE)
    left.axline((1, 1), slope=1, color="0.7", lw=1, gid="guide", label="as far apart as the real ones")
    left.set(xlim=(0.5, 5.1), ylim=(0.6, 2.5), xlabel="class SNR of the real samples", ylabel="best class SNR of synthetic ones")
    left.set_title("Beside real data")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=7)
    for i, name in enumerate(name for name in numbers.names("classes") if not name.endswith(BEST)):
        line(right, i, numbers.series("classes", name), name)
        best = numbers.series("classes", name + BEST)
        right.plot(best.x, best.y, MARKERS[i], color=COLOURS[i], ms=7, mec="black")
    right.set(xscale="log", yscale="log", xlabel="half distance of two classes over σ", ylabel="relative sample need V")
    ticks(right, "x", (0.5, 1, 2))
    ticks(right, "y", (2, 5, 10, 20))
    right.set_title("More classes")
    right.legend()
    return figure
