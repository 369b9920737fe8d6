"""Where an experiment prints what it reads and finds: on the terminal when run as a command, nowhere when run from Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Talk:
    """say: takes a line about what was read or found. warn: takes a line about what is doubtful."""

    say: Callable[[str], None]
    warn: Callable[[str], None]


def _silent(_line: str) -> None:
    pass


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


QUIET = Talk(_silent, _silent)
TERMINAL = Talk(print, _warn)
