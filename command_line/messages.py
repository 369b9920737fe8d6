"""Where an experiment prints what it reads and finds: on the terminal when run as a command, nowhere when run from Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Talk:
    """say: takes a line about what was read or found. warn: takes a line about what is doubtful. shown: whether it is printed."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    shown: bool = True


def _silent(_line: str) -> None:
    pass


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


QUIET = Talk(_silent, _silent, shown=False)
TERMINAL = Talk(print, _warn)


def noting(talk: Talk, doubts: list[str]) -> Talk:
    """The same, and what is doubtful is also added to a list."""

    def warn(line: str) -> None:
        doubts.append(line)
        talk.warn(line)

    return replace(talk, warn=warn)
