"""One line where a package is missing, for programs: `with needs_packages(__name__): import numpy`. Imports nothing that may be missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMEDY = "in a clone of the project: pip install -e '.[images]', or make images and then .venv/bin/python in place of python"


class UnsupportedError(ImportError):
    """Part of the project cannot run on this system; the message says where it can."""


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
    """The message for an import that failed; None for a bug in the project, or a message without the name of a package."""
    told, package = " ".join(str(error).split()), (error.name or "").partition(".")[0]
    if isinstance(error, UnsupportedError):
        return told
    if not package or (Path(__file__).parents[1] / package).is_dir():
        return None
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing; {REMEDY}"
    if told.startswith("cannot import name"):
        return f"{told}; its version does not fit; {REMEDY}"
    return f"the package {package} cannot be loaded ({told}); put that right"
