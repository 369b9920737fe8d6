"""Data sets from small files that the tests make: formats, downloads from 127.0.0.1, archives, splits, and everything that may be wrong."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import struct
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from sklearn.datasets import load_digits

from command_line.output import UserError
from image_experiments.data import dataset, official, sanity_checks
from image_experiments.data.archives import Rest, folder_entries
from image_experiments.data.balance import balanced_order
from image_experiments.data.class_folders import group_numbers, read_class_folders
from image_experiments.data.dataset import Dataset
from image_experiments.data.official import CIFAR10_CLASSES, averaged
from image_experiments.data.read_dataset import read_dataset
from image_experiments.data.splitting import split
from image_experiments.engine.plan import data_digest
from tests.image_experiments.conftest import drawings, png, write_folder


def md5(content):
    return "md5:" + hashlib.md5(content).hexdigest()


@pytest.fixture
def served(tmp_path):
    """(folder, address) of a web server on 127.0.0.1."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def tar_of(members, kind="gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{kind}") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_of(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


# digits


def test_digits_are_scikit_learns_and_test_images_are_never_in_the_pool():
    data = read_dataset("digits", None, 0, None)
    raw = load_digits()
    assert len(data.images) == 600
    assert len(data.test_images) == 1197
    both = np.concatenate([data.images, data.test_images])[..., 0]
    assert sorted(map(bytes, both)) == sorted(map(bytes, np.round(raw.images * 255 / 16).astype(np.uint8)))
    of = {bytes(image): label for image, label in zip(np.round(raw.images * 255 / 16).astype(np.uint8), raw.target, strict=True)}
    assert all(of[bytes(image[..., 0])] == label for image, label in zip(data.test_images, data.test_labels, strict=True))
    counts = np.bincount(data.test_labels)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("classes", [("3", "8"), ("9", "0", "4")])
def test_only_these_classes_are_kept_and_numbered_anew(classes):
    whole, data = read_dataset("digits", None, 0, None), read_dataset("digits", None, 0, None, classes)
    assert data.classes == tuple(sorted(classes))
    for part in ("images", "test_images"):
        labels = part.replace("images", "labels")
        for i, name in enumerate(data.classes):
            there = getattr(whole, part)[getattr(whole, labels) == int(name)]
            assert np.array_equal(getattr(data, part)[getattr(data, labels) == i], there)
        assert len(getattr(data, part)) == sum((getattr(whole, labels) == int(name)).sum() for name in classes)
    assert len(np.unique(data.groups)) == len(data.images)
    assert "of its 10 classes" in data.source


def test_an_unknown_class_is_one_line_with_the_nearest():
    data = read_dataset("digits", None, 0, None)
    named = Dataset(
        *(getattr(data, f) for f in ("images", "labels", "groups", "test_images", "test_labels")), CIFAR10_CLASSES, "ten"
    )
    with pytest.raises(UserError, match=r"--classes birds: ten has no such class, did you mean bird\?; its classes are airplane"):
        dataset.only(named, ("birds",))
    with pytest.raises(UserError, match="one class"):
        dataset.only(named, ("bird",))


# CIFAR-10 and MNIST


def cifar_archive(rng, n=20):
    records, members = [], {}
    for name in [*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"]:
        pixels, labels = rng.integers(0, 256, (n, 3072), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10
        records.append((pixels, labels))
        members[f"cifar-10-batches-bin/{name}.bin"] = b"".join(
            bytes([y]) + x.tobytes() for x, y in zip(pixels, labels, strict=True)
        )
    return tar_of(members), records


def test_cifar10_is_downloaded_once_checked_and_read(served, tmp_path, monkeypatch):
    folder, address = served
    content, records = cifar_archive(np.random.default_rng(0))
    (folder / "cifar-10-binary.tar.gz").write_bytes(content)
    monkeypatch.setattr(official, "CIFAR10_ARCHIVE", (address, {"cifar-10-binary.tar.gz": md5(content)}))
    monkeypatch.setattr("pooch.os_cache", lambda _name: tmp_path / "cache")
    data = read_dataset("cifar10", None, 0, None)
    assert data.images.shape == (100, 32, 32, 3)
    pixels, labels = records[1]
    np.testing.assert_array_equal(data.images[23, 5, 7], pixels[3].reshape(3, 32, 32)[:, 5, 7])  # red, green, blue planes
    np.testing.assert_array_equal(data.labels[20:40], labels)
    np.testing.assert_array_equal(data.test_images[4, :, :, 2].ravel(), records[5][0][4, 2048:])
    (folder / "cifar-10-binary.tar.gz").unlink()  # the second time nothing is asked of the server
    assert read_dataset("cifar10", None, 0, None).checksum() == data.checksum()
    assert read_dataset("cifar10", tmp_path / "cache" / "cifar10", 0, None).checksum() == data.checksum()
    assert read_dataset("cifar10", tmp_path / "cache" / "cifar10" / "cifar-10-binary.tar.gz", 0, None).checksum() == data.checksum()
    halved = read_dataset("cifar10", None, 16, None)  # means of 2 x 2 pixels, rounded after each direction
    means = pixels[3].reshape(3, 16, 2, 16, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    np.testing.assert_allclose(halved.images[23], means, rtol=0, atol=1)
    assert halved.test_images.shape == (20, 16, 16, 3)


def test_a_download_that_fails_or_differs_is_one_line_and_leaves_nothing(served, tmp_path, monkeypatch):
    folder, address = served
    monkeypatch.setattr("pooch.os_cache", lambda _name: tmp_path / "cache")
    monkeypatch.setattr(official, "CIFAR10_ARCHIVE", (address, {"cifar-10-binary.tar.gz": md5(b"right")}))
    with pytest.raises(UserError, match=r"cannot download .*--data-dir"):
        read_dataset("cifar10", None, 0, None)
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"wrong")
    with pytest.raises(UserError, match=r"cannot download .*(hash|MD5).*--data-dir"):
        read_dataset("cifar10", None, 0, None)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_missing_wrong_and_truncated_archives_are_one_line(tmp_path, monkeypatch):
    content, _ = cifar_archive(np.random.default_rng(0))
    path = tmp_path / "cifar-10-binary.tar.gz"
    with pytest.raises(UserError, match="missing"):
        read_dataset("cifar10", tmp_path, 0, None)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="checksum"):
        read_dataset("cifar10", tmp_path, 0, None)
    monkeypatch.setattr(official, "CIFAR10_ARCHIVE", ("", {"cifar-10-binary.tar.gz": md5(path.read_bytes())}))
    with pytest.raises(UserError, match="truncated or damaged"):
        read_dataset("cifar10", tmp_path, 0, None)


NAMES = ["apple", "aquarium_fish", "baby", "bear"]


def test_cifar100_is_read_by_its_fine_labels(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    pixels = [rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for n in (12, 8)]
    coarse, fine = ([rng.integers(0, 2, len(p), dtype=np.uint8) for p in pixels] for _ in range(2))
    fine = [np.arange(len(p), dtype=np.uint8) % 4 for p in pixels]
    records = [
        b"".join(bytes([c, f]) + x.tobytes() for c, f, x in zip(*part, strict=True))
        for part in zip(coarse, fine, pixels, strict=True)
    ]
    members = {"cifar-100-binary/fine_label_names.txt": "\n".join(NAMES).encode() + b"\n"}
    members |= {f"cifar-100-binary/{name}.bin": record for name, record in zip(("test", "train"), records[::-1], strict=True)}
    content = tar_of(members)
    path = tmp_path / "cifar-100-binary.tar.gz"
    path.write_bytes(content)
    monkeypatch.setattr(official, "CIFAR100_ARCHIVE", ("", {path.name: md5(content)}))
    for where in (tmp_path, path):
        data = read_dataset("cifar100", where, 0, None)
        assert data.classes == tuple(NAMES)
        np.testing.assert_array_equal(data.images, pixels[0].transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(data.test_images, pixels[1].transpose(0, 2, 3, 1))
        assert (data.labels.tolist(), data.test_labels.tolist()) == (fine[0].tolist(), fine[1].tolist())
    assert read_dataset("cifar100", path, 8, None, ["baby", "bear"]).images.shape == (6, 8, 8, 3)
    for change, message in (
        ({"cifar-100-binary/train.bin": records[0][:-1]}, "no multiple of 3074"),
        ({"cifar-100-binary/fine_label_names.txt": None}, "fine_label_names.txt is missing in it"),
    ):
        content = tar_of({name: value for name, value in (members | change).items() if value is not None})
        path.write_bytes(content)
        monkeypatch.setattr(official, "CIFAR100_ARCHIVE", ("", {path.name: md5(content)}))
        with pytest.raises(UserError, match=message):
            read_dataset("cifar100", path, 0, None)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cifar-100-python.tar.gz").write_bytes(b"pickles")
    with pytest.raises(UserError, match=r"holds Python objects, which are never loaded; give cifar-100-binary.tar.gz"):
        read_dataset("cifar100", tmp_path / "other", 0, None)


def test_svhn_is_read_and_ten_is_nought(tmp_path, monkeypatch):
    from scipy.io import savemat

    rng = np.random.default_rng(4)
    parts = []
    for name, n in (("train", 20), ("test", 11)):
        images, labels = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8), (np.arange(n) % 10 + 1).astype(np.uint8)
        savemat(tmp_path / f"{name}_32x32.mat", {"X": images, "y": labels[:, None]})
        parts.append((images, labels))
    sums = {f"{name}_32x32.mat": md5((tmp_path / f"{name}_32x32.mat").read_bytes()) for name in ("train", "test")}
    monkeypatch.setattr(official, "SVHN_FILES", ("", sums))
    data = read_dataset("svhn", tmp_path, 0, None)
    assert data.classes == tuple("0123456789")
    for images, labels, part in ((data.images, data.labels, parts[0]), (data.test_images, data.test_labels, parts[1])):
        np.testing.assert_array_equal(images[7], part[0][..., 7])
        assert labels.tolist() == [k if k < 10 else 0 for k in part[1].tolist()]
    (tmp_path / "train_32x32.mat").write_bytes(b"MATLAB 5.0 cut short")
    monkeypatch.setattr(official, "SVHN_FILES", ("", sums | {"train_32x32.mat": md5(b"MATLAB 5.0 cut short")}))
    with pytest.raises(UserError, match="no MATLAB file of SVHN"):
        read_dataset("svhn", tmp_path, 0, None)


def test_stl10_is_read_upright(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    images = {part: rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8) for part, n in (("train", 12), ("test", 10))}
    labels = {part: np.arange(len(x), dtype=np.uint8) % 10 + 1 for part, x in images.items()}
    members = {"stl10_binary/unlabeled_X.bin": b"not read"}
    for part, x in images.items():
        members[f"stl10_binary/{part}_X.bin"] = x.transpose(0, 3, 2, 1).tobytes()  # by channel, then by column
        members[f"stl10_binary/{part}_y.bin"] = labels[part].tobytes()
    content = tar_of(members)
    (tmp_path / "stl10_binary.tar.gz").write_bytes(content)
    monkeypatch.setattr(official, "STL10_ARCHIVE", ("", {"stl10_binary.tar.gz": md5(content)}))
    data = read_dataset("stl10", tmp_path, 0, None)
    np.testing.assert_array_equal(data.images, images["train"])
    np.testing.assert_array_equal(data.test_images, images["test"])
    assert data.labels.tolist() == [k % 10 for k in range(12)]
    assert (data.classes[0], data.classes[9]) == ("airplane", "truck")
    assert read_dataset("stl10", tmp_path, 32, None).images.shape == (12, 32, 32, 3)
    content = tar_of(members | {"stl10_binary/train_X.bin": b"short"})
    (tmp_path / "stl10_binary.tar.gz").write_bytes(content)
    monkeypatch.setattr(official, "STL10_ARCHIVE", ("", {"stl10_binary.tar.gz": md5(content)}))
    with pytest.raises(UserError, match="5 bytes of images for 12 labels"):
        read_dataset("stl10", tmp_path, 0, None)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_tiny_imagenets_layout_is_read_as_it_is(tmp_path, form):
    rng = np.random.default_rng(8)
    names, members, expected = ["n01443537", "n01629819"], {}, {"train": [], "test": []}
    for k, name in enumerate(names):
        for i in range(3):
            image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            members[f"tiny-imagenet-200/train/{name}/images/{name}_{i}.png"] = png(image)
            expected["train"].append((k, image))
        members[f"tiny-imagenet-200/train/{name}/{name}_boxes.txt"] = b"boxes"
    lines = []
    for i in range(5):
        image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        members[f"tiny-imagenet-200/val/images/val_{i}.png"] = png(image)
        lines.append(f"val_{i}.png\t{names[i % 2]}\t0\t0\t7\t7")
        expected["test"].append((i % 2, image))
        members[f"tiny-imagenet-200/test/images/test_{i}.png"] = png(image)  # without a label
    labels = "tiny-imagenet-200/val/val_annotations.txt"
    members |= {labels: "\n".join(lines).encode(), "tiny-imagenet-200/wnids.txt": b"n01443537\nn01629819\n"}

    def read(content):
        if form == "zip":
            (tmp_path / "tiny.zip").write_bytes(zip_of(content))
            return read_dataset("images", tmp_path / "tiny.zip", 0, None)
        for name, value in content.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(value)
        return read_dataset("images", tmp_path / "tiny-imagenet-200", 0, None)

    data = read(members)
    assert data.classes == tuple(names)
    for images, numbers, part in ((data.images, data.labels, "train"), (data.test_images, data.test_labels, "test")):
        found = sorted((int(k), bytes(image)) for k, image in zip(numbers, images, strict=True))
        assert found == sorted((k, bytes(image)) for k, image in expected[part])
    assert any("validation images are the test images" in note for note in data.notes)
    with pytest.raises(UserError, match=r"val_4.png is not in .*val_annotations.txt"):
        read(members | {labels: "\n".join(lines[:4]).encode()})


def idx(array):
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_mnist_is_read_and_its_test_file_alone_can_be_split(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (60, 28, 28), dtype=np.uint8), np.arange(60, dtype=np.uint8) % 10]
    arrays += [rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10]
    files = dict(zip(official.MNIST_FILES[1], map(idx, arrays), strict=True))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(official, "MNIST_FILES", ("", {name: md5(content) for name, content in files.items()}))
    data = read_dataset("mnist", tmp_path, 0, None)
    np.testing.assert_array_equal(data.images[7, 2:30, 2:30, 0], arrays[0][7])
    assert data.images.shape == (60, 32, 32, 1)
    np.testing.assert_array_equal(data.test_labels, arrays[3])
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    halves = read_dataset("mnist-t10k", tmp_path, 0, None)
    assert len(halves.images) == len(halves.test_images) == 20
    assert set(np.bincount(halves.test_labels)) == {2}
    with pytest.raises(UserError, match="missing"):
        read_dataset("mnist", tmp_path, 0, None)


def test_mnist_is_averaged_down():
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    means = images.reshape(5, 14, 2, 14, 2).mean(axis=(2, 4))
    assert np.abs(averaged(images, 14) - means).max() <= 1  # rows and columns are rounded one after the other


def test_mnists_real_test_file_is_read(shared_data):
    data = read_dataset("mnist-t10k", shared_data / "mnist-t10k", 0, None)
    assert len(data.labels) == len(data.test_labels) == 5000
    assert data.source == "MNIST (test file, split)"


@pytest.fixture
def shared_data():
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is absent")
    return folder


def test_gtsrbs_official_archives_keep_tracks_together(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    ppm = lambda size: b"P6 %d %d 255\n" % (size, size) + rng.integers(0, 256, (size, size, 3), dtype=np.uint8).tobytes()  # noqa: E731
    train = {
        f"GTSRB/Training/{k:05d}/{track:05d}_{frame:05d}.ppm": ppm(20 + track)
        for k in range(43)
        for track in range(2)
        for frame in range(3)
    }
    test = {f"GTSRB/Final_Test/Images/{i:05d}.ppm": ppm(25) for i in range(5)}
    truth = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n" + "".join(
        f"{i:05d}.ppm;25;25;1;1;2;2;{9 - i}\n" for i in range(5)
    )
    files = {
        "GTSRB-Training_fixed.zip": zip_of(train),
        "GTSRB_Final_Test_Images.zip": zip_of(test),
        "GTSRB_Final_Test_GT.zip": zip_of({"GT-final_test.csv": truth.encode()}),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(official, "GTSRB_FILES", ("", {name: md5(content) for name, content in files.items()}))
    data = read_dataset("gtsrb", tmp_path, 0, None)
    assert data.images.shape == (43 * 6, 32, 32, 3)
    assert data.test_labels.tolist() == [9, 8, 7, 6, 5]
    assert data.classes[:11] == tuple(f"{k:05d}" for k in range(11))  # as in copies that are folders of images
    assert len(set(data.groups)) == 86
    assert all(len(set(data.labels[data.groups == g])) == 1 for g in set(data.groups))
    chosen = split(data, 0, 43, seed=1)
    assert not set(data.groups[chosen.train]) & set(data.groups[chosen.validation])


# folders and archives of images


@pytest.mark.parametrize("name", ["cifar10", "gtsrb"])
def test_copies_of_a_known_set_are_read_as_folders_of_images(tmp_path, name):
    write_folder(tmp_path / "set", np.random.default_rng(0))
    assert read_dataset(name, tmp_path / "set", 0, None).checksum() == read_class_folders(tmp_path / "set", 0, None).checksum()
    with pytest.raises(UserError, match=r"missing\.tar: no such file or folder"):
        read_dataset(name, tmp_path / "missing.tar", 0, None)


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "tar.xz", "tar", "zip", "nested zip"])
def test_a_folder_and_every_archive_of_it_read_the_same(tmp_path, kind):
    written = write_folder(tmp_path / "set", np.random.default_rng(0))
    members = {("top/" if kind == "nested zip" else "") + name: (tmp_path / "set" / name).read_bytes() for name in written}
    path = tmp_path / "set"
    if kind != "folder":
        path = tmp_path / "archive"
        path.write_bytes(zip_of(members) if "zip" in kind else tar_of(members, kind[4:]))
    data = read_class_folders(path, 0, None)
    assert data.classes == ("left", "right")
    for part, images, labels in (("train", data.images, data.labels), ("test", data.test_images, data.test_labels)):
        names = sorted(name for name in written if name.startswith(part))
        assert len(images) == len(names)
        for name, image, label in zip(names, images, labels, strict=True):
            np.testing.assert_array_equal(image, written[name])
            assert name.split("/")[1] == data.classes[label]


def member(name, kind=None, link=""):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        image = png(np.zeros((8, 8, 3), dtype=np.uint8))
        for good in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
            info = tarfile.TarInfo(good)
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
        info = tarfile.TarInfo(name)
        if kind is not None:
            info.type, info.linkname = kind, link
        archive.addfile(info, io.BytesIO(b""))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        member("../outside.png"),
        member("/etc/outside.png"),
        member("train/a/../../../outside.png"),
        member("train/a/2.png", tarfile.SYMTYPE, "/etc/passwd"),
        member("train/a/2.png", tarfile.LNKTYPE, "../../outside"),
        zip_of({"../outside.png": b""}),
        zip_of({"train\\..\\..\\outside.png": b""}),
        zip_of({"C:/outside.png": b""}),
    ],
)
def test_an_archive_that_points_outside_is_refused_whole(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(UserError, match=r"points outside|is a link"):
        read_class_folders(tmp_path / "archive", 0, None)
    assert os.listdir(tmp_path) == ["archive"]


def test_a_member_too_large_for_a_list_of_labels_is_not_read(tmp_path):
    info = tarfile.TarInfo("tiny/val/val_annotations.txt")
    info.size = 65 * 2**20
    with tarfile.open(tmp_path / "tiny.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(UserError, match=r"val_annotations.txt' has 68157440 bytes, more than 67108864"):
        read_class_folders(tmp_path / "tiny.tar.gz", 0, None)


def test_damaged_archives_and_images_are_one_line(tmp_path):
    written = write_folder(tmp_path / "set", np.random.default_rng(0))
    members = {name: (tmp_path / "set" / name).read_bytes() for name in written}
    for kind in ("gz", "xz", "bz2"):
        whole = tar_of(members, kind)
        for end in (len(whole) // 2, len(whole) - 20, 0):
            (tmp_path / "archive").write_bytes(whole[:end])
            with pytest.raises(UserError, match=r"archive|no images"):
                read_class_folders(tmp_path / "archive", 0, None)
    whole = zip_of(members)
    (tmp_path / "archive").write_bytes(whole[:-30])
    with pytest.raises(UserError, match="get it again"):
        read_class_folders(tmp_path / "archive", 0, None)
    (tmp_path / "archive").write_bytes(
        whole.replace(written_bytes := members["train/left/000.png"], written_bytes[:20] + bytes(len(written_bytes) - 20))
    )
    with pytest.raises(UserError, match=r"damaged|decoded"):
        read_class_folders(tmp_path / "archive", 0, None)
    with pytest.raises(UserError, match="no such file"):
        read_class_folders(tmp_path / "nothing", 0, None)


def test_an_image_that_does_not_decode_is_named(tmp_path):
    write_folder(tmp_path, np.random.default_rng(0))
    (tmp_path / "train/left/000.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing of the sort")
    with pytest.raises(UserError, match=r"train/left/000\.png cannot be decoded .*replace or remove it") as error:
        read_class_folders(tmp_path, 0, None)
    assert "\n" not in str(error.value)


def test_deep_images_and_what_macos_adds_are_not_misread(tmp_path):
    write_folder(tmp_path / "set", np.random.default_rng(0))
    members = {str(path.relative_to(tmp_path / "set")): path.read_bytes() for path in (tmp_path / "set").rglob("*.png")}
    (tmp_path / "zip").write_bytes(zip_of({**members, "__MACOSX/train/left/._000.png": b"resource fork"}))
    assert len(read_class_folders(tmp_path / "zip", 0, None).images) == 24
    (tmp_path / "set/train/left/000.png").write_bytes(png(np.full((8, 8), 40_000, dtype=np.uint16)))
    with pytest.raises(UserError, match="it has 16 bits a channel, save it with 8"):
        read_class_folders(tmp_path / "set", 0, None)


def test_class_names_that_are_nearly_the_same_number_keep_one_order(tmp_path):
    for name in ("1", "01", "001", "²"):
        for part in ("train", "test"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "a.png").write_bytes(png(np.zeros((4, 4, 3), dtype=np.uint8)))
    assert read_class_folders(tmp_path, 0, None).classes == ("001", "01", "1", "²")


def test_images_of_two_sizes_are_named_and_can_be_resized(tmp_path):
    write_folder(tmp_path, np.random.default_rng(0))
    (tmp_path / "test/left/900.png").write_bytes(png(np.full((10, 12, 3), 77, dtype=np.uint8)))
    with pytest.raises(UserError, match=r"8x8.*test/left/900\.png is 12x10.*--image-size"):
        read_class_folders(tmp_path, 0, None)
    resized = read_class_folders(tmp_path, 16, None)
    assert resized.images.shape[1:] == resized.test_images.shape[1:] == (16, 16, 3)
    assert (resized.test_images[(resized.test_labels == 0).sum() - 1] == 77).all()


def test_grey_and_coloured_images_mix(tmp_path):
    write_folder(tmp_path, np.random.default_rng(0))
    (tmp_path / "test/left/900.png").write_bytes(png(np.full((8, 8), 77, dtype=np.uint8)))
    data = read_class_folders(tmp_path, 0, None)
    assert (data.test_images[(data.test_labels == 0).sum() - 1] == 77).all()


def test_one_class_no_images_and_strange_test_classes_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no images in train/CLASS/"):
        read_class_folders(tmp_path, 0, None)
    image = png(np.zeros((8, 8, 3), dtype=np.uint8))
    for name in ("train/a/1.png", "test/a/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image)
    with pytest.raises(UserError, match="one class"):
        read_class_folders(tmp_path, 0, None)
    (tmp_path / "train/b").mkdir()
    (tmp_path / "train/b/1.png").write_bytes(image)
    (tmp_path / "test/c").mkdir()
    (tmp_path / "test/c/1.png").write_bytes(image)
    with pytest.raises(UserError, match="test class 'c' has no training images"):
        read_class_folders(tmp_path, 0, None)


def test_classes_are_numbered_in_natural_order(tmp_path):
    for k in (10, 9, 1):
        for part in ("train", "test"):
            (tmp_path / part / str(k)).mkdir(parents=True)
            (tmp_path / part / str(k) / "a.png").write_bytes(png(np.full((4, 4, 3), k, dtype=np.uint8)))
    data = read_class_folders(tmp_path, 0, None)
    assert data.classes == ("1", "9", "10")
    assert [int(image[0, 0, 0]) for image in data.images] == [int(data.classes[label]) for label in data.labels]


# splits


def some_data(n=120, classes=4, groups=None, seed=0):
    images, _ = drawings(np.random.default_rng(seed), n)
    labels = np.arange(n) % classes
    groups = np.arange(n) if groups is None else groups
    return official.Dataset(images, labels, groups, images[:8], labels[:8], tuple("abcd"[:classes]), "test")


def test_parts_are_balanced_disjoint_and_follow_the_seed():
    data = some_data()
    chosen, again, other = split(data, 60, 20, 3), split(data, 60, 20, 3), split(data, 60, 20, 4)
    assert not set(chosen.train) & set(chosen.validation)
    assert np.bincount(data.labels[chosen.validation]).tolist() == [5] * 4
    assert np.bincount(data.labels[chosen.train]).tolist() == [15] * 4
    np.testing.assert_array_equal(chosen.train, again.train)
    assert set(chosen.train) != set(other.train)
    assert len(split(data, 0, 20, 0).train) == 100


def test_groups_never_part():
    groups = np.arange(120) // 4 % 10 + 10 * (np.arange(120) % 4)  # ten groups of three in each class
    data = some_data(groups=groups)
    for seed in range(20):
        chosen = split(data, 40, 16, seed)
        assert not set(groups[chosen.train]) & set(groups[chosen.validation])
        assert np.bincount(data.labels[chosen.validation]).tolist() == [4] * 4


def test_too_many_are_refused():
    data = some_data()
    with pytest.raises(UserError, match="--train 110: 100 images are left"):
        split(data, 110, 20, 0)
    with pytest.raises(UserError, match="--validation 119"):
        split(data, 0, 119, 0)
    with pytest.raises(UserError, match="--group-pattern ''"):
        split(some_data(groups=np.arange(120) % 4), 0, 4, 0)


def test_test_images_of_a_training_patient_are_doubted(tmp_path):
    """The pattern shows it: once it looked at training images alone."""
    rng = np.random.default_rng(0)
    for part, patients in (("train", (1, 2, 3, 4)), ("test", (4, 5, 6))):
        for name in ("ill", "well"):
            (tmp_path / part / name).mkdir(parents=True)
            for patient in patients:
                image = png(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                (tmp_path / part / name / f"patient{patient}_{name}.png").write_bytes(image)
    doubts = read_dataset("images", tmp_path, 0, r"(patient\d+)_\w+").doubts
    assert [doubt for doubt in doubts if "groups" in doubt] == [
        "2 of 6 test images have names of groups (--group-pattern) that training images have: if these are the same groups, accuracy on "
        "them says nothing of new ones"
    ]
    assert not [doubt for doubt in read_dataset("images", tmp_path, 0, None).doubts if "groups" in doubt]


def test_official_files_are_read_whatever_lies_beside_them(tmp_path, monkeypatch):
    """Unpacked pictures of another data set, or a new download: neither is read, nor part of what was read."""
    files = dict.fromkeys(official.MNIST_FILES[1], "")
    for name in files:
        (tmp_path / name).write_bytes(name.encode())
    before = data_digest("mnist", tmp_path)
    write_folder(tmp_path, np.random.default_rng(0))
    assert data_digest("mnist", tmp_path) == before
    assert data_digest("images", tmp_path) != data_digest("images", tmp_path / "train")
    (tmp_path / next(iter(files))).write_bytes(b"another")
    assert data_digest("mnist", tmp_path) != before
    monkeypatch.setattr(official, "SVHN_FILES", ("", {"train_32x32.mat": "", "test_32x32.mat": ""}))
    assert official.is_a_copy("svhn", tmp_path)
    for name in official.SVHN_FILES[1]:
        (tmp_path / name).write_bytes(b"")
    assert not official.is_a_copy("svhn", tmp_path)
    (tmp_path / next(iter(files))).unlink()
    assert data_digest("mnist", tmp_path) not in (before, "")


def test_a_zip_in_utf8_that_does_not_say_so_has_the_classes_of_its_folder(tmp_path):
    """As some programs write it: bytes of UTF-8 without the flag, which zipfile reads as cp437."""

    class Silent(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):
            return self.filename.encode(), self.flag_bits & ~0x800

    rng, classes = np.random.default_rng(0), ("Zebra", "\u00c4pfel", "caf\u00e9")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for part in ("train", "test"):
            for name in classes:
                content = png(rng.integers(0, 255, (4, 4, 3)).astype(np.uint8))
                archive.writestr(Silent(f"{part}/{name}/1.png"), content)
                path = tmp_path / "folder" / part / name / "1.png"
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
    zipped, folder = (read_class_folders(tmp_path / name, 0, None) for name in ("data.zip", "folder"))
    assert zipped.classes == folder.classes == ("Zebra", "caf\u00e9", "\u00c4pfel")
    np.testing.assert_array_equal(zipped.images, folder.images)


def test_files_of_a_folder_are_read_when_they_are_decoded(tmp_path, monkeypatch):
    """One at a time, and a table beside the images not at all."""
    write_folder(tmp_path, np.random.default_rng(0))
    (tmp_path / "measurements.csv").write_text("a,b\n")
    entries = folder_entries(tmp_path, Rest())
    assert len(entries) == 37
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or whole(path))
    assert read_class_folders(tmp_path, 0, None).images.shape == (24, 8, 8, 3)
    assert len(read) == 36
    assert "measurements.csv" not in read


def test_an_unused_alpha_channel_hides_no_image(tmp_path):
    write_folder(tmp_path, np.random.default_rng(0))
    hidden = np.concatenate([np.random.default_rng(1).integers(0, 255, (8, 8, 3)), np.zeros((8, 8, 1))], axis=2).astype(np.uint8)
    (tmp_path / "train/left/000.png").write_bytes(png(hidden))
    with pytest.raises(UserError, match=r"train/left/000.png cannot be decoded \(its alpha is 0 everywhere"):
        read_class_folders(tmp_path, 0, None)


def test_an_orientation_that_means_nothing_turns_nothing(tmp_path):
    write_folder(tmp_path, np.random.default_rng(0))
    told = {}
    for orientation in (0, 9, 3):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(tmp_path / "train/left/000.png", exif=exif)
        told[orientation] = any("orientation" in note for note in read_class_folders(tmp_path, 0, None).notes)
    assert told == {0: False, 9: False, 3: True}


@pytest.mark.parametrize("suffix", ["jp2", "avif"])
def test_formats_of_more_than_eight_bits_that_open_as_eight_are_refused(suffix, tmp_path):
    write_folder(tmp_path, np.random.default_rng(0))
    (tmp_path / f"train/left/900.{suffix}").write_bytes(b"any")
    with pytest.raises(UserError, match=f"900.{suffix} is of a kind that is not read; save it as png"):
        read_class_folders(tmp_path, 0, None)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow reads no JPEG 2000")
def test_a_jpeg_2000_by_another_name_is_refused(tmp_path):
    write_folder(tmp_path, np.random.default_rng(0))
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(tmp_path / "a.jp2")
    (tmp_path / "a.jp2").rename(tmp_path / "train/left/000.png")
    with pytest.raises(UserError, match=r"000.png cannot be decoded \(it is JPEG2000, save it as png\)"):
        read_class_folders(tmp_path, 0, None)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_every_channel_counts_in_the_range(channel, monkeypatch):
    """Images that are empty in all channels but one, of so many that every third or ninth value is looked at."""
    monkeypatch.setattr(sanity_checks, "SAMPLED", 1000)
    for n in (16, 47):
        images = np.zeros((n, 8, 8, 3), dtype=np.uint8)
        images[..., channel] = np.random.default_rng(n).integers(0, 255, (n, 8, 8))
        assert (images.size // 1000) % 3 == 0
        sanity_checks.check_range(images, "images")
    with pytest.raises(UserError, match="hold the value 0 alone"):
        sanity_checks.check_range(np.zeros((47, 8, 8, 3), dtype=np.uint8), "images")


def test_track_and_frame_are_recognised_or_asked_for():
    files = [("stop", "train/stop/00001_00000.ppm"), ("stop", "train/stop/00001_00003.ppm"), ("go", "train/go/00001_00000.ppm")]
    assert group_numbers(files, None).tolist() == [1, 1, 0]  # a track number starts again in every class
    assert len(set(group_numbers(files, ""))) == 3
    assert group_numbers([*files, ("go", "x/y.png")], None).tolist() == [0, 1, 2, 3]
    assert group_numbers(files, r"\d+_(\d+)").tolist() == [0, 1, 0]  # of one's own: the same in every class
    with pytest.raises(UserError, match="does not match"):
        group_numbers(files, r"track(\d+)")
    with pytest.raises(UserError, match=r"does not match '00001_00000' with one group"):
        group_numbers(files, r"(?:p(\d+)_)?.*")  # matches, without its group
    with pytest.raises(UserError, match="no regular expression"):
        group_numbers(files, r"(")


def test_every_beginning_of_a_balanced_order_is_balanced():
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    order = balanced_order(labels, np.random.default_rng(0))
    assert sorted(order) == list(range(90))
    for n in range(1, 31):
        counts = np.bincount(labels[order[:n]], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(labels[order[:70]]).tolist() == [30, 30, 10]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((None, 16, None), "digits has one size"),
        ((Path("."), 0, None), "digits come with"),
        ((None, 0, "(a)"), "digits has no file names"),
    ],
)
def test_options_that_mean_nothing_are_refused_by_the_reader_too(options, words):
    with pytest.raises(UserError, match=words):
        read_dataset("digits", *options)


def test_a_group_in_two_classes_parts_in_neither_and_no_class_is_left_without_training_images():
    """A patient with images of two classes; and copies with two labels, which take a class's last group."""
    labels, groups = np.repeat([0, 1], 10), np.r_[np.arange(10), 5, 6, np.arange(10, 18)]
    data = replace(
        some_data(),
        images=np.zeros((20, 8, 8, 3), np.uint8),
        labels=labels,
        groups=groups,
        classes=("a", "b"),
        test_labels=some_data().test_labels % 2,
    )
    for seed in range(20):
        found = split(data, 0, 8, seed)
        assert not set(groups[found.train]) & set(groups[found.validation])
        assert np.bincount(labels[found.validation]).tolist() == [4, 4]
    few = replace(data, images=np.zeros((5, 8, 8, 3), np.uint8), labels=np.array([0, 0, 0, 1, 1]), groups=np.array([0, 1, 2, 0, 3]))
    outcomes = []
    for seed in range(20):
        try:
            outcomes.append(set(few.labels[split(few, 0, 2, seed).train]))
        except UserError as error:
            outcomes.append("too few" in str(error) or "no training images left" in str(error))
    assert all(one in ({0, 1}, True) for one in outcomes)


@pytest.mark.parametrize("name", ["00001_00000", "00020_00001_00000"])
def test_tracks_are_recognised_with_and_without_the_class(name):
    files = [("stop", f"train/stop/{name[:-1]}{frame}.png") for frame in range(3)] + [
        ("stop", f"train/stop/{name[:-7]}9_00000.png")
    ]
    assert group_numbers(files, None).tolist() == [0, 0, 0, 1]
