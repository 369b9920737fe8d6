"""Draws the pictures of one run of one experiment into its results folder; the commands in simulations/ call this at the end."""

from __future__ import annotations

from pathlib import Path

from command_line.drawing import styled
from figures.figure import write_figure
from figures.inputs import Files
from figures.registry import figures_of


def draw_run(experiment: str, folder: Path) -> list[Path]:
    """Draw NAME.png for every figure that needs only this experiment's results; returns the paths.

    Figures whose results are missing or have no rows are left out. Raises UserError for malformed files.
    """
    files, written = Files(folder, single=experiment), []
    for entry in figures_of(experiment):
        if all(_has_rows(folder / name.partition("/")[2]) for name in entry.figure.inputs):
            numbers = entry.module.numbers(files)
            if numbers.rows():
                with styled():
                    written += write_figure(entry.name, entry.module.draw(numbers), folder, pdf=False)
    return written


def _has_rows(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return sum(1 for _, _ in zip(stream, range(2), strict=False)) == 2
