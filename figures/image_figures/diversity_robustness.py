"""Which property of synthetic images is associated with robust accuracy: diversity within a class, or separation of classes?"""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import new_figure
from command_line.words import place_of
from figures.figure import Figure, Numbers, guide, marks
from figures.image_figures.ablations import SETTINGS, SNR, TABLE, by_seed, family_of, read_sweep
from figures.inputs import Files

COLUMNS = {"within_class_diversity": "within-class diversity", SNR: "class SNR"}
FIGURE = Figure(
    "Diversity against robustness, separation against robustness",
    "Each mark is a set of 2,000 synthetic images, mean over seeds: robust accuracy of the classifier trained with them against "
    "the diversity within a class (left) and the class SNR (right); the line is at unguided images. In features of a classifier "
    "that took no part in the guidance. Marks of one shape share how they were made.",
    (TABLE,),
    SETTINGS,
)
KINDS = {
    "unguided": ("unguided",),
    "selected": (),
    "noise": ("noise",),
    "InfoNCE": ("infonce",),
    "class-anchored, supervised, classifier, hard negatives": ("anchored", "supervised", "classifier", "hard-negative"),
    "away from the anchors": ("anchored-reversed",),
    "others": (),
}


def kind_of(run: str, method: str) -> str:
    if run.startswith("select-"):
        return "selected"
    base = family_of(run, method)
    return next((kind for kind, names in KINDS.items() if base in names), "others")


def numbers(files: Files) -> Numbers:
    data = read_sweep(files, *COLUMNS)
    sets = dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True))
    rows = []
    for column, panel in COLUMNS.items():
        for run, method in sets:
            if method == "real" or run.startswith("synthetic-"):
                continue
            x, y = (np.mean(list(by_seed(data, run, method, name).values())) for name in (column, "robust_accuracy"))
            rows.append((panel, kind_of(run, method), float(x), float(y)))
    panels, kinds = list(COLUMNS.values()), list(KINDS)
    return Numbers.of(sorted(rows, key=lambda row: (panels.index(row[0]), kinds.index(row[1]), row[2])))


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2, height=3.3)
    for axis, panel in zip(axes, COLUMNS.values(), strict=True):
        for name in numbers.names(panel):
            marks(axis, place_of(name), numbers.series(panel, name), name)
        for level in numbers.series(panel, "unguided").y:
            guide(axis, float(level))
        axis.set(xlabel=panel, title=f"Robustness against {panel}")
    axes[0].set_ylabel("robust accuracy (PGD-20)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
