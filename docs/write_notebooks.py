"""Writes docs/notebooks/*.ipynb from docs/tutorial.md: the whole, and each of its three parts on its own. A test compares and runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PARTS = {
    "theory-in-ten-minutes": "## 1.",
    "guide-a-sampler": "## 2.",
    "an-image-experiment": "## 3.",
}
"""Notebook -> the part of the tutorial that it is."""
BEFORE = {
    "guide-a-sampler": [
        "import numpy as np",
        "from theory import BinaryMixture",
        "",
        "real = BinaryMixture(mean=np.array([1.0, 0.0]), cov=1.0)",
    ]
}
"""What a part needs of those before it."""
ABOUT = 'Run it in the folder of a clone, after `pip install -e ".[images]"`.'


def cell(kind: str, text: str, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def notebook(text: str, before: list[str]) -> dict[str, Any]:
    """A notebook of a Markdown text: its python blocks are code."""
    cells = [("markdown", ABOUT)] + ([("code", "\n".join(before))] if before else [])
    for i, piece in enumerate(re.split(r"^```python\n(.*?)^```\n?", text, flags=re.S | re.M)):
        if piece.strip():
            cells.append(("code" if i % 2 else "markdown", piece.strip()))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [cell(kind, piece, i) for i, (kind, piece) in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def notebooks() -> dict[str, str]:
    """{name: content} of all of them."""
    text = re.sub(r"\]\((?!https?:)", "](../", (HERE / "tutorial.md").read_text(encoding="utf-8"))
    parts = {start: body for body in re.split(r"(?=^## )", text, flags=re.M) for start in PARTS.values() if body.startswith(start)}
    if missing := set(PARTS.values()) - set(parts):
        raise SystemExit(
            f"docs/tutorial.md: no heading begins with {sorted(missing)[0]!r}; PARTS in {Path(__file__).name} names them"
        )
    made = {"tutorial": notebook(text, [])} | {name: notebook(parts[start], BEFORE.get(name, [])) for name, start in PARTS.items()}
    return {name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    (HERE / "notebooks").mkdir(exist_ok=True)
    for name, content in notebooks().items():
        (HERE / "notebooks" / f"{name}.ipynb").write_text(content, encoding="utf-8")
