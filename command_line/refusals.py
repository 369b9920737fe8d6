"""What tyro says of a command line it cannot read, in one line."""

from __future__ import annotations

import re

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


def refused_flag(frame: str) -> str:
    """The frame that tyro draws around an error of a command line, as one line: value, cause, remedy.

    frame: a title, then sections between horizontal lines: what is wrong, flags with similar names, where to find help; drawn with minus
    signs where standard output is no UTF-8. Returns "" for a frame of another form.
    """
    sections = re.split(r"^(?:╭.*|.*[─-]{4}.*)$", frame, flags=re.MULTILINE)
    wrong = " ".join(sections[min(1, len(sections) - 1)].replace("│", " ").split())
    alike = re.findall(r"^[│ ] {5}(--[\w.-]+)", frame, re.MULTILINE)
    for pattern, told in (
        (r"Unrecognized options: (.+)", lambda words: _unknown(words.replace(", ", " "), alike)),
        (
            r"Missing from \S+: (.+)",
            lambda these: f"missing: {these.replace('. (required)', '').replace(' (required)', '')}; {HELP}",
        ),
        (r"Missing value for argument '(\S+)'\. Expected 1 .*", lambda flag: f"{flag}: needs a value; {HELP}"),
        (r"Missing value for argument '(\S+)'\. Expected (\d+) .*", lambda flag, many: f"{flag}: needs {many} values; {HELP}"),
        (r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*)\)\.", _no_choice),
        (r"Error parsing (\S+): .*base 10: '(.*)'", lambda flag, text: f"{flag} {text}: is no whole number; {HELP}"),
        (r"Error parsing (\S+): .*to float: '(.*)'", lambda flag, text: f"{flag} {text}: is no number; {HELP}"),
        (r"Error parsing (\S+): Could not .*arguments:? \[(.*?)\].*", _no_reading),
        (r"Error parsing (\S+): (.*)", lambda flag, cause: f"{flag}: {cause}; {HELP}"),
    ):
        if found := re.fullmatch(pattern, wrong):
            return told(*found.groups())
    return ""


def _unknown(words: str, alike: list[str]) -> str:
    remedy = f"did you mean {' or '.join(dict.fromkeys(alike))}?" if alike else HELP
    return f"{words}: unknown option; {remedy}"


def _no_choice(text: str, flag: str, known: str) -> str:
    return f"{flag} {text}: unknown; use one of {known.replace(chr(39), '').rstrip(',')}"


def _no_reading(flag: str, texts: str) -> str:
    return f"{flag} {texts.replace(chr(39), '').replace(',', '')}: not what this option takes; {HELP}"
