"""Learners on samples with different class SNRs: T10 and T11 against training on guided samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, new_figure
from command_line.words import learner_in_words
from figures.figure import GUIDE, Figure, Numbers, line, marks, points
from figures.inputs import Files, where

TABLE = "guided_diffusion/learners.csv"
COLUMNS = {"variance": "sample need V", "accuracy": "robust accuracy"}
FIGURE = Figure(
    "Where guidance should stop separating",
    "Learners trained on guided samples of a class SNR (marks, ± 2 standard errors) beside T10 and T11 (lines); vertical dotted "
    "lines: the optimum. The lines are for many samples: far beyond the optimum logistic regression needs more of them to reach its line. "
    "Left: V = n tan²(angle)/(d−1), the relative sample need. Right: robust accuracy.",
    (TABLE,),
    "d = 10, 8,000 samples; trained adversarially at ε/σ = 0.5",
)
THEORY, BEST = ", theory", ", optimum"


def numbers(files: Files) -> Numbers:
    wanted = " ".join(f"{name} {name}_theory {name}_error" for name in COLUMNS)
    data = files.columns(TABLE, f"training_eps class_snr optimal_class_snr {wanted}", text="learner")
    rows = []
    for column, panel in COLUMNS.items():
        for learner, eps in dict.fromkeys(zip(data["learner"].tolist(), data["training_eps"].tolist(), strict=True)):
            of = where(data, learner=learner, training_eps=eps)
            name = learner_in_words(learner, eps)
            snr, y, reach = data["class_snr"][of], data[column][of], 2 * data[f"{column}_error"][of]
            rows += points(panel, name, snr, y, y - reach, y + reach) + points(
                panel, name + THEORY, snr, data[f"{column}_theory"][of]
            )
            if np.isfinite(best := float(data["optimal_class_snr"][of][0])):
                rows.append((panel, name + BEST, best, float(np.interp(best, snr, data[f"{column}_theory"][of]))))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, axes = new_figure(2, height=3.2)
    for axis, panel in zip(axes, numbers.panels(), strict=True):
        names = [name for name in numbers.names(panel) if not name.endswith((THEORY, BEST))]
        for i, name in enumerate(names):
            line(axis, i, numbers.series(panel, name + THEORY))
            marks(axis, i, numbers.series(panel, name), name, ms=3.5)
            for best in numbers.series(panel, name + BEST).x:
                axis.axvline(best, color=COLOURS[i], lw=1, ls=(0, (1, 2)), gid=GUIDE)
        axis.set(xlabel="class SNR of the guided samples", ylabel=panel)
    axes[0].set(yscale="log", title="Lines T10, T11; marks trained")
    axes[1].set_title("Dotted: where to stop separating")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
