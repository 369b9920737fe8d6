"""The verdicts on the first screen of the report: claim, effect, interval, verdict, data."""

from __future__ import annotations

import html

from command_line.output import UserError
from figures.inputs import Files
from figures.tables import claims

CLAIMS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("guidance that separates classes helps", "digits", "digits-evidence", "class-anchored 0.1", "unguided", "PGD-20"),
    ("guidance that separates classes helps", "MNIST", "mnist-report", "class-anchored 0.1", "unguided", "APGD-CE"),
    ("guidance that draws classes together helps", "digits", "digits-report", "away from the anchors 0.1", "unguided", "APGD-CE"),
    ("guidance that draws classes together helps", "MNIST", "mnist-report", "away from the anchors auto", "unguided", "APGD-CE"),
    ("guidance that draws classes together helps", "GTSRB", "gtsrb-report", "away from the anchors auto", "unguided", "APGD-CE"),
    (
        "it helps more than twice as many images",
        "digits",
        "digits-report",
        "away from the anchors 0.1",
        "twice as many unguided",
        "APGD-CE",
    ),
    (
        "it helps more than twice as many images",
        "MNIST",
        "mnist-report",
        "away from the anchors auto",
        "twice as many unguided",
        "APGD-CE",
    ),
    (
        "InfoNCE helps in the paper's pipeline",
        "digits",
        "digits-pipeline",
        "InfoNCE 0.3 (model without labels, most confident)",
        "unguided (model without labels, most confident)",
        "APGD-CE",
    ),
    (
        "particle guidance with soft labels helps",
        "digits",
        "digits-confirm",
        "particle 0.1 (soft labels)",
        "unguided (labels as drawn)",
        "APGD-CE",
    ),
    (
        "particle guidance with soft labels helps",
        "MNIST",
        "mnist-confirm",
        "particle 0.05 (soft labels)",
        "unguided (labels as drawn)",
        "APGD-CE",
    ),
    (
        "it helps more than twice as many plain images",
        "digits",
        "digits-confirm",
        "particle 0.1 (soft labels)",
        "twice as many unguided (labels as drawn)",
        "APGD-CE",
    ),
    (
        "it helps more than twice as many plain images",
        "MNIST",
        "mnist-confirm",
        "particle 0.05 (soft labels)",
        "twice as many unguided (labels as drawn)",
        "APGD-CE",
    ),
    (
        "it helps more than hotter noise with soft labels",
        "digits",
        "digits-confirm",
        "particle 0.1 (soft labels)",
        "unguided from hotter noise (soft labels)",
        "APGD-CE",
    ),
    (
        "it helps more than hotter noise with soft labels",
        "MNIST",
        "mnist-confirm",
        "particle 0.05 (soft labels)",
        "unguided from hotter noise (soft labels)",
        "APGD-CE",
    ),
    (
        "keeping the most confident images helps",
        "digits",
        "digits-pipeline",
        "unguided (most confident)",
        "unguided (labels as drawn)",
        "APGD-CE",
    ),
    ("unguided images help beside real ones", "GTSRB", "gtsrb-report", "unguided", "real images alone", "APGD-CE"),
)
"""(claim, data, design, a, b, attack) of comparisons that were fixed before their runs."""
SAID = {"a higher": "yes", "a lower": "no: less", "no difference detected": "not detected", "no interval": "not measured"}


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
        numbers = f"<td>{effect:+.4f}</td><td>[{low:+.4f}, {high:+.4f}]</td>".replace("-", "−")
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
            ("effect", ""),
            ("interval of all", ""),
        )
    )
    note = "Difference in robust accuracy, paired by seed; the interval holds for all comparisons of its design together with 95 %."
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="Verdicts">{table}</div><p class="made">{note}</p>'
