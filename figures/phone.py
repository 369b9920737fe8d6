"""A wide figure once more for a phone: panels one below the other, each with its names, and above them what the marks mean."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.ticker import AutoLocator

from command_line.drawing import FITS_PHONE, for_phone
from command_line.output import write_whole

DPI = 170
MOST_COLUMNS = 3
MOST_TICKS = 5
EDGE = 8
"""Pixels between a text and the edge of the picture."""


def write_for_phone(name: str, drawn: Any, draw: Callable[[], Any], folder: Path) -> list[Path]:
    """Write phone/NAME.png, unless the figure as drawn fits a phone or holds photographs. draw: draws it again."""
    path = folder / "phone" / f"{name}.png"
    if drawn.get_figwidth() <= FITS_PHONE or any(axis.images for axis in drawn.axes):
        path.unlink(missing_ok=True)  # of an earlier, wider drawing
        return []
    figure = stacked(draw)
    path.parent.mkdir(exist_ok=True)
    written = write_whole(path, partial(figure.savefig, dpi=DPI, metadata={"Software": None}))
    return [written]


def stacked(draw: Callable[[], Any]) -> Any:
    """The figure with its panels one below the other."""
    with for_phone():
        figure = draw()
    figure.set_dpi(DPI)  # at which its texts are measured
    figure.draw_without_rendering()
    name_rows(figure)
    legends_above(figure)
    return figure


def name_rows(figure: Any) -> None:
    """What stands left of the first panel alone, left of every row; labels too long for a phone on two lines."""
    first, *others = [axis for axis in figure.axes if axis.get_visible()]
    names = ticks_of(first)
    for axis in others:
        place = axis.get_subplotspec()
        if place is None or not place.is_first_col():
            continue
        if any(names) and not any(ticks_of(axis)) and len(axis.get_yticks()) == len(names):
            axis.set_yticks(first.get_yticks(), names)
        elif not axis.get_ylabel() and all(map(is_number, ticks_of(axis))):
            axis.set_ylabel(first.get_ylabel())
    for axis in (first, *others):
        for text in (axis.xaxis.label, axis.title):
            label, box = text.get_text(), text.get_window_extent()
            if "$" not in label and "\n" not in label and (box.x0 < EDGE or box.x1 > figure.bbox.width - EDGE):
                text.set_text(textwrap.fill(label, len(label) // 2 + 4))
        if isinstance(axis.xaxis.get_major_locator(), AutoLocator):
            axis.locator_params(axis="x", nbins=MOST_TICKS)


def ticks_of(axis: Any) -> list[str]:
    return [tick.get_text() for tick in axis.get_yticklabels()]


def is_number(text: str) -> bool:
    return not any(letter.isalpha() for letter in text.replace("mathdefault", ""))


def legends_above(figure: Any) -> None:
    """Put legends that stand outside of the panels above them, in as many columns as fit; the figure grows by their height."""
    handles = {label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    for legend in outside(figure):
        texts = [text.get_text() for text in legend.get_texts()]
        shown = [handles.get(text, handle) for text, handle in zip(texts, legend.legend_handles, strict=True)]
        legend.remove()
        for columns in range(MOST_COLUMNS, 0, -1):
            above = figure.legend(shown, texts, loc="outside upper center", ncols=columns, frameon=False, fontsize=7)
            box = above.get_window_extent()
            if columns == 1 or box.width <= figure.bbox.width:
                break
            above.remove()
        figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)


def outside(figure: Any) -> list[Any]:
    """The figure's own legends, and those of panels that lie beside them."""
    of_panels = [(axis, axis.get_legend()) for axis in figure.axes if axis.get_legend() is not None]
    return list(figure.legends) + [one for axis, one in of_panels if not axis.get_window_extent().overlaps(one.get_window_extent())]
