"""Reading of result files. What is missing, cut off or malformed is said in one line: the file, its line, and how to mend it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from command_line.output import UserError
from figures.experiments import EXPERIMENTS, experiment_of

Columns = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Files:
    """Result files of a folder that holds one folder an experiment. single: the folder of this experiment alone, wherever it lies."""

    folder: Path
    single: str | None = None

    def path(self, name: str) -> Path:
        """Where EXPERIMENT/FILE lies. Raises UserError where it is not there."""
        path = self.folder / (name.partition("/")[2] if self.single else name)
        if not path.is_file():
            raise UserError(f"{path}: is missing; {remedy(name)}")
        return path

    def columns(self, name: str, numbers: str = "", text: str = "") -> Columns:
        """Columns of a csv file by name: `numbers` as float64 (empty cells and nan as nan), `text` as they stand.

        Raises UserError naming file and line when the file lacks a column, has no rows, or a row is cut off or is not made of numbers.
        """
        path = self.path(name)
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as text ({error}); {remedy(name)}") from None
        lines = list(csv.reader(io.StringIO(content, newline="")))
        if len(lines) < 2:
            raise UserError(f"{path}: line {len(lines) + 1}: the table has no rows; {remedy(name)}")
        if not content.endswith("\n"):
            raise UserError(f"{path}: line {len(lines)}: the file is cut off; {remedy(name)}")
        header, rows = lines[0], lines[1:]
        for column in (*numbers.split(), *text.split()):
            if column not in header:
                raise UserError(f"{path}: line 1: the column {column} is missing; {remedy(name)}")
        for i, row in enumerate(rows):
            if len(row) != len(header):
                raise UserError(f"{path}: line {i + 2}: has {len(row)} cells in place of {len(header)}; {remedy(name)}")
        found: Columns = {column: np.array([row[header.index(column)] for row in rows]) for column in text.split()}
        for column in numbers.split():
            place = header.index(column)
            found[column] = np.array([_number(row[place], path, i + 2, column, name) for i, row in enumerate(rows)])
        return found

    def summary(self, experiment: str) -> dict[str, Any]:
        """summary.json of an experiment. Raises UserError."""
        path = self.path(f"{experiment}/summary.json")
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as text ({error}); {remedy(experiment)}") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {error.lineno}: is not JSON ({error.msg}); {remedy(experiment)}") from None
        return content


def _number(cell: str, path: Path, line: int, column: str, name: str) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        raise UserError(f"{path}: line {line}: {column} is {cell!r}, not a number; {remedy(name)}") from None


def remedy(name: str) -> str:
    """How to make a result file anew."""
    if name.partition("/")[0] not in EXPERIMENTS:
        return "restore it"
    experiment = experiment_of(name)
    return f"make it anew with: {experiment.command()} ({experiment.takes}), or restore the committed one"


def where(columns: Columns, **values: Any) -> Any:
    """Rows in which every named column has this value."""
    rows = np.ones(len(next(iter(columns.values()))), dtype=bool)
    for name, value in values.items():
        rows &= columns[name] == value
    return rows
