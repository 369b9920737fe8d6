"""Every theoretical quantity against simulation."""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.figure import Figure
from figures.inputs import Files, where

TABLE = "gaussian_mixture/theory_vs_simulation.csv"
FIGURE = Figure(
    "Theory against simulation, quantity by quantity",
    "Comparisons of each quantity with a simulation, the mean of z = (simulation − theory)/standard error and the largest abs(z).",
    (TABLE,),
)
HEADER = ("quantity", "comparisons", "mean z", "largest abs(z)")


def rows(files: Files) -> list[list[Any]]:
    data = files.columns(TABLE, "z", text="quantity")
    found = []
    for quantity in dict.fromkeys(data["quantity"].tolist()):
        z = data["z"][where(data, quantity=quantity)]
        found.append([quantity, len(z), float(np.mean(z)), float(np.abs(z).max())])
    return found
