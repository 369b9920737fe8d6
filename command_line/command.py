"""Shared by all commands: parsing, the line of settings, one-line errors, exit statuses."""

from __future__ import annotations

import io
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro

from command_line.help import view
from command_line.missing import line_for
from command_line.output import UserError, printable, remedy_for, tame
from command_line.refusals import framed, refused_flag, refused_value
from command_line.values import NoNumber, words_at_home

SettingsT = TypeVar("SettingsT")


TRACEBACK = "--traceback"
INTERRUPTED = "interrupted: every file is whole, but some may be of an earlier run; run the same command again"


@dataclass(frozen=True)
class Help:
    """Content of --help. description: of the command. common: options that it shows, as "part.name"; if empty, all, as with --help-all.
    alike: {part: other part} with options that have the same texts."""

    description: str
    common: tuple[str, ...] = ()
    alike: Mapping[str, str] = field(default_factory=dict)


def run_command(
    kind: type[SettingsT],
    run: Callable[[SettingsT], int],
    about: Help,
    arguments: Sequence[str] | None = None,
    default: Callable[[], SettingsT] | None = None,
    interrupted: str = INTERRUPTED,
) -> int:
    """Parse the command line into `kind` and run it; errors the user can fix become one line on standard error and status 1.

    default: makes the settings that flags override; if given, flags of a nested part are named --part.name, otherwise just --name.
    interrupted: the message after Ctrl-C. --traceback, anywhere on the command line, adds the traceback of an error. --version prints it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # so that class names in any script can be printed on any terminal
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # run as a program
        signal.signal(signal.SIGTERM, _terminate)
        sys.stdout, sys.stderr = Unbroken(sys.stdout), Unbroken(sys.stderr)
    wanted = TRACEBACK in given
    arguments = [argument for argument in given if argument != TRACEBACK]
    try:
        if "--version" in arguments:
            print(f"contrastive-dp {own_version()}")
            return 0
        settings = _parsed(kind, about, arguments, default)
        status = run(settings)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except (UserError, ImportError, OSError) as error:
        if wanted:
            traceback.print_exc()
        if (line := _line_for(error)) is None:
            raise
        if line:
            print(f"error: {tame(line)}", file=sys.stderr)
        return 1


def _line_for(error: Exception) -> str | None:
    """The message for an error; "" if another process of the run prints it, None for a bug in the project."""
    if isinstance(error, ImportError):
        return line_for(error)
    if isinstance(error, CannotPrintError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python would complain again on exit
        return f"cannot use standard output ({error.strerror}); redirect or free it"
    if isinstance(error, OSError):
        cause = error.strerror or str(error) or type(error).__name__
        return f"cannot use {error.filename} ({cause}); {remedy_for(error)}" if error.filename else f"{cause}; {remedy_for(error)}"
    return str(error)


def _parsed(kind: type[SettingsT], about: Help, arguments: Sequence[str], default: Callable[[], SettingsT] | None) -> SettingsT:
    """The settings of a command line; prints help and exits if requested, or exits with status 2 for invalid flags."""
    for one in arguments:
        if printable(one) != one:  # it could not be written into the results
            raise UserError(f"{printable(one)}: is not UTF-8; rename it")
    arguments = words_at_home(arguments)
    unset = [not one or (one.startswith("--") and one.endswith("=")) for one in arguments]
    if any(unset):
        place = unset.index(True)
        flag = arguments[place].rstrip("=") or _flag_before(arguments, place) or "an argument"
        raise UserError(f"{flag}: is empty; give a value (a variable of the shell that is not set?)")
    nested = tyro.conf.AvoidSubcommands if default is not None else tyro.conf.OmitArgPrefixes
    if {"-h", "--help", "--help-all"} & set(arguments):
        everything = "--help-all" in arguments or not about.common
        required = {
            one.name: tyro.MISSING for one in fields(cast("Any", kind)) if one.default is MISSING and one.default_factory is MISSING
        }
        shown = view(default() if default else kind(**required), () if everything else about.common, about.alike)
        more = "" if everything else "--help-all: all options. "
        text = f"{about.description}\n\n{more}--version: print the version. {TRACEBACK}: with an error, show where in the code it arose."
        tyro.cli(type(shown), args=["--help"], description=text, default=shown, config=(nested,))
    parse = partial(tyro.cli, kind, args=arguments, description=about.description, config=(nested,))
    usual: Any = kind
    if default is not None:
        usual = default()
        parse = partial(parse, default=usual)
    try:
        with framed() as told:
            settings = cast("SettingsT", parse())
    except SystemExit as refused:
        if not refused.code:
            raise
        if line := refused_value(refused):
            raise UserError(line) from refused.__context__
        if not (line := refused_flag(told.getvalue(), arguments)):
            return cast("SettingsT", parse())  # once more, to say why in tyro's words
        print(f"error: {line}", file=sys.stderr)
        raise
    except NoNumber as error:
        words = [word for argument in arguments for word in argument.split("=", 1)]  # --eps=8/0 is --eps 8/0
        flags = [_flag_before(words, i) for i, word in enumerate(words) if word == error.text]
        raise UserError(f"{' or '.join(dict.fromkeys(filter(None, flags)))} {error}".lstrip()) from None
    for word in arguments:  # a list without values would silently be the default, if that is an empty list
        name = word.removeprefix("--").replace("-", "_")
        if word.startswith("--") and getattr(settings, name, None) == getattr(usual, name, None) == ():
            raise UserError(f"{word}: needs a value; leave it out for the default")
    return settings


def _flag_before(words: Sequence[str], place: int) -> str:
    return next((word for word in reversed(words[:place]) if word.startswith("--")), "")


class CannotPrintError(OSError):
    """The error of a stream that is closed or full."""


class Unbroken:
    """A stream whose reader may go away, as in `... | head`: later output is dropped, and the work continues.

    Raises CannotPrintError for a stream that is closed or full, so that its error is told from that of a file.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._gone = stream, False

    def _try(self, action: Callable[[], Any], otherwise: Any) -> Any:
        if self._gone:
            return otherwise
        try:
            return action()
        except BrokenPipeError:
            self._gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # otherwise Python would complain again on exit
            return otherwise
        except OSError as error:
            raise CannotPrintError(error.errno, error.strerror) from error

    def write(self, text: str) -> int:
        return int(self._try(lambda: self._stream.write(text), len(text)))

    def flush(self) -> None:
        self._try(self._stream.flush, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def settings_line(settings: Any) -> str:
    """All settings in one line."""
    return "settings: " + ", ".join(f"{name}={_shown(value)}" for name, value in asdict(settings).items())


def own_version() -> str:
    """Version of this project, also in a clone that is not installed."""
    text = (Path(__file__).parents[1] / "theory" / "__init__.py").read_text(encoding="utf-8")
    return text.partition('__version__ = "')[2].partition('"')[0]


def versions(*more: str) -> dict[str, str]:
    """Versions of the packages that the numbers depend on."""
    found = {"python": platform.python_version(), "contrastive-dp": own_version()}
    for package in ("numpy", "scipy", "scikit-learn", "matplotlib", *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "default"
    return "default" if value is None else str(value)


def _terminate(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt  # SIGTERM ends like Ctrl-C, so that the workers are stopped
