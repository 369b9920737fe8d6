"""GTSRB and CIFAR-10: accuracies by method, and whether the synthetic images are recognisable."""

from __future__ import annotations

from typing import Any

from command_line.words import in_words
from figures.figure import Figure
from figures.image_figures.ablations import SNR, described_again
from figures.image_figures.photographs import BOTH
from figures.inputs import Files, where
from figures.tables.images import spread

TABLES = {"GTSRB": "gtsrb-report/sweep.csv", "CIFAR-10 (JPEG copy)": "cifar10-report/sweep.csv"}
FIGURE = Figure(
    "Photographs: robust accuracy by method, and what the synthetic images are like",
    "Mean (standard deviation over seeds). PGD-20 and APGD-CE on 1,000 test images, AutoAttack on the first 200. Label error: share of "
    "synthetic images that a classifier of real images, not used in guidance, puts in another class; Frechet: distance to the real "
    "training images in its features. Floor: both for real test images; on GTSRB half as many, so that their Frechet distance is somewhat "
    "too large. Class SNR (of the first three seeds) and diversity in the same features.",
    tuple(one for table in TABLES.values() for one in (table, described_again(table))),
    f"{BOTH}, l_inf attack eps 8/255",
)
ATTACKS = (("main", "pgd-20"), ("main", "apgd-ce"), ("autoattack", "autoattack"))
"""(run, attack): the second run attacks the classifiers of the first again."""
DESCRIBED = {
    "label_error": "label error",
    "label_error_floor": "label error floor",
    "frechet_distance": "Frechet",
    "frechet_floor": "Frechet floor",
    "within_class_diversity": "within-class diversity",
}
HEADER = ("method", "data", "seeds", "clean", "PGD-20", "APGD-CE", "AutoAttack", *DESCRIBED.values(), "class SNR")


def rows(files: Files) -> list[list[Any]]:
    found: list[list[Any]] = []
    for name, table in TABLES.items():
        data = files.columns(table, " ".join(("seed clean_accuracy robust_accuracy", *DESCRIBED)), text="run method attack")
        again = files.columns(described_again(table), f"seed {SNR}", text="run method")
        for method in dict.fromkeys(data["method"][where(data, run="main")].tolist()):
            robust = [data["robust_accuracy"][where(data, run=run, method=method, attack=attack)] for run, attack in ATTACKS]
            of = where(data, run="main", method=method, attack="pgd-20")
            about = [in_words(method), name, len(data["seed"][of]), spread(data["clean_accuracy"][of])]
            snr = spread(again[SNR][where(again, run="main", method=method)])
            found.append([*about, *map(spread, robust), *(spread(data[column][of]) for column in DESCRIBED), snr])
    return found
