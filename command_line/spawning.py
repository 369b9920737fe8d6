"""Worker processes that do not run the caller's program again: a notebook, a script without a main guard, a REPL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_main() -> Iterator[None]:
    """Context in which processes spawned by multiprocessing do not import the main module; the code they run is in other modules."""
    main = sys.modules["__main__"]
    held: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(held)
