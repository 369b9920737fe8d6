"""Writes results: every file is written whole and then renamed, so an interrupted run leaves the earlier file intact."""

from __future__ import annotations

import csv
import difflib
import errno
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


class UserError(Exception):
    """An error the user can fix: shown as one line, without a traceback."""

    def __str__(self) -> str:
        line = " ".join(super().__str__().splitlines())
        return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"


LONGEST_LINE = 2000
"""Characters; values of any length may be quoted in an error."""


Walked = tuple[Path, list[str], list[str]]
"""(folder, names of its folders, names of its files)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ ", did you mean NEAREST?" for an unknown name; empty if there is no similar name."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def listed(names: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def walk_links(folder: Path, at_loop: Callable[[Path], None], onerror: Callable[[OSError], None] | None = None) -> Iterator[Walked]:
    """os.walk that follows links to folders, but for those that lead back to a folder they lie in: at_loop(path) is called for each.

    As with os.walk, names taken out of the list of folders are not entered, nor looked at.
    """
    above: dict[Path, tuple[Path, ...]] = {folder: (folder.resolve(),)}  # the real path of each folder and of its parents
    for walked, folders, files in os.walk(folder, followlinks=True, onerror=onerror):
        place = Path(walked)  # "./train" is "train"
        yield place, folders, files
        for name in list(folders):
            path = place / name
            if (real := path.resolve()) in above[place]:
                at_loop(path)
                folders.remove(name)
            else:
                above[path] = (*above[place], real)


def is_hidden(name: str) -> bool:
    """Whether a file or folder with this name was put there by a file manager, notebook or system, not by a person."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


SYSTEM_FOLDERS = {"__MACOSX", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}


def printable(text: str) -> str:
    """`text` with backslash escapes for what UTF-8 cannot hold: the bytes of a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def tame(text: str) -> str:
    """`text` without control characters, by which the name of a file could write over other lines of a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def remedy_for(error: OSError) -> str:
    """What to do about a file that cannot be written or read, depending on the system's error."""
    return next((remedy for codes, remedy in REMEDIES.items() if error.errno in codes), "check it, or choose another --out")


REMEDIES = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): "free some space, or choose another --out",
    (errno.EACCES, errno.EPERM, errno.EROFS): "change its permissions, or choose another --out",
    (errno.ENAMETOOLONG,): "choose a shorter name",
    (errno.EMFILE, errno.ENFILE): "raise the limit of open files (ulimit -n), or use fewer --workers",
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESTALE): "it was moved, deleted or replaced: put it right",
    (errno.EIO, getattr(errno, "EUCLEAN", errno.EIO)): "the disk, or the connection to it, fails: check it",
}


def check_writable(path: Path) -> None:
    """Raise UserError if the output folder cannot be created or written, as far as this is known without trying."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"--out {shortened(path)}: {there} is a file; choose another path")
    if not os.access(there, os.W_OK):
        raise UserError(f"--out {shortened(path)}: {there} is not writable; choose another path")


def prepare_folder(path: Path) -> Path:
    """Create the output folder; raises UserError if that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {shortened(path)}: cannot create the folder ({error.strerror}); choose another path") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"--out {path}: the folder is not writable; choose another path")
    return path


TEMPORARY = ".contrastive-dp-unfinished-"
"""Prefix of files that are still being written (contrastive_dp.files has its own copy, to be independent of this package)."""


PROCESS = secrets.token_hex(4)
"""Two containers may have processes of one number."""


def temporary_name(name: str) -> str:
    """Temporary name, unique to this process, for a file or folder being written. Keeps the suffix; its length is bounded for any name."""
    return f"{TEMPORARY}{PROCESS}-{os.getpid()}-{hashlib.sha256(name.encode()).hexdigest()[:12]}{Path(name).suffix}"


def shortened(path: Path) -> str:
    """A path for a message; of a very long path only the end."""
    text = str(path)
    return text if len(text) <= LONGEST_SHOWN else f"...{text[-LONGEST_SHOWN:]}"


LONGEST_SHOWN = 160


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Call write(temporary path in the same folder), then rename it to `path`. The temporary name keeps the suffix."""
    temporary = path.with_name(temporary_name(path.name))
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{shortened(path)}: cannot write ({error.strerror or error}); {remedy_for(error)}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write rows with floats at full precision (repr), so that figures drawn from the file use the exact numbers."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([[repr(float(v)) if isinstance(v, float) else v for v in row] for row in rows])

    return write_whole(path, write)


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write JSON; infinities and NaN, which JSON does not have, become strings."""
    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return write_whole(path, write)


def plain(value: Any) -> Any:
    """The value in a form that JSON can hold: paths, infinities and NaN as text, numpy numbers as Python numbers."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # numpy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as aligned text: the first column left-aligned, the others right-aligned."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    aligned = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([aligned[0], "  ".join("-" * width for width in widths), *aligned[1:]])
