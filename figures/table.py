"""A table: rows from result files, written as csv at full precision, as Markdown and as LaTeX.

A module in figures/tables defines FIGURE, HEADER and rows(files); a cell is a text, a whole number, a float, or a `Spread`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from command_line.output import write_csv, write_whole
from figures.inputs import Files

DIGITS = 4


@dataclass(frozen=True)
class Spread:
    """A mean with its standard deviation over seeds, or with the ends of an interval."""

    mean: float
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def text(self) -> str:
        if math.isnan(self.mean):
            return ""
        if not math.isnan(self.sd):
            return f"{self.mean:.{DIGITS}f} ({self.sd:.{DIGITS}f})"
        if not math.isnan(self.low):
            return f"{self.mean:+.{DIGITS}f} [{self.low:+.{DIGITS}f}, {self.high:+.{DIGITS}f}]"
        return f"{self.mean:.{DIGITS}f}"


def text_of(cell: Any) -> str:
    """A cell as printed."""
    if isinstance(cell, Spread):
        return cell.text()
    if isinstance(cell, float) and 0 < cell < 0.0005:
        return "<0.001"
    if isinstance(cell, float):
        return "" if math.isnan(cell) else f"{cell:.{DIGITS}g}" if abs(cell) >= 1000 else f"{cell:.3f}"
    return str(cell)


def sort_key(cell: Any) -> Any:
    """The value by which a reader sorts a cell."""
    return cell.mean if isinstance(cell, Spread) else cell


def csv_columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Split each Spread into its own columns: NAME, NAME_sd or NAME, NAME_low, NAME_high."""
    names: list[str] = []
    lines: list[list[Any]] = [[] for _ in rows]
    for j, name in enumerate(header):
        cells = [row[j] for row in rows]
        spreads = [cell for cell in cells if isinstance(cell, Spread)]
        if not spreads:
            names.append(name)
            for line, cell in zip(lines, cells, strict=True):
                line.append(cell)
            continue
        interval = any(not math.isnan(cell.low) for cell in spreads)
        names += [name, f"{name} low", f"{name} high"] if interval else [name, f"{name} sd"]
        for line, cell in zip(lines, cells, strict=True):
            line.extend([cell.mean, cell.low, cell.high] if interval else [cell.mean, cell.sd])
    return names, lines


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [list(header), ["---"] * len(header), *([text_of(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "^": r"\^{}",
         "~": r"\~{}", "|": r"$|$", "<": r"$<$", ">": r"$>$", "λ": r"$\lambda$", "σ": r"$\sigma$", "ε": r"$\varepsilon$", "≤": r"$\leq$",
         "κ": r"$\kappa$", "−": "$-$"}  # fmt: skip


def latex(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A LaTeX tabular that uses booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(letter, letter) for letter in cell) for cell in cells) + r" \\"

    kinds = "l" + "r" * (len(header) - 1)
    body = [line([text_of(cell) for cell in row]) for row in rows]
    return "\n".join(
        [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", line(header), r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""]
    )


def make_table(module: Any, name: str, files: Files, folder: Path) -> list[Path]:
    """Write NAME.csv, NAME.md and NAME.tex. Raises UserError."""
    rows = module.rows(files)
    written = [write_csv(folder / f"{name}.csv", *csv_columns(module.HEADER, rows))]
    for suffix, form in (("md", markdown), ("tex", latex)):
        text = form(module.HEADER, rows)
        written.append(write_whole(folder / f"{name}.{suffix}", partial(_write, text)))
    return written


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
