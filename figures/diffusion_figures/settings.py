"""Reads the tables of guided_diffusion.py: which rows belong to which question, and the name of each guidance."""

from __future__ import annotations

from typing import Any

import numpy as np

from command_line.drawing import Columns
from command_line.words import guidance_in_words

SETTING = "scale low high"
SETTING_TEXT = "problem score guidance at solver label designs"


def in_design(data: Columns, design: str) -> Any:
    """Rows of one design of the study; all rows if the table is from a single run."""
    if not is_study(data):
        return np.ones(len(data["designs"]), dtype=bool)
    return np.array([design in text.split() for text in data["designs"]])


def is_study(data: Columns) -> bool:
    """Whether the table is from the whole study, not from a single run and its baseline."""
    return len(set(zip(data["label"], data["scale"], data["problem"], strict=True))) > 2


def edge_of(name: str) -> dict[str, Any]:
    """A black edge of the marks of a guidance whose loss sees the noisy state; nothing for others."""
    return {"mec": "black"} if "noisy state" in name else {}


def named(label: str, scale: float) -> str:
    """Name of a guidance with its strength."""
    return label if label == "unguided" else f"{guidance_in_words(label)}, λ = {scale:.3g}"
