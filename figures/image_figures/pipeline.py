"""The paper's whole pipeline: guidance x labels x selection, and simple rivals under the same treatment."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.transforms import ScaledTranslation

from command_line.drawing import new_figure, shape
from command_line.output import UserError
from command_line.statistics import mean_interval
from command_line.words import in_words, place_of
from figures.figure import GUIDE, Figure, Numbers, Row
from figures.inputs import Files, remedy

TABLE = "digits-pipeline/sweep.csv"
READ = (
    "Rows: which labels the generated images get (as drawn: the class asked of the model; guide: the classifier whose features guide), and "
    "which images are kept. Left: robust accuracy under APGD-CE, mean over seeds. Right: "
    "the same minus unguided images treated alike, with a 95 % interval of each comparison alone, paired by seed; one that leaves out zero "
    "need not be detected by the interval of all comparisons of the design (tables claims). "
)
FIGURE = Figure(
    "What labels, selection and guidance are worth together",
    READ + "The paper relabels and keeps the most confident on CIFAR-10.",
    (TABLE,),
    "scikit-learn's digits, 300 real and 2,000 synthetic images chosen from 3,000, l_inf 0.15, 1,197 test images, 16 seeds",
)
ATTACK = "apgd-ce"
TREATMENTS = {
    "drawn": "labels as drawn",
    "agreeing": "as drawn, if four others agree",
    "confident-drawn": "as drawn, most confident",
    "pseudo": "pseudo-labels of the guide",
    "other": "pseudo-labels of another",
    "confident": "pseudo-labels, most confident",
    "unsure": "pseudo-labels, least confident",
    "soft": "soft labels of four others",
    "soft-encoder": "soft labels of the guide",
    "soft-standard": "soft labels of four, not robust",
    "soft-unsure": "soft labels, least confident",
    "unconditional-pseudo": "model without labels, pseudo-labels",
    "unconditional-confident": "model without labels, most confident",
}
RIVALS = {"hot": "hotter noise", "more": "twice as many"}
LEFT, RIGHT = "robust accuracy", "minus unguided, treated alike"
REAL = "real images alone"
WITHOUT = "unconditional-confident"
"""The paper's own pipeline. On photographs it was not run."""
OF = ": "
APART = 2.6
"""Points between the intervals of a row, or they would hide each other."""
Sets = dict[str, dict[str, dict[int, float]]]
"""{treatment: {set of images: {seed: robust accuracy}}}."""


def read_sets(table: str, files: Files) -> tuple[Sets, dict[int, float]]:
    """The sets of images by treatment, and the accuracies of real images alone by seed."""
    data = files.columns(table, "seed robust_accuracy", text="run method attack")
    found: Sets = {}
    real: dict[int, float] = {}
    names = ("run", "method", "attack", "seed", "robust_accuracy")
    for run, method, attack, seed, robust in zip(*(data[name].tolist() for name in names), strict=True):
        if attack != ATTACK:
            continue
        if method == "real":
            real[int(seed)] = robust
            continue
        treatment, _, rival = run.rpartition("-")
        name = RIVALS[rival] if rival in RIVALS else in_words(method)
        found.setdefault(treatment if rival in RIVALS else run, {}).setdefault(name, {})[int(seed)] = robust
    return found, real


def numbers(files: Files) -> Numbers:
    return numbers_of(TABLE, files)


def numbers_of(table: str, files: Files) -> Numbers:
    """x: the row of a treatment, from the top; y: robust accuracy or difference of TREATMENT: IMAGES."""
    sets, real = read_sets(table, files)
    rows: list[Row] = [(LEFT, REAL, -1.0, float(np.mean(list(real.values()))))] if real else []
    for place, treatment in enumerate(name for name in TREATMENTS if name in sets):
        plain = sets[treatment].get("unguided", {})
        for images, values in sets[treatment].items():
            name = f"{TREATMENTS[treatment]}{OF}{images}"
            rows.append((LEFT, name, float(place), float(np.mean(list(values.values())))))
            if images != "unguided" and plain:
                rows.append((RIGHT, name, float(place), *paired(values, plain)))
    return Numbers.of(rows)


def paired(one: dict[int, float], other: dict[int, float]) -> tuple[float, float, float]:
    """Mean difference over the seeds that both have, and its 95 % interval."""
    return mean_interval([one[seed] - other[seed] for seed in one if seed in other])


def draw(numbers: Numbers) -> Any:
    names = [name.partition(OF) for name in numbers.names(LEFT) if name != REAL]
    treatments, kinds = (list(dict.fromkeys(name[i] for name in names)) for i in (0, 2))
    figure, (left, right) = new_figure(2, 11.0, 1.2 + 0.4 * len(treatments))
    for place, images in enumerate(kinds):
        i = place_of(images)
        look = shape(i)
        for panel, axis, size in ((LEFT, left, 5), (RIGHT, right, 4)):
            of = [numbers.series(panel, treatment + OF + images) for treatment, _, kind in names if kind == images]
            if panel == RIGHT and images == "unguided":
                continue
            x, y, low, high = (np.concatenate([getattr(series, part) for series in of]) for part in ("x", "y", "low", "high"))
            shift = APART * (place - len(kinds) / 2) / 72
            where = axis.transData + ScaledTranslation(0, -shift, figure.dpi_scale_trans)
            axis.plot(y, x, ms=size, transform=where, label=images if panel == LEFT else None, **look)
            axis.hlines(x, low, high, color=look["color"], lw=1.2, transform=where)
            ends = np.concatenate([y, low, high])
            axis.update_datalim([(value, 0) for value in ends[np.isfinite(ends)]])
    alone = [float(numbers.series(LEFT, name).y[0]) for name in numbers.names(LEFT) if name == REAL]
    for value in alone:
        left.update_datalim([(value, 0)])
        left.axvline(value, color="0.4", lw=0.9, gid=GUIDE)
    right.axvline(0, color="0.4", lw=0.9, gid=GUIDE)
    for axis in (left, right):
        axis.set_yticks(range(len(treatments)), treatments, fontsize=7)  # on both: on a phone one of them fills the screen
        axis.set_ylim(len(treatments) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
        for edge in range(1, len(treatments)):
            axis.axhline(edge - 0.5, color="0.85", lw=0.8, gid=GUIDE)
        axis.autoscale_view(scaley=False)
    left.set(xlabel="robust accuracy" + " (line: real alone)" * bool(alone), title="Labels and selection")
    right.set(xlabel="minus unguided, treated alike", title="Guidance, and its rivals (95 % each)")
    handles, texts = left.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return figure


def finding(files: Files) -> str:
    return finding_of(TABLE, "digits", files)


def finding_of(table: str, data: str, files: Files) -> str:
    """What relabelling and keeping the most confident costs, what guidance wins back, and what does best."""
    sets, _ = read_sets(table, files)
    try:
        plain, kept, guided = sets["drawn"]["unguided"], sets["confident"]["unguided"], sets["confident"]["InfoNCE 0.3"]
        paper = sets.get(WITHOUT, sets["confident"])
        own = paired(paper["InfoNCE 0.3"], paper["unguided"])
    except KeyError as missing:
        raise UserError(f"{files.path(table)}: lacks the set {missing}, which the summary compares; {remedy(table)}") from None
    intervals = [*(paired(*pair) for pair in ((kept, plain), (guided, kept), (guided, plain))), own]
    cost, gain, left, published = ("{:+.4f} [{:+.4f}, {:+.4f}]".format(*of) for of in intervals)
    _, low, high = own
    claim = "is found" if low > 0 else "is not found" if high < 0 else "is not detected"
    gains = (
        f"{gain}, and {published} with the paper's model without labels"
        if WITHOUT in sets
        else f"{gain}, with a model that knows the labels; the paper's model without labels was not run"
    )
    means = {(treatment, images): np.mean(list(of.values())) for treatment, some in sets.items() for images, of in some.items()}
    best, images = max(means, key=lambda key: means[key])
    return (
        f"On {data}, each interval alone: relabelling and keeping the most confident images changes the result of unguided ones by {cost}. "
        f"Guidance then adds {gains}: the paper's claim {claim}. Against unselected unguided images, guided "
        f"ones change it by {left}. The best of all sets: {images} images, {TREATMENTS[best]} ({means[best, images]:.4f})."
    )
