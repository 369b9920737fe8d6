"""A folder holds one experiment: OUT/settings.json says which, and any other is refused before it overwrites anything.

The entry "experiment" names the kind, so that the settings of two commands, which may have no name in common, are told apart.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from command_line.output import UserError, listed, plain, write_json

FILE = "settings.json"
FREE = ("out", "workers", "cluster", "dry_run", "force", "verbose")
"""Settings that do not affect the results."""
NAMED = 3
"""Number of differences that a message names."""


def claim(
    out: Path, settings: Mapping[str, Any], free: Collection[str] = FREE, growing: Collection[str] = (), force: bool = False
) -> None:
    """check_claim, then note_claim."""
    check_claim(out, settings, free, growing, force)
    note_claim(out, settings, free)


def note_claim(out: Path, settings: Mapping[str, Any], free: Collection[str] = FREE) -> None:
    """Record that the folder holds the experiment with these settings."""
    write_json(out / FILE, {name: _comparable(value) for name, value in settings.items() if name not in free})


BEGUN = "unfinished.json"
"""Since when a run that has not ended writes here, over all its calls, and what tables and pictures of others were there."""


def claim_anew(out: Path, settings: Mapping[str, Any], force: bool = False) -> None:
    """Claim the folder for a run that ends with finish_claim, and remove the summary of an earlier one, which would say that it is done.

    force: also remove what the earlier run wrote, to its end (as its summary names it under "files") or not, so that no table of other
    settings stays.
    """
    claim(out, settings, force=force)
    summary, begun = out / "summary.json", out / BEGUN
    named: list[str] = []
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        named = [Path(name).name for name in json.loads(summary.read_text(encoding="utf-8"))["files"]]
    if force:
        for name in (*named, *written_in(out)):
            (out / name).unlink(missing_ok=True)
        begun.unlink(missing_ok=True)
    if not begun.is_file():
        there = sorted({path.name for path in _shown_in(out)} - set(named))
        # by the clock of the disk, as the times of files are
        write_json(begun, {"since": write_json(begun, {}).stat().st_mtime, "there": there})
    summary.unlink(missing_ok=True)


def finish_claim(out: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json, with the names of the tables and pictures that the run wrote under "files"."""
    write_json(out / "summary.json", {**summary, "files": written_in(out)})
    (out / BEGUN).unlink(missing_ok=True)


def written_in(out: Path) -> list[str]:
    """Names of the tables and pictures that the unfinished run in the folder has written; none of what was there before, though changed
    since, for example the data."""
    try:
        begun = json.loads((out / BEGUN).read_text(encoding="utf-8"))
        since, there = float(begun["since"]), set(begun.get("there", ()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    return sorted(path.name for path in _shown_in(out) if path.name not in there and path.stat().st_mtime >= since)


def _shown_in(out: Path) -> list[Path]:
    """The tables and pictures in a folder."""
    return [path for path in out.iterdir() if path.suffix in (".csv", ".png")]


def check_claim(
    out: Path, settings: Mapping[str, Any], free: Collection[str] = FREE, growing: Collection[str] = (), force: bool = False
) -> None:
    """Raise UserError if the folder holds an experiment with other settings, naming the differences.

    free: names that are not compared. growing: names of lists that may gain entries, for example when methods or seeds are added.
    force: use the folder whatever it holds.
    """
    ours = {name: _comparable(value) for name, value in settings.items() if name not in free}
    held = {} if force else held_settings(out)
    different = differences(held, ours, growing) or ["settings of another program"] * bool(held and not set(held) & set(ours))
    if different:
        raise UserError(
            f"--out {out}: holds another experiment ({listed(different, NAMED, '; ')}); what it made would be overwritten: give "
            f"another --out, for example {_next_to(out)}, or --force to overwrite"
        )


def differences(held: Mapping[str, Any], ours: Mapping[str, Any], growing: Collection[str] = ()) -> list[str]:
    """The settings that both have and that differ, each as "NAME VALUE there, VALUE here". growing: as in check_claim."""
    return [
        "{} {} there, {} here".format(name.replace("_", "-"), *_shown_apart(held[name], value))
        for name, value in ours.items()
        if name in held and not _goes_with(held[name], value, name in growing)
    ]


def held_settings(out: Path) -> dict[str, Any]:
    """Settings of the experiment in the folder, {} if there is none. Raises UserError for a damaged file."""
    for name in (FILE, "summary.json"):
        path = out / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found: dict[str, Any] = content if name == FILE else content["settings"]
            return dict(found)
        except (ValueError, KeyError, TypeError, OSError):
            raise UserError(
                f"{path} is damaged, so what the folder holds is not known; give another --out, or --force to overwrite"
            ) from None
    return {}


def _shown_apart(held: Any, ours: Any) -> list[str]:
    apart = zip(_apart(held, ours), (held, ours), strict=True)
    return ["default" if whole in (None, "", []) else _shown(part) for part, whole in apart]


def _apart(held: Any, ours: Any) -> tuple[Any, Any]:
    """The entries that two lists do not share; for other types, the values themselves."""
    if isinstance(held, list) and isinstance(ours, list) and held and ours:
        shared = [entry for entry in held if entry in ours]
        apart = [[entry for entry in one if entry not in shared] for one in (held, ours)]
        return (apart[0], apart[1]) if any(apart) else (held, ours)
    return held, ours


def _goes_with(held: Any, ours: Any, growing: bool) -> bool:
    if held and isinstance(held, str) and isinstance(ours, str) and ours and Path(held).exists():
        held, ours = (str(Path(one).resolve()) for one in (held, ours))  # a file may be named from the working folder or in full
    if growing and isinstance(held, list) and isinstance(ours, list):
        return set(map(str, held)) <= set(map(str, ours))
    return bool(held == ours)


def _comparable(value: Any) -> Any:
    """The value as read back from JSON; an existing path becomes its resolved form."""
    if isinstance(value, Path):
        return str(value.resolve()) if value.exists() else str(value)
    return json.loads(json.dumps(plain(value)))


def _shown(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if text and len(text) < 60 else f"{text[:57]}..." if text else "none"


def _next_to(out: Path) -> Path:
    """The first of OUT-2, OUT-3, ... that does not exist."""
    if out.name in ("", ".."):  # "." has no name to which a number could be added
        out = out.resolve()
    number = 2
    while out.with_name(f"{out.name}-{number}").exists():
        number += 1
    return out.with_name(f"{out.name}-{number}")
