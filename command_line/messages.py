"""Where an experiment prints what it reads and finds: on the terminal when run as a command, nowhere when run from Python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from command_line.output import tame, write_whole


@dataclass(frozen=True)
class Talk:
    """say: takes a line about what was read or found. warn: takes a line about what is doubtful. shown: whether it is printed.
    detail: takes what not everybody reads, such as long tables."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    shown: bool = True
    detail: Callable[[str], None] = lambda _text: None


def _silent(_line: str) -> None:
    pass


def _warn(line: str) -> None:
    print(f"warning: {tame(line)}", file=sys.stderr)


def _say(line: str) -> None:
    print(tame(line))


QUIET = Talk(_silent, _silent, shown=False)
TERMINAL = Talk(_say, _warn)


def noting(talk: Talk, doubts: list[str]) -> Talk:
    """The same, and what is doubtful is also added to a list."""

    def warn(line: str) -> None:
        doubts.append(line)
        talk.warn(line)

    return replace(talk, warn=warn)


def with_details(talk: Talk, kept: list[str], verbose: bool) -> Talk:
    """The same; details are added to a list, and said too if verbose."""

    def detail(text: str) -> None:
        kept.append(text)
        if verbose:
            talk.say(text)

    return replace(talk, detail=detail)


def write_details(kept: list[str], folder: Path) -> None:
    """Write them to FOLDER/report.txt."""

    def write(path: Path) -> None:
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")

    write_whole(folder / REPORT, write)


def told_of_files(folder: Path, pictures: Sequence[Path], seconds: float, first: Sequence[str]) -> str:
    """The last line of a command that writes its details. first: names of pictures, of which the first that was drawn is to be opened."""
    drawn = f"{len(pictures)} picture{'s' * (len(pictures) != 1)}"
    made = [name for name in first if name in {picture.stem for picture in pictures}]
    look = f"; open {made[0]}.png first" if made and len(pictures) > 1 else ""
    return f"wrote {drawn}, csv files and {REPORT} with all tables (--verbose prints them) to {folder} in {seconds:.0f} s{look}"


REPORT = "report.txt"
