"""T4: exact robust accuracy against the number of synthetic samples, and its collapse onto one curve in kappa."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import new_figure
from figures.figure import Figure, Numbers, band, guide, line, marks, points
from figures.inputs import Files, where

TABLE = "gaussian_mixture/accuracy_against_n.csv"
FIGURE = Figure(
    "Robust accuracy against the number of synthetic samples: one curve in κ",
    "Left: exact mean robust accuracy of averaging n synthetic samples whose classes are c times as far apart as the real ones, "
    "with its 5-95 % band; marks are simulations (± 2 standard errors). Right: the same against κ = c‖μ‖√n/σ̃. It is one curve: "
    "classes twice as distinguishable are worth exactly four times the samples (T4).",
    (TABLE,),
    "d = 20, ‖μ‖ = 2, σ = 1, l_2 attack ε = 0.5",
)


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "separation n kappa mean q05 q95 ceiling simulation standard_error")
    rows = []
    for c in np.unique(data["separation"]):
        of = {name: values[where(data, separation=c)] for name, values in data.items()}
        seen, reach = np.isfinite(of["simulation"]), 2 * of["standard_error"]
        for panel, x in ((0, of["n"]), (1, of["kappa"])):
            ends = (of["q05"], of["q95"]) if panel == 0 else (None, None)
            rows += points(panel, f"c = {c:g}", x, of["mean"], *ends)
            low, high = (of["simulation"] + sign * reach for sign in (-1, 1))
            rows += points(panel, f"c = {c:g}, simulation", x[seen], of["simulation"][seen], low[seen], high[seen])
    rows += [(panel, "ceiling", float(data["n"].max()), float(data["ceiling"][0])) for panel in (0, 1)]
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2)
    for panel, axis in enumerate(axes):
        names = [name for name in numbers.names(panel) if name.startswith("c =") and "simulation" not in name]
        for i, name in enumerate(names):
            exact = numbers.series(panel, name)
            line(axis, i, exact, name)
            marks(axis, i, numbers.series(panel, f"{name}, simulation"))
            if panel == 0:
                band(axis, i, exact)
        guide(axis, float(numbers.series(panel, "ceiling").y[0]), "ceiling", ls=":")
        axis.set(xscale="log", ylabel=r"robust accuracy (l_2, $\varepsilon$ = 0.5)")
    axes[0].set(xlabel="synthetic samples n", title="Exact mean, 5-95 % band, simulation")
    axes[0].legend(title="class separation", loc="lower right")
    axes[1].set(xlabel=r"$\kappa = c\,\|\mu\|\sqrt{n}\,/\,\tilde\sigma$", title="Against κ: one curve")
    return figure
