"""Where an experiment says what it reads and finds: to the terminal from a command, nowhere from Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Talk:
    """say: takes a line of what was read or found; warn: a line of what is doubtful about it."""

    say: Callable[[str], None]
    warn: Callable[[str], None]


def _silent(_line: str) -> None:
    pass


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


QUIET = Talk(_silent, _silent)
TERMINAL = Talk(print, _warn)
