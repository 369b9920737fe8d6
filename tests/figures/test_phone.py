"""Wide figures as a phone shows them."""

import pytest

from command_line.drawing import PHONE_WIDTH, new_grid, styled
from figures.experiments import REFERENCE
from figures.inputs import Files
from figures.phone import stacked, write_for_phone
from figures.registry import entries


def boxes_of(figure):
    """(name, box) of each panel with its labels and ticks, and of the legends above."""
    for axis in figure.axes:
        if axis.get_visible() and axis.axison:
            yield axis.get_title() or axis.get_xlabel(), axis.get_tightbbox()
    for legend in figure.legends:
        yield "legend", legend.get_window_extent()


@pytest.mark.parametrize("entry", [one for one in entries() if not one.is_table], ids=lambda one: one.name)
def test_nothing_is_cut_off(entry, drawn):
    """Every label, title, tick and legend lies within the picture, but for a pixel."""
    if not (drawn / "drawn" / "phone" / f"{entry.name}.png").is_file():
        return  # it fits as it is
    with styled():
        figure = stacked(lambda: entry.module.draw(entry.module.numbers(Files(REFERENCE))))
    assert figure.get_figwidth() == PHONE_WIDTH
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    cut = [name for name, box in boxes_of(figure) if box.x0 < -1 or box.x1 > width + 1 or box.y0 < -1 or box.y1 > height + 1]
    assert cut == []


def test_an_earlier_picture_goes_when_the_figure_fits(tmp_path):
    def draw(width):
        figure, axes = new_grid(2, 2, width, 2.0)
        axes[0].set_ylabel("y")
        return figure

    for width, there in ((7.0, True), (3.0, False)):
        with styled():
            written = write_for_phone("a", draw(width), lambda width=width: draw(width), tmp_path)
        assert bool(written) == (tmp_path / "phone" / "a.png").is_file() == there


def test_rows_have_the_heights_that_were_asked_for_also_when_there_are_more_rows():
    with styled():
        figure = stacked(lambda: new_grid(4, 2, 8.0, [2.0, 3.0])[0])
    assert figure.get_figheight() == pytest.approx(10.0)
