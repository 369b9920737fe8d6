"""Which property of a synthetic set predicts its gain, for ways of making it that were left out of the fit?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from command_line.drawing import Columns
from figures.figure import Figure
from figures.image_figures.ablations import FIRST, SETTINGS, SNR, TABLE, by_seed, family_of, gain, read_sweep
from figures.inputs import Files

FIGURE = Figure(
    "Which property of synthetic images predicts the gain?",
    "Over all sets of equal size: rank correlation of the property with the gain in robust accuracy over unguided images, and R² "
    "of a straight line and of a parabola on the kind of guidance, noise or selection that was left out of the fit, each in turn "
    "(1: predicted, 0: as good as the mean of the others, below: worse). Optimum: where the parabola is highest, with its range as"
    " kinds are left out; empty where it has none inside. Properties are means over seeds, class SNR enters by its logarithm; "
    "unless named, features are those of a classifier not used in guidance; the optimum itself was not predicted.",
    (TABLE,),
    SETTINGS,
)
NAMES = {
    SNR: "class SNR",
    f"{SNR}_encoder": "class SNR, encoder",
    f"{SNR}_pixels": "class SNR, pixels",
    "within_class_diversity": "within-class diversity",
    "recall": "recall",
    "precision": "precision",
    "frechet_distance": "Frechet distance",
    "alignment": "alignment",
    "label_error": "label error",
}
HEADER = ("property", "sets", "rank correlation", "R² line", "R² parabola", "optimum", "optimum from", "optimum to")


def rows(files: Files) -> list[list[Any]]:
    data = read_sweep(files, *NAMES)
    chosen = comparable(data)
    gains = np.array([gain(data, *one)[0] for one in chosen])
    kinds = np.array([family_of(*one) for one in chosen])
    found = []
    for column, name in NAMES.items():
        values = np.array([np.mean(list(by_seed(data, *one, column).values())) for one in chosen])
        x = np.log(values) if column.startswith("class_snr") else values
        fitted = [optimum(x[kinds != kind], gains[kinds != kind]) for kind in dict.fromkeys(kinds.tolist())]
        places = [optimum(x, gains), min(fitted), max(fitted)]
        if not all(x.min() < place < x.max() for place in places):
            places = [math.nan] * 3
        elif column.startswith("class_snr"):
            places = [math.exp(place) for place in places]
        scores = [left_out_score(x, gains, kinds, degree) for degree in (1, 2)]
        found.append([name, len(chosen), float(spearmanr(x, gains).statistic), *scores, *places])
    return found


def comparable(data: Columns, first: str = FIRST) -> list[tuple[str, str]]:
    """(run, method) of every set that has as many images as the unguided set of the first run."""
    size = by_seed(data, first, "unguided", "n_synthetic")
    each = dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True))
    return [one for one in each if by_seed(data, *one, "n_synthetic") == size]


def left_out_score(x: Any, y: Any, kinds: Any, degree: int) -> float:
    """1 - sum (y - fit)^2 / sum (y - mean)^2, fit and mean each from the other kinds."""
    fit, mean = np.empty(len(y)), np.empty(len(y))
    for kind in dict.fromkeys(kinds.tolist()):
        out = kinds == kind
        fit[out] = np.polyval(np.polyfit(x[~out], y[~out], degree), x[out])
        mean[out] = y[~out].mean()
    return float(1 - ((y - fit) ** 2).sum() / ((y - mean) ** 2).sum())


def optimum(x: Any, y: Any) -> float:
    """The maximum of the parabola fitted to (x, y); inf if its extremum is a minimum."""
    curvature, slope, _ = np.polyfit(x, y, 2)
    return float(-slope / (2 * curvature)) if curvature < 0 else math.inf
