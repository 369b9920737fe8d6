"""What tyro says of a command line it cannot read, in one line."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
from collections.abc import Iterator, Sequence

HELP = "--help lists the options"


def refused_value(refused: SystemExit) -> str:
    """The message of a part of the settings that rejects its values, which tyro would frame: its names as flags. "" for other errors."""
    about = refused.__context__
    error = about and (about.__cause__ or about.__context__)
    part = getattr(about, "arg", None)
    if not (isinstance(part, str) and isinstance(error, ValueError)):
        return ""

    def flag(found: re.Match[str]) -> str:
        shown = found[2] if found[2].startswith("'") else " ".join(re.findall("[^(), ]+", found[2]))
        return f"--{part}.{found[1].replace('_', '-')} {shown}"

    # name=value where a message or its clause begins, and after "with" and "than"; texts in quotes, lists in brackets, of lists too
    value = r"('[^']*'|\((?:[^()]|\([^()]*\))*\)|[^\s,]+?(?=[,:]?(?:\s|$)))"
    line, count = re.subn(r"(?:(?<=^)|(?<=, )|(?<=with )|(?<=than ))([a-z]\w*)=" + value, flag, str(error))
    return line if count else f"--{part}: {line}"


@contextlib.contextmanager
def framed() -> Iterator[io.StringIO]:
    """Context in which what goes to standard error is kept, and tyro breaks no line of its frames."""
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        with contextlib.redirect_stderr(io.StringIO()) as told:
            yield told
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({} if width is None else {"COLUMNS": width})


def refused_flag(frame: str, arguments: Sequence[str]) -> str:
    """The frame that tyro draws around an error of a command line, as one line: value, cause, remedy.

    frame: a title, then sections between horizontal lines: what is wrong, flags with similar names, where to find help; drawn with minus
    signs where standard output is no UTF-8. Returns "" for a frame of another form.
    """
    sections = re.split(r"^(?:╭.*|[│ ]*[─-]{4,}[│ ]*)$", frame, flags=re.MULTILINE)
    wrong = " ".join(row.strip("│ ") for row in sections[min(1, len(sections) - 1)].strip().splitlines())
    alike = re.findall(r"^[│ ] {5}(--[\w.-]+)", frame, re.MULTILINE)
    for pattern, told in (
        (r"Unrecognized options: (.+)", lambda words: _unknown(words, alike, arguments)),
        (r"Missing from \S+: (.+)", lambda these: f"missing: {re.sub('[.]? +.required.', '', these)}; {HELP}"),
        (r"Missing value for argument '(\S+)'\. Expected 1 .*", _no_value),
        (r"Missing value for argument '(\S+)'\. Expected (\d+) .*", lambda flag, many: f"{flag}: needs {many} values; {HELP}"),
        (r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*)\)\.", _no_choice),
        (r"Error parsing (\S+): .*base 10: '(.*)'", lambda flag, text: f"{flag} {text}: is no whole number; {HELP}"),
        (r"Error parsing (\S+): .*to float: '(.*)'", lambda flag, text: f"{flag} {text}: is no number; {HELP}"),
        (r"Error parsing (\S+): Could not .*arguments:? \[(.*?)\].*", _no_reading),
        (r"Error parsing (\S+): no type matching .* could be instantiated from \[(.*?)\].*", _no_reading),
        (r"Error parsing (\S+): (.*)", lambda flag, cause: f"{flag}: {cause}; {HELP}"),
    ):
        if found := re.fullmatch(pattern, wrong):
            return told(*found.groups())
    return ""


def _unknown(words: str, alike: Sequence[str], arguments: Sequence[str]) -> str:
    """words: those that tyro did not understand, with commas between; a value follows its flag, as far as it was typed so."""
    given = [part for argument in arguments for part in argument.split("=", 1)]
    first = max((word for word in given if words == word or words.startswith((f"{word}, ", f"{word}="))), key=len, default=words)
    before = given[: given.index(first)] if first in given else []
    if not first.startswith("-") and (flags := [word for word in before if word.startswith("--")]):
        return f"{flags[-1]}: {first} is one value too many; {HELP}"
    nearest = sorted((one for one in set(alike) if _likeness(first, one) >= 0.6), key=lambda one: (-_likeness(first, one), one))[:3]
    remedy = f"did you mean {' or '.join(nearest)}?" if nearest else HELP
    return f"{words.replace(', ', ' ')}: unknown option; {remedy}"


def _likeness(typed: str, flag: str) -> float:
    """Of two flags, or of what was typed to the last part of a flag; 1 if equal."""
    return max(
        difflib.SequenceMatcher(a=typed.strip("-"), b=b).ratio() for b in (flag.strip("-"), flag.rpartition(".")[2].strip("-"))
    )


def _no_value(flag: str) -> str:
    return f"{flag}: needs a value; {HELP}" if flag.startswith("-") else f"{flag}: is missing; give it without a flag; {HELP}"


def _no_choice(text: str, flag: str, known: str) -> str:
    choices = [choice.strip("' ") for choice in known.split(",") if choice.strip("' ")]
    if "None" in choices:  # of a set, in any order
        choices = sorted(set(choices) - {"None"})
    return f"{flag} {text}: unknown; use one of {', '.join(choices)}"


def _no_reading(flag: str, texts: str) -> str:
    return f"{flag} {texts.replace(chr(39), '').replace(',', '')}: not what this option takes; {HELP}"
