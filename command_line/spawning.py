"""Worker processes that do not run the caller's program again: a notebook, a script without a main guard, a REPL."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_held: dict[str, Any] = {}
_inside = 0
"""How many contexts are open, in all threads: the last one puts back what the first one took."""


@contextmanager
def without_main() -> Iterator[None]:
    """Context in which processes spawned by multiprocessing do not import the main module; the code they run is in other modules."""
    global _inside  # noqa: PLW0603 (one main module per process)
    main = sys.modules["__main__"]
    with _lock:
        _inside += 1
        if _inside == 1:
            _held.update({name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)})
            main.__spec__ = None
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                vars(main).update(_held)
                _held.clear()
