"""Guidance against alternatives on small real images, with intervals that hold simultaneously for all comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import PHONE_WIDTH, is_for_phone, new_grid
from command_line.words import in_words, radius_in_words
from figures.figure import GUIDE, Figure, Numbers, Row
from figures.image_figures.ablations import look_of
from figures.image_figures.paper_ablations import CHANCE, CRITERIA, OTHERWISE
from figures.inputs import Files

EVIDENCE = "digits-evidence/comparisons.csv"
REPORT = "digits-report/comparisons.csv"
MNIST = "mnist-report/comparisons.csv"
FACTORS = "digits-factors/comparisons.csv"
PIPELINE = "digits-pipeline/comparisons.csv"
PAPER = "digits-paper/comparisons.csv"
MNIST_PIPELINE = "mnist-pipeline/comparisons.csv"
CONFIRM = "digits-confirm/comparisons.csv"
MNIST_CONFIRM = "mnist-confirm/comparisons.csv"
DEFAULT = "digits-default/comparisons.csv"
MNIST_DEFAULT = "mnist-default/comparisons.csv"
RIVALS_OF_DEFAULT = "digits-rivals/comparisons.csv"
MNIST_RIVALS = "mnist-rivals/comparisons.csv"
GTSRB = "gtsrb-report/comparisons.csv"
MORE = "gtsrb-more/comparisons.csv"
GTSRB_CONFIRM = "gtsrb-confirm/comparisons.csv"
GTSRB_DEFAULT = "gtsrb-default/comparisons.csv"
GTSRB_PIPELINE = "gtsrb-pipeline/comparisons.csv"
GTSRB_RIVALS = "gtsrb-rivals/comparisons.csv"
CIFAR10 = "cifar10-report/comparisons.csv"
READ = (
    "Right of zero the first set of images is better: difference in robust accuracy after equal training, paired by seed. Thick: 95 % "
    "interval of this comparison alone (Student); thin: of all comparisons of the design together (Bonferroni). By the thin one, "
    "circles are gains, squares losses, grey diamonds not detected. "
)
FIGURE = Figure(
    "Guidance against unguided images and simple rivals, on seeds of its own",
    READ + "Above: eleven comparisons at strengths taken from earlier seeds, under PGD-20 (their design "
    "has eleven more, under AutoAttack on 100 images: too few to detect differences). Below: chosen on validation images, under APGD-CE "
    "on all test images.",
    (EVIDENCE, REPORT),
    "scikit-learn's digits, 300 real and 2,000 synthetic images, 1,197 test images",
)
PANELS = {"strengths from earlier seeds": (EVIDENCE, "pgd-20"), "chosen by validation": (REPORT, "apgd-ce")}
WIDTH = 9.0
"""In inches, of which the names take about half."""
LINE = 54
"""Longest name on one line of a phone, in letters."""
ALL, MINUS = " (of all)", " − "
BAND = "0.95"
BEHIND = {"edgecolor": "none", "pad": 0.5}
"""Keeps lines of the grid from crossing a name."""
NAMES = {
    "more/unguided": "twice as many unguided",
    "hot/unguided": "unguided from hotter noise",
    "diverse/unguided": "the diverse half of twice as many unguided",
    "window-0-400/infonce-0.3": "InfoNCE 0.3, t < 400",
    "window-200-600/infonce-0.3": "InfoNCE 0.3, 200 ≤ t < 600",
    "standard/anchored-reversed-0.1": "away from the anchors 0.1, standard features",
    "random/anchored-reversed-0.1": "away from the anchors 0.1, untrained features",
    "head/anchored-reversed-0.1": "away from the anchors 0.1, projection head",
    "real-100/anchored-reversed-0.1": "100 real images: away from the anchors 0.1",
    "label-dropout/unguided": "unguided, labels left out for 10 %",
}


TREATED = {
    "drawn": "labels as drawn",
    "pseudo": "pseudo-labels",
    "confident": "most confident",
    "soft": "soft labels",
    "unconditional-confident": "model without labels, most confident",
    "soft-cover": "soft labels, k-means choice",
    "soft-near": "soft labels, nearest the boundary",
    "unlabelled": "model without labels, pseudo-labels",
    **OTHERWISE,
    **{run: words for run, words in CRITERIA.items() if run != CHANCE},
}
"""Runs of the designs of the paper's pipeline and of its ablations, and what they do with labels, selection or guidance."""
RIVALS = {"-hot": "unguided from hotter noise", "-more": "twice as many unguided", "-4000": "twice as many unguided"}


def shown(side: str) -> str:
    """A readable name for RUN/METHOD."""
    if side in NAMES:
        return NAMES[side]
    run, _, method = side.partition("/")
    for ending, words in RIVALS.items():
        if run.removesuffix(ending) in TREATED and run.endswith(ending):
            run, method = run.removesuffix(ending), words
    words = in_words(method)
    return f"{words} ({TREATED[run]})" if run in TREATED and method != "real" else words


def compared(a: str, b: str) -> str:
    """The name of a comparison of two RUN/METHOD."""
    return f"{shown(a)}{MINUS}{shown(b)}"


def numbers(files: Files) -> Numbers:
    return numbers_of(PANELS, files)


def numbers_of(panels: dict[str, tuple[str, str]], files: Files) -> Numbers:
    """The comparisons of each panel, {title: (table, attack)}, from top to bottom: x is the position, y the difference."""
    rows: list[Row] = []
    for panel, (table, attack) in panels.items():
        data = files.columns(table, "eps seeds difference low high low_of_all high_of_all", text="a b attack norm")
        chosen = np.flatnonzero(data["attack"] == attack)
        threats = {(data["norm"][i], data["eps"][i]) for i in chosen}
        for place, i in enumerate(chosen):
            name = compared(data["a"][i], data["b"][i])
            if len(threats) > 1:
                name += f", {radius_in_words(data['norm'][i], float(data['eps'][i]))}"
            middle = (float(place), data["difference"][i])
            rows.append((panel, name, *middle, data["low"][i], data["high"][i]))
            rows.append((panel, name + ALL, *middle, data["low_of_all"][i], data["high_of_all"][i]))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    """One panel below the other, on one scale; names stand left of their intervals, on a phone above them."""
    panels = {panel: [name for name in numbers.names(panel) if not name.endswith(ALL)] for panel in numbers.panels()}
    figure, axes = _rows_for_phone(panels) if is_for_phone() else _rows(panels)
    ends = np.concatenate([numbers.columns[name] for name in ("y", "low", "high")])
    least, most = min(0.0, float(np.nanmin(ends))), max(0.0, float(np.nanmax(ends)))
    edge = 0.04 * (most - least)
    for axis, (panel, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            own, together = numbers.series(panel, name), numbers.series(panel, name + ALL)
            marker, colour = look_of(together.low[0], together.high[0])
            for one, thickness in ((together, 0.8), (own, 2.4)):
                known = np.isfinite(one.low)
                axis.hlines(one.x[known], one.low[known], one.high[known], color=colour, lw=thickness)
            axis.plot(own.y, own.x, marker, color=colour, ms=5)
        axis.axvline(0, color="0.4", lw=0.9, gid=GUIDE, zorder=1)
        axis.set(title=panel[0].upper() + panel[1:], xlim=(least - edge, most + edge))
    return figure


def _rows(panels: dict[str, list[str]]) -> tuple[Any, Any]:
    """Axes with a row and its name for each comparison; the scale stands below the last."""
    rows = sum(map(len, panels.values()))
    pitch = 0.21 + (0.4 + 0.3 * len(panels)) / rows  # titles and the scale take the rest
    figure, axes = new_grid(len(panels), 1, width=WIDTH, height=[pitch * len(names) for names in panels.values()])
    for axis, names in zip(axes, panels.values(), strict=True):
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0, labelsize=8)
        for place in range(1, len(names), 2):
            axis.axhspan(place - 0.5, place + 0.5, color=BAND, lw=0, zorder=0, gid=GUIDE)
        axis.tick_params(axis="x", bottom=axis is axes[-1], labelbottom=axis is axes[-1])
    axes[-1].set_xlabel("difference in robust accuracy")
    return figure, axes


def _rows_for_phone(panels: dict[str, list[str]]) -> tuple[Any, Any]:
    """Axes with a name above each row, a long one on two lines; a name and its interval share a band."""
    pitch = {panel: 0.34 if max(map(len, names)) <= LINE else 0.44 for panel, names in panels.items()}
    heights = [0.75 + pitch[panel] * len(names) for panel, names in panels.items()]
    figure, axes = new_grid(len(panels), 1, width=PHONE_WIDTH, height=heights)
    for axis, (panel, names) in zip(axes, panels.items(), strict=True):
        for place, name in enumerate(names):
            written = name if len(name) <= LINE else name.replace(MINUS, f"\n{MINUS.lstrip()}")
            if place % 2:
                axis.axhspan(place - 0.82, place + 0.18, color=BAND, lw=0, zorder=0, gid=GUIDE)
            behind = {**BEHIND, "facecolor": BAND if place % 2 else "white"}
            across = axis.get_yaxis_transform()
            axis.text(0.01, place - 0.07 / pitch[panel], written, fontsize=8.5, va="bottom", transform=across, bbox=behind)
        axis.set_yticks([])
        axis.set_ylim(len(names) - 0.5, -0.8)
        axis.set_xlabel("difference in robust accuracy")
    return figure, axes
