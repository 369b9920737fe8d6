"""Digits: accuracies by method, and measures of the synthetic images."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import Columns
from command_line.statistics import mean_interval
from command_line.words import in_words
from figures.figure import Figure
from figures.inputs import Files, where
from figures.table import Spread

TABLE, DESCRIPTION = "digits-cpu/metrics.csv", "digits-cpu/description.csv"
FIGURE = Figure(
    "Robust accuracy on digits, by method",
    "Mean (standard deviation over seeds); gains over unguided images are paired by seed, with 95 % intervals (Student). "
    "AutoAttack is on the first 200 test images. Class SNR, diversity and label error in features of a classifier that took no "
    "part in the guidance.",
    (TABLE, DESCRIPTION),
    "scikit-learn's digits, 300 real and 2,000 synthetic images, l_inf attack eps 0.15",
)
DESCRIBED = ("class_snr_crossfit", "within_class_diversity", "label_error")
HEADER = ("method", "clean", "PGD-20", "AutoAttack", "PGD-20 minus unguided", "class SNR", "within-class diversity", "label error")


def rows(files: Files) -> list[list[Any]]:
    data = files.columns(TABLE, "seed clean_accuracy robust_accuracy", text="method attack")
    described = files.columns(DESCRIPTION, " ".join(DESCRIBED), text="method")
    attacks = [name for name in dict.fromkeys(data["attack"].tolist()) if name.startswith("pgd")][:1]
    attacks.append("autoattack")
    base = robust(data, "unguided", attacks[0])
    found = []
    for method in dict.fromkeys(data["method"].tolist()):
        row: list[Any] = [in_words(method), spread(data["clean_accuracy"][where(data, method=method, attack=attacks[0])])]
        row += [spread(np.array(list(robust(data, method, attack).values()))) for attack in attacks]
        ours = robust(data, method, attacks[0])
        gain = mean_interval([ours[s] - base[s] for s in ours if s in base] if method != "unguided" else [])
        row.append(Spread(gain[0], low=gain[1], high=gain[2]))
        row += [spread(described[name][described["method"] == method]) for name in DESCRIBED]
        found.append(row)
    return found


def robust(data: Columns, method: str, attack: str) -> dict[float, float]:
    of = where(data, method=method, attack=attack)
    return dict(zip(data["seed"][of].tolist(), data["robust_accuracy"][of].tolist(), strict=True))


def spread(values: Any) -> Spread:
    if not len(values):
        return Spread(float("nan"))
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))
