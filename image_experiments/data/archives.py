"""Files of data sets: downloads them with a checksum, and reads them from folders, tar or zip archives without unpacking to disk."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from command_line.output import UserError, is_hidden, walk_links
from contrastive_dp.files import not_the_file

LARGEST_MEMBER = 64 * 2**20
"""Largest archive member that is read, in bytes: anything larger is not a small image."""
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".dib"),
    *(".webp", ".tif", ".tiff", ".gif", ".tga"),
)
UNREAD_SUFFIXES = (
    *(
        ".heic",
        ".heif",
        ".svg",
        ".svgz",
        ".eps",
        ".pdf",
        ".psd",
        ".xcf",
        ".dng",
        ".raw",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
    ),
    # Pillow opens those of more than 8 bits a channel as 8 bits, without a word
    *(".jp2", ".j2k", ".jpx", ".j2c", ".jpc", ".jpf", ".avif", ".avifs"),
    *(".exr", ".hdr", ".jxl", ".npy", ".npz", ".mat", ".dcm", ".mp4", ".mov", ".avi"),
)
"""File types that hold images but cannot be read. Ignoring them would silently lose images."""
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OSError,
)


@dataclass(frozen=True)
class Entry:
    """A file: its name within the folder or archive ("train/cat/1.png"), and how to read it: a folder's files are not held in memory."""

    name: str
    read: Callable[[], bytes]
    source: str


TINY_LABELS = "val/val_annotations.txt"
"""Where TinyImageNet says which class each of its validation images is of."""
IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"P4", b"P5", b"P6", b"\0\0\0\x0cjP")
"""First bytes of common image formats."""


@dataclass
class Rest:
    """What else a folder or archive holds, by name. hidden: files and folders whose names begin with a dot, or that systems add. others:
    files that are not images. unread: images with a format or name that is not read. replaced: archive members replaced by a later one of
    the same name. folders: all folders, including empty ones."""

    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)

    def sorted_out(self, name: str, start: Callable[[], bytes]) -> bool:
        """Whether a file is one that is not read; if so, it is recorded here. start(): its first bytes."""
        if any(map(is_hidden, name.split("/"))):
            self.hidden.append(name)
        elif name.lower().endswith(UNREAD_SUFFIXES):
            self.unread.append(name)
        elif not name.lower().endswith((*IMAGE_SUFFIXES, ".csv", TINY_LABELS)):
            (self.unread if start().startswith(IMAGE_STARTS) else self.others).append(name)
        else:
            return False
        return True


def fetched(dataset: str, data_dir: Path | None, url: str, files: dict[str, str]) -> list[Path]:
    """Paths of a data set's files, in data_dir or downloaded, with verified checksums ("md5:...").

    data_dir: the folder, or the file itself if there is only one; None: the user's cache, filled by downloading.
    Raises UserError for a file that is missing or damaged, or cannot be downloaded.
    """
    import pooch

    folder = data_dir or Path(pooch.os_cache("contrastive-dp")) / dataset
    found = []
    for name, checksum in files.items():
        path = folder if folder.is_file() and len(files) == 1 else folder / name
        if not path.is_file():
            if folder.is_file():
                raise UserError(f"--data-dir {data_dir}: is one file; give the folder that holds {', '.join(files)}")
            if data_dir is not None:
                raise UserError(f"--data-dir {data_dir}: {name} is missing; put it there, or leave out --data-dir to download it")
            path = _download(url + name, checksum, folder, name)
        if not pooch.hashes.hash_matches(path, checksum):
            raise UserError(f"{path}: its checksum is not {checksum}, so it is damaged or another file; delete it and get it again")
        found.append(path)
    return found


def _download(url: str, checksum: str, folder: Path, name: str) -> Path:
    import pooch

    try:
        return Path(pooch.retrieve(url, checksum, fname=name, path=folder, progressbar=False))
    except Exception as error:  # pooch passes on errors of requests and of the disk
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"cannot download {url} ({reason}); get it by other means and give its folder with --data-dir") from None


def folder_entries(folder: Path, rest: Rest) -> list[Entry]:
    """Images and csv files in a folder, sorted by name, following links to files and folders; all other files go to `rest`.

    Raises UserError for a broken link, a link to a folder that contains it, and for anything that cannot be read.
    """

    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions, or remove it")

    def loop(path: Path) -> None:
        raise UserError(f"{path}: is a link to a folder that it lies in; remove it")

    found = []
    for here, folders, files in walk_links(folder, loop, unreadable):
        for name in list(folders):
            path = here / name
            if is_hidden(name):
                rest.hidden.append(path.relative_to(folder).as_posix())
                folders.remove(name)
                continue
            rest.folders.add(path.relative_to(folder).as_posix())
        for name in files:
            path = here / name
            if path.is_symlink() and not path.exists():
                raise UserError(f"{path}: is a link that leads nowhere; fix or remove it")
            try:
                if not path.is_file() or rest.sorted_out(path.relative_to(folder).as_posix(), partial(_start_of, path)):
                    continue
                path.open("rb").close()  # so that one that cannot be read is told before the first is decoded
                found.append(Entry(path.relative_to(folder).as_posix(), path.read_bytes, str(folder)))
            except OSError as error:
                unreadable(error)
    return sorted(found, key=lambda entry: entry.name)


def _start_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def archive_entries(path: Path, rest: Rest | None = None) -> list[Entry]:
    """Images and csv files in a tar (plain, gz, bz2, xz) or zip, sorted by name; all other members go to `rest`.

    Raises UserError for a missing, truncated or damaged archive, and for one with a member that points outside (an absolute path, "..",
    a link): such an archive is malicious, and none of it is used.
    """
    if not path.is_file():
        raise UserError(f"--data-dir {path}: no such file or folder; check the path")
    if (problem := not_the_file(path)) is not None:
        raise UserError(f"--data-dir {path}: {problem}")
    rest = Rest() if rest is None else rest
    try:
        entries = list(_zip_entries(path, rest) if zipfile.is_zipfile(path) else _tar_entries(path, rest))
    except DAMAGE as error:
        reason = (
            " ".join(str(error).split(":\n")[0].split())[:120] or type(error).__name__
        )  # leave out why it is none of five kinds of tar
        raise UserError(f"{path}: truncated, damaged or no tar or zip archive ({reason}); get it again") from None
    last = {entry.name: entry for entry in entries}  # as after unpacking
    rest.replaced += [name for name, times in Counter(entry.name for entry in entries).items() if times > 1]
    return sorted(last.values(), key=lambda entry: entry.name)


def _tar_entries(path: Path, rest: Rest) -> Iterator[Entry]:
    with tarfile.open(path) as archive:
        for member in archive:
            _check_member(path, member.name, member.size, link=member.islnk() or member.issym())
            name = PurePosixPath(member.name).as_posix()  # without redundant parts such as "./"
            if member.isdir() and name not in ("", "."):
                rest.folders.add(name)
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None or rest.sorted_out(name, partial(_peek, stream)):
                continue
            content = stream.read()
            if len(content) != member.size:
                raise EOFError(f"{member.name} is cut short")
            yield Entry(name, partial(bytes, content), str(path))
        # to the end, because only there a compressed file proves to be complete
        while archive.fileobj is not None and archive.fileobj.read(2**20):
            pass


def _zip_entries(path: Path, rest: Rest) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            _check_member(path, info.filename, info.file_size, link=(info.external_attr >> 28) == 0xA)
            name = PurePosixPath(_as_named(info).replace("\\", "/")).as_posix()
            if info.is_dir():
                rest.folders.add(name)
            elif not rest.sorted_out(name, lambda info=info: archive.open(info).read(8)):  # type: ignore[misc]
                yield Entry(name, partial(bytes, archive.read(info)), str(path))


def _as_named(info: zipfile.ZipInfo) -> str:
    """The name of a member. Some programs write UTF-8 without saying so, and zipfile then reads the bytes as cp437."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _peek(stream: IO[bytes]) -> bytes:
    """The first bytes, without moving the position of the stream."""
    start = stream.read(8)
    stream.seek(0)
    return start


def _check_member(path: Path, name: str, size: int, link: bool) -> None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name.split("/", maxsplit=1)[0]:
        raise UserError(f"{path}: member {name!r} points outside the archive; do not use it")
    if link:
        raise UserError(f"{path}: member {name!r} is a link; give an archive of plain files")
    if size > LARGEST_MEMBER and name.lower().endswith((*IMAGE_SUFFIXES, ".csv", TINY_LABELS)):
        raise UserError(f"{path}: member {name!r} has {size} bytes, more than {LARGEST_MEMBER}; it is no small image")


def read_tar_members(path: Path, names: Sequence[str]) -> list[bytes]:
    """Contents of members, in one pass. Raises UserError if the archive is damaged or lacks one."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name in names and (stream := archive.extractfile(member)) is not None:
                    found[member.name] = stream.read()
                    if len(found) == len(names):
                        break
    except DAMAGE as error:
        raise UserError(f"{path}: truncated or damaged ({error or type(error).__name__}); get it again") from None
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise UserError(f"{path}: {missing} is missing in it; get the archive again")
    return [found[name] for name in names]


def read_gzip(path: Path) -> bytes:
    """Decompressed content of a gzip file."""
    try:
        with gzip.open(io.BytesIO(path.read_bytes())) as stream:
            return stream.read()
    except DAMAGE as error:
        raise UserError(f"{path}: truncated or damaged ({error or type(error).__name__}); get it again") from None
