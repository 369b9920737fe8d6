"""The second explorer of the report: T16's best class SNR, from phase_diagram.csv."""

from __future__ import annotations

import html
import json
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from command_line.output import UserError
from figures.inputs import Files, where
from figures.theory_figures.phase_diagram import KINDS, TABLE

CHOSEN = 20.0  # samples per dimension when the page opens


def separation_numbers(files: Files) -> list[dict[str, Any]]:
    """One entry a way of training; see separation.js. Empty without the table."""
    try:
        data = files.columns(TABLE, "training_eps_over_sigma ridge samples_per_dim class_snr tan_angle separable")
    except UserError:  # reported where its figure is
        return []
    ways = []
    for name, (eps, ridge) in KINDS.items():
        of = where(data, training_eps_over_sigma=eps, ridge=ridge)
        curves = []
        for ratio in np.unique(data["samples_per_dim"][of]):
            rows = where(data, training_eps_over_sigma=eps, ridge=ridge, samples_per_dim=ratio)
            tangent = [float(f"{value:.5g}") for value in data["tan_angle"][rows]]
            curves.append({"ratio": float(ratio), "tangent": tangent, "separable": data["separable"][rows].astype(int).tolist()})
        ways.append({"name": name, "snr": [float(f"{v:.5g}") for v in data["class_snr"][rows]], "curves": curves})
    return ways


def separation_block(ways: list[dict[str, Any]]) -> str:
    """The HTML of the explorer; one sentence without numbers."""
    if not ways:
        return '<h2 id="separation">Explorer: how separated should the samples be?</h2><p class="failed">No numbers: run the main job.</p>'
    ratios = [curve["ratio"] for curve in ways[0]["curves"]]
    template = Template((Path(__file__).resolve().parent / "separation.html").read_text(encoding="utf-8"))
    return template.substitute(
        last=len(ratios) - 1,
        chosen=ratios.index(CHOSEN) if CHOSEN in ratios else 0,
        options="\n".join(f'<option value="{i}">{html.escape(way["name"])}</option>' for i, way in enumerate(ways)),
    )


def as_script(ways: list[dict[str, Any]]) -> str:
    """For a script element: JSON that cannot close it."""
    return json.dumps(ways, ensure_ascii=False).replace("<", "\\u003c")
