"""Comparisons on photographs that were fixed before they were run, and the result of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from figures.image_figures.comparisons import CIFAR10, GTSRB, GTSRB_CONFIRM, GTSRB_DEFAULT, GTSRB_PIPELINE, GTSRB_RIVALS, MORE
from figures.image_figures.photographs import BOTH
from figures.inputs import Files
from figures.tables import claims

HEADER = claims.HEADER
FIGURE = replace(
    claims.FIGURE,
    title=f"{claims.FIGURE.title}: photographs",
    inputs=(GTSRB, MORE, GTSRB_CONFIRM, GTSRB_DEFAULT, GTSRB_RIVALS, GTSRB_PIPELINE, CIFAR10),
    settings=BOTH,
)


def rows(files: Files) -> list[list[Any]]:
    return claims.rows_of(FIGURE.inputs, files)


def finding(files: Files) -> str:
    return claims.sentences(rows(files))
