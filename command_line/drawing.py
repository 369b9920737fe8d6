"""What every picture shares: style, reading of csv files, bytes that depend on the numbers alone.

Pictures are drawn from csv files. Colours are safe for colour-blind readers; each also has its own marker or dash.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from command_line.output import write_whole

Columns = dict[str, np.ndarray[Any, Any]]
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")  # Okabe and Ito (2008), without its pale yellow


def draw(folder: Path, pictures: dict[str, Callable[[Path], Any]]) -> list[Path]:
    """Draw each picture from the csv files in `folder` to NAME.png there; returns the paths."""
    written = []
    for name, drawing in pictures.items():
        with mpl.rc_context(STYLE):
            figure = drawing(folder)
            # no creation date or version in the file: the same numbers give the same bytes
            written.append(write_whole(folder / f"{name}.png", partial(figure.savefig, dpi=150, metadata={"Software": None})))
        plt.close(figure)
    return written


def read_columns(path: Path) -> Columns:
    """Columns of a csv file; numbers where every cell is one."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns: Columns = {}
    for name in rows[0] if rows else ():
        cells = [row[name] for row in rows]
        try:
            columns[name] = np.array([float(cell) for cell in cells])
        except ValueError:
            columns[name] = np.array(cells)
    return columns


def new_figure(panels: int, width: float = 0.0, height: float = 3.6) -> tuple[Any, Any]:
    figure, axes = plt.subplots(1, panels, figsize=(width or 4.6 * panels, height), layout="constrained", squeeze=False)
    return figure, axes[0]


def style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "linestyle": DASHES[i]}


def marks(axis: Any, i: int, x: Any, y: Any, error: Any, label: str | None = None) -> None:
    axis.errorbar(x, y, 2 * error, fmt=MARKERS[i], color=COLOURS[i], ms=5, capsize=2, label=label)
