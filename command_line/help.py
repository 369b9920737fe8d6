"""Content of --help: the options that most runs need; --help-all shows all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro


def view(settings: Any, shown: Collection[str] = (), alike: Mapping[str, str] | None = None, prefix: str = "") -> Any:
    """The settings as an instance of a class that is made only for the help text.

    shown: names of options as "part.name"; others are hidden (empty: all are shown). alike: {part: other part} with the same options, whose
    texts are printed once. If a value is None, the only default printed is the one in the option's own text.
    """
    kind = type(settings)
    hints = get_type_hints(kind, include_extras=True)
    annotations: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):
        name, value = prefix + entry.name, getattr(settings, entry.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            some = not shown or any(each.startswith(f"{name}.") for each in shown)
            value = view(value, shown, alike, f"{name}.") if some else value
            annotations[entry.name] = type(value) if some else Annotated[type(value), tyro.conf.Suppress]
        else:
            hidden = bool(shown) and name not in shown
            annotations[entry.name] = (
                Annotated[hints[entry.name], tyro.conf.Suppress] if hidden else _option(hints[entry.name], value, name, alike or {})
            )
        values[entry.name] = value
    members = {name: dataclasses.field(default=None) for name in annotations}
    made: Any = type(kind.__name__, (kind,), {**members, "__annotations__": annotations, "__module__": kind.__module__})
    made.__doc__ = kind.__doc__
    return dataclasses.dataclass(frozen=True)(made)(**values)


def _option(hint: Any, value: Any, name: str, alike: Mapping[str, str]) -> Any:
    part, _, option = name.rpartition(".")
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    about: dict[str, Any] = {}
    for mark in marks:
        about |= {"aliases": mark.aliases} if getattr(mark, "aliases", None) else {}
    if part in alike:
        about["help"] = f"As --{alike[part]}.{option.replace('_', '-')}."
    if value is None or value == ():
        about["help_behavior_hint"] = ""
    if type(None) in get_args(kind):
        about["metavar"] = _named(next(each for each in get_args(kind) if each is not type(None)))
        return Annotated[kind, tyro.conf.arg(**about)]
    return Annotated[hint, tyro.conf.arg(**about)] if about else hint


def _named(kind: Any) -> str:
    """The placeholder for a value of an optional setting."""
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    names = {Path: "PATH", str: "TEXT", int: "INT", float: "NUMBER"}
    return names.get(kind, names.get(get_args(kind)[0], "VALUE") if get_args(kind) else "VALUE")
