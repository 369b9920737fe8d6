"""What every command line shares: parsing, the line of settings, one-line errors, exit statuses."""

from __future__ import annotations

import io
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import tyro

from command_line.output import UserError

SettingsT = TypeVar("SettingsT")


def run_command(
    kind: type[SettingsT],
    run: Callable[[SettingsT], int],
    description: str,
    arguments: Sequence[str] | None = None,
    default: Callable[[], SettingsT] | None = None,
) -> int:
    """Parse the command line into `kind` and run it; what the user can mend is one line on standard error and status 1.

    default: makes the settings that flags override; then those of a nested part are named --part.name, else simply --name.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # class names in any script on any terminal
    if arguments is None:  # run as a program
        signal.signal(signal.SIGTERM, _terminate)
    try:
        if default is None:
            settings: SettingsT = tyro.cli(kind, args=arguments, description=description, config=(tyro.conf.OmitArgPrefixes,))
        else:
            settings = tyro.cli(
                kind, args=arguments, description=description, default=default(), config=(tyro.conf.AvoidSubcommands,)
            )
        status = run(settings)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: every file in the output folder is whole, but it may mix this run with an earlier one", file=sys.stderr)
        return 130
    except OSError as error:  # files have their own message: an error without a name is standard output, closed or full
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"error: cannot use {error.filename or 'standard output'} ({error.strerror}); redirect or free it", file=sys.stderr)
        return 1


def describe(settings: Any) -> str:
    """All settings in one line."""
    return "settings: " + ", ".join(f"{name}={_shown(value)}" for name, value in asdict(settings).items())


def versions(*more: str) -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("contrastive-dp", "numpy", "scipy", "scikit-learn", "matplotlib", *more):
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
