"""The results of an experiment, for Python: read from its folder on access."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command_line.output import UserError


def is_file(path: Path) -> bool:
    """Also False for a name that is too long for the system."""
    try:
        return path.is_file()
    except OSError:
        return False


class Result:
    """out: the folder. summary: the content of summary.json. tables: names of the csv files. Raises UserError if it is not finished."""

    def __init__(self, out: str | Path) -> None:
        if not isinstance(out, str | Path) or "\0" in str(out):
            raise UserError(f"out={out!r}: give the folder of a run")
        self.out = Path(out).absolute()  # also after the program has changed its folder
        path = self.out / "summary.json"
        if not is_file(path):
            raise UserError(f"{self.out}: holds no finished run, there is no summary.json; run it to the end first")
        try:
            self.summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{path}: damaged; run it again") from None

    @property
    def tables(self) -> list[str]:
        return sorted(path.stem for path in self.out.glob("*.csv"))

    def table(self, name: str) -> Any:
        """A csv file as a pandas DataFrame."""
        return read_table(self.out / f"{name}.csv")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.out)!r})"


def read_table(path: Path) -> Any:
    """A csv file as a DataFrame, with exact numbers. Raises UserError if it does not exist."""
    import pandas as pd

    if not path.is_file():
        names = ", ".join(sorted(other.stem for other in path.parent.glob("*.csv")))
        raise UserError(f"{path}: was not made by this run; its tables are {names}")
    return pd.read_csv(path, engine="python")  # this engine parses numbers exactly
