"""Where digits, MNIST and GTSRB lie in the diagram of T16, and what particle guidance, which moves them towards its line, gained there."""

from __future__ import annotations

from typing import Any

from command_line.drawing import new_figure, shape
from command_line.output import UserError
from figures.figure import Figure, Numbers, Row, guide, line, marks, points, ticks
from figures.image_figures.comparisons import CONFIRM, GTSRB_CONFIRM, MINUS, MNIST_CONFIRM
from figures.inputs import Files, remedy
from figures.tables import claims, sets
from figures.theory_figures import phase_diagram

DESIGNS = {
    "digits": (CONFIRM, "particle 0.1 (soft labels)"),
    "MNIST": (MNIST_CONFIRM, "particle 0.05 (soft labels)"),
    "GTSRB": (GTSRB_CONFIRM, "particle 0.1 (soft labels)"),
}
"""{data: (comparisons of its design, the guided images)}."""
PLAIN = "unguided (soft labels)"
FIGURE = Figure(
    "Digits, MNIST and GTSRB have as many samples per dimension in T16's diagram, and gain differently",
    "Left: lines, the best class SNR of up to 10 by T16 without a ridge against training samples per dimension n/d; marks, images with "
    "soft labels, open unguided, full under particle guidance. n is the number of real and synthetic images of two classes, d the "
    "effective dimension of the judge's features. Unguided images of all three lie above the lines, where T16 asks for less separation. "
    "This guidance gives it. Right: what it gained over unguided images under APGD-CE (interval of all comparisons of the design) against "
    "the share of wrong labels among its images, of which the diagram knows nothing. Three data sets show no law.",
    (phase_diagram.TABLE, phase_diagram.BORDER, *(table for table, _ in DESIGNS.values()), *sets.TABLES.values()),
    "means over seeds; particle guidance at 0.1, on MNIST 0.05",
)
LEFT, RIGHT = "distance between classes", "gain of particle guidance"


def numbers(files: Files) -> Numbers:
    rows: list[Row] = []
    for name in (phase_diagram.LEFT, "adversarial, ε/σ = 0.5"):
        best = phase_diagram.numbers(files).series(phase_diagram.RIGHT, name)
        rows += points(LEFT, f"best, {name}", best.x, best.y)
    gains = []
    for data, (table, guided) in DESIGNS.items():
        described = {row[0]: dict(zip(sets.HEADER[1:], row, strict=True)) for row in sets.rows_of(sets.TABLES[data], files)}
        pair = [described[name] for name in (PLAIN, guided)]
        rows += points(LEFT, data, *([one[what].mean for one in pair] for what in ("images per dimension", "class SNR")))
        gain = gain_of(f"{guided}{MINUS}{PLAIN}", table, files)
        gains.append((RIGHT, data, pair[1]["label error"].mean, gain.mean, gain.low, gain.high))
    return Numbers.of(rows + gains)


def gain_of(comparison: str, table: str, files: Files) -> Any:
    """The difference with its interval of all. Raises UserError if the table lacks it."""
    found = next((row[2] for row in claims.rows_of((table,), files) if row[0] == comparison), None)
    if found is None:
        raise UserError(f"{files.path(table)}: lacks {comparison}; {remedy(table)}")
    return found


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2, height=3.2)
    lines = len(numbers.names(LEFT)) - len(DESIGNS)
    for i, series in numbers.all(LEFT):
        if i < lines:
            line(axes[0], i + 4, series, series.name, drawstyle="steps-mid")
            continue
        look = shape(i - lines)
        axes[0].plot(series.x, series.y, **{**look, "ls": "-", "lw": 1, "marker": ""})
        axes[0].plot(series.x[:1], series.y[:1], **{**look, "mfc": "white", "ms": 6})
        axes[0].plot(series.x[1:], series.y[1:], **{**look, "ms": 6}, label=series.name)
    for i, series in numbers.all(RIGHT):
        marks(axes[1], i, series, series.name)
    guide(axes[1], 0)
    axes[0].set(
        xscale="log",
        yscale="log",
        xlim=(10, 300),
        ylim=(0.9, 12),
        xlabel="samples per dimension n/d",
        ylabel="class SNR",
        title=LEFT.capitalize(),
    )
    ticks(axes[0], "x", (10, 20, 50, 100, 200))
    ticks(axes[0], "y", (1, 3, 10))
    axes[1].set(xlabel="share of wrong labels", ylabel="gain in robust accuracy", title=RIGHT.capitalize())
    axes[0].legend(fontsize=7, loc="upper right")
    axes[1].legend(fontsize=7)
    return figure
