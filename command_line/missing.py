"""One line where a package is missing, for programs: `with needs_packages(__name__): import numpy`. Imports nothing that may be missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMEDY = "in a clone of the project: make images, or pip install -e '.[images]'"


@contextmanager
def needs_packages(name: str) -> Iterator[None]:
    """End a program, name "__main__", with one line and status 1 if an import in this block fails for want of a package."""
    try:
        yield
    except ImportError as error:
        line = line_for(error)
        if name != "__main__" or line is None:
            raise
        sys.exit(f"error: {line}")


def line_for(error: ImportError) -> str | None:
    """The message for an import that failed; None for a bug in the project."""
    package = (error.name or "").partition(".")[0]
    if not package:  # a message of the project itself
        return str(error)
    if (Path(__file__).parents[1] / package).is_dir():
        return None
    missing = isinstance(error, ModuleNotFoundError)
    return f"the package {error.name} is missing; {REMEDY}" if missing else f"{error}; its version does not fit: {REMEDY}"
