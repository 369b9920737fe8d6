"""The verdicts at the top of the report: for each claim and data set the verdict, the effect and its interval."""

from __future__ import annotations

import html
from contextlib import suppress
from typing import Any

from command_line.output import UserError
from figures.image_figures.comparisons import MINUS
from figures.inputs import Files
from figures.table import Spread
from figures.tables import claims

SOFT, DRAWN = "unguided (soft labels)", "unguided (labels as drawn)"
HOT, TWICE = "unguided from hotter noise (soft labels)", "twice as many unguided (soft labels)"
CONFIDENT = "unguided (most confident)"
UNLABELLED = "InfoNCE 0.3 (model without labels, most confident)", "unguided (model without labels, most confident)"
SEARCHED = (
    ("digits", "digits-confirm", "particle 0.1 (soft labels)"),
    ("MNIST", "mnist-confirm", "particle 0.05 (soft labels)"),
    ("GTSRB", "gtsrb-confirm", "particle 0.1 (soft labels)"),
)
RIVALS = {"digits": "digits-rivals", "MNIST": "mnist-rivals", "GTSRB": "gtsrb-rivals"}
DEFAULTS = {"digits": "digits-default", "MNIST": "mnist-default", "GTSRB": "gtsrb-default"}
WITHOUT_LABELS = {"digits": "digits-pipeline", "MNIST": "mnist-pipeline"}
PIPELINES = {**WITHOUT_LABELS, "GTSRB": "gtsrb-pipeline"}
REPORTS = {"MNIST": "mnist-report", "GTSRB": "gtsrb-report"}
Claim = tuple[str, str, str, str, str, str]


def _each(claim: str, designs: dict[str, str], a: str, b: str) -> tuple[Claim, ...]:
    """The same comparison in the design of each data set."""
    return tuple((claim, data, design, a, b, "APGD-CE") for data, design in designs.items())


APART = "class-anchored 0.1, which pushes classes apart, over unguided"
TOGETHER = "away from the anchors, which draws classes together, over unguided"
FIRST: tuple[Claim, ...] = (
    ("unguided images over real ones alone", "GTSRB", "gtsrb-default", DRAWN, "real images alone", "APGD-CE"),
    ("twice as many images over unguided", "digits", "digits-evidence", "twice as many unguided", "unguided", "PGD-20"),
    *_each("relabelled, most confident kept, over unguided", PIPELINES, CONFIDENT, DRAWN),
    *_each("particle guidance, auto, over unguided; soft labels", RIVALS, "particle auto (soft labels)", SOFT),
    *_each("particle guidance, auto, over hotter noise; soft labels", RIVALS, "particle auto (soft labels)", HOT),
    *_each("particle guidance, auto, over twice as many; soft labels", RIVALS, "particle auto (soft labels)", TWICE),
    (APART, "digits", "digits-evidence", "class-anchored 0.1", "unguided", "PGD-20"),
    *_each(APART, REPORTS, "class-anchored 0.1", "unguided"),
    *_each("InfoNCE 0.3 over unguided; soft labels", PIPELINES, "InfoNCE 0.3 (soft labels)", SOFT),
    *_each("InfoNCE 0.3 over unguided; the paper's pipeline", WITHOUT_LABELS, *UNLABELLED),
)
"""(claim, data, design, a, b, attack) of comparisons that were fixed before their runs, those of the summary."""
FURTHER: tuple[Claim, ...] = (
    ("twice as many images over unguided; soft labels", "GTSRB", "gtsrb-confirm", TWICE, SOFT, "APGD-CE"),
    *_each("particle guidance, auto, over unguided; labels as drawn", DEFAULTS, "particle auto (labels as drawn)", DRAWN),
    *(
        (f"particle guidance, 0.1 (MNIST: 0.05), soft labels, over {words}", data, design, guided, rival, "APGD-CE")
        for words, rival in (
            ("unguided with soft labels", SOFT),
            ("hotter noise with soft labels", HOT),
            ("twice as many with soft labels", TWICE),
            ("unguided with labels as drawn", DRAWN),
        )
        for data, design, guided in SEARCHED
    ),
    (TOGETHER, "digits", "digits-report", "away from the anchors 0.1", "unguided", "APGD-CE"),
    *_each(TOGETHER, REPORTS, "away from the anchors auto", "unguided"),
    *_each("InfoNCE 0.3 over unguided; most confident kept", PIPELINES, "InfoNCE 0.3 (most confident)", CONFIDENT),
    *_each(
        "hard negatives 0.3 over unguided; relabelled, most confident kept",
        PIPELINES,
        "hard negatives 0.3 (most confident)",
        CONFIDENT,
    ),
)
"""The others."""
CLAIMS = (*FIRST, *FURTHER)
DATA = ("digits", "MNIST", "GTSRB")
SAID = {"higher": "gains", "lower": "loses"}


def verdict_table(files: Files) -> str:
    """The HTML of the tables, a row a claim and a column a data set; without the claims whose results are missing."""
    rows: dict[str, list[list[Any]]] = {}
    for design in {design for _, _, design, *_ in CLAIMS}:
        with suppress(UserError):  # reported where the table is
            rows[design] = claims.rows_of((f"{design}/comparisons.csv",), files)
    first, further = (_table(group, rows) for group in (FIRST, FURTHER))
    if not first and not further:
        return ""
    note = (
        "Paired by seed, at the radius of training, under APGD-CE (digits, twice as many and class-anchored: PGD-20). In brackets the 95 % "
        "interval, which holds for all comparisons of a design together: above zero gains, below zero loses. If several designs made a "
        "comparison, the one with most seeds is shown, then with most test images. An empty cell was not planned. "
        "Relabelled: by a classifier; the model knows the labels, but for the paper's pipeline. Seeds, CIFAR-10 and all other comparisons: "
        '<a href="#claims">small images</a>, <a href="#claims_photographs">photographs</a>.'
    )
    folded = f"<details><summary>Further comparisons</summary>{further}</details>" if further else ""
    return f'<h2 id="gains">Points of robust accuracy gained</h2>{first}<p class="made">{note}</p>{folded}'


def _table(group: tuple[Claim, ...], rows: dict[str, list[list[Any]]]) -> str:
    """The HTML of one table; nothing without results. rows: of each design's comparisons."""
    found: dict[str, dict[str, str]] = {}
    for claim, data, design, a, b, attack in group:
        row = next((one for one in rows.get(design, ()) if one[0] == f"{a}{MINUS}{b}" and one[4].startswith(attack)), None)
        if row:
            found.setdefault(claim, {})[data] = _cell(data, row[2], SAID.get(row[3], row[3]))
    if not found:
        return ""
    head = "".join(f'<th scope="col" class="text">{name}</th>' for name in ("", *DATA))
    body = "".join(
        f'<tr><th scope="row" class="text">{html.escape(claim)}</th>{"".join(cells.get(data, "<td></td>") for data in DATA)}</tr>'
        for claim, cells in found.items()
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="Verdicts">{table}</div>'


def _cell(data: str, gain: Spread, said: str) -> str:
    """data: what a phone shows before the value."""
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (gain.mean, gain.low, gain.high))
    return f'<td class="text" data-of="{data}"><strong>{said}</strong> <span>{mean}</span> <span>[{low}, {high}]</span></td>'
