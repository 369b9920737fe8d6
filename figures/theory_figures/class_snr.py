"""T10, T11: the class separation from which each learner learns fastest."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import COLOURS, MARKERS, new_figure
from command_line.words import learner_in_words
from figures.figure import Figure, Numbers, line, points, ticks
from figures.inputs import Files, where

TABLE = "gaussian_mixture/class_snr.csv"
FIGURE = Figure(
    "With very many samples, more distinguishable is not always better",
    "Relative sample need V of each learner against the class SNR of one training sample; a large mark is the optimum. Averaging "
    "always gains, LDA saturates, logistic regression learns fastest at 1.228, and adversarial training shifts the optimum up "
    "(T10, T11). This is the limit of very many samples per dimension; figure phase_diagram is for any number. Curves "
    "go on above 300.",
    (TABLE,),
    "isotropic, aligned classes, n/d large",
)
BEST = ", optimum"


def numbers(files: Files) -> Numbers:
    data = files.columns(TABLE, "training_eps_over_sigma class_snr variance optimal_class_snr", text="learner")
    rows = []
    for learner, eps in dict.fromkeys(zip(data["learner"].tolist(), data["training_eps_over_sigma"].tolist(), strict=True)):
        of = where(data, learner=learner, training_eps_over_sigma=eps)
        name = learner_in_words(learner, eps)
        snr, variance, best = data["class_snr"][of], data["variance"][of], float(data["optimal_class_snr"][of][0])
        rows += points(0, name, snr, variance)
        if np.isfinite(best):
            rows.append((0, name + BEST, best, float(np.exp(np.interp(np.log(best), np.log(snr), np.log(variance))))))
    return Numbers.of(rows)


def draw(numbers: Numbers) -> Any:
    figure, (axis,) = new_figure(1, height=3.4)
    for i, name in enumerate(name for name in numbers.names(0) if not name.endswith(BEST)):
        line(axis, i, numbers.series(0, name), name)
        best = numbers.series(0, name + BEST)
        axis.plot(best.x, best.y, MARKERS[i], color=COLOURS[i], ms=7, mec="black")
    axis.set(xscale="log", yscale="log", ylim=(0.03, 300))
    ticks(axis, "x", (0.25, 0.5, 1, 2, 4))
    axis.set_xlabel(r"class SNR of one sample, $\kappa_1 = c\,\|\mu\|/\tilde\sigma$")
    axis.set_ylabel(r"sample need $V$:  $\tan^2(\mathrm{angle}) \approx V(d-1)/n$")
    axis.set_title("Which separation teaches fastest?")
    axis.legend(fontsize=7)
    return figure
