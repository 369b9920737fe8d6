"""Generated images as npz files in the field's format: `image` uint8 (N, H, W, C) and `label` (N,). Any size, in constant memory.

Ours may also hold `soft_label` float32 (N, K), the probabilities of the classes; others' programs leave that member alone.

Why our own code: numpy can neither memory-map the members of an npz file nor write one piece by piece.
"""

from __future__ import annotations

import functools
import mmap
import os
import shutil
import tempfile
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from command_line.output import UserError, remedy_for, write_whole
from contrastive_dp.files import not_the_file
from image_experiments.data.dataset import Array

IMAGES, LABELS = ("image", "images", "x", "arr_0"), ("label", "labels", "y", "arr_1")
"""Names in common use: `image` and `label` are those of Gowal et al. (2021), Rebuffi et al. (2021) and Wang et al. (2023), the last ones
those of np.savez by default. The first that is there is taken."""
SOFT = "soft_label"
PIECE = 2_000  # images that are processed together; a hundred times as many labels
DAMAGE = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OSError, EOFError, SyntaxError, tokenize.TokenError)
"""What zipfile and numpy raise for damaged files."""
LOCAL_HEADER = 30  # bytes of a zip member's own header before its name


def stream_images(
    path: Path, count: int, shape: tuple[int, ...], pieces: Iterable[tuple[Array, Array]], soft: Array | None = None
) -> Path:
    """Write `count` images of `shape` (H, W, C) that come in pieces (images, labels), holding one piece at a time. soft: (count, K) class
    probabilities, if the labels are soft. The bytes written do not depend on how the pieces are cut.
    Raises ValueError if the number of images or of soft labels differs, and then writes nothing."""
    if soft is not None and len(soft) != count:
        raise ValueError(f"{path}: {len(soft)} soft labels came for {count} images")

    def write(temporary: Path) -> None:
        with (
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
            tempfile.TemporaryFile(dir=temporary.parent) as waiting,
        ):
            with archive.open("image.npy", "w", force_zip64=True) as stream:
                _write_header(stream, "|u1", (count, *shape))
                written = 0
                for images, labels in pieces:
                    stream.write(np.ascontiguousarray(images, dtype=np.uint8).data)
                    waiting.write(np.ascontiguousarray(labels, dtype="<i8").data)
                    written += len(images)
            if written != count:
                raise ValueError(f"{path}: {written} images came, {count} were announced")
            waiting.seek(0)
            with archive.open("label.npy", "w", force_zip64=True) as stream:
                _write_header(stream, "<i8", (count,))
                shutil.copyfileobj(waiting, stream)
            if soft is not None:
                with archive.open(f"{SOFT}.npy", "w", force_zip64=True) as stream:
                    _write_header(stream, "<f4", soft.shape)
                    for first in range(0, count, 100 * PIECE):
                        stream.write(np.ascontiguousarray(soft[first : first + 100 * PIECE], dtype="<f4").data)

    return write_whole(path, write)


def _write_header(stream: IO[bytes], descr: str, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


class ImageFile:
    """Images and labels of an npz file under any of the usual names: memory-mapped, not read, if they are stored uncompressed.

    images: uint8 (N, H, W, C); (N, C, H, W) and labels (N, 1) are recognised, and `form` says so.
    labels: int64 (N,). soft: probabilities (N, classes), or None. Copy-on-write: the file never changes.
    Raises UserError for a file that is missing or damaged, or that holds Python objects (which could run code), a shape other than `shape`
    (H, W, C), labels outside 0..classes-1, or soft labels that are no probabilities.
    """

    def __init__(self, path: Path, classes: int, shape: tuple[int, int, int]) -> None:
        self.path, self.address, self.classes, self.shape = path, 0, classes, shape
        self.map: mmap.mmap | None = None
        if not path.is_file():
            raise UserError(f"{path}: no such file; check the path")
        try:
            images, labels, *soft = self._open(path)
            self.soft = soft[0] if soft else None
            self.images, self.labels, form = _checked(path, images, labels, shape)
            self.form = f"{form}, under {' and '.join(self.names)}"
        except ValueError as error:  # numpy's error for an object array
            if "allow_pickle" in str(error) or "pickled" in str(error):
                raise UserError(f"{path}: holds Python objects, which could run code; save plain arrays of numbers") from None
            raise UserError(f"{path}: damaged ({error}); make it again") from None
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the file
                raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy_for(error)}") from None
            raise UserError(f"{path}: truncated or no npz file ({error}); make it again") from None
        lowest, highest = self._extreme_labels()
        if lowest < 0 or highest >= classes:
            raise UserError(f"{path}: labels reach from {lowest} to {highest}; the data have classes 0..{classes - 1}")
        self._check_soft(classes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file itself: neither the map nor the descriptor can be sent."""
        return ImageFile, (self.path.absolute(), self.classes, self.shape)

    def _open(self, path: Path) -> list[Array]:
        """Images, labels, and soft labels if there are any."""
        if not zipfile.is_zipfile(path):
            if (problem := not_the_file(path)) is not None:
                raise UserError(f"{path} {problem}")
            raise UserError(f"{path}: truncated or no npz file; give an npz with image and label, or make it again")
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            found = [next((name for name in names if name in members), None) for names in (IMAGES, LABELS)]
            if None in found:
                raise UserError(
                    f"{path}: has {', '.join(members) or 'nothing'}; an npz with image and label is needed (or {', '.join(IMAGES[1:])} and "
                    f"{', '.join(LABELS[1:])})"
                )
            self.names = [str(name) for name in found]
            names = [*self.names, SOFT] if SOFT in members else self.names
            chosen = [members[key] for key in names]
            if any(info.compress_type != zipfile.ZIP_STORED for info in chosen):
                stream.seek(0)
                with np.load(stream, allow_pickle=False) as content:
                    return [np.asanyarray(content[name]) for name in names]
            self.descriptor = os.dup(stream.fileno())
            weakref.finalize(self, os.close, self.descriptor)
            self.map = mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            self.map.madvise(mmap.MADV_RANDOM)  # rows are read in any order; read-ahead would read the file many times over
            self.address = np.frombuffer(self.map, dtype=np.uint8).__array_interface__["data"][0]
            return [_mapped(self.map, stream, info) for info in chosen]

    def _check_soft(self, classes: int) -> None:
        """Raise UserError for soft labels that are no probabilities of these classes."""
        soft = self.soft
        if soft is None:
            return
        if soft.shape != (len(self.labels), classes) or not np.issubdtype(soft.dtype, np.floating):
            raise UserError(
                f"{self.path}: {SOFT} has shape {soft.shape} and type {soft.dtype}; probabilities of shape ({len(self.labels)}, {classes}) "
                "are needed"
            )
        for first in range(0, len(soft), 100 * PIECE):
            piece = np.asarray(soft[first : first + 100 * PIECE], dtype=np.float64)
            wrong = ~((piece >= 0).all(axis=1) & (np.abs(piece.sum(axis=1) - 1) < 1e-3))  # NaN is wrong as well
            if wrong.any():
                number = first + int(wrong.argmax())
                raise UserError(
                    f"{self.path}: {SOFT} {number} is {np.round(soft[number], 4).tolist()}; probabilities are >= 0 and add up to 1"
                )
            self.forget()

    def _extreme_labels(self) -> tuple[int, int]:
        lowest, highest = [], []
        for first in range(0, len(self.labels), 100 * PIECE):
            piece = self.labels[first : first + 100 * PIECE]
            lowest.append(int(piece.min()))
            highest.append(int(piece.max()))
            self.forget()
        return min(lowest), max(highest)

    def class_counts(self, classes: int) -> Array:
        """Number of images per class."""
        found = np.zeros(classes, dtype=np.int64)
        for first in range(0, len(self.labels), 100 * PIECE):
            found += np.bincount(self.labels[first : first + 100 * PIECE], minlength=classes)
            self.forget()
        return found

    def pieces(self, chosen: Array | None = None, labels: Array | None = None) -> Iterator[tuple[Array, Array]]:
        """Images and labels in pieces, all or those with the indices `chosen`. labels: for the chosen, instead of the file's own."""
        count = len(self) if chosen is None else len(chosen)
        for first in range(0, count, PIECE):
            rows = slice(first, first + PIECE)
            place: Any = rows if chosen is None else chosen[rows]
            yield self.images[place], self.labels[place] if labels is None else labels[rows]
            self.forget()

    def rows(self, places: Array) -> tuple[Array, Array]:
        """Copies of some images and labels, in any order. Not mapped: the system would keep 64 KiB around each row in memory."""
        return self._rows(self.images, places), self._rows(self.labels, places)

    def soft_rows(self, places: Array) -> Array | None:
        """Copies of the soft labels of some images, or None if the file has none."""
        return None if self.soft is None else self._rows(self.soft, places)

    def _rows(self, of: Array, places: Array) -> Array:
        begin = of.__array_interface__["data"][0] - self.address
        if self.map is None or not 0 <= begin < len(self.map) or not of.flags.c_contiguous:  # in memory, or not row by row
            return np.asarray(of[places])
        found = np.empty((len(places), *of.shape[1:]), dtype=of.dtype)
        size = found[:1].nbytes
        into = found.reshape(-1).view(np.uint8).data
        for i, place in enumerate(places.tolist()):
            if os.preadv(self.descriptor, [into[i * size : (i + 1) * size]], begin + place * size) != size:
                raise UserError(f"{self.path}: was cut short while it was read; make it again")
        return found

    def forget(self) -> None:
        """Free the memory of all rows read so far; they are read again when needed."""
        if self.map is not None:
            self.map.madvise(mmap.MADV_DONTNEED)

    def __len__(self) -> int:
        return len(self.labels)


def check_content(path: Path) -> None:
    """Read an npz file once, in constant memory, to verify its checksums. Raises UserError if it is damaged.

    While the file is the same, the program does not read it again: many runs of a sweep may be given it.
    """
    try:
        told = path.stat()
        bad = _damage(path, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)
    except OSError as error:
        bad = str(error)
    if bad is not None:
        raise UserError(f"{path}: damaged ({bad}); make it again")


@functools.lru_cache(maxsize=1000)
def _damage(path: Path, *_told: int) -> str | None:
    """What is wrong with an npz file, None if nothing."""
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            return archive.testzip()
    except OSError:  # perhaps of this moment: not to be remembered
        raise
    except DAMAGE as error:
        return str(error)


def _mapped(memory: mmap.mmap, stream: IO[bytes], info: zipfile.ZipInfo) -> Array:
    """The array of an uncompressed member, as a view of the mapped file. Raises ValueError for Python objects or a wrong size."""
    stream.seek(info.header_offset)
    header = stream.read(LOCAL_HEADER)
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    stream.seek(info.header_offset + LOCAL_HEADER + name + extra)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("pickled objects")
    size = int(np.prod(shape, dtype=np.int64))
    begin = stream.tell()
    if begin + size * dtype.itemsize > len(memory):
        raise ValueError(f"{info.filename} holds less than its header says")
    found = np.frombuffer(memory, dtype=dtype, count=size, offset=begin)
    return found.reshape(shape[::-1]).T if fortran else found.reshape(shape)


def _checked(path: Path, images: Array, labels: Array, shape: tuple[int, int, int]) -> tuple[Array, Array, str]:
    """Images (N, H, W, C), labels (N,), and the form in which the images came."""
    if images.ndim == 3:
        images = images[..., None]
    form = "(N, H, W, C)"
    if images.ndim == 4 and images.shape[1:] != shape and images.shape[1:] == (shape[2], *shape[:2]):
        images, form = images.transpose(0, 2, 3, 1), "channels first, (N, C, H, W)"
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise UserError(
            f"{path}: images have shape {images.shape} and type {images.dtype}; the data need uint8 (N, {', '.join(map(str, shape))})"
        )
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0:
        raise UserError(
            f"{path}: labels have shape {labels.shape} and type {labels.dtype}; {len(images)} whole numbers are needed, at least one"
        )
    return images, labels.astype(np.int64, copy=False), form
