"""Writing results: every file is written whole and then renamed, so an interrupted run leaves the earlier one intact."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


class UserError(Exception):
    """Something the user can mend: shown as one line, without a traceback."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ ", did you mean NEAREST?" for a name that is not known; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def prepare_folder(path: Path) -> Path:
    """Create the output folder; raises UserError when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {path}: cannot create the folder ({error.strerror}); choose another path") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"--out {path}: the folder is not writable; choose another path")
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Call write(temporary path in the same folder), then rename it to `path`. The temporary name keeps the suffix."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror or error}); free some space or choose another --out") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write rows with floats at full precision (repr), so that a figure drawn from the file is drawn from the numbers."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([[repr(float(v)) if isinstance(v, float) else v for v in row] for row in rows])

    return write_whole(path, write)


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write JSON; infinities and NaN, which JSON lacks, become strings."""
    text = json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return write_whole(path, write)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # numpy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as aligned text: the first column to the left, the others to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    aligned = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([aligned[0], "  ".join("-" * width for width in widths), *aligned[1:]])
