"""Generated images that somebody else made: an npz file, or many parts of one set, as published sets of 20 million images come."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from command_line.output import UserError, is_hidden, listed
from image_experiments.data.class_folders import natural
from image_experiments.data.dataset import Array
from image_experiments.data.npz_files import PIECE, ImageFile, check_content

WILD = re.compile(r"[*?\[]")
PIECES = ","


def parts_of(path: Path) -> list[Path]:
    """The npz files that `path` names: a file, all of a folder, those that fit a pattern (`edm/part*.npz`), or several of these with commas
    between.

    A name that is there is that file or folder, whatever is in it. part2 comes before part10. Raises UserError if there are none, or one is
    named twice.
    """
    found = [one for piece in _pieces(path) for one in _of_piece(piece)]
    real = [one.resolve() for one in found]
    twice = next((one for one, where in zip(found, real, strict=True) if real.count(where) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: {twice} is named twice; give each part once")
    return found


def _pieces(path: Path) -> list[Path]:
    """What stands between commas. A file or folder that is there, or the folder of a pattern, may hold commas itself."""

    def there(text: str) -> bool:
        whole = Path(text)
        return whole.exists() or (bool(WILD.search(whole.name)) and PIECES in str(whole.parent) and whole.parent.exists())

    texts, pieces = str(path).split(PIECES), list[Path]()
    while texts:
        size = next((n for n in range(len(texts), 0, -1) if there(",".join(texts[:n]))), 1)
        piece = ",".join(texts[:size])
        if not piece.strip():
            raise UserError(f"{path}: names nothing before or after a comma; leave the comma out")
        pieces.append(Path(piece))
        texts = texts[size:]
    return pieces


def _of_piece(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _in_order(one for one in path.iterdir() if one.suffix.lower() == ".npz")
        if not found:
            raise UserError(f"{path}: holds no npz files; give a folder of parts, a pattern or a file")
        return found
    if not WILD.search(str(path)):
        raise UserError(f"{path}: no such file; check the path")
    base = next(parent for parent in path.parents if parent.exists())  # which may hold brackets itself
    try:
        found = _in_order(base.glob(str(path.relative_to(base))))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: no pattern of files ({error}); for example part*.npz") from None
    if not found:
        raise UserError(f"{path}: no file fits this pattern; check it, and quote it, or the shell reads it first")
    return found


def _in_order(paths: Iterator[Path]) -> list[Path]:
    """Files by name, with the numbers in them as numbers."""
    files = [path for path in paths if path.is_file() and not is_hidden(path.name)]
    return sorted(files, key=lambda path: natural(str(path)))


def stem_of(path: Path) -> str:
    """What to call the images of `parts_of(path)`: the names of files and folders; of a pattern, the name of the folder it is in. The same
    for a path and its absolute form."""
    return "-".join(
        one.parent.name or "parts" if WILD.search(one.name) and not one.exists() else named(one) for one in _absolute_pieces(path)
    )


def names_of_parts(path: Path) -> str:
    """The names alone, however their folder is written."""
    return PIECES.join(one.name for one in _absolute_pieces(path))


def named(path: Path) -> str:
    """The name of a file without .npz, or of a folder, which may have dots."""
    return path.stem if path.suffix.lower() == ".npz" else path.name


def absolute(path: Path) -> str:
    """The same from any folder."""
    return PIECES.join(map(str, _absolute_pieces(path)))


def _absolute_pieces(path: Path) -> list[Path]:
    try:
        return [Path(os.path.normpath(piece.absolute())) for piece in _pieces(path)]
    except UserError:  # told where the parts are read
        return [path]


class GivenImages:
    """The images of all parts, one after the other: mapped, not read.

    Raises UserError as ImageFile does, and if only some of the parts have soft labels.
    """

    def __init__(self, path: Path, classes: int, shape: tuple[int, int, int]) -> None:
        self.path = path
        self.files = [ImageFile(one, classes, shape) for one in parts_of(path)]
        self.labels: Array = np.concatenate([file.labels for file in self.files]) if len(self.files) > 1 else self.files[0].labels
        self.starts = np.cumsum([0, *(len(file) for file in self.files)])
        odd = next((file for file in self.files if (file.soft is None) != (self.files[0].soft is None)), None)
        if odd is not None:
            has = "no" if odd.soft is None else "has"
            raise UserError(f"{odd.path}: {has} soft labels, unlike {self.files[0].path}; give parts that agree")

    def __len__(self) -> int:
        return len(self.labels)

    def _each(self, chosen: Array) -> Iterator[tuple[ImageFile, Array]]:
        """The parts, and the places within each of the sorted indices `chosen`."""
        cuts = np.searchsorted(chosen, self.starts)
        for file, start, first, last in zip(self.files, self.starts, cuts, cuts[1:], strict=False):
            if last > first:
                yield file, chosen[first:last] - start

    def pieces(self, chosen: Array) -> Iterator[tuple[Array, Array]]:
        """Images and labels of the sorted indices `chosen`, in pieces of one file each."""
        for file, places in self._each(chosen):
            yield from file.pieces(places)

    def soft_rows(self, chosen: Array) -> Array | None:
        """Soft labels of the sorted indices `chosen`, or None if there are none."""
        found = [file.soft_rows(places) for file, places in self._each(chosen)]
        return None if any(one is None for one in found) else np.concatenate([one for one in found if one is not None])

    def class_counts(self, classes: int) -> Array:
        """Number of images per class."""
        return np.sum([file.class_counts(classes) for file in self.files], axis=0)

    def said(self) -> str:
        """What was recognised, in words."""
        forms = list(dict.fromkeys(file.form for file in self.files))
        parts = f"{len(self.files)} files, " if len(self.files) > 1 else ""
        return f"{stem_of(self.path)}: {parts}{len(self)} images, {listed(forms)}"


def check_given(path: Path, classes: int, shape: tuple[int, int, int], count: int) -> GivenImages:
    """The user's generated images, of which `count` are needed. Raises UserError if they do not fit, are damaged, too few, or not on the
    scale 0..255 (checked on some of each file)."""
    from image_experiments.data.sanity_checks import check_range

    given = GivenImages(path, classes, shape)
    if count > len(given):
        raise UserError(f"--synthetic {count}: {path} holds {len(given)} images; use at most that many")
    for file in given.files:
        check_content(file.path)
        some = np.unique(np.linspace(0, len(file) - 1, min(len(file), PIECE)).astype(np.int64))
        check_range(file.rows(some)[0], f"{file.path}: images")
        file.forget()
    return given
