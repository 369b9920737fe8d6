"""Data sets: digits, CIFAR-10, GTSRB, MNIST and folders of images, read into memory as uint8, their test images kept apart.

Reading is one function a data set; `split` then takes training and validation images from what is not test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from command_line.output import UserError, did_you_mean
from image_experiments.data.archives import Rest, archive_entries, fetched, folder_entries, read_gzip, read_tar_member
from image_experiments.data.balance import balanced_choice
from image_experiments.data.class_folders import arranged
from image_experiments.data.decoding import Met, decode_all

Dataset = Literal["digits", "cifar10", "gtsrb", "mnist", "mnist-t10k", "images"]
Array = np.ndarray[Any, Any]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GTSRB_CLASSES = tuple(f"{number:05d}" for number in range(43))  # as its folders are named
DIGITS = tuple(map(str, range(10)))
CLASSES = {"cifar10": CIFAR10_CLASSES, "gtsrb": GTSRB_CLASSES, "digits": DIGITS, "mnist": DIGITS, "mnist-t10k": DIGITS}
"""Of official files, known before they are read."""
CIFAR10_ARCHIVE = ("https://www.cs.toronto.edu/~kriz/", {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d13530"})
MNIST_FILES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    },
)
GTSRB_FILES = (
    "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/",
    {
        "GTSRB-Training_fixed.zip": "md5:513f3c79a4c5141765e10e952eaa2478",
        "GTSRB_Final_Test_Images.zip": "md5:c7e4e6327067d32654124b0fe9e82185",
        "GTSRB_Final_Test_GT.zip": "md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5",
    },
)
OTHER_FORMS = {
    "cifar-10-python.tar.gz": "cifar-10-binary.tar.gz",
    "cifar-10-matlab.tar.gz": "cifar-10-binary.tar.gz",
    "cifar-10-batches-py": "cifar-10-binary.tar.gz",
}
"""Official files in forms that are not read (pickles run code), and those to take instead."""
OFFICIAL = {*CIFAR10_ARCHIVE[1], *GTSRB_FILES[1]}
DIGITS_TEST = 1197  # of scikit-learn's 1797 digits; the other 600 are for training and validation
TRACK_AND_FRAME = r"(\d{5})_\d{5}"  # GTSRB: frames of one track are near-identical photographs of one sign


@dataclass(frozen=True, eq=False)
class ImageData:
    """images: uint8 (n, H, W, C), labels: int64 (n,), of the training pool and of the test set; groups: int64 (n,), training images of
    one group (frames of a video, exact copies) never part; classes: their names; source: what was read, with its checksum; notes: lines
    that say what was left out or put together; doubts: lines that say what may spoil an experiment."""

    images: Array
    labels: Array
    groups: Array
    test_images: Array
    test_labels: Array
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def checksum(self) -> str:
        """SHA-256 of all images and labels."""
        whole = hashlib.sha256()
        for array in (self.images, self.labels, self.test_images, self.test_labels):
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()

    def __post_init__(self) -> None:
        for part, images, labels in (("train", self.images, self.labels), ("test", self.test_images, self.test_labels)):
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.images.shape[1:]:
                raise UserError(
                    f"{self.source}: {part} images have shape {images.shape} and type {images.dtype}; give uint8 (n, H, W, C)"
                )
            if len(labels) != len(images) or len(labels) == 0:
                raise UserError(
                    f"{self.source}: {len(images)} {part} images and {len(labels)} labels; there must be as many, and some"
                )
            if not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise UserError(
                    f"{self.source}: {part} labels reach from {labels.min()} to {labels.max()}, classes are 0..{len(self.classes) - 1}"
                )
        counts = np.bincount(self.labels, minlength=len(self.classes))
        if len(self.classes) < 2 or (counts > 0).sum() < 2:
            raise UserError(f"{self.source}: one class ({', '.join(self.classes)}); a classifier needs at least two")
        if not counts.all():
            raise UserError(
                f"{self.source}: no training images of class {self.classes[int(counts.argmin())]!r}; add some or remove it"
            )


def read_dataset(
    name: Dataset, data_dir: Path | None, image_size: int, group_pattern: str | None, classes: Sequence[str] = ()
) -> ImageData:
    """Read a data set. data_dir: where its files lie (downloaded if they don't); for "images" a folder or archive, required.

    image_size: images are resized to this many pixels a side (0: as they are). group_pattern: see `read_images`. classes: only these, by
    name (none: all). Raises UserError for whatever cannot be read.
    """
    data = _read(name, data_dir, image_size, group_pattern)
    data = only(data, classes) if classes else data
    for part, images in (("training", data.images), ("test", data.test_images)):
        check_range(images, f"{data.source}: {part} images")
    return with_copies_together(data)


def check_range(images: Array, what: str) -> None:
    """UserError where uint8 images cannot be on the scale 0..255: all of one value, or so dark that they were cast from another scale."""
    distinct = np.flatnonzero(np.bincount(images.reshape(-1)[:: max(1, images.size // 10**7)], minlength=256))
    if len(distinct) == 1:
        raise UserError(f"{what} hold the value {distinct[0]} alone: nothing can be seen in them; make the file again")
    if distinct[-1] <= DARKEST or (1 in distinct and set(distinct.tolist()) <= {0, 1, 255}):
        kind = "floats of [-1, 1] or [0, 1] cast to whole numbers" if distinct[-1] in (1, 255) else "another scale than 0..255"
        values = ", ".join(map(str, distinct[:5].tolist())) + (", ..." if len(distinct) > 5 else "")
        raise UserError(
            f"{what} hold the values {values} alone, which looks like {kind}; scale them to 0..255 before saving as uint8"
        )


DARKEST = 16
"""No set of images on the scale 0..255 stays below this: scikit-learn's digits, for one, have 0..16 before they are scaled."""


def with_copies_together(data: ImageData) -> ImageData:
    """The data with exact copies among the training images in one group, and lines that say how many there are and where."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    train, test = ([hashlib.sha256(image.tobytes()).digest() for image in part] for part in (data.images, data.test_images))
    number = {content: i for i, content in enumerate(dict.fromkeys(train))}
    same = np.array([number[content] for content in train])
    notes, doubts = list(data.notes), list(data.doubts)
    groups = np.unique(data.groups, return_inverse=True)[1]
    if len(number) < len(train):
        size = groups.max() + 1 + len(number)  # nodes: groups, then contents; each image joins its group to its content
        graph = coo_matrix((np.ones(len(train)), (groups, groups.max() + 1 + same)), shape=(size, size))
        groups = np.unique(connected_components(graph, directed=False)[1][groups], return_inverse=True)[1]
        notes.append(f"copies: {len(train) - len(number)} training images are exact copies of others; copies stay together")
    labelled = {content: set[int]() for content in number}
    for content, label in zip(train, data.labels.tolist(), strict=True):
        labelled[content].add(label)
    torn = sum(len(labelled[content]) > 1 for content in train)
    if torn:
        doubts.append(f"{torn} training images have exact copies in another class: one of the labels is wrong")
    untested = [
        name
        for name, count in zip(data.classes, np.bincount(data.test_labels, minlength=len(data.classes)), strict=True)
        if not count
    ]
    if untested:
        doubts.append(f"no test images of {', '.join(untested[:5])}{f' and {len(untested) - 5} more' if len(untested) > 5 else ''}")
    seen = sum(content in number for content in test)
    if seen:
        doubts.append(
            f"{seen} of {len(test)} test images are exact copies of training images: accuracy on them says nothing of new images"
        )
    return replace(data, groups=groups, notes=tuple(notes), doubts=tuple(doubts))


def described(data: ImageData) -> list[str]:
    """What was read, a line each: images and their shape, classes, groups, what was left out or put together."""
    height, width, channels = data.images.shape[1:]
    counts = [np.bincount(labels, minlength=len(data.classes)) for labels in (data.labels, data.test_labels)]
    each = [f"{name} {train}+{test}" for name, train, test in zip(data.classes, *counts, strict=True)]
    shown = ", ".join(each[:SHOWN]) + (f", and {len(each) - SHOWN} more" if len(each) > SHOWN else "")
    groups = len(np.unique(data.groups))
    together = (
        "each on its own"
        if groups == len(data.groups)
        else f"{groups} groups that never part, the largest of {np.bincount(data.groups).max()}"
    )
    return [
        f"read {data.source}: {len(data.labels)} training and {len(data.test_labels)} test images, {width}x{height}, "
        f"{'grey' if channels == 1 else 'colour'}",
        f"{len(data.classes)} classes, training+test: {shown}",
        f"training images: {together}",
        *data.notes,
    ]


SHOWN = 50
"""Classes that are listed by name."""


def only(data: ImageData, classes: Sequence[str]) -> ImageData:
    """The images of these classes, numbered in the order of the data set. Raises UserError for one that it does not have."""
    check_classes(classes, data.classes, data.source)
    kept = [i for i, name in enumerate(data.classes) if name in classes]
    train, test = (np.isin(labels, kept) for labels in (data.labels, data.test_labels))
    return ImageData(
        data.images[train],
        np.searchsorted(kept, data.labels[train]),
        np.unique(data.groups[train], return_inverse=True)[1],
        data.test_images[test],
        np.searchsorted(kept, data.test_labels[test]),
        tuple(data.classes[i] for i in kept),
        f"{data.source}, {len(kept)} of its {len(data.classes)} classes",
        data.notes,
        data.doubts,
    )


def check_classes(names: Sequence[str], known: Sequence[str], source: str) -> None:
    """Raises UserError for a class that the data set does not have."""
    for name in names:
        if name not in known:
            raise UserError(
                f"--classes {name}: {source} has no such class{did_you_mean(name, known)}; its classes are {', '.join(known)}"
            )


def _read(name: Dataset, data_dir: Path | None, image_size: int, group_pattern: str | None) -> ImageData:
    if name == "digits":
        return read_digits()
    if name in ("cifar10", "gtsrb") and data_dir is not None and is_a_copy(data_dir):
        return read_images(data_dir, image_size, group_pattern)
    if name == "cifar10":
        return read_cifar10(data_dir, image_size)
    if name in ("mnist", "mnist-t10k"):
        return read_mnist(data_dir, image_size, test_file_alone=name == "mnist-t10k")
    if name == "gtsrb":
        return read_gtsrb(data_dir, image_size or 32)
    if data_dir is None:
        raise UserError("--dataset images needs --data-dir: a folder with train/CLASS/* and test/CLASS/*, or a tar or zip of one")
    return read_images(data_dir, image_size, group_pattern)


def read_digits() -> ImageData:
    """scikit-learn's copy of the UCI handwritten digits (Alpaydin, Kaynak 1998): 1797 images, 8 x 8, 17 grey levels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    test = balanced_choice(labels, DIGITS_TEST, np.random.default_rng(0))  # the same test images whatever the seed
    pool = np.setdiff1d(np.arange(len(labels)), test)
    return ImageData(
        images[pool],
        labels[pool],
        np.arange(len(pool)),
        images[test],
        labels[test],
        DIGITS,
        "digits (scikit-learn)",
    )


def check_official(name: str, data_dir: Path | None) -> None:
    """UserError where a folder or file is not what holds the official files of a data set, as far as names tell."""
    if data_dir is None or name == "digits":
        return
    for other, instead in OTHER_FORMS.items():
        if name == "cifar10" and (data_dir.name == other or ((data_dir / other).exists() and not (data_dir / instead).exists())):
            raise UserError(
                f"--data-dir {data_dir}: {other} holds Python objects, which are never loaded; give {instead} of the same page"
            )
    wanted = {"cifar10": CIFAR10_ARCHIVE, "gtsrb": GTSRB_FILES}.get(name, MNIST_FILES)[1]
    missing = [file for file in wanted if (name != "mnist-t10k" or file.startswith("t10k")) and not (data_dir / file).exists()]
    if data_dir.is_dir() and missing:
        raise UserError(f"--data-dir {data_dir}: {missing[0]} is missing; put it there, or leave out --data-dir to download it")


def read_cifar10(data_dir: Path | None, image_size: int = 0) -> ImageData:
    """CIFAR-10 (Krizhevsky 2009), the binary version: records of a label byte and 3 x 32 x 32 pixels, averaged down to image_size.

    Copies that are folders of images are resized by Pillow's bilinear filter instead, as all such folders are.
    """
    check_official("cifar10", data_dir)
    (archive,) = fetched("cifar10", data_dir, *CIFAR10_ARCHIVE)
    parts = []
    for member in [*[f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"]:
        content = np.frombuffer(read_tar_member(archive, f"cifar-10-batches-bin/{member}"), dtype=np.uint8)
        if len(content) % 3073:
            raise UserError(
                f"{archive}: {member} has {len(content)} bytes, no multiple of 3073: the archive is damaged, get it again"
            )
        parts.append(content.reshape(-1, 3073))
    train, test = np.concatenate(parts[:5]), parts[5]
    images, test_images = (np.ascontiguousarray(p[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)) for p in (train, test))
    if image_size:
        images, test_images = averaged(images, image_size), averaged(test_images, image_size)
    labels, test_labels = train[:, 0].astype(np.int64), test[:, 0].astype(np.int64)
    return ImageData(images, labels, np.arange(len(labels)), test_images, test_labels, CIFAR10_CLASSES, str(archive))


def read_mnist(data_dir: Path | None, image_size: int = 0, test_file_alone: bool = False) -> ImageData:
    """MNIST (LeCun et al. 1998), 28 x 28, padded to 32 x 32, or averaged down to image_size (14: means of 2 x 2 pixels).

    test_file_alone: only the 10,000 images of the test file, split in halves.
    """
    url, files = MNIST_FILES
    wanted = {name: md5 for name, md5 in files.items() if name.startswith("t10k") or not test_file_alone}
    arrays = [read_idx(path) for path in fetched("mnist", data_dir, url, wanted)]
    sized = [averaged(a, image_size) if image_size else np.pad(a, ((0, 0), (2, 2), (2, 2))) for a in arrays[::2]]
    images = [a[..., None] for a in sized]
    labels = [a.astype(np.int64) for a in arrays[1::2]]
    if not test_file_alone:
        return ImageData(images[0], labels[0], np.arange(len(labels[0])), images[1], labels[1], DIGITS, "MNIST")
    test = balanced_choice(labels[0], len(labels[0]) // 2, np.random.default_rng(0))
    pool = np.setdiff1d(np.arange(len(labels[0])), test)
    source = "MNIST (test file, split)"
    return ImageData(images[0][pool], labels[0][pool], np.arange(len(pool)), images[0][test], labels[0][test], DIGITS, source)


def averaged(images: Array, size: int) -> Array:
    """uint8 images (n, H, W) or (n, H, W, 3), each resized to (size, size) by the means of what a pixel covers."""
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)) for image in images])


def read_idx(path: Path) -> Array:
    """An array in idx format, gzipped: magic 0 0 8 ndim, big-endian sizes, bytes."""
    content = read_gzip(path)
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise UserError(f"{path} is no idx file of bytes: get it again")
    sizes = np.frombuffer(content, dtype=">i4", count=content[3], offset=4)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3])
    if len(values) != np.prod(sizes, dtype=np.int64):
        raise UserError(
            f"{path} holds {len(values)} bytes, its header says {'x'.join(map(str, sizes))}: it is damaged, get it again"
        )
    return values.reshape(sizes)


def read_gtsrb(data_dir: Path | None, image_size: int) -> ImageData:
    """German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012), 43 classes, from its official archives, resized."""
    training, tests, truth = fetched("gtsrb", data_dir, *GTSRB_FILES)
    train, train_classes, groups = [], [], []
    for entry in archive_entries(training):
        if match := re.search(r"Training/(\d{5})/(\d{5})_\d{5}\.ppm$", entry.name):
            train.append(entry)
            train_classes.append(int(match.group(1)))
            groups.append(int(match.group(1)) * 100_000 + int(match.group(2)))
    table = next((entry for entry in archive_entries(truth) if entry.name.endswith("GT-final_test.csv")), None)
    if table is None or not train:
        raise UserError(f"{truth if train else training}: not the official archive of GTSRB; get it again")
    lines = [line.split(";") for line in table.content.decode("utf-8-sig").split()]
    class_of = {line[0]: int(line[-1]) for line in lines[1:]}
    test = [entry for entry in archive_entries(tests) if entry.name.rsplit("/", 1)[-1] in class_of]
    return ImageData(
        decode_all(train, image_size),
        np.array(train_classes),
        np.unique(groups, return_inverse=True)[1],
        decode_all(test, image_size),
        np.array([class_of[entry.name.rsplit("/", 1)[-1]] for entry in test], dtype=np.int64),
        GTSRB_CLASSES,
        "GTSRB",
    )


def is_a_copy(path: Path | None) -> bool:
    """Whether this is a folder with train/CLASS/*, or an archive, rather than an official file, by its name, or a folder of them."""
    if path is None or path.name in OFFICIAL or path.name in OTHER_FORMS:
        return False
    return path.is_file() or (path / "train").is_dir()


def read_images(path: Path, image_size: int, group_pattern: str | None) -> ImageData:
    """A folder with train/CLASS/* and test/CLASS/*, or a tar or zip of one; classes are numbered in the order of their names.

    group_pattern: regular expression matched to the stem of a training file's name; images of one class with equal first group belong
    together, and are never divided between training and validation. None: GTSRB's names, TRACK_FRAME of five digits each, are recognised
    where every name has that form.
    """
    rest = Rest()
    entries = folder_entries(path, rest) if path.is_dir() else archive_entries(path, rest)
    parts, notes = arranged(entries, rest, path)
    classes = tuple(sorted({name for name, _ in parts["train"]}, key=lambda name: (natural(name), name)))
    strangers = sorted({name for name, _ in parts["test"]} - set(classes))
    if strangers:
        raise UserError(f"{path}: test class {strangers[0]!r} has no training images; add some or remove it")
    number = {name: i for i, name in enumerate(classes)}
    labels = {part: np.array([number[name] for name, _ in found], dtype=np.int64) for part, found in parts.items()}
    met = Met()
    images = {part: decode_all([entry for _, entry in found], image_size, met) for part, found in parts.items()}
    groups = group_numbers([(name, entry.name) for name, entry in parts["train"]], group_pattern)
    if group_pattern is None and len(set(groups.tolist())) < len(groups):
        notes.append(
            "groups: names have GTSRB's form TRACK_FRAME, so images of one track stay together; --group-pattern '' parts them"
        )
    notes += met.lines()
    return ImageData(images["train"], labels["train"], groups, images["test"], labels["test"], classes, str(path), tuple(notes))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which class 10 follows class 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def group_numbers(files: list[tuple[str, str]], pattern: str | None) -> Array:
    """Group of each training file (class, name); every file its own where nothing else is known. Raises UserError for a bad pattern."""
    stems = [Path(name).stem for _, name in files]
    try:
        expression = re.compile(TRACK_AND_FRAME if pattern is None else pattern)
    except re.error as error:
        raise UserError(f"--group-pattern {pattern}: no regular expression ({error}); for example '(\\d+)_\\d+'") from None
    matches = [expression.fullmatch(stem) for stem in stems] if expression.groups else []
    if not all(matches) or not matches:
        if pattern:
            odd = next((stem for stem, match in zip(stems, matches, strict=False) if not match), stems[0])
            raise UserError(f"--group-pattern {pattern}: does not match {odd!r} with one group; for example '(\\d+)_\\d+'")
        return np.arange(len(files))
    keys = [f"{name}/{match.group(1)}" for (name, _), match in zip(files, matches, strict=True) if match]
    return np.unique(keys, return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class Split:
    """Places in the pool of ImageData."""

    train: Array
    validation: Array


def split(data: ImageData, train: int, validation: int, seed: int) -> Split:
    """Class-balanced validation and training images from the pool, without a group in both.

    validation: how many in all, as equal a number of each class as there is. train: how many of the rest, likewise (0: all of them).
    Raises UserError when there are too few.
    """
    rng = np.random.default_rng([seed, 1])
    wanted = np.full(len(data.classes), validation // len(data.classes))
    wanted[rng.permutation(len(data.classes))[: validation % len(data.classes)]] += 1
    chosen: list[int] = []
    taken: list[int] = []
    for label, count in enumerate(wanted):
        members = np.flatnonzero(data.labels == label)
        groups = rng.permutation(np.unique(data.groups[members]))
        found: list[int] = []
        for group in groups[:-1]:  # one group at least stays for training
            if len(found) >= count:
                break
            found += members[data.groups[members] == group].tolist()
            taken.append(int(group))
        if len(found) < count:
            raise UserError(
                f"--validation {validation}: class {data.classes[label]!r} has {len(members)} images in {len(groups)} groups, too few to "
                f"set {count} apart; use less (0: none), or --group-pattern '' if they do not belong together"
            )
        chosen += rng.permutation(found)[:count].tolist()
    rest = np.flatnonzero(~np.isin(data.groups, taken))
    if train > len(rest):
        raise UserError(
            f"--train {train}: {len(rest)} images are left beside {validation} for validation; use at most that many, or 0 for all"
        )
    kept = rest[balanced_choice(data.labels[rest], train, rng)] if train else rest
    return Split(kept, np.sort(np.array(chosen, dtype=np.int64)))
