"""Reads result files. Missing, truncated or malformed files are reported in one line: the file, its line, and how to fix it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from command_line.drawing import Columns
from command_line.output import UserError, file_digest
from figures.experiments import EXPERIMENTS, experiment_of

COUNTED = ("seed", "seeds", "n", "n_synthetic", "steps")
"""Columns that must be complete; in other columns nan means that there is no number."""


@dataclass(frozen=True)
class Files:
    """Result files in a folder with one folder per experiment. single: the folder is that of this one experiment, wherever it is."""

    folder: Path
    single: str | None = None

    def path(self, name: str) -> Path:
        """The path of EXPERIMENT/FILE. Raises UserError if it does not exist."""
        path = self.folder / (name.partition("/")[2] if self.single else name)
        if not path.is_file():
            raise UserError(f"{path}: is missing; {remedy(name)}")
        return path

    def columns(self, name: str, numbers: str = "", text: str = "") -> Columns:
        """Columns of a csv file by name: `numbers` as float64 (empty cells and nan as nan), `text` unchanged.

        Raises UserError naming file and line if the file lacks a column, has no rows or fewer than provenance.json says, or if a row is
        truncated or not numeric.
        """
        path = self.path(name)
        try:
            content = path.read_text(encoding="utf-8-sig")
            lines = list(csv.reader(io.StringIO(content, newline="")))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as text ({error}); {remedy(name)}") from None
        except csv.Error as error:
            raise UserError(f"{path}: is no csv ({error}); {remedy(name)}") from None
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
        if len(rows) < (noted := self._rows_noted(name)):
            raise UserError(f"{path}: line {len(rows) + 2}: the table ends after {len(rows)} of {noted} rows; {remedy(name)}")
        found: Columns = {column: np.array([row[header.index(column)] for row in rows]) for column in text.split()}
        for column in numbers.split():
            place = header.index(column)
            found[column] = np.array([_number(row[place], path, i + 2, column, name) for i, row in enumerate(rows)])
            if column in COUNTED and not np.isfinite(found[column]).all():
                line = int(np.flatnonzero(~np.isfinite(found[column]))[0]) + 2
                raise UserError(f"{path}: line {line}: {column} must be a whole number; {remedy(name)}")
        return found

    def _rows_noted(self, name: str) -> int:
        experiment, _, file = name.partition("/")
        rows: dict[str, int] = self.provenance().get(experiment, {}).get("rows", {})
        return rows.get(file, 0)

    def provenance(self) -> dict[str, Any]:
        """What keep_reference.py recorded about every experiment; empty for results that were not kept. Raises UserError."""
        path = self.folder / "provenance.json"
        if self.single or not path.is_file():
            return {}
        content = read_json(path, "restore it, or delete it to draw without dates")
        if not all(isinstance(note, dict) for note in content.values()):
            raise UserError(f"{path}: line 1: holds no object for each experiment; restore it, or delete it to draw without dates")
        return content

    def current(self, name: str) -> bool:
        """Whether EXPERIMENT/FILE is there and, if it was computed from a sweep, from the one that is there now. Raises UserError."""
        experiment = experiment_of(name)
        if not (self.folder / name).is_file():
            return False
        sweep, summary = self.folder / experiment.reads / "sweep.csv", self.folder / experiment.name / "summary.json"
        if not experiment.reads or not sweep.is_file() or not summary.is_file():
            return True
        return self.summary(experiment.name).get("sweep_sha256", "") in ("", file_digest(sweep))

    def summary(self, experiment: str) -> dict[str, Any]:
        """summary.json of an experiment. Raises UserError."""
        content = read_json(self.path(f"{experiment}/summary.json"), remedy(experiment))
        settings = content.setdefault("settings", {})
        if not isinstance(settings, dict) or not all(isinstance(settings.get(name, 0), int) for name in ("seed", "seeds")):
            raise UserError(
                f"{self.path(f'{experiment}/summary.json')}: line 1: tells no whole seed and seeds; {remedy(experiment)}"
            )
        return content


def seeds_of(summary: dict[str, Any]) -> int | None:
    """How many seeds a run repeated; a part that took fewer than the run was asked for says so, and stands alone in its file."""
    settings = summary.get("settings", {})
    parts: list[str] = settings.get("parts") or []
    own = summary.get(parts[0], {}) if len(parts) == 1 else {}
    most = max(settings.get("rungs") or [0]) or None  # of a search: the best candidates are tried with so many
    count: int | None = own.get("seeds", settings.get("seeds", most))
    return count


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """A JSON object. Raises UserError naming the line."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); {fix}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: is not JSON ({error.msg}); {fix}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: line 1: holds {type(content).__name__}, not a JSON object; {fix}")
    return content


def _number(cell: str, path: Path, line: int, column: str, name: str) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        raise UserError(f"{path}: line {line}: {column} is {cell!r}, not a number; {remedy(name)}") from None


def remedy(name: str) -> str:
    """How to make a result file again."""
    if name.partition("/")[0] not in EXPERIMENTS:
        return "restore it"
    experiment = experiment_of(name)
    return f"make it anew with: {experiment.command()} ({experiment.takes}), or restore the committed one"


def where(columns: Columns, **values: Any) -> Any:
    """Rows in which every named column has the given value."""
    rows = np.ones(len(next(iter(columns.values()))), dtype=bool)
    for name, value in values.items():
        rows &= columns[name] == value
    return rows
