"""What guided samples are worth to an adversarial learner, at the price of moving away from the real classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, new_figure
from command_line.statistics import half_width
from command_line.words import place_of
from figures.figure import Figure, Numbers, Row, guide, marks, points
from figures.inputs import Files

TABLE, BEST = "guided_value/value.csv", "guided_value/value_best.csv"
LEARNER = "adversarial"
FIGURE = Figure(
    "Which guidance is worth most to a robust learner, and how much more was found?",
    "Gain in robust accuracy over unguided samples, against the Wasserstein-2 distance of the guided classes to the real ones. Lines: "
    "theory's prediction from the guidance setting alone (T16 on the classes that guidance makes), a guidance at four strengths, in order; "
    "marks: fits, mean and 95 % interval over seeds. Thick line: the largest prediction within this distance, of a search over "
    "classes and of these guidances. Sets beyond "
    "W2 = 2, or that lose much more than the best gains, are outside the frame. The guidance knows the Bayes classifier: what it gives "
    "is an upper bound for one that was learned.",
    (TABLE, BEST),
    "two Gaussian classes in 100 dimensions, ‖μ‖ = 2, σ = 1, l_2 attack of 0.3, adversarial logistic regression",
)
SHOWN = {
    "boundary at x0 0≤t<700": "hold the margin of the class mean",
    "boundary-near at x0 0≤t<700": "hold half that margin",
    "classifier at x0 0≤t<700": "classifier",
    "anchored at x0 0≤t<700": "class-anchored",
    "autoguidance": "autoguidance",
    "classifier-free": "classifier-free",
    "infonce at x0 0≤t<700": "InfoNCE",
    "infonce-same at x0 0≤t<700": "InfoNCE, same class",
    "particle at x0 0≤t<700": "particle",
    "feedback at x0 0≤t<700": "feedback, no judge",
}
BOUND, PREDICTED = "largest found", " (theory)"
WORST = -0.03
"""Gains below this are left out of the picture: feedback and reversed guidance that turn the classes over."""


def numbers(files: Files) -> Numbers:
    names = "samples_per_dim scale w2 accuracy_predicted unguided_predicted gain gain_error seeds"
    data = files.columns(TABLE, names, text="label learner")
    best = files.columns(BEST, "samples_per_dim w2 best", text="learner")
    rows: list[Row] = []
    for ratio in sorted(set(data["samples_per_dim"].tolist())):
        here = (data["samples_per_dim"] == ratio) & (data["learner"] == LEARNER)
        panel, unguided = f"{ratio:g} samples per dimension", float(data["unguided_predicted"][here][0])
        of = (best["samples_per_dim"] == ratio) & (best["learner"] == LEARNER)
        rows += points(panel, BOUND, best["w2"][of], best["best"][of] - unguided)
        for label, name in SHOWN.items():
            chosen = np.flatnonzero(here & (data["label"] == label))
            chosen = chosen[np.argsort(data["scale"][chosen], kind="stable")]
            predicted = data["accuracy_predicted"][chosen] - unguided
            rows += points(panel, name + PREDICTED, data["w2"][chosen], predicted)
            reach = half_width(data["seeds"][chosen]) * data["gain_error"][chosen]
            gain = data["gain"][chosen]
            rows += points(panel, name, data["w2"][chosen], gain, gain - reach, gain + reach)
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    panels = numbers.panels()
    figure, axes = new_figure(len(panels), 3.6 * len(panels), 3.9)
    for axis, panel in zip(axes, panels, strict=True):
        bound = numbers.series(panel, BOUND)
        axis.plot(bound.x, bound.y, color="black", lw=2, label=BOUND)
        names = [name for name in numbers.names(panel) if name != BOUND and not name.endswith(PREDICTED)]
        for name in names:
            place = place_of(name)
            marks(axis, place, numbers.series(panel, name), name)
            theory = numbers.series(panel, name + PREDICTED)
            axis.plot(theory.x, theory.y, color=COLOURS[place % 6], lw=1, ls="-" if place < 6 else "--")
        guide(axis, 0.0)
        highest = float(np.nanmax(bound.y))
        axis.set(xlim=(0, 2), ylim=(max(WORST, -1.5 * highest), 1.15 * highest))
        axis.set(xlabel="price: W2 distance to the real classes", title=panel)
    axes[0].set(ylabel="gain in robust accuracy over unguided")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return figure
