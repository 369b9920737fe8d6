"""The words of the report, from the glossary of the documentation."""

from __future__ import annotations

import html
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"
LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
CODE = re.compile(r"`([^`]+)`")


def glossary() -> str:
    """The HTML of the list, folded; empty if the documentation is not there."""
    if not PAGE.is_file():
        return ""
    words = [one.split("**: ", 1) for one in PAGE.read_text(encoding="utf-8").split("\n- **")[1:]]
    listed = "".join(f"<dt>{html.escape(word)}</dt><dd>{_inline(meaning)}</dd>" for word, meaning in words)
    return f'<details><summary>{len(words)} words, explained</summary><dl class="words">{listed}</dl></details>'


def _inline(text: str) -> str:
    """Markdown within a line: code as code, links as their words."""
    plain = LINK.sub(r"\1", " ".join(text.split()))
    return CODE.sub(r"<code>\1</code>", html.escape(plain))
