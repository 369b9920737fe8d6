"""Sphinx: the pages of docs/ and the reference from docstrings. `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert as mathml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "contrastive-dp"
html_math_renderer = "mathml"  # browsers draw it, without a network
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "myst_parser"]
exclude_patterns = ["_build", "notebooks"]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["docstrings.css"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"Array": "Array"}
python_maximum_signature_line_length = 88


def as_written(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings hold equations in plain text: shown as they are, not read as markup."""
    if any(lines):
        lines[:] = [".. code-block:: text", "", *(f"   {line}" for line in lines), ""]


def inline_formula(self: Any, node: Any) -> None:
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def displayed_formula(self: Any, node: Any) -> None:
    self.body.append(f'<div class="formula">{mathml(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_written)
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
