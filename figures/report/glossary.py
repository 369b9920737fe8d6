"""The words of the report, from the glossary of the documentation."""

from __future__ import annotations

import html
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"
ENTRY = re.compile(r"^- \*\*(.+?)\*\*: (.+(?:\n  .+)*)", re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
CODE = re.compile(r"`([^`]+)`")


def glossary() -> str:
    """The HTML of the section, the list folded; empty if the documentation is not there."""
    words = ENTRY.findall(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else []
    if not words:
        return ""
    listed = "".join(f"<dt>{html.escape(word)}</dt><dd>{_inline(meaning)}</dd>" for word, meaning in words)
    folded = f'<details><summary>{len(words)} words, explained</summary><dl class="words">{listed}</dl></details>'
    return f'<h2 id="words">Words</h2>{folded}'


def _inline(text: str) -> str:
    """Markdown within a line: code as code, links as their words."""
    plain = LINK.sub(r"\1", " ".join(text.split()))
    return CODE.sub(r"<code>\1</code>", html.escape(plain))
