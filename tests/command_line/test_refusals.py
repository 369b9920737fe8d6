"""A command line that cannot be read ends in one line: value, cause, remedy."""

import contextlib
import io
import os
from dataclasses import dataclass
from typing import Literal

import pytest
import tyro

from command_line.command import Help, run_command
from command_line.output import UserError
from command_line.refusals import framed, refused_flag
from image_experiments.engine.presets import settings_from


@dataclass(frozen=True)
class Settings:
    folder: tyro.conf.Positional[str]
    """Where the results lie."""
    steps: int = 1
    """How many."""
    rate: float = 1.0
    sizes: tuple[int, ...] = ()
    pair: tuple[int, int] = (1, 2)
    solver: Literal["ddim", "ddpm"] = "ddim"
    window: tuple[int, int] | None = None
    force: bool = False
    path: str | None = None
    until: Literal["middle", "end"] | None = None


LONG = "/some/folder/" + 12 * "with-a-long-name/" + "x----y│z"


CASES = {
    "--stepz 3": "--stepz 3: unknown option; did you mean --steps?",
    "--other": "--other: unknown option; --help lists the options",
    "more words": "more words: unknown option; --help lists the options",
    "--steps": "--steps: needs a value; --help lists the options",
    "--pair 3": "--pair: needs 2 values; --help lists the options",
    "--steps 1.5": "--steps 1.5: is no whole number; --help lists the options",
    "--rate fast": "--rate fast: is no number; --help lists the options",
    "--sizes 1 b": "--sizes 1 b: not what this option takes; --help lists the options",
    "--solver euler": "--solver euler: unknown; use one of ddim, ddpm",
    "--solver a----b": "--solver a----b: unknown; use one of ddim, ddpm",
    "--until now": "--until now: unknown; use one of end, middle",
    "--window 50": "--window 50: not what this option takes; --help lists the options",
    "--window 1 b": "--window 1 b: not what this option takes; --help lists the options",
    "--steps 1 2": "--steps: 2 is one value too many; --help lists the options",
    "--force=yes": "--force: yes is one value too many; --help lists the options",
    f"--pth {LONG}": f"--pth {LONG}: unknown option; did you mean --path?",
    "--bogus --stepz=1": "--bogus --stepz=1: unknown option; --help lists the options",
}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        *((f"here {words}", line) for words, line in CASES.items()),
        ("", "missing: STR Where"),
        ("--folder here", "folder: is missing; give it without a flag; --help lists the options"),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_in_one_line_and_status_2(words, line, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(Settings, lambda settings: 0, Help("Tries."), words.split())
    assert ended.value.code == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {line}")


@pytest.mark.parametrize(("words", "line"), CASES.items())
def test_it_is_the_same_line_where_tyro_draws_its_frame_in_ascii(words, line):
    with framed() as told, contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit):
        tyro.cli(Settings, args=["here", *words.split()])
    assert "╭" not in told.getvalue()
    assert refused_flag(told.getvalue(), words.split()) == line


def test_a_list_without_values_is_not_taken_for_the_default(capsys):
    for words in (["here", "--sizes"], ["here", "--sizes", "--steps", "2"]):
        assert run_command(Settings, lambda settings: 0, Help("Tries."), words) == 1
        assert capsys.readouterr().err == "error: --sizes: needs a value; leave it out for the default\n"
    assert run_command(Settings, lambda settings: len(settings.sizes), Help("Tries."), ["here", "--sizes", "1", "2"]) == 2


def test_the_width_of_the_terminal_is_left_as_it_was(monkeypatch):
    for width in ("40", None):
        monkeypatch.setenv("COLUMNS", width) if width else monkeypatch.delenv("COLUMNS", raising=False)
        with pytest.raises(UserError):
            settings_from(["--selection.critrion", "confidence"])
        assert os.environ.get("COLUMNS") == width


def test_an_unknown_frame_is_left_to_tyro():
    assert refused_flag("╭─ News ────────╮\n│ Of another kind │\n╰───────────────╯\n", []) == ""


def test_the_flags_of_a_design_are_refused_in_the_same_words():
    with pytest.raises(
        UserError, match=r"^--selection\.critrion confidence: unknown option; did you mean --selection\.criterion[?]$"
    ):
        settings_from(["--selection.critrion", "confidence"])
