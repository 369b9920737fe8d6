"""A figure: numbers from result files, written next to it, and a drawing made only from those numbers.

A module in figures/SECTION_figures defines FIGURE, numbers(files) and draw(numbers); its name is the figure's name. The numbers are rows of
(panel, series, x, y, low, high), see `Numbers`, so that the drawing can be checked against the written file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ticker

from command_line.drawing import COLOURS, DASHES, DPI, Columns, shape, style, styled
from command_line.output import UserError, write_csv, write_whole
from figures.inputs import Files, remedy
from figures.phone import write_for_phone

HEADER = ("panel", "series", "x", "y", "low", "high")
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Figure:
    """title: what it shows, in one line. caption: how to read it. inputs: result files, EXPERIMENT/FILE. settings: in words."""

    title: str
    caption: str
    inputs: tuple[str, ...]
    settings: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one series, in order; low and high are the ends of an interval around y, nan if there is none."""

    name: str
    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    low: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Numbers:
    """All numbers of a figure: columns panel, series, x, y, low, high."""

    columns: Columns

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Numbers:
        """From rows (panel, series, x, y) or (panel, series, x, y, low, high)."""
        whole = [row if len(row) == len(HEADER) else (*row, math.nan, math.nan) for row in rows]
        columns: list[Any] = list(zip(*whole, strict=True)) or [()] * len(HEADER)
        columns[0] = [str(panel) for panel in columns[0]]
        kinds = (str, str, float, float, float, float)
        return cls({name: np.array(values, dtype=kind) for name, values, kind in zip(HEADER, columns, kinds, strict=True)})

    def rows(self) -> list[Row]:
        return list(zip(*(self.columns[name].tolist() for name in HEADER), strict=True))

    def panels(self) -> list[str]:
        """The panels in order: their numbers or titles, as text."""
        return list(dict.fromkeys(self.columns["panel"].tolist()))

    def names(self, panel: int | str) -> list[str]:
        """Series of a panel, in order."""
        return list(dict.fromkeys(self.columns["series"][self.columns["panel"] == str(panel)].tolist()))

    def series(self, panel: int | str, name: str) -> Series:
        """The series of this name; empty if there is none."""
        rows = (self.columns["panel"] == str(panel)) & (self.columns["series"] == name)
        return Series(name, *(self.columns[column][rows] for column in HEADER[2:]))

    def all(self, panel: int | str) -> Iterator[tuple[int, Series]]:
        """The series of a panel, numbered."""
        for i, name in enumerate(self.names(panel)):
            yield i, self.series(panel, name)


def points(panel: int | str, name: str, x: Any, y: Any, low: Any = None, high: Any = None) -> list[Row]:
    """Rows of one series."""
    nothing = np.full(len(x), math.nan)
    low, high = (nothing if value is None else value for value in (low, high))
    return [(panel, name, *map(float, row)) for row in zip(x, y, low, high, strict=True)]


# Drawing of series. Anything that is not a series (a diagonal, a reference level) is drawn by guide_* and has GUIDE as its id.

GUIDE = "guide"


def line(axis: Any, i: int, series: Series, label: str | None = None, **look: Any) -> None:
    axis.plot(series.x, series.y, label=label, **{**style(i % 6), **look})


def joined(axis: Any, i: int, series: Series, label: str | None = None, **look: Any) -> None:
    """Draw the marks of the i-th series, joined by its line."""
    axis.plot(series.x, series.y, label=label, **{**shape(i), "ms": 3.5, "ls": DASHES[i % 6], **look})


def band(axis: Any, i: int, series: Series) -> None:
    axis.fill_between(series.x, series.low, series.high, color=COLOURS[i % 6], alpha=0.18, lw=0)


def marks(axis: Any, i: int, series: Series, label: str | None = None, **look: Any) -> None:
    """Draw the marks of the i-th series with their intervals."""
    ends = np.abs(np.stack([series.y - series.low, series.high - series.y]))
    error = None if np.isnan(ends).all() else np.nan_to_num(ends)
    axis.errorbar(series.x, series.y, error, label=label, **{**shape(i), "ms": 5, "capsize": 2, **look})


def guide(axis: Any, level: float, text: str = "", x: float = 0.01, **look: Any) -> None:
    """Draw a horizontal reference line, with a label at its left end (x: fraction of the width)."""
    axis.axhline(level, gid=GUIDE, **{"color": "0.4", "lw": 0.9, **look})
    if text:
        axis.annotate(
            text, (x, level), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points", color="0.3", fontsize=8
        )


def diagonal(axis: Any, low: float, high: float, label: str | None = None) -> None:
    axis.plot([low, high], [low, high], color="0.4", lw=1, gid=GUIDE, label=label)


def ticks(axis: Any, which: str, values: Sequence[float]) -> None:
    """Show only these ticks, as plain numbers, for example on a logarithmic axis."""
    one = axis.xaxis if which == "x" else axis.yaxis
    one.set_ticks(list(values), [f"{value:,g}" for value in values])
    one.set_minor_locator(ticker.NullLocator())


def write_figure(name: str, drawing: Any, folder: Path, pdf: bool = True) -> list[Path]:
    """Write NAME.png and NAME.pdf, without date or version, so that the same numbers give the same bytes."""
    written = [write_whole(folder / f"{name}.png", partial(drawing.savefig, dpi=DPI, metadata={"Software": None}))]
    if pdf:
        bare = {"CreationDate": None, "Creator": None, "Producer": None}
        written.append(write_whole(folder / f"{name}.pdf", partial(drawing.savefig, metadata=bare)))
    return written


def make_figure(module: Any, name: str, files: Files, folder: Path) -> list[Path]:
    """Write the numbers from result files to NAME.csv, and draw NAME.png and NAME.pdf from that, and phone/NAME.png if it is wide.

    Raises UserError.
    """
    numbers: Numbers = module.numbers(files)
    if not np.isfinite(numbers.columns["y"]).any():
        raise UserError(
            f"{' and '.join(module.FIGURE.inputs)}: no row holds what this figure shows; {remedy(module.FIGURE.inputs[0])}"
        )
    written = [write_csv(folder / f"{name}.csv", HEADER, numbers.rows())]
    with styled():
        drawing = module.draw(numbers)
        written += write_figure(name, drawing, folder)
        return written + write_for_phone(name, drawing, partial(module.draw, numbers), folder)
