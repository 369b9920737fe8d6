"""The paper's own ablations on digits: loss, strength, projection head, window, and which images to keep."""

from __future__ import annotations

import re
from typing import Any

from command_line.drawing import new_figure
from command_line.words import in_words
from figures.figure import Figure, Numbers, Row
from figures.image_figures.ablations import draw_lines, family_of, gain, read_sweep, window_of
from figures.inputs import Files

TABLE = "digits-paper/sweep.csv"
FIGURE = Figure(
    "The paper's ablations: loss, head, window and selection",
    "Differences in robust accuracy under APGD-CE, mean and 95 % interval of each alone, over paired seeds (Student). Circles lie above "
    "zero, squares below, diamonds at neither. All images have pseudo-labels; guidance is at the denoised estimate, t < 700, unless said "
    "otherwise. Left: guided minus unguided images, 2,000 kept by chance. Middle: unguided images chosen by a score minus those kept by "
    "chance. Right: guided minus unguided images that were chosen by the same score.",
    (TABLE,),
    "scikit-learn's digits, 300 real and 2,000 synthetic images chosen from 3,000, l_inf 0.15, 1,197 test images, 16 seeds",
)
CHANCE, PLAIN, INFONCE = "random", "unguided", "infonce-0.3"
LEFT, MIDDLE, RIGHT = "guidance", "selection", "guidance after selection"
OTHERWISE = {"head": "projection head", "xt": "noisy state"}
"""What the runs that are no selection do otherwise than the first; windows say so themselves."""
CRITERIA = {
    CHANCE: "by chance",
    "confidence": "most confident",
    "entropy": "lowest entropy",
    "gradient-norm": "smallest gradient",
    "gradient-norm-highest": "largest gradient",
    "loss": "largest loss",
    "boundary": "nearest the boundary",
    "class-separation": "best separated",
    "density": "nearest real images",
    "coverage": "k-means choice",
}
"""The runs that select, and what they keep."""


TITLES = {
    LEFT: ("Guidance, no selection", "minus unguided"),
    MIDDLE: ("Which unguided images to keep", "minus kept by chance"),
    RIGHT: ("InfoNCE after the same choice", "minus unguided kept alike"),
}
"""Title and axis of each panel."""


def numbers(files: Files) -> Numbers:
    """x: the line, from the top; y: the difference."""
    data = read_sweep(files, table=TABLE, attack="apgd-ce")
    rows: list[Row] = []
    for run, method in in_order(list(dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True)))):
        for panel, name, first in shown(run, method):
            line = sum(row[0] == panel for row in rows)
            rows.append((panel, name, float(line), *gain(data, run, method, first)))
    return Numbers.of(sorted(rows, key=lambda row: [*TITLES].index(row[0])))  # panels as drawn, from the left


def in_order(sets: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Runs and kinds of guidance as in the sweep; strengths of a kind upwards."""
    runs = [run for run, _ in sets]
    kinds = [family_of(*one) for one in sets]
    return sorted(sets, key=lambda one: (runs.index(one[0]), kinds.index(family_of(*one)), strength(one[1])))


def strength(method: str) -> float:
    scale = re.search(r"-([\d.]+)$", method)
    return float(scale[1]) if scale else 0.0


def shown(run: str, method: str) -> list[tuple[str, str, str]]:
    """(panel, name, run of the unguided images that it is compared with) of a set; the guided ones kept by chance are in two panels."""
    if method == PLAIN:
        return [(MIDDLE, CRITERIA[run], CHANCE)] if run != CHANCE else []
    found = [(LEFT, in_words(method) + otherwise(run), CHANCE)] if run == CHANCE or run not in CRITERIA else []
    if run in CRITERIA and method == INFONCE:
        found.append((RIGHT, CRITERIA[run], run))
    elif run in CRITERIA and run != CHANCE:
        found.append((RIGHT, f"{in_words(method)}, {CRITERIA[run]}", run))
    return found


def otherwise(run: str) -> str:
    """What a run without a selection does otherwise than the first."""
    words = window_of(run) or OTHERWISE.get(run)
    return f", {words}" if words else ""


def draw(numbers: Numbers) -> Any:
    lines = max(len(numbers.names(panel)) for panel in TITLES)
    figure, axes = new_figure(3, 12.0, 0.9 + 0.27 * lines, one_scale=True)
    for axis, (panel, words) in zip(axes, TITLES.items(), strict=True):
        draw_lines(axis, [series for _, series in numbers.all(panel)])
        axis.set(xlabel=words[1], title=words[0])
        axis.locator_params(axis="x", nbins=5)  # more marks would run over the edge of the picture
    return figure
