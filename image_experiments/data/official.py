"""Where CIFAR-10 and -100, GTSRB, MNIST, SVHN, STL-10 and scikit-learn's digits come from, and how their official files are read."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from command_line.output import UserError
from image_experiments.data.archives import archive_entries, fetched, read_gzip, read_tar_members
from image_experiments.data.balance import balanced_choice
from image_experiments.data.dataset import Array, Dataset
from image_experiments.data.decoding import decode_all

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


GTSRB_CLASSES = tuple(f"{number:05d}" for number in range(43))  # the names of its folders


DIGITS = tuple(map(str, range(10)))


STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


CLASSES = {
    "cifar10": CIFAR10_CLASSES,
    "gtsrb": GTSRB_CLASSES,
    "stl10": STL10_CLASSES,
    **dict.fromkeys(("digits", "mnist", "mnist-t10k", "svhn"), DIGITS),
}
"""Classes of the official files, known before reading."""


CIFAR10_ARCHIVE = ("https://www.cs.toronto.edu/~kriz/", {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"})


CIFAR100_ARCHIVE = ("https://www.cs.toronto.edu/~kriz/", {"cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8"})


SVHN_FILES = (
    "http://ufldl.stanford.edu/housenumbers/",
    {
        "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
    },
)


STL10_ARCHIVE = ("http://ai.stanford.edu/~acoates/stl10/", {"stl10_binary.tar.gz": "md5:91f7769df0f17e558f3565bffb0c7dfb"})


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
    "cifar-100-python.tar.gz": "cifar-100-binary.tar.gz",
    "cifar-100-matlab.tar.gz": "cifar-100-binary.tar.gz",
    "cifar-100-python": "cifar-100-binary.tar.gz",
}
"""Official files in formats that are not read (pickles can run code), and the files to use instead."""


OFFICIAL = {*CIFAR10_ARCHIVE[1], *CIFAR100_ARCHIVE[1], *GTSRB_FILES[1], *SVHN_FILES[1], *STL10_ARCHIVE[1]}


COPIES = ("cifar10", "cifar100", "gtsrb", "svhn", "stl10")
"""Data sets of which a copy in the form of image folders is taken too."""


def files_of(name: str) -> tuple[str, dict[str, str]]:
    """(address, {official file: checksum}) of a data set."""
    return {
        "cifar10": CIFAR10_ARCHIVE,
        "cifar100": CIFAR100_ARCHIVE,
        "gtsrb": GTSRB_FILES,
        "svhn": SVHN_FILES,
        "stl10": STL10_ARCHIVE,
    }.get(name, MNIST_FILES)


def names_of(name: str) -> list[str]:
    """Names of the official files that a data set is read from."""
    return [file for file in files_of(name)[1] if name != "mnist-t10k" or file.startswith("t10k")]


def official_in(name: str, path: Path) -> list[Path]:
    """The official files of a data set, if they are all in the folder; otherwise none."""
    known = name in COPIES or name.startswith("mnist")
    paths = [path / file for file in names_of(name)] if known else []
    return paths if all(file.is_file() for file in paths) else []


DIGITS_TEST = 1197  # of scikit-learn's 1797 digits; the other 600 are for training and validation


def read_digits() -> Dataset:
    """scikit-learn's copy of the UCI handwritten digits (Alpaydin, Kaynak 1998): 1797 images, 8 x 8, 17 grey levels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    test = balanced_choice(labels, DIGITS_TEST, np.random.default_rng(0))  # the same test images for every seed
    pool = np.setdiff1d(np.arange(len(labels)), test)
    return Dataset(
        images[pool],
        labels[pool],
        np.arange(len(pool)),
        images[test],
        labels[test],
        DIGITS,
        "digits (scikit-learn)",
    )


def check_official(name: str, data_dir: Path | None) -> None:
    """Raise UserError if, judging by names, a folder or file does not hold the official files of a data set."""
    if data_dir is None or name == "digits":
        return
    wanted = files_of(name)[1]
    for other, instead in OTHER_FORMS.items():
        here = data_dir.name == other or ((data_dir / other).exists() and not (data_dir / instead).exists())
        if instead in wanted and here:
            raise UserError(
                f"--data-dir {data_dir}: {other} holds Python objects, which are never loaded; give {instead} of the same page"
            )
    missing = [file for file in names_of(name) if not (data_dir / file).exists()]
    if data_dir.is_dir() and missing:
        raise UserError(f"--data-dir {data_dir}: {missing[0]} is missing; put it there, or leave out --data-dir to download it")


def read_cifar(name: str, data_dir: Path | None, image_size: int = 0) -> Dataset:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009), the binary version: records of label bytes and 3 x 32 x 32 pixels, averaged to image_size.

    CIFAR-100 has a byte for the superclass, which is left out, and one for the class.
    Copies in the form of image folders are resized with Pillow's bilinear filter instead, like all image folders.
    """
    check_official(name, data_dir)
    (archive,) = fetched(name, data_dir, *files_of(name))
    hundred = name == "cifar100"
    folder, before = ("cifar-100-binary", 2) if hundred else ("cifar-10-batches-bin", 1)
    members = ["train.bin"] if hundred else [f"data_batch_{i}.bin" for i in range(1, 6)]
    wanted = [*members, "test.bin" if hundred else "test_batch.bin", *["fine_label_names.txt"] * hundred]
    contents = read_tar_members(archive, [f"{folder}/{member}" for member in wanted])
    parts = [_records(archive, *part, before) for part in zip(wanted[: len(members) + 1], contents, strict=False)]
    train, test = np.concatenate(parts[:-1]), parts[-1]
    classes = tuple(contents[-1].decode().split()) if hundred else CIFAR10_CLASSES
    images, test_images = (np.ascontiguousarray(p[:, before:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)) for p in (train, test))
    images, test_images = averaged(images, image_size), averaged(test_images, image_size)
    labels, test_labels = (p[:, before - 1].astype(np.int64) for p in (train, test))
    return Dataset(images, labels, np.arange(len(labels)), test_images, test_labels, classes, str(archive))


def _records(archive: Path, member: str, content: bytes, before: int) -> Array:
    """(n, label bytes + 3072). Raises UserError for a size that no number of records has."""
    size = before + 3072
    if len(content) % size:
        raise UserError(
            f"{archive}: {member} has {len(content)} bytes, no multiple of {size}: the archive is damaged, get it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, size)


def read_svhn(data_dir: Path | None, image_size: int = 0) -> Dataset:
    """Street View House Numbers (Netzer et al. 2011), 32 x 32, from its official MATLAB files, in which label 10 stands for 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    parts = []
    for path in fetched("svhn", data_dir, *SVHN_FILES):
        try:
            content = loadmat(path, variable_names=("X", "y"))
            images, labels = content["X"].transpose(3, 0, 1, 2), content["y"].ravel().astype(np.int64) % 10
        except (MatReadError, ValueError, TypeError, LookupError, NotImplementedError, OSError, zlib.error) as error:
            raise UserError(f"{path}: no MATLAB file of SVHN ({error}); get it again") from None
        images = np.ascontiguousarray(images)
        parts.append((averaged(images, image_size), labels))
    (images, labels), test = parts
    return Dataset(images, labels, np.arange(len(labels)), *test, DIGITS, "SVHN")


def read_stl10(data_dir: Path | None, image_size: int = 0) -> Dataset:
    """STL-10 (Coates, Ng, Lee 2011): 5,000 labelled training and 8,000 test images, 96 x 96, column by column, with labels 1 to 10."""
    (archive,) = fetched("stl10", data_dir, *STL10_ARCHIVE)
    names = [f"stl10_binary/{part}_{kind}.bin" for part in ("train", "test") for kind in "Xy"]
    contents = [np.frombuffer(content, dtype=np.uint8) for content in read_tar_members(archive, names)]
    parts = []
    for pixels, numbers in (contents[:2], contents[2:]):
        if len(pixels) != len(numbers) * 3 * 96 * 96:
            raise UserError(f"{archive}: {len(pixels)} bytes of images for {len(numbers)} labels: it is damaged, get it again")
        images = np.ascontiguousarray(pixels.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1))
        parts.append((averaged(images, image_size), numbers.astype(np.int64) - 1))
    (images, labels), test = parts
    return Dataset(images, labels, np.arange(len(labels)), *test, STL10_CLASSES, str(archive))


def read_mnist(data_dir: Path | None, image_size: int = 0, test_file_alone: bool = False) -> Dataset:
    """MNIST (LeCun et al. 1998), 28 x 28, padded to 32 x 32, or averaged down to image_size (14: means of 2 x 2 pixels).

    test_file_alone: use only the 10,000 images of the test file, split into halves.
    """
    url, files = MNIST_FILES
    wanted = {name: md5 for name, md5 in files.items() if name.startswith("t10k") or not test_file_alone}
    arrays = [read_idx(path) for path in fetched("mnist", data_dir, url, wanted)]
    sized = [averaged(a, image_size) if image_size else np.pad(a, ((0, 0), (2, 2), (2, 2))) for a in arrays[::2]]
    images = [a[..., None] for a in sized]
    labels = [a.astype(np.int64) for a in arrays[1::2]]
    if not test_file_alone:
        return Dataset(images[0], labels[0], np.arange(len(labels[0])), images[1], labels[1], DIGITS, "MNIST")
    test = balanced_choice(labels[0], len(labels[0]) // 2, np.random.default_rng(0))
    pool = np.setdiff1d(np.arange(len(labels[0])), test)
    source = "MNIST (test file, split)"
    return Dataset(images[0][pool], labels[0][pool], np.arange(len(pool)), images[0][test], labels[0][test], DIGITS, source)


def averaged(images: Array, size: int) -> Array:
    """uint8 images (n, H, W) or (n, H, W, 3), each resized to (size, size) by averaging over the area of each new pixel (0: unchanged)."""
    from PIL import Image

    if not size:
        return images
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


def read_gtsrb(data_dir: Path | None, image_size: int = 0) -> Dataset:
    """German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012), 43 classes, from its official archives, resized (0: to 32)."""
    image_size = image_size or 32
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
    lines = [line.split(";") for line in table.read().decode("utf-8-sig").split()]
    class_of = {line[0]: int(line[-1]) for line in lines[1:]}
    test = [entry for entry in archive_entries(tests) if entry.name.rsplit("/", 1)[-1] in class_of]
    return Dataset(
        decode_all(train, image_size),
        np.array(train_classes),
        np.unique(groups, return_inverse=True)[1],
        decode_all(test, image_size),
        np.array([class_of[entry.name.rsplit("/", 1)[-1]] for entry in test], dtype=np.int64),
        GTSRB_CLASSES,
        "GTSRB",
    )


def is_a_copy(name: str, path: Path | None) -> bool:
    """Whether this is a folder with train/CLASS/* or an archive, rather than an official file (by its name) or a folder of such files."""
    if path is None or path.name in OFFICIAL or path.name in OTHER_FORMS or official_in(name, path):
        return False
    return path.is_file() or (path / "train").is_dir()
