"""Sphinx: the pages of docs/ and the reference from docstrings. `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "contrastive-dp"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["docstrings.css"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they stand in the docstrings, in words, with shapes
python_maximum_signature_line_length = 88


def as_written(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings hold equations in plain text: shown as they are, not read as markup."""
    if any(lines):
        lines[:] = [".. code-block:: text", "", *(f"   {line}" for line in lines), ""]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_written)
