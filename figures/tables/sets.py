"""What each method changes in its images: class SNR, wrong labels, distance to the boundary, diversity; on digits, MNIST and GTSRB."""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.figure import Figure
from figures.image_figures.comparisons import shown
from figures.inputs import Files, where
from figures.tables.images import spread

TABLES = {"digits": "digits-confirm/sweep.csv", "MNIST": "mnist-confirm/sweep.csv", "GTSRB": "gtsrb-confirm/sweep.csv"}
NUMBER, CLASSES = 2000, 10
FIGURE = Figure(
    "What each method changes in its images",
    "Mean (standard deviation over seeds) of sets of 2,000 images. Class SNR, label error, diversity and effective dimension in features "
    "of the judge, which took no part in guidance or labelling; of soft labels the likeliest class counts. Distance to the boundary: l_2 "
    "distance of an image to the encoder's decision boundary, negative where the encoder sees another class. Images per dimension: those "
    "of two of the ten classes, real and synthetic, over the effective dimension, the n/d of T16; the second in features of the encoder.",
    tuple(TABLES.values()),
    "digits and MNIST: 300 real images, 16 seeds; GTSRB: 1,000 real images, 10 seeds",
)
DESCRIBED = {
    "class_snr_crossfit_judge": "class SNR",
    "label_error": "label error",
    "boundary_distance": "distance to boundary",
    "within_class_diversity": "diversity",
}
PER_DIMENSION = {"effective_dimension_judge": "images per dimension", "effective_dimension_encoder": "the same, encoder"}
HEADER = ("data", "images", *DESCRIBED.values(), *PER_DIMENSION.values())


def rows(files: Files) -> list[list[Any]]:
    return [[data, *row] for data, table in TABLES.items() for row in rows_of(table, files)]


def rows_of(table: str, files: Files) -> list[list[Any]]:
    """The sets of NUMBER images of a design, each seed once."""
    columns = " ".join(("seed n_real n_synthetic", *DESCRIBED, *PER_DIMENSION))
    data = files.columns(table, columns, text="run method attack")
    found: list[list[Any]] = []
    for run, method in dict.fromkeys(zip(data["run"].tolist(), data["method"].tolist(), strict=True)):
        of = where(data, run=run, method=method, attack="apgd-ce")
        if run == "autoattack" or not of.any() or data["n_synthetic"][of][0] != NUMBER:
            continue  # the same images as in another run, or another number
        images = 2 * (data["n_real"][of] + NUMBER) / CLASSES
        row: list[Any] = [shown(f"{run}/{method}"), *(spread(data[column][of]) for column in DESCRIBED)]
        found.append([*row, *(spread(np.asarray(images / data[column][of])) for column in PER_DIMENSION)])
    return found
