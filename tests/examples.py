"""Python blocks of the documentation, run as a reader would; `expression  # number` must give that number, rounded to the digits shown."""

import ast
import re

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
NUMBER = re.compile(r"\s*(\[.*?\]|-?[\d.]*\d)")


def python_blocks(path):
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def run_block(block, names):
    """Runs a block statement by statement in `names`; returns how many numbers it showed."""
    shown = 0
    lines = block.splitlines()
    for node in ast.parse(block).body:
        source = ast.get_source_segment(block, node)
        number = NUMBER.match(lines[node.end_lineno - 1].partition("#")[2])
        if isinstance(node, ast.Expr) and number:
            expected = ast.literal_eval(number.group(1))
            digits = len(number.group(1).partition(".")[2]) if isinstance(expected, float) else 9
            assert eval(source, names) == pytest.approx(expected, abs=0.51 * 10.0**-digits), source
            shown += 1
        else:
            exec(
                compile(ast.Module([node], []), "documentation", "exec"), names
            )  # the source segment of a class lacks its decorators
    return shown
