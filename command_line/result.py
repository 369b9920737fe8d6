"""The results of an experiment, for Python: read from its folder on access."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command_line.output import UserError


def folder_of(out: Any, what: str) -> Path:
    """The absolute path of a folder of results, so that it stays valid when the program changes its own. Raises UserError for no path."""
    if not isinstance(out, str | Path) or "\0" in str(out):
        raise UserError(f"out={out!r}: give the folder of {what}")
    return Path(out).absolute()


class Result:
    """out: the folder. summary: the content of summary.json. tables: names of the csv files. Raises UserError if it is not finished."""

    def __init__(self, out: str | Path) -> None:
        self.out = folder_of(out, "a run")
        path = self.out / "summary.json"
        try:
            self.summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError:  # not there, or a name that the system refuses
            raise UserError(f"{self.out}: holds no finished run, there is no summary.json; run it to the end first") from None
        except ValueError:
            raise UserError(f"{path}: damaged; run it again") from None

    @property
    def tables(self) -> list[str]:
        """Names of the csv files in the folder, for table(name)."""
        return sorted(path.stem for path in self.out.glob("*.csv"))

    def table(self, name: str) -> Any:
        """A csv file as a pandas DataFrame."""
        return read_table(self.out / f"{name}.csv")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.out)!r})"


TEXT = ("run", "method", "baseline", "a", "b", "attack", "norm", "dataset", "split")


def read_table(path: Path) -> Any:
    """A csv file as a DataFrame, with exact numbers. Raises UserError if it does not exist."""
    import pandas as pd

    if not path.is_file():
        names = ", ".join(sorted(other.stem for other in path.parent.glob("*.csv")))
        raise UserError(f"{path}: was not made by this run; its tables are {names}")
    # this engine parses numbers exactly; names stay text, also those that look like numbers
    return pd.read_csv(path, engine="python", converters=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=["", "nan"])
