"""The verdicts on the first screen of the report: claim, effect, interval, verdict, data."""

from __future__ import annotations

import html

from command_line.output import UserError
from figures.inputs import Files
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
    "particle guidance with soft labels beats plain images": DRAWN,
}
CLAIMS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("twice as many images help", "digits", "digits-evidence", "twice as many unguided", "unguided", "PGD-20"),
    ("twice as many images help", "GTSRB", "gtsrb-confirm", TWICE, SOFT, "APGD-CE"),
    *((claim, data, design, guided, rival, "APGD-CE") for claim, rival in RIVALS.items() for data, design, guided in SEARCHED),
    (
        "particle guidance at its own strength (auto) beats unguided images, both with soft labels",
        "digits",
        "digits-default",
        "particle auto (soft labels)",
        SOFT,
        "APGD-CE",
    ),
    ("pushing classes apart helps", "digits", "digits-evidence", "class-anchored 0.1", "unguided", "PGD-20"),
    ("pushing classes apart helps", "MNIST", "mnist-report", "class-anchored 0.1", "unguided", "APGD-CE"),
    ("drawing classes together helps", "digits", "digits-report", "away from the anchors 0.1", "unguided", "APGD-CE"),
    ("drawing classes together helps", "MNIST", "mnist-report", "away from the anchors auto", "unguided", "APGD-CE"),
    ("drawing classes together helps", "GTSRB", "gtsrb-report", "away from the anchors auto", "unguided", "APGD-CE"),
    (
        "InfoNCE helps in the paper's pipeline",
        "digits",
        "digits-pipeline",
        "InfoNCE 0.3 (model without labels, most confident)",
        "unguided (model without labels, most confident)",
        "APGD-CE",
    ),
    (
        "keeping the most confident images helps",
        "digits",
        "digits-pipeline",
        "unguided (most confident)",
        DRAWN,
        "APGD-CE",
    ),
    ("unguided images help beside real ones", "GTSRB", "gtsrb-report", "unguided", "real images alone", "APGD-CE"),
)
"""(claim, data, design, a, b, attack) of comparisons that were fixed before their runs."""
SAID = {"a higher": "yes", "a lower": "no, it costs", "no difference detected": "not detected", "no interval": "not measured"}


def verdict_table(files: Files) -> str:
    """The HTML of the table; without the claims whose results are missing."""
    rows = []
    for claim, data, design, a, b, attack in CLAIMS:
        try:
            found = claims.rows_of((f"{design}/comparisons.csv",), files)
        except UserError:  # reported where the table is
            continue
        row = next((one for one in found if (one[2], one[3]) == (a, b) and one[1].startswith(attack)), None)
        if row is None:
            continue
        effect, low, high, verdict = row[5].mean, row[6], row[7], SAID[row[-1]]
        texts = (f'<td class="text">{html.escape(text)}</td>' for text in (claim, verdict, data))
        numbers = f"<td>{100 * effect:+.1f}</td><td>[{100 * low:+.1f}, {100 * high:+.1f}]</td>".replace("-", "−")
        said, told, of = texts
        rows.append(f"<tr>{said}{of}{told}{numbers}</tr>")
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col"{kind}>{name}</th>'
        for name, kind in (
            ("claim", ' class="text"'),
            ("data", ' class="text"'),
            ("verdict", ' class="text"'),
            ("points", ""),
            ("95 %, of all", ""),
        )
    )
    note = (
        "Points of robust accuracy at the radius of training, paired by seed, under APGD-CE (the first row and the first of pushing apart: "
        "PGD-20). The interval holds for all comparisons of a design together. Seeds and all other comparisons: table claims."
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="Verdicts">{table}</div><p class="made">{note}</p>'
