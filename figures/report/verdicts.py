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
SEARCHED = (
    ("digits", "digits-confirm", "particle 0.1 (soft labels)"),
    ("MNIST", "mnist-confirm", "particle 0.05 (soft labels)"),
    ("GTSRB", "gtsrb-confirm", "particle 0.1 (soft labels)"),
)
RIVALS = {
    "particle guidance beats unguided images, both with soft labels": SOFT,
    "particle guidance beats hotter noise, both with soft labels": HOT,
    "particle guidance beats twice as many unguided, all with soft labels": TWICE,
    "particle guidance with soft labels beats unguided images with labels as drawn": DRAWN,
}
BY_DEFAULT = "the default guidance, particle auto, beats unguided images, labels as drawn"
BY_AUTO = {
    "unguided images, both with soft labels": (SOFT, {"digits": "digits-rivals", "MNIST": "mnist-rivals", "GTSRB": "gtsrb-rivals"}),
    "hotter noise, both with soft labels": (HOT, {"digits": "digits-rivals", "MNIST": "mnist-rivals", "GTSRB": "gtsrb-rivals"}),
    "twice as many unguided, all with soft labels": (
        TWICE,
        {"digits": "digits-rivals", "MNIST": "mnist-rivals", "GTSRB": "gtsrb-rivals"},
    ),
}
"""{what particle guidance at the strength of the rule auto beats: (its name, {data: design})}."""
DEFAULTS = {"digits": "digits-default", "MNIST": "mnist-default", "GTSRB": "gtsrb-default"}
PUSHED, TOGETHER = "pushing classes apart (class-anchored) helps", "drawing classes together (away from the anchors) helps"
PIPELINES = {"digits": "digits-pipeline", "MNIST": "mnist-pipeline", "GTSRB": "gtsrb-pipeline"}
KEPT = "relabelling and keeping the most confident images helps"
UNLABELLED, CONFIDENT = "unguided (model without labels, most confident)", "unguided (most confident)"
WITH_LABELS = {
    "InfoNCE helps there, with a model that knows the labels": "InfoNCE 0.3 (most confident)",
    "hard negatives help there, with a model that knows the labels": "hard negatives 0.3 (most confident)",
}
UNLABELLED_INFONCE = "InfoNCE 0.3 (model without labels, most confident)"
CLAIMS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("twice as many images help, labels as drawn", "digits", "digits-evidence", "twice as many unguided", "unguided", "PGD-20"),
    ("twice as many images help, soft labels", "GTSRB", "gtsrb-confirm", TWICE, SOFT, "APGD-CE"),
    *((claim, data, design, guided, rival, "APGD-CE") for claim, rival in RIVALS.items() for data, design, guided in SEARCHED),
    *(
        (
            f"particle guidance at the strength of the rule auto beats {rival}",
            data,
            design,
            "particle auto (soft labels)",
            images,
            "APGD-CE",
        )
        for rival, (images, designs) in BY_AUTO.items()
        for data, design in designs.items()
    ),
    *((BY_DEFAULT, data, design, "particle auto (labels as drawn)", DRAWN, "APGD-CE") for data, design in DEFAULTS.items()),
    (PUSHED, "digits", "digits-evidence", "class-anchored 0.1", "unguided", "PGD-20"),
    (PUSHED, "MNIST", "mnist-report", "class-anchored 0.1", "unguided", "APGD-CE"),
    (PUSHED, "GTSRB", "gtsrb-report", "class-anchored 0.1", "unguided", "APGD-CE"),
    (
        TOGETHER,
        "digits",
        "digits-report",
        "away from the anchors 0.1",
        "unguided",
        "APGD-CE",
    ),
    (
        TOGETHER,
        "MNIST",
        "mnist-report",
        "away from the anchors auto",
        "unguided",
        "APGD-CE",
    ),
    (
        TOGETHER,
        "GTSRB",
        "gtsrb-report",
        "away from the anchors auto",
        "unguided",
        "APGD-CE",
    ),
    *(
        ("InfoNCE helps in the paper's pipeline", data, design, UNLABELLED_INFONCE, UNLABELLED, "APGD-CE")
        for data, design in PIPELINES.items()
        if data != "GTSRB"
    ),
    *(
        (claim, data, design, guided, CONFIDENT, "APGD-CE")
        for claim, guided in WITH_LABELS.items()
        for data, design in PIPELINES.items()
    ),
    *((KEPT, data, design, CONFIDENT, DRAWN, "APGD-CE") for data, design in PIPELINES.items()),
    ("unguided images help beside real ones", "GTSRB", "gtsrb-default", DRAWN, "real images alone", "APGD-CE"),
)
"""(claim, data, design, a, b, attack) of comparisons that were fixed before their runs."""
DATA = ("digits", "MNIST", "GTSRB")
SAID = {"higher": "yes", "lower": "no"}


def verdict_table(files: Files) -> str:
    """The HTML of the table, a row a claim and a column a data set; without the claims whose results are missing."""
    rows: dict[str, list[list[Any]]] = {}
    for design in {design for _, _, design, *_ in CLAIMS}:
        with suppress(UserError):  # reported where the table is
            rows[design] = claims.rows_of((f"{design}/comparisons.csv",), files)
    found: dict[str, dict[str, str]] = {}
    for claim, data, design, a, b, attack in CLAIMS:
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
    note = (
        "Gain in points of robust accuracy at the radius of training, paired by seed, under APGD-CE (digits, twice as many and pushing "
        "apart: PGD-20). In brackets its 95 % interval, which holds for all comparisons of a design together: above zero is a yes, below "
        "zero a no. Where several designs planned a comparison, the one with the most seeds is shown, then with the most "
        "test images. An empty cell was not planned. Seeds, CIFAR-10 and all other comparisons: "
        '<a href="#claims">small images</a>, <a href="#claims_photographs">photographs</a>.'
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="Verdicts">{table}</div><p class="made">{note}</p>'


def _cell(data: str, gain: Spread, said: str) -> str:
    """data: what a phone shows before the value."""
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (gain.mean, gain.low, gain.high))
    return f'<td class="text" data-of="{data}"><strong>{said}</strong> <span>{mean}</span> <span>[{low}, {high}]</span></td>'
