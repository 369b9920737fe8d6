"""Shared by all pictures: one style, reading of csv files, and output bytes that depend only on the numbers.

Pictures are drawn from csv files. Colours are safe for colour-blind readers; each also has its own marker or dash.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from command_line.output import UserError, write_whole

Columns = dict[str, np.ndarray[Any, Any]]
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")  # Okabe and Ito (2008), without its pale yellow


PANEL_WIDTH = 3.5
"""In inches: one column of a two-column paper, so that fonts appear at the size they are drawn."""
DPI = 200
PHONE_WIDTH = 3.7
"""In inches: letters of 7 points are 9 pixels high on a phone."""
SQUEEZED = 1.1
"""Panels side by side may be narrower than they were drawn by this factor."""
FITS_PHONE = 4.0
"""In inches: drawings up to this width are shown on phones as they are."""
_for_phone = ContextVar("for_phone", default=False)


@contextmanager
def for_phone() -> Iterator[None]:
    """Context in which panels stand one below the other where they would not fit side by side on a phone."""
    token = _for_phone.set(True)
    try:
        yield
    finally:
        _for_phone.reset(token)


def is_for_phone() -> bool:
    """Whether a phone's picture is drawn."""
    return _for_phone.get()


@functools.cache
def theme() -> dict[str, Any]:
    """The style of every picture: seaborn's white grid in its paper size, with fonts that come with matplotlib."""
    import seaborn

    ours = {"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "0.3", "grid.color": "0.88"}
    ours |= {
        "xtick.bottom": True,
        "ytick.left": True,
        "font.family": "DejaVu Sans",
        "image.cmap": "gray",
        "axes.titleweight": "bold",
    }
    small = {"xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 0, "ytick.minor.size": 0, "grid.linewidth": 0.6}
    context = seaborn.plotting_context("paper", font_scale=0.85, rc={"axes.linewidth": 0.8, **small})
    return {
        **seaborn.axes_style("whitegrid", rc=ours),
        **context,
        "pdf.fonttype": 42,
        "legend.frameon": True,
        "legend.framealpha": 0.8,
    }


@contextmanager
def styled() -> Iterator[None]:
    """Context in which pictures have the project's style, whatever the user's matplotlibrc."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(theme())  # type: ignore[arg-type]
        yield


def draw(folder: Path, pictures: dict[str, Callable[[Path], Any]]) -> list[Path]:
    """Draw each picture from the csv files in `folder` to NAME.png there; returns the paths."""
    written = []
    for name, drawing in pictures.items():
        with styled():
            figure = drawing(folder)
            # no creation date or version in the file, so that the same numbers give the same bytes
            written.append(write_whole(folder / f"{name}.png", partial(figure.savefig, dpi=DPI, metadata={"Software": None})))
    return written


def read_columns(path: Path, text: Collection[str] = ()) -> Columns:
    """Columns of a csv file, as numbers if every cell is a number. text: columns that stay text, also where they look like numbers.

    Raises UserError for a file that is no such table, and for a row that is cut off.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no table in utf-8 ({error}); make it anew") from None
    bad = next((line for line, row in enumerate(rows, 2) if None in row or None in row.values()), None)
    if bad:
        raise UserError(f"{path}: line {bad}: has not one cell per column; the file is damaged, make it anew")
    columns: Columns = {}
    for name in rows[0] if rows else ():
        cells = [row[name] for row in rows]
        try:
            columns[name] = np.array(cells if name in text else [float(cell) for cell in cells])
        except ValueError:
            columns[name] = np.array(cells)
    return columns


def new_figure(panels: int, width: float = 0.0, height: float = 2.8, one_scale: bool = False) -> tuple[Any, Any]:
    """(figure, its axes side by side). width, height: in inches (0: one column per panel). one_scale: they share the x axis."""
    return _grid(panels, panels, width or PANEL_WIDTH * panels, [height], one_scale)


def new_grid(panels: int, columns: int, width: float, height: float | Sequence[float]) -> tuple[Any, Any]:
    """(figure, its axes in rows of so many columns). width: of the figure; height: of a row, or of each."""
    heights = [height] if isinstance(height, float | int) else list(height)
    return _grid(panels, columns, width, heights, one_scale=False)


def _grid(panels: int, columns: int, width: float, heights: Sequence[float], one_scale: bool) -> tuple[Any, Any]:
    """heights: of each row, or one for all."""
    if _for_phone.get() and width > FITS_PHONE:
        columns, width = max(1, int(SQUEEZED * PHONE_WIDTH * columns / width)), PHONE_WIDTH
    rows = -(-panels // columns)
    each = [heights[i * len(heights) // rows] for i in range(rows)]
    size, ratios = (width, sum(each)), {"height_ratios": each}
    figure = bare_figure(size)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=one_scale, gridspec_kw=ratios)
    for unused in axes.ravel()[panels:]:
        unused.set_visible(False)
    return figure, axes.ravel()[:panels]


def bare_figure(size: tuple[float, float]) -> Any:
    """A figure of this size, in inches. Not pyplot's: that would need a choice of how windows are shown, which is the caller's."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def shape(i: int) -> dict[str, Any]:
    """Marker, colour and filling of the i-th series; hollow from the seventh on, so that together they tell twelve apart."""
    return {"marker": MARKERS[i % 6], "color": COLOURS[i % 6], "mfc": COLOURS[i % 6] if i < 6 else "white", "ls": ""}


def style(i: int) -> dict[str, Any]:
    """Colour and dash of the i-th series; either of them alone tells the series apart."""
    return {"color": COLOURS[i], "linestyle": DASHES[i]}
