"""Files of data sets: downloaded with a checksum, read from folders, tar and zip archives without unpacking them to the disk."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from command_line.output import UserError

LARGEST_MEMBER = 64 * 2**20
"""Bytes of the largest member that is read: more is no small image."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".webp", ".tif", ".tiff")
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
    """A file by its name within the folder or archive ("train/cat/1.png"), and its content."""

    name: str
    content: bytes
    source: str


def fetched(dataset: str, data_dir: Path | None, url: str, files: dict[str, str]) -> list[Path]:
    """Paths of a data set's files, which lie in data_dir or are downloaded, and whose checksums ("md5:...") are right.

    data_dir: the folder, or the file itself where there is one alone; None: the user's cache, filled by downloading.
    Raises UserError for a file that is missing, damaged, or cannot be downloaded.
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
    except Exception as error:  # pooch passes on what requests and the disk raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"cannot download {url} ({reason}); get it by other means and give its folder with --data-dir") from None


def folder_entries(folder: Path) -> Iterator[Entry]:
    """Images in a folder, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield Entry(path.relative_to(folder).as_posix(), path.read_bytes(), str(folder))


def archive_entries(path: Path) -> list[Entry]:
    """Images and csv files in a tar (plain, gz, bz2, xz) or zip, in the order of their names.

    Raises UserError for a missing, truncated or damaged archive, and for one with a member that points outside (an absolute path, "..",
    a link): such an archive was made to harm, and nothing of it is used.
    """
    if not path.is_file():
        raise UserError(f"--data-dir {path}: no such file or folder; check the path")
    try:
        entries = list(_zip_entries(path) if zipfile.is_zipfile(path) else _tar_entries(path))
    except DAMAGE as error:
        raise UserError(
            f"{path}: truncated, damaged or no tar or zip archive ({error or type(error).__name__}); get it again"
        ) from None
    return sorted(entries, key=lambda entry: entry.name)


def _tar_entries(path: Path) -> Iterator[Entry]:
    with tarfile.open(path) as archive:
        for member in archive:
            _check_member(path, member.name, member.size, link=member.islnk() or member.issym())
            stream = archive.extractfile(member) if member.isfile() and _is_wanted(member.name) else None
            if stream is not None:
                content = stream.read()
                if len(content) != member.size:
                    raise EOFError(f"{member.name} is cut short")
                yield Entry(member.name.removeprefix("./"), content, str(path))
        while archive.fileobj is not None and archive.fileobj.read(
            2**20
        ):  # to the end, where a compressed file shows that it is whole
            pass


def _zip_entries(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            _check_member(path, info.filename, info.file_size, link=(info.external_attr >> 28) == 0xA)
            if _is_wanted(info.filename):
                yield Entry(info.filename, archive.read(info), str(path))


def _is_wanted(name: str) -> bool:
    hidden = name.rsplit("/", 1)[-1].startswith("._") or "__MACOSX" in name  # what macOS adds to a zip
    return name.lower().endswith((*IMAGE_SUFFIXES, ".csv")) and not hidden


def _check_member(path: Path, name: str, size: int, link: bool) -> None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name.split("/", maxsplit=1)[0]:
        raise UserError(f"{path}: member {name!r} points outside the archive; do not use it")
    if link:
        raise UserError(f"{path}: member {name!r} is a link; give an archive of plain files")
    if size > LARGEST_MEMBER and _is_wanted(name):
        raise UserError(f"{path}: member {name!r} has {size} bytes, more than {LARGEST_MEMBER}; it is no small image")


def read_tar_member(path: Path, name: str) -> bytes:
    """Content of one member. Raises UserError when the archive is damaged or lacks it."""
    try:
        with tarfile.open(path) as archive:
            stream = archive.extractfile(name)
            return b"" if stream is None else stream.read()
    except KeyError:
        raise UserError(f"{path}: {name} is missing in it; get the archive again") from None
    except DAMAGE as error:
        raise UserError(f"{path}: truncated or damaged ({error or type(error).__name__}); get it again") from None


def read_gzip(path: Path) -> bytes:
    """Unpacked content of a gzip file."""
    try:
        with gzip.open(io.BytesIO(path.read_bytes())) as stream:
            return stream.read()
    except DAMAGE as error:
        raise UserError(f"{path}: truncated or damaged ({error or type(error).__name__}); get it again") from None
