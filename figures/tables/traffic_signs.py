"""GTSRB, four designs of ten seeds: robust accuracy and wrong labels of every set of images."""

from __future__ import annotations

from typing import Any

from figures.figure import Figure
from figures.image_figures.comparisons import shown
from figures.image_figures.photographs import GTSRB
from figures.inputs import Files, where
from figures.tables.images import spread

TABLES = tuple(f"gtsrb-{name}/sweep.csv" for name in ("confirm", "default", "rivals", "pipeline"))
FIGURE = Figure(
    "Traffic signs: robust accuracy and wrong labels of every set of images",
    "Mean (standard deviation over seeds), on 1,000 test images. Label error: share of images whose label, or the likeliest class of a "
    "soft one, is not what a judge says that took no part in guidance or labelling. Frechet distance and class SNR in its features.",
    TABLES,
    f"{GTSRB}; 1,000 real images, l_inf attack eps 8/255",
)
DESCRIBED = {"label_error": "label error", "frechet_distance": "Frechet", "class_snr_crossfit_judge": "class SNR"}
HEADER = ("images", "number", "seeds", "clean", "PGD-20", "APGD-CE", *DESCRIBED.values(), "design")


def rows(files: Files) -> list[list[Any]]:
    return [row for table in TABLES for row in rows_of(table, files)]


def rows_of(table: str, files: Files) -> list[list[Any]]:
    """The sets of images of a design, as its runs under APGD-CE have them."""
    data = files.columns(table, " ".join(("clean_accuracy robust_accuracy n_synthetic", *DESCRIBED)), text="run method attack")
    found: list[list[Any]] = []
    main = where(data, attack="apgd-ce")
    for run, method in dict.fromkeys(zip(data["run"][main].tolist(), data["method"][main].tolist(), strict=True)):
        of = where(data, run=run, method=method, attack="apgd-ce")
        number = int(data["n_synthetic"][of][0])
        about = [shown(f"{run.removesuffix(f'-{number}')}/{method}"), number, len(data["clean_accuracy"][of])]
        robust = (data["robust_accuracy"][where(data, run=run, method=method, attack=attack)] for attack in ("pgd-20", "apgd-ce"))
        described = (spread(data[column][of]) for column in DESCRIBED)
        found.append([*about, spread(data["clean_accuracy"][of]), *map(spread, robust), *described, table.partition("/")[0]])
    return found
