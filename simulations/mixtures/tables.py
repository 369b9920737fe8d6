"""Tables of features with two labels: from scikit-learn, or the user's npz or csv file. Nothing is ever unpickled."""

from __future__ import annotations

import csv
import difflib
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from command_line.output import UserError

Array = np.ndarray[Any, np.dtype[np.float64]]
NAMES = ("breast-cancer", "digits:A,B")
FEATURE_KEYS = ("x", "X", "features", "data")
LABEL_KEYS = ("y", "Y", "label", "labels", "target")
NO_LABEL = ("", "nan", "na", "null", "none")
FEWEST_GROUPS = 4
FEWEST_ROWS = 10  # per class: half of them to estimate means and a covariance, half of them to test


@dataclass(frozen=True, eq=False)
class Table:
    """x: (n, d) features. y: (n,) in {-1, +1}. classes: names of -1 and +1. features: (d,) names. notes: messages about what was left out
    or was ambiguous. groups: (n,) numbers, the same for rows that belong together; None: each stands by itself. label: name of the label
    column, if it has one."""

    name: str
    x: Array
    y: Array
    classes: tuple[str, str]
    features: tuple[str, ...]
    notes: tuple[str, ...] = ()
    groups: Any = None
    label: str = ""

    def described(self) -> list[str]:
        """What was read, one message each."""
        counts = [int((self.y < 0).sum()), int((self.y > 0).sum())]
        classes = ", ".join(f"{name!r} {count}" for name, count in zip(self.classes, counts, strict=True))
        of = f" of {self.label!r}" if self.label else ""
        return [f"read {self.name}: {len(self.y)} rows, {self.x.shape[1]} features; classes{of}: {classes}", *self.notes]


def load_table(spec: str, label: str | None = None, group: str | None = None) -> Table:
    """Load `breast-cancer`, `digits:A,B`, FILE.npz or FILE.csv; raises UserError naming what is wrong with it.

    label: name of the label column of a csv file (default: the last column). group: name of the column that says which rows of a csv file
    belong together; it is no feature. npz: features under x, X, features or data, labels
    under y, Y, label, labels or target.
    """
    if label is not None and not spec.lower().endswith(".csv"):
        raise UserError(f"--label {label} applies to csv files only: {spec} knows its labels (npz: y, label, labels or target)")
    if group is not None and not spec.lower().endswith(".csv"):
        raise UserError(f"--group {group} applies to csv files only: save {spec} as csv with that column")
    if spec == "breast-cancer":
        from sklearn.datasets import load_breast_cancer

        data = load_breast_cancer()
        return make_table(spec, data.data, data.target_names[data.target], tuple(data.feature_names))
    if spec == "digits" or spec.startswith("digits:"):
        return _load_digits(spec)
    path = Path(spec)
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".csv"):
        near = difflib.get_close_matches(spec, ["breast-cancer", "digits:3,8"], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"--data {spec!r} is neither a known table ({', '.join(NAMES)}) nor a .npz or .csv file{hint}")
    if not path.is_file():
        raise UserError(f"--data {spec}: no such file; check the path (relative to {Path.cwd()})")
    try:
        return _load_npz(path) if suffix == ".npz" else _load_csv(path, label, group)
    except OSError as error:
        raise UserError(f"--data {spec}: cannot read ({error.strerror or error}); check its permissions") from None


def make_table(
    name: str, x: Any, labels: Any, features: tuple[str, ...], notes: tuple[str, ...] = (), lines: Sequence[int] = ()
) -> Table:
    """Check features and labels, and code the labels: the first in sorted order is -1, the second +1. Columns that number the rows are
    dropped. lines: of the file, one a row, to say where an error is. Raises UserError."""
    points, tags = np.asarray(x), np.asarray(labels)
    if points.ndim != 2 or tags.ndim != 1:
        raise UserError(
            f"--data {name}: features have shape {points.shape} and labels {tags.shape}; give (rows, columns) and (rows,)"
        )
    if len(points) == 0 or points.shape[1] == 0:
        raise UserError(f"--data {name}: the file has {points.shape[0]} rows and {points.shape[1]} feature columns; give some data")
    if len(points) != len(tags):
        raise UserError(f"--data {name}: {len(points)} rows of features but {len(tags)} labels; they must pair up")
    if points.dtype.kind not in "buif":
        raise UserError(f"--data {name}: features are {points.dtype}, not numbers; encode text as numbers first")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        row, column = np.argwhere(~np.isfinite(points))[0]
        raise UserError(
            f"--data {name}: {_place(row, lines)}, column {features[column]!r} holds {points[row, column]}; "
            "remove the row or impute the value"
        )
    codes, names, named = _coded(name, tags, lines)
    points, features, numbering = _without_row_numbers(name, points, features)
    notes += (*named, *numbering, *_copies_of_label(points, codes, features), *_repeated(name, points, codes, names))
    return Table(name, points, np.where(codes == 1, 1.0, -1.0), (names[0], names[1]), features, notes)


def _place(row: int, lines: Sequence[int]) -> str:
    return f"line {lines[row]}" if lines else f"row {row + 1}"


def _coded(name: str, tags: Any, lines: Sequence[int]) -> tuple[Any, list[str], tuple[str, ...]]:
    """(0 or 1 for each row, names of the two classes, messages on how labels were read). Raises UserError."""
    if tags.dtype.kind not in "USbuif":
        raise UserError(f"--data {name}: labels are {tags.dtype}; give numbers or text")
    text = np.char.lower(np.char.strip(tags.astype(str)))
    two = len(np.unique(tags)) == 2  # then "none" or "NA" is the name of a class
    missing = np.flatnonzero(~np.isfinite(tags) if tags.dtype.kind == "f" else np.isin(text, NO_LABEL[:1] if two else NO_LABEL))
    if len(missing):
        row = int(missing[0])
        raise UserError(f"--data {name}: {_place(row, lines)} has no label ({str(tags[row])!r}); remove it or fill it in")
    values, codes, counts = np.unique(tags, return_inverse=True, return_counts=True)
    names = [str(value) for value in values]
    if len(values) != 2:
        shown = ", ".join(names[:5]) + (", ..." if len(values) > 5 else "")
        counted = f"{len(values)} class{'es' if len(values) > 1 else ''}"
        raise UserError(f"--data {name}: found {counted} ({shown}); exactly two are needed: drop rows or name another label column")
    if counts.min() < FEWEST_ROWS:
        rare = int(counts.argmin())
        raise UserError(f"--data {name}: class {names[rare]!r} has {counts[rare]} rows; at least {FEWEST_ROWS} of each are needed")
    odd = [one for one in names if one.strip().lower() in NO_LABEL and tags.dtype.kind in "US"]
    return codes, names, tuple(f"labels: {one!r} is taken for the name of a class, as there are two labels in all" for one in odd)


def _without_row_numbers(name: str, points: Array, features: tuple[str, ...]) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """Features without columns that number the rows, such as a pandas index: if the rows are sorted by class, these leak the label.

    A column is dropped if its name says so, if it counts the rows in order, or if it has no name and holds every number of 0..n-1. A note
    names any other column with a different whole number in every row, and one of whole numbers that repeat under such a name.
    """
    out, doubtful, repeated = [], list[str](), list[str]()
    for j, feature in enumerate(features):
        column = points[:, j]
        integer = bool((column == np.round(column)).all())
        whole = integer and len(np.unique(column)) == len(column)
        counting = whole and np.ptp(column) == len(column) - 1 and column.min() in (0, 1)
        in_order = whole and bool((np.diff(column) > 0).all())
        nameless = re.fullmatch(r"column \d+", feature) is not None
        named_so = (integer and PANDAS_INDEX.fullmatch(feature)) or (whole and INDEX_NAMES.fullmatch(feature))
        if named_so or (counting and (in_order or nameless)):
            out.append(j)
        elif counting or in_order:
            doubtful.append(feature)
        elif INDEX_NAMES.fullmatch(feature) and integer:
            repeated.append(feature)
    if out and len(out) == points.shape[1]:
        raise UserError(f"--data {name}: column {features[0]!r} numbers the rows, and there is no other; give features")
    notes = [f"left out: column {', '.join(repr(features[j]) for j in out)}, which numbers the rows"] if out else []
    if doubtful:
        many = ", ".join(map(repr, doubtful[:5]))
        notes.append(f"kept: column {many}, with another whole number in every row; remove it if it only numbers them")
    if repeated:
        many = ", ".join(map(repr, repeated[:5]))
        notes.append(
            f"kept: column {many}, named like a number of something; if it is of patients or the like, name it with --group"
        )
    kept = [j for j in range(points.shape[1]) if j not in out]
    return points[:, kept], tuple(features[j] for j in kept), tuple(notes)


def _copies_of_label(points: Array, codes: Any, features: tuple[str, ...]) -> tuple[str, ...]:
    """A note on columns with one value for each class, which may be the label once more: with one, everything is predicted."""
    copies = [
        feature
        for column, feature in zip(points.T, features, strict=True)
        if all(np.ptp(column[codes == k]) == 0 for k in (0, 1)) and np.ptp(column) > 0
    ]
    if not copies:
        return ()
    return (
        f"kept: column {', '.join(map(repr, copies[:5]))}, with one value for each class; remove it if it is the label once more",
    )


PANDAS_INDEX = re.compile(r"(Unnamed: ?\d+)?")
INDEX_NAMES = re.compile(r"(?i:(.*[ _.-])?(id|ids|idx|index|no|nr|number|#|uuid|rownames?))|.*[a-z](Id|ID)")


def copy_groups(x: Array, codes: Any) -> Any:
    """(n,) one number per row, the same for copies; None if rows do not repeat, or not more than such features would by chance.

    By chance means: at most TIMES_CHANCE times as many equal pairs as with independent columns; rows of a few yes/no features coincide
    without being copies. Also None if all rows of a class are equal, because it could not be split.
    """
    counts = np.unique(x, axis=0, return_inverse=True, return_counts=True)
    groups, sizes = counts[1].reshape(-1), counts[2].astype(np.float64)
    pairs = float((sizes * (sizes - 1)).sum())
    alike = [float(((np.unique(column, return_counts=True)[1] / len(x)) ** 2).sum()) for column in x.T]
    by_chance = len(x) * (len(x) - 1) * math.prod(alike)
    few = min(len(np.unique(groups[codes == label])) for label in np.unique(codes)) < 2
    return None if few or pairs <= TIMES_CHANCE * by_chance else groups


def groups_of(table: Table) -> Any:
    """(n,) the same number for rows that must stay together: of one group, or copies of each other, or both by way of others. None if all
    rows are on their own."""
    copies = copy_groups(table.x, table.y)
    if table.groups is None or copies is None:
        return copies if table.groups is None else table.groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, shift = len(table.y), int(table.groups.max()) + 1
    rows, joins = np.tile(np.arange(n), 2), n + np.concatenate([table.groups, shift + copies])
    size = int(joins.max()) + 1
    return connected_components(coo_array((np.ones(2 * n), (rows, joins)), shape=(size, size)), directed=False)[1][:n]


TIMES_CHANCE = 10


def _repeated(name: str, points: Array, codes: Any, names: list[str]) -> tuple[str, ...]:
    """A note on copies. Raises UserError if a class has too few rows without them."""
    groups = copy_groups(points, codes)
    if groups is None:
        return ()
    distinct = [len(np.unique(groups[codes == k])) for k in (0, 1)]
    if min(distinct) < FEWEST_ROWS:
        rare = int(np.argmin(distinct))
        raise UserError(
            f"--data {name}: class {names[rare]!r} has {distinct[rare]} different rows; at least {FEWEST_ROWS} of each are needed"
        )
    different = int(groups.max()) + 1
    both = f"; {sum(distinct) - different} of these carry both labels" if sum(distinct) > different else ""
    return (f"copies: {len(points)} rows are {different} different ones; copies stay on one side of the split{both}",)


def _load_digits(spec: str) -> Table:
    digits = spec.removeprefix("digits").removeprefix(":").split(",")
    if len(digits) != 2 or any(d not in "0123456789" or len(d) != 1 for d in digits) or digits[0] == digits[1]:
        raise UserError(f"--data {spec}: give two different digits, for example digits:3,8")
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = np.isin(data.target, [int(d) for d in digits])
    return make_table(spec, data.data[chosen], data.target[chosen], tuple(data.feature_names))


def _load_npz(path: Path) -> Table:
    remedy = "save plain arrays with numpy.savez(file, x=..., y=...)"
    if not zipfile.is_zipfile(path):
        raise UserError(f"--data {path}: the file is damaged or no npz file; {remedy}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, zlib.error) as error:
        pickled = "allow_pickle" in str(error)
        reason = "it holds Python objects, which are never loaded" if pickled else f"the file is damaged or no npz file ({error})"
        raise UserError(f"--data {path}: {reason}; {remedy}") from None
    x_key = next((key for key in FEATURE_KEYS if key in arrays), None)
    y_key = next((key for key in LABEL_KEYS if key in arrays), None)
    if x_key is None or y_key is None:
        found = ", ".join(arrays) or "nothing"
        raise UserError(
            f"--data {path}: found {found}; needs features under one of {FEATURE_KEYS} and labels under one of {LABEL_KEYS}"
        )
    x = arrays[x_key]
    return make_table(str(path), x, arrays[y_key], tuple(f"column {i + 1}" for i in range(x.shape[1] if x.ndim == 2 else 0)))


def _load_csv(path: Path, label: str | None, group: str | None) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [
                (reader.line_num, row) for reader in [csv.reader(stream)] for row in reader if any(cell.strip() for cell in row)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--data {path}: not a utf-8 csv file ({error}); export it again as csv") from None
    if not rows:
        raise UserError(f"--data {path}: the file has no rows; give some data")
    width = len(rows[0][1])
    if width < 2:
        separator = next((name for mark, name in ((";", "semicolons"), ("\t", "tabs")) if mark in rows[0][1][0]), None)
        found = f"columns separated by {separator}" if separator else "one column only"
        raise UserError(f"--data {path}: {found}; needs features and a label, separated by commas")
    header = _header([row for _, row in rows], label)
    notes: tuple[str, ...] = ()
    if header is not None:
        rows = rows[1:]
        if any(map(_is_number, header)):
            notes = (
                f"header: the first row, {', '.join(header[:4])}{', ...' if width > 4 else ''}, is taken for the names of the columns",
            )
    names = header or [f"column {i + 1}" for i in range(width)]
    target = _label_column(path, names, label, group)
    if len(set(names)) < len(names):
        raise UserError(f"--data {path}: two columns are called {max(names, key=names.count)!r}; give each its own name")
    features = [j for j, name in enumerate(names) if j != target and name != group]
    x = np.empty((len(rows), len(features)))
    for i, (line, row) in enumerate(rows):
        if len(row) != width:
            raise UserError(
                f"--data {path}: line {line} has {len(row)} cells, the first has {width}; make them equal or close a quote"
            )
        for place, j in enumerate(features):
            x[i, place] = _number(row[j], path, line, names[j])
    tags = np.array([row[target].strip() for _, row in rows])
    groups = None if group is None else np.array([row[names.index(group)].strip() for _, row in rows])
    table = make_table(str(path), x, tags, tuple(names[j] for j in features), notes, [line for line, _ in rows])
    table = replace(table, label=names[target] if header else "")
    return table if groups is None else _grouped(table, groups, f"--group {group}", [line for line, _ in rows])


def _label_column(path: Path, names: list[str], label: str | None, group: str | None) -> int:
    """The place of the label column. Raises UserError for a label or group that is no column, or one for both."""
    for flag, named in (("label", label), ("group", group)):
        if named is not None and named not in names:
            near = [name for name in names if name.lower() == named.lower()] or difflib.get_close_matches(named, names, n=1)
            raise UserError(f"--{flag} {named!r} is no column of {path}" + (f"; did you mean {near[0]!r}?" if near else ""))
    target = names.index(label) if label is not None else len(names) - 1
    if group == names[target]:
        raise UserError(f"--group {group!r}: is the label column; name another, or the label with --label")
    return target


def _grouped(table: Table, tags: Any, flag: str, lines: Sequence[int]) -> Table:
    """The table with its groups, and a note on how many. Raises UserError for a row without one, and if a class has too few for two halves,
    rows of groups that share copies counted as one."""
    missing = np.flatnonzero(np.isin(np.char.lower(tags), NO_LABEL))
    if len(missing):
        raise UserError(
            f"{flag}: {_place(int(missing[0]), lines)} has none ({str(tags[missing[0]])!r}); fill it in, or remove the row"
        )
    named, codes = np.unique(tags, return_inverse=True)
    table = replace(table, groups=codes)
    joined = groups_of(table)
    for k, name in enumerate(table.classes):
        count = len(np.unique(joined[table.y == (-1.0, 1.0)[k]]))
        if count < FEWEST_GROUPS:
            raise UserError(f"{flag}: class {name!r} has {count} groups; at least {FEWEST_GROUPS} are needed, two for each half")
    note = f"groups: {len(named)}, each on one side of the split; intervals count their rows as independent, so they are too narrow"
    return replace(table, notes=(*table.notes, note))


def _header(rows: list[list[str]], label: str | None) -> list[str] | None:
    """The first row, if it is a header: it names the label column, or has no numeric feature. A row of numbers is a header if its last cell
    is not a label of any other row, or if it counts the columns, as pandas does, above features that are not whole numbers."""
    cells = [cell.strip() for cell in rows[0]]
    if (label is not None and label in cells) or not any(_is_number(cell) for cell in cells[:-1]):
        return cells
    labels = {row[-1].strip() for row in rows[1:] if row}
    if len(rows) > 1 and cells[-1] not in labels and len(labels) == 2 and len(set(cells)) == len(cells):
        return cells
    counting = cells in ([str(i + start) for i in range(len(cells))] for start in (0, 1))
    fractions = any("." in cell for row in rows[1:] for cell in row[:-1])
    return cells if counting and fractions and len(cells) > 2 else None


def _is_number(cell: str) -> bool:
    """Whether a cell is a number in the usual notation; Python also accepts 1_000 and digits of other scripts."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _number(cell: str, path: Path, line: int, column: str) -> float:
    if not _is_number(cell):
        what = f"the text {cell.strip()!r}" if cell.strip() else "an empty cell"
        raise UserError(f"--data {path}: line {line}, column {column!r} holds {what}, not a number; encode or remove it")
    return float(cell)
