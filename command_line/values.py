"""Values of settings: numbers as written on a command line, and what Python programs give."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from command_line.output import UserError, did_you_mean

LONGEST_PATH = 4095
"""Bytes, on Linux."""
SettingsT = TypeVar("SettingsT", bound=Any)


def number(text: str) -> float:
    """A number, or a fraction of two: 0.03, 8/255. Raises ValueError for anything else; the caller must reject infinity and NaN."""
    if re.fullmatch(r"\s*[-+]?(nan|inf|infinity)\s*", text, re.IGNORECASE):
        return float(text)
    parts = re.fullmatch(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?)\s*)?", text, re.ASCII | re.IGNORECASE)
    if parts:
        with suppress(ValueError, ZeroDivisionError):  # 1.2.3, 8/0
            return float(parts[1]) / float(parts[2] or 1)
    raise ValueError(f"{text!r} {NO_NUMBER}")


NO_NUMBER = "is no number; write 0.03 or 8/255"


class NoNumber(UserError):
    """A text on the command line that is no number. text: as it was given."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text}: {NO_NUMBER}")
        self.text = text


def _from_words(words: list[str]) -> float:
    try:
        return number(words[0])
    except ValueError:
        raise NoNumber(words[0]) from None  # around a ValueError tyro would show its own types


Radius: Any = Annotated[
    float,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="RADIUS",
        instance_from_str=_from_words,
        is_instance=lambda value: isinstance(value, float | int),
        str_from_instance=lambda value: [repr(float(value))],
    ),
]
"""A radius on a command line: 0.03 or 8/255."""


def check_radius(text: str, eps: float, norm: str) -> float:
    """The radius of an attack on images in [0, 1]. Raises UserError if it is negative, or so large that any image can become any other.

    text: its name in the message, for example "--eps 8".
    """
    if not (math.isfinite(eps) and eps > 0):
        raise UserError(f"{text}: must be a finite number > 0, on the scale of images in [0, 1], for example 8/255")
    if norm == "linf" and eps >= 1:
        meant = f"; did you mean {eps:g}/255?" if eps <= 255 else ""
        raise UserError(f"{text}: turns every image into any other, as images lie in [0, 1]{meant}")
    if norm == "l2" and eps >= LARGEST_L2:
        meant = f"; did you mean {eps:g}/255?" if eps <= 20 * 255 else ""
        raise UserError(f"{text}: is longer than any distance between images in [0, 1] of usual size{meant}")
    return eps


LARGEST_L2 = 32.0
"""32x32 colour images are at most 55 apart, and half of that turns any image grey; 8x8 digits are at most 8 apart."""


def changed(settings: SettingsT, **changes: Any) -> SettingsT:
    """Settings with some values changed, those of a part by a dictionary or by "part.name". Text may stand for paths, lists for tuples.

    Raises UserError for an unknown name, suggesting the nearest one, and for a value that the settings reject.
    """
    known = [entry.name for entry in fields(settings)]
    inner: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    for name, value in changes.items():
        part, dot, rest = name.partition(".")
        if part not in known:
            raise UserError(f"{name}: no such setting{did_you_mean(part, known)}; known are {', '.join(known)}")
        before = getattr(settings, part)
        if dot or (isinstance(value, Mapping) and is_dataclass(before)):
            if not is_dataclass(before):
                raise UserError(f"{name}: {part} has no settings of its own; leave out .{rest}")
            inner.setdefault(part, {}).update({rest: value} if dot else value)
        else:
            plain[part] = value
    for part, values in inner.items():
        check_named_by_text(values, f"{part}: ")
        plain[part] = changed(plain.get(part, getattr(settings, part)), **values)
    hints = get_type_hints(type(settings), include_extras=True)
    for name, value in plain.items():
        whole = is_dataclass(value) and isinstance(hints[name], type) and isinstance(value, hints[name])
        plain[name] = value if whole else _fitting(name, hints[name], value)
    try:
        return replace(settings, **plain)
    except (ValueError, TypeError) as error:
        raise UserError(" ".join(str(error).split())) from None


def check_named_by_text(changes: Mapping[Any, Any], where: str = "") -> None:
    """Raise UserError if a setting is named by anything but text, which could not be an argument's name."""
    if bad := [name for name in changes if not isinstance(name, str)]:
        raise UserError(f"{where}{bad[0]!r}: settings are named by text, for example 'classifier.steps'")


def as_number(value: Any) -> Any:
    """Numbers of numpy as Python's; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _fitting(name: str, hint: Any, value: Any) -> Any:
    """The value as the setting has it: text for paths, one text for a list of them, numpy's numbers as Python's. Raises UserError."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    value = as_number(value)
    if value is None and type(None) in kinds:
        return None
    kind = next(each for each in kinds if each is not type(None))
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if is_dataclass(kind):
        raise UserError(
            f"{name}={value!r}: give a dictionary of its settings, or {getattr(kind, '__name__', 'its dataclass')}(...)"
        )
    if get_origin(kind) is tuple:
        return _fitting_list(name, get_args(kind), value)
    if get_origin(kind) is Literal:
        if not isinstance(value, str) or value not in get_args(kind):
            raise UserError(
                f"{name}={value!r}: use one of {', '.join(map(str, get_args(kind)))}{did_you_mean(str(value), get_args(kind))}"
            )
        return value
    if kind is Path:
        if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
            raise UserError(f"{name}={value!r}: give a path")
        if len(os.fsencode(value)) > LONGEST_PATH:
            raise UserError(f"{name}: a path of {len(str(value))} characters is too long; give a shorter one")
        return Path(at_home(str(value)))
    if kind is float and isinstance(value, str):
        try:
            return number(value)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
    accepted: dict[Any, Any] = {float: float | int, int: int, bool: bool, str: str}
    wrong = isinstance(value, bool) and kind in (int, float)
    if kind in accepted and (wrong or not isinstance(value, accepted[kind])):
        words = {float: "a number", int: "a whole number", bool: "True or False", str: "text"}
        raise UserError(f"{name}={value!r}: give {words[kind]}")
    return value


def at_home(text: str) -> str:
    """The path with the home folder for a leading ~, which a shell leaves in --out=~/results and npz:~/images. Raises UserError."""
    if text != "~" and not text.startswith("~/"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise UserError(f"{text}: this user has no home folder; give the whole path") from None


def words_at_home(words: Sequence[str]) -> list[str]:
    """A command line with at_home of every value."""
    split = [word.partition("=") if word.startswith("--") else ("", "", word) for word in words]
    return [f"{flag}{equals}{at_home(value)}" for flag, equals, value in split]


def _fitting_list(name: str, inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """A tuple of these kinds. One path, or one text, may stand for a list; a text without paths in it is split at its spaces."""
    any_number = Ellipsis in inner
    entries = value
    if any_number and isinstance(value, str | Path):
        split = isinstance(value, str) and inner[0] is not Path and not value.startswith("npz:")
        entries = str(value).split() if split else [value]
    entries = entries.tolist() if hasattr(entries, "tolist") else entries
    if not isinstance(entries, list | tuple):
        raise UserError(f"{name}={value!r}: give a list")
    if not any_number and len(entries) != len(inner):
        raise UserError(f"{name}={value!r}: give {len(inner)} values")
    return tuple(_fitting(name, inner[0 if any_number else i], entry) for i, entry in enumerate(entries))


def checked(settings: SettingsT) -> SettingsT:
    """Settings that were built directly, with every value as `changed` takes it. Raises UserError."""
    values = {entry.name: getattr(settings, entry.name) for entry in fields(settings)}
    return changed(settings, **{name: checked(value) if is_dataclass(value) else value for name, value in values.items()})


def as_fraction(eps: float) -> str:
    """8/255 for 0.03137..., otherwise the number itself."""
    steps = round(eps * 255)
    return f"{steps}/255" if 0 < steps < 255 and abs(steps / 255 - eps) < 1e-9 else f"{eps:g}"
