"""Folders, archives, npz files, weights and flags that were seen to go wrong, here or in neighbouring tools: each ends in the right values,
or in one line that names value, cause and remedy, before anything is trained."""

import json
import os
import re
import shutil
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from command_line.output import UserError
from command_line.values import number
from contrastive_dp.files import write_safetensors
from image_experiments import experiment, run_cifar
from image_experiments.data.dataset import described
from image_experiments.data.read_dataset import read_dataset
from image_experiments.data.splitting import split
from image_experiments.engine.presets import PRESETS, settings_from, smoke
from image_experiments.engine.settings import resolve
from image_experiments.engine.unused import told_of_unread
from image_experiments.models.classifier_files import load_classifier, read_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.diffusion_files import read_diffusion, save_diffusion
from image_experiments.models.unet import make_noise_prediction
from image_experiments.training.diffusion_training import DiffusionSettings
from tests.image_experiments.conftest import write_folder
from tests.image_experiments.test_together import SMALL

RNG = np.random.default_rng(0)


def picture(path, mode="RGB", array=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    values = RNG.integers(0, 256, (8, 8, bands), dtype=np.uint8) if array is None else array
    image = Image.fromarray(values.squeeze(), mode)
    image.save(path, **options)
    return values


def folder(path, classes=("cat", "dog", "fox"), each=6, suffix="png"):
    for part in ("train", "test"):
        for kind in classes:
            for i in range(each):
                picture(path / part / kind / f"{i}.{suffix}")
    return path


def archived(path, kind="zip"):
    """The folder as an archive, plain files alone."""
    target = path.with_suffix(f".{kind}")
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(path))
    else:
        with tarfile.open(target, "w:gz") as archive:
            for file in files:
                archive.add(file, file.relative_to(path))
    return target


# Folders and archives that are read. Each makes the folder and returns what is read of it.


def hidden_folder(path):
    picture(folder(path) / "train" / ".ipynb_checkpoints" / "0-checkpoint.png")
    return path


def hidden_file(path):
    picture(folder(path) / "train" / "cat" / ".thumbnail.png")
    return path


def hidden_in_tar(path):
    return archived(hidden_folder(path), "tar.gz")


def macos_zip(path):
    (folder(path) / "__MACOSX" / "train" / "cat").mkdir(parents=True)
    (path / "__MACOSX" / "train" / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")
    (path / "train" / "cat" / "._1.png").write_bytes(b"\0\5\x16\7")
    return archived(path)


def linked_class(path):
    folder(path, ("cat", "dog"))
    for part in ("train", "test"):
        for i in range(6):
            picture(path.parent / "elsewhere" / part / f"{i}.png")
        os.symlink(path.parent / "elsewhere" / part, path / part / "fox")
    return path


def linked_train(path):
    folder(path.parent / "real")
    path.mkdir()
    for part in ("train", "test"):
        os.symlink(path.parent / "real" / part, path / part)
    return path


def linked_files(path):
    folder(path)
    for part in ("train", "test"):
        for i in range(6):
            file = path / part / "fox" / f"{i}.png"
            file.rename(path.parent / f"{part}{i}.png")
            os.symlink(path.parent / f"{part}{i}.png", file)
    return path


def backup(path):
    folder(path / "backup", ("cat", "wolf"))
    return folder(path)


def one_folder_around(path):
    return folder(path / "pets").parent


def one_folder_around_in_a_zip(path):
    return archived(one_folder_around(path))


def other_kinds_of_files(path):
    (folder(path) / "train" / "cat" / "notes.txt").write_text("hello")
    (path / "train" / "Thumbs.db").write_bytes(b"x")
    picture(path / "preview.png")
    return path


def jfif(path):
    return folder(path, suffix="jfif")


def gif(path):
    return folder(path, suffix="gif")


def one_class_of_gifs(path):
    folder(path, ("cat", "dog"))
    return folder(path, ("fox",), suffix="gif")


def capitals(path):
    return folder(path, suffix="PNG")


def system_folders(path):
    for part in ("train", "test"):
        picture(folder(path) / part / "@eaDir" / "0.jpg")
    picture(path / "$RECYCLE.BIN" / "train" / "cat" / "0.png")
    return path


def two_pictures_in_a_file(path):
    """As phones write it: a photograph, and a preview behind it."""
    folder(path, ("cat", "dog"))
    for part in ("train", "test"):
        for i in range(6):
            frames = [Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(2)]
            (path / part / "fox").mkdir(parents=True, exist_ok=True)
            frames[0].save(path / part / "fox" / f"{i}.jpg", "MPO", save_all=True, append_images=frames[1:])
    return path


def replaced_in_a_tar(path):
    """Added again, as tar -r does: what unpacking leaves is the later one."""
    folder(path)
    target = path.with_suffix(".tar")
    with tarfile.open(target, "w") as archive:
        for file in sorted(path.rglob("*.png")):
            if file.name == "0.png":
                archive.add(path / "train" / "cat" / "1.png", f"./{file.relative_to(path)}")
            archive.add(file, f"./././{file.relative_to(path)}")
    return target


def cmyk(path):
    folder(path)
    for part in ("train", "test"):
        for i in range(6):
            picture(path / part / "fox" / f"{i}.jpg", "CMYK")
            (path / part / "fox" / f"{i}.png").unlink()
    return path


READ = [hidden_folder, hidden_file, hidden_in_tar, macos_zip, linked_class, linked_train, linked_files, backup, one_folder_around,
        one_folder_around_in_a_zip, other_kinds_of_files, jfif, gif, one_class_of_gifs, capitals, cmyk, system_folders,
        two_pictures_in_a_file, replaced_in_a_tar]  # fmt: skip


@pytest.mark.parametrize("make", READ, ids=lambda make: make.__name__)
def test_three_classes_are_three_classes(tmp_path, make):
    data = read_dataset("images", make(tmp_path / "set"), 0, None)
    assert data.classes == ("cat", "dog", "fox")
    assert np.bincount(data.labels).tolist() == np.bincount(data.test_labels).tolist() == [6, 6, 6]
    said = "\n".join(described(data))
    assert "18 training and 18 test images, 8x8, colour" in said
    assert "cat 6+6, dog 6+6, fox 6+6" in said
    sorted_out = make in (hidden_folder, hidden_file, hidden_in_tar, macos_zip, backup, other_kinds_of_files, system_folders)
    sorted_out |= make is replaced_in_a_tar
    assert ("left out" in said) == sorted_out


def test_accents_are_compared_as_they_look(tmp_path):
    """The same name in two normal forms of Unicode, as macOS and Linux write it: one class, not a class without test images."""
    for part, form in (("train", "NFC"), ("test", "NFD")):
        for name in ("café", "naïf"):
            for i in range(3):
                picture(tmp_path / part / unicodedata.normalize(form, name) / f"{i}.png")
    data = read_dataset("images", tmp_path, 0, None)
    assert data.classes == tuple(unicodedata.normalize("NFC", name) for name in ("café", "naïf"))
    assert np.bincount(data.test_labels).tolist() == [3, 3]


@pytest.mark.parametrize("name", ["train/cat/0\udce9.png", "train/caf\udce9/0.png"])
def test_names_that_are_not_utf8_are_refused_before_anything_is_made(tmp_path, name):
    """Results hold names of classes and files, so such a name would end in a traceback after the work."""
    data = folder(tmp_path / "data")
    picture(data / name)
    with pytest.raises(UserError, match=r"the name train/ca.*\\udce9.* is not UTF-8; rename it$"):
        read_dataset("images", data, 8, None)


def test_a_left_out_name_that_is_not_utf8_is_told_in_utf8(tmp_path):
    data = folder(tmp_path / "data")
    (data / "train" / "cat" / "list\udce9.txt").write_text("not an image")
    told = read_dataset("images", data, 8, None).notes
    assert any("the first train/cat/list\\udce9.txt" in line for line in told)
    "".join(told).encode()


def test_a_class_may_be_called_train(tmp_path):
    data = read_dataset("images", folder(tmp_path, ("bus", "train", "test")), 0, None)
    assert data.classes == ("bus", "test", "train")


def test_copies_are_told_and_stay_together(tmp_path):
    folder(tmp_path)
    for kind in ("cat", "dog", "fox"):
        for i in range(6):
            (tmp_path / "train" / kind / f"copy-{i}.png").write_bytes((tmp_path / "train" / kind / f"{i}.png").read_bytes())
    Image.open(tmp_path / "train" / "cat" / "0.png").save(
        tmp_path / "train" / "cat" / "again.bmp"
    )  # the same pixels in another file
    (tmp_path / "test" / "dog" / "seen.png").write_bytes((tmp_path / "train" / "dog" / "3.png").read_bytes())
    (tmp_path / "train" / "fox" / "torn.png").write_bytes((tmp_path / "train" / "dog" / "3.png").read_bytes())
    data = read_dataset("images", tmp_path, 0, None)
    assert "copies: 20 training images are exact copies of others; copies stay together" in described(data)
    assert len(data.doubts) == 2
    assert "3 training images have exact copies in another class" in data.doubts[0]  # the dog, its copy, and the fox
    assert "1 of 19 test images are exact copies of training images" in data.doubts[1]
    for seed in range(5):
        chosen = split(data, 0, 9, seed)
        inside = {data.images[i].tobytes() for i in chosen.train}
        assert not inside & {data.images[i].tobytes() for i in chosen.validation}


def test_dates_in_names_are_no_tracks(tmp_path):
    """The names of a phone; GTSRB's have five digits and five."""
    for part in ("train", "test"):
        for k, kind in enumerate(("cat", "dog")):
            for i in range(30):
                picture(tmp_path / part / kind / f"202401{1 + i % 3:02d}_{120000 + 7 * i + k}.png")
    data = read_dataset("images", tmp_path, 0, None)
    assert len(np.unique(data.groups)) == 60
    assert len(split(data, 0, 20, 0).train) == 40
    grouped = read_dataset("images", tmp_path, 0, r"(\d+)_\d+")
    assert "3 groups that never part, the largest of 20" in "\n".join(described(grouped))


def test_gtsrb_names_are_tracks_and_it_is_said(tmp_path):
    for part in ("train", "test"):
        for kind in ("00001", "00002"):
            for i in range(6):
                picture(tmp_path / part / kind / f"{i // 3:05d}_{i % 3:05d}.png")
    said = described(read_dataset("images", tmp_path, 0, None))
    assert "training images: 4 groups that never part, the largest of 3" in said
    assert any("GTSRB's form TRACK_FRAME" in line for line in said)


# Single images: what is drawn is what is read.

STROKE = np.zeros((8, 8, 4), np.uint8)
STROKE[3, :, 3] = 255  # a black stroke, visible by its alpha alone


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_drawings_lie_on_white(tmp_path, mode):
    folder(tmp_path, ("cat", "dog"))
    path = tmp_path / "train" / "cat" / "0.png"
    if mode == "P":
        indexed = Image.fromarray(STROKE[..., 3] // 255, "L").convert("P")
        indexed.putpalette([9, 9, 9, 0, 0, 0])
        indexed.save(path, transparency=0)
    else:
        picture(path, mode, STROKE if mode == "RGBA" else STROKE[..., 2:])
    data = read_dataset("images", tmp_path, 0, None)
    expected = np.full((8, 8, 3), 255)
    expected[3] = 0
    np.testing.assert_array_equal(data.images[0], expected)
    assert "transparency: 1 images laid over white, the first train/cat/0.png" in described(data)


def test_half_transparent_colours_are_mixed_and_opaque_ones_kept(tmp_path):
    folder(tmp_path, ("cat", "dog"))
    half = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    picture(tmp_path / "train" / "cat" / "0.png", "RGBA", half)
    opaque = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    picture(tmp_path / "train" / "cat" / "1.png", "RGBA", opaque)
    data = read_dataset("images", tmp_path, 0, None)
    alpha = half[..., 3:] / 255
    np.testing.assert_allclose(data.images[0], alpha * half[..., :3] + (1 - alpha) * 255, atol=1)
    np.testing.assert_array_equal(data.images[1], opaque[..., :3])
    assert "transparency: 1 images" in "\n".join(described(data))


def test_photographs_are_turned_as_their_camera_says(tmp_path):
    folder(tmp_path, ("cat", "dog"))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    pixels = picture(tmp_path / "train" / "cat" / "0.png", exif=exif)
    data = read_dataset("images", tmp_path, 0, None)
    np.testing.assert_array_equal(data.images[0], np.rot90(pixels, -1))
    assert "orientation: 1 images turned as their EXIF data say, the first train/cat/0.png" in described(data)


# Folders and archives that are refused.


def deeper(path):
    folder(path, ("cat", "dog"))
    for part in ("train", "test"):
        picture(path / part / "fox" / "batch1" / "0.png")
    return path, r"(train|test)/fox/batch1/0.png lies deeper than (train|test)/CLASS/; move it up"


def loose_image(path):
    picture(folder(path) / "train" / "stray.png")
    return path, r"train/stray.png lies in no class folder; put it into train/CLASS/"


def broken_link(path):
    os.symlink(path / "nowhere", folder(path) / "train" / "wolf")
    return path, r"train/wolf: is a link that leads nowhere"


def link_into_itself(path):
    os.symlink(path, folder(path) / "train" / "wolf")
    return path, r"train/wolf: is a link to a folder that it lies in"


def links_in_a_circle(path):
    folder(path)
    os.symlink(path / "test", path / "train" / "cat" / "t")
    os.symlink(path / "train", path / "test" / "cat" / "t")
    return path, r"cat/t: is a link to a folder that it lies in"


def images_under_other_names(path):
    folder(path)
    (path / "train" / "cat" / "0.png").rename(path / "train" / "cat" / "0.png_large")
    return path, r"train/cat/0.png_large is of a kind that is not read; save it as png"


def images_without_a_suffix_in_a_zip(path):
    folder(path)
    (path / "train" / "cat" / "0.png").rename(path / "train" / "cat" / "0")
    return archived(path), r"train/cat/0 is of a kind that is not read; save it as png"


def parts_in_two_places(path):
    folder(path)
    (path / "x").mkdir()
    (path / "train").rename(path / "x" / "train")
    return (
        path,
        r"no folder holds both train/ and test/ \((train/ lies in x/ and test/ lies in ./|test/ lies in ./ and train/ lies in x/)\)",
    )


def cut_zip(path):
    content = archived(folder(path)).read_bytes()
    path.with_suffix(".zip").write_bytes(content[: len(content) // 2])
    return path.with_suffix(".zip"), r"truncated, damaged or no tar or zip archive \([^\n]*\); get it again$"


def empty_class(path):
    for part in ("train", "test"):
        (folder(path) / part / "wolf").mkdir()
    return path, r"train/wolf is empty; fill it"


def class_of_texts(path):
    (folder(path) / "train" / "wolf").mkdir()
    (path / "train" / "wolf" / "a.txt").write_text("x")
    return path, r"train/wolf holds no image \(a.txt\)"


def class_of_texts_in_a_zip(path):
    class_of_texts(path)
    return archived(path), r"train/wolf holds no image \(a.txt\)"


def kind_that_is_not_read(path):
    (folder(path) / "train" / "cat" / "7.heic").write_bytes(b"x")
    return path, r"train/cat/7.heic is of a kind that is not read; save it as png"


def several_frames(path):
    frames = [Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(folder(path) / "train" / "cat" / "7.gif", save_all=True, append_images=frames[1:])
    return path, r"train/cat/7.gif cannot be decoded \(it has 3 frames"


def two_roots(path):
    folder(path / "one")
    folder(path / "two")
    return path, r"one/ and two/ both hold train/ and test/; give one of them, for example .*one"


def white_on_transparent(path):
    drawing = STROKE.copy()
    drawing[..., :3] = 255
    picture(folder(path) / "train" / "cat" / "0.png", "RGBA", drawing)
    return path, r"train/cat/0.png cannot be decoded \(its drawing is white on a transparent ground"


def sixteen_bits(path):
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999).save(folder(path) / "train" / "cat" / "0.png")
    return path, r"train/cat/0.png cannot be decoded \(it has 16 bits a channel, save it with 8"


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def sixteen_bits_in_colour(path):
    """Pillow opens such a file as 8-bit colour, and 12 bits in it as zeros. It cannot write one."""
    rows = np.arange(8 * 8 * 3, dtype=">u2").reshape(8, 24) * 21  # up to 4,011, as of a camera of 12 bits
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    whole = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    (folder(path) / "train" / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + whole)
    return path, "train/cat/0.png cannot be decoded .it has 16 bits a channel, save it with 8"


def twelve_bits_in_a_ppm(path):
    values = np.arange(8 * 8 * 3, dtype=">u2").tobytes()
    (folder(path) / "train" / "cat" / "0.ppm").write_bytes(b"P6 8 8 4095\n" + values)
    return path, "train/cat/0.ppm cannot be decoded .it has 12 bits a channel, save it with 8"


def zeros_and_ones(path):
    for file in folder(path).rglob("*.png"):
        picture(file, "L", RNG.integers(0, 2, (8, 8, 1), dtype=np.uint8))
    return path, r"training images hold the values 0, 1 alone, which looks like floats of .* cast to whole numbers"


def unscaled_digits(path):
    for file in folder(path).rglob("*.png"):
        picture(file, "L", RNG.integers(0, 17, (8, 8, 1), dtype=np.uint8))
    return path, r"training images hold the values 0, 1, 2, 3, 4, \.\.\. alone, which looks like another scale than 0\.\.255"


def nothing_drawn(path):
    for file in folder(path).rglob("*.png"):
        picture(file, "L", np.full((8, 8, 1), 128, np.uint8))
    return path, r"training images hold the value 128 alone"


def web_page(path):
    page = path.with_suffix(".zip")
    page.write_text("\n <!DOCTYPE html><html><title>Log in</title></html>")
    return page, r"is a web page, not the file"


def no_parts(path):
    for kind in ("cat", "dog"):
        picture(path / kind / "0.png")
    return path, r"no images in train/CLASS/ \(images lie elsewhere: cat/0.png\)"


def stranger_in_test(path):
    picture(folder(path) / "test" / "Cat" / "0.png")
    return path, r"test class 'Cat' has no training images"


REFUSED = [
    links_in_a_circle, images_under_other_names, images_without_a_suffix_in_a_zip, parts_in_two_places, cut_zip,
    deeper, loose_image, broken_link, link_into_itself, empty_class, class_of_texts, class_of_texts_in_a_zip,
    kind_that_is_not_read, several_frames, two_roots, white_on_transparent, sixteen_bits,
    sixteen_bits_in_colour, twelve_bits_in_a_ppm, zeros_and_ones,
    unscaled_digits, nothing_drawn, web_page, no_parts, stranger_in_test,
]  # fmt: skip


def one_line(capsys, *arguments, status=1):
    """Run the command, which must refuse; returns its one line."""
    assert run_cifar.main(list(map(str, arguments))) == status
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_cannot_be_read_rightly_is_one_line(tmp_path, capsys, make):
    path, message = make(tmp_path / "set")
    with pytest.raises(UserError, match=message):
        read_dataset("images", path, 0, None)
    data = ("--dataset", "images", "--data-dir", path, "--methods", "real", "--out", tmp_path / "out")
    assert "error: " in one_line(capsys, *data, "--dry-run")
    assert not (tmp_path / "out").exists()


def test_an_archive_of_pickles_is_named(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "cifar-10-python.tar.gz").write_bytes(b"x")
    for place in (data, data / "cifar-10-python.tar.gz"):
        line = one_line(capsys, "--dataset", "cifar10", "--data-dir", place, "--out", tmp_path / "out", "--dry-run")
        assert "cifar-10-python.tar.gz holds Python objects, which are never loaded; give cifar-10-binary.tar.gz" in line
    line = one_line(capsys, "--dataset", "mnist", "--data-dir", data, "--out", tmp_path / "out", "--dry-run")
    assert "train-images-idx3-ubyte.gz is missing" in line


# Files of generated images, for digits: 8x8, grey, ten classes.

LABELS = np.arange(60) % 10


def npz(path, image=None, label=LABELS, **more):
    image = RNG.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8) if image is None else image
    np.savez(path, image=image, label=label, **more)


GENERATED = {
    "floats_cast": ({"image": RNG.integers(0, 2, (60, 8, 8, 1), dtype=np.uint8)}, "hold the values 0, 1 alone, which looks like floats"),
    "signed_cast": ({"image": RNG.choice(np.array([0, 1, 255], np.uint8), (60, 8, 8, 1))}, "values 0, 1, 255 alone, which looks like"),
    "constant": ({"image": np.zeros((60, 8, 8, 1), np.uint8)}, "hold the value 0 alone"),
    "floats": ({"image": RNG.random((60, 8, 8, 1))}, "type float64; the data need uint8"),
    "two_first": ({"image": RNG.integers(0, 256, (60, 2, 8, 8), dtype=np.uint8)}, r"shape \(60, 2, 8, 8\)"),
    "colour": ({"image": RNG.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)}, r"shape \(60, 8, 8, 3\)"),
    "one_hot": ({"label": np.eye(10)[LABELS]}, "labels have shape"),
    "labels_of_float": ({"label": LABELS.astype(float)}, "type float64; 60 whole numbers are needed"),
    "labels_from_one": ({"label": LABELS + 1}, "labels reach from 1 to 10; the data have classes 0..9"),
    "too_few": ({"image": RNG.integers(0, 256, (15, 8, 8, 1), dtype=np.uint8), "label": LABELS[:15]}, "holds 15 images"),
}  # fmt: skip


@pytest.mark.parametrize("case", GENERATED)
def test_generated_images_are_refused_before_anything_is_trained(tmp_path, capsys, case):
    arrays, message = GENERATED[case]
    npz(tmp_path / "made.npz", **arrays)
    flags = ("--methods", "real", f"npz:{tmp_path / 'made.npz'}", "--synthetic", "20", "--out", tmp_path / "out")
    for more in (("--dry-run",), ()):
        assert re.search(message, one_line(capsys, *flags, *more))
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--methods", "classifier-free:1", "--diffusion.label-dropout", "0.1", "--generation.window", "0", "300"),
            "--generation.window 0 300: has no effect here, as classifier-free acts at every step",
        ),
        (("--methods", "unguided", "--generation.every", "2"), "--generation.every 2: has no effect here, as no method is guided"),
        (("--methods", "particle:auto", "--generation.window", "0", "300"), "a scale auto chooses among --generation.windows"),
        (
            ("--methods", "feedback:0.1", "--generation.head", "16"),
            "only infonce, hard-negative, supervised, anchored and particle",
        ),
        (("--methods", "particle:0.1", "--generation.head", "16", "--generation.repel", "pixels"), "particle in features take one"),
        (("--methods", "unguided", "--diffusion", "MODEL", "--diffusion.no-conditional"), "a loaded model takes labels or not"),
        (("--methods", "infonce:0.1", "--generation.window", "0", "300", "--generation.head", "16"), ""),
    ],
)
def test_options_that_nothing_reads_are_told(more, message):
    told = told_of_unread(resolve(settings_from(["--preset", "smoke", *more])))
    assert len(told) == bool(message)
    assert message in "".join(told)


def test_what_is_told_before_a_run_is_noted_only_where_it_concerns_the_results(tmp_path, capsys):
    """An option without effect does; that stages are made again does not."""
    command = [*SMALL, "--methods", "real", "--generation.every", "3", "--out", str(tmp_path / "out")]
    assert run_cifar.main(command) == 0
    line = "--generation.every 3: has no effect here, as no method is guided by an encoder"
    assert line in capsys.readouterr().err
    stamp = tmp_path / "out/stages/classifier/real/seed0.json"
    made = json.loads(stamp.read_text())
    made["made with"]["versions"]["torch"] = "1.0"
    stamp.write_text(json.dumps(made))
    assert run_cifar.main(command) == 0
    assert "torch was 1.0 and is" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/summary.json").read_text())["warnings"] == [line]


@pytest.mark.parametrize("preset", ["paper", "paper-gtsrb", "cpu", "smoke", "cifar10-gpu"])
def test_a_presets_own_options_are_no_mistake(preset):
    for methods in (("unguided",), ("real",), ("cads:0.1",)):
        assert not told_of_unread(resolve(replace(PRESETS[preset](), methods=methods)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<html>", "is a web page"), (b"PK\3\4 cut short", ": truncated or no npz file"), (b"", "is empty: get it again")],
)
def test_files_that_are_no_npz_are_refused_before_anything_is_trained(tmp_path, capsys, content, message):
    (tmp_path / "made.npz").write_bytes(content)
    line = one_line(capsys, "--methods", f"npz:{tmp_path / 'made.npz'}", "--dry-run", "--out", tmp_path / "out")
    assert re.search(rf"made.npz ?{message}", line)


# Weights of an encoder, for digits.

SHAPE = (1, 8, 8)
PLAIN = make_classifier("small-cnn-8", 10, SHAPE, [0.4], [0.3], seed=5)
STATE = PLAIN.state_dict()


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in STATE.items()}


WRAPPED = {
    "bare": STATE,
    "data_parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled_within": {name.replace("body.", "body._orig_mod."): tensor for name, tensor in STATE.items()},
    "averaged": {"n_averaged": torch.tensor(7), **prefixed("module.")},
    "ema_model": prefixed("ema_model."),
    "in_model": {"model": STATE, "epoch": 3},
    "in_net_and_parallel": {"net": prefixed("module."), "acc": 0.9},
    "twice": {"model": {"state_dict": prefixed("_orig_mod.module.")}},
    "backbone": {"params": prefixed("backbone.")},
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("case", WRAPPED)
def test_weights_met_in_the_field_are_the_same_network(tmp_path, case, suffix):
    content, path = WRAPPED[case], tmp_path / f"e{suffix}"
    if suffix == ".safetensors":
        if not all(isinstance(value, torch.Tensor) for value in content.values()):
            return  # such a file has no dictionaries within
        save_file({name: tensor.clone() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    loaded = load_classifier(path, 10, SHAPE, "small-cnn-8")
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), PLAIN.eval()(x))


@pytest.mark.parametrize(
    ("content", "network", "message"),
    [
        (b"<!doctype html><p>Quota exceeded", "small-cnn-8", "e.pt is a web page, not the file"),
        (b"rubbish", "small-cnn-8", "e.pt holds no plain weights"),
        (b"", "small-cnn-8", "e.pt is empty: get it again"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "small-cnn-8",
            "e.pt is a pointer of Git LFS, not the file: run git lfs pull",
        ),
        (b'{"error": "not found"}', "small-cnn-8", "e.pt is text, not the file: an error message perhaps"),
        (
            {**STATE, "mean": PLAIN.mean, "std": torch.ones(2)},
            "small-cnn-8",
            "a mean of the pixels and no std; give a file with both",
        ),
        (
            STATE,
            "preact-resnet-18",
            "it lacks body.*; the network does not know body.*: its layers, their shapes or names are those of no",
        ),
        (
            make_classifier("preact-resnet-18", 10, SHAPE, [0.4], [0.3]).state_dict(),
            "wrn-16-4",
            "it is a preact-resnet-18, name that",
        ),
        ({name: tensor for name, tensor in STATE.items() if "head" not in name}, "small-cnn-8", "it lacks head.bias, head.weight"),
        ({**STATE, "extra": torch.ones(1)}, "small-cnn-8", "the network does not know extra"),
        ({"model": 3}, "small-cnn-8", "holds no plain weights by name"),
    ],
)
def test_other_weights_are_refused_before_anything_is_trained(tmp_path, capsys, content, network, message):
    path = tmp_path / "e.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    flags = ("--methods", "unguided", "--encoder-from", path, "--encoder.network", network, "--out", tmp_path / "out")
    assert re.search(message, one_line(capsys, *flags, "--dry-run"))


# Diffusion models of diffusers.

TINY = DiffusionSettings(channels=(8, 16), blocks=1)
TEN = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A model of ten digits, as a pipeline without the names of its classes."""
    made = save_diffusion(
        tmp_path_factory.mktemp("model") / "d", make_noise_prediction(TINY, 10, SHAPE, 0), TINY.noise_schedule(), TEN
    )
    (made / "classes.json").unlink()
    return made


def changed(pipeline, target, config=None, weights=None):
    """A copy with another configuration of the U-Net, or other weights."""
    shutil.copytree(pipeline, target)
    path, file = target / "unet" / "config.json", target / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    if weights is not None:
        save_file(weights(load_file(file)), file)
    return target


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "ema_model."])
def test_compiled_and_wrapped_unets_load(pipeline, tmp_path, prefix):
    path = changed(pipeline, tmp_path / "d", weights=lambda w: {prefix + name: tensor for name, tensor in w.items()})
    x, t, y = torch.randn(2, *SHAPE), torch.tensor([3, 700]), torch.tensor([4, 9])
    ours, theirs = (read_diffusion(DiffusionSettings(load=of), None, 10, SHAPE)[0] for of in (path, pipeline))
    assert torch.equal(ours(x, t, y), theirs(x, t, y))


def test_a_model_without_a_size_takes_images_that_it_can_halve(pipeline, tmp_path):
    path = changed(pipeline, tmp_path / "d", {"sample_size": None})
    network, _, _ = read_diffusion(DiffusionSettings(load=path), None, 10, (1, 12, 8))
    assert network(torch.randn(2, 1, 12, 8), torch.tensor([3, 7]), torch.tensor([0, 1])).shape == (2, 1, 12, 8)
    with pytest.raises(ValueError, match="halves images 1 times, 8x9 cannot be"):
        read_diffusion(DiffusionSettings(load=path), None, 10, (1, 9, 8))


@pytest.mark.parametrize(
    ("config", "weights", "flags", "message"),
    [
        ({}, lambda w: dict(list(w.items())[4:]), (), "cannot be loaded as a U-Net with safetensors weights: it lacks "),
        ({}, lambda w: w | {"extra": torch.ones(1)}, (), "the network does not know extra"),
        (
            {"class_embed_type": "identity", "num_class_embeds": None},
            lambda w: _without(w, "class_"),
            (),
            "class_embed_type='identity'",
        ),
        (
            {},
            None,
            ("--classes", "7", "8", "9", "--train", "60"),
            "knows 10 labels, the data have 3 classes: say which are which, --diffusion.class-labels",
        ),
        ({}, None, ("--classes", "1", "2", "3", "4", "5", "6", "7", "8", "9"), "knows 10 labels, the data have 9 classes"),
        ({}, None, ("--diffusion.class-labels", "0", "1"), "has 2 labels, the data have 10 classes"),
        ({}, None, ("--dataset", "mnist", "--image-size", "16"), r"makes images \(1, 8, 8\), the data have \(1, 16, 16\)"),
        ({}, None, ("--methods", "classifier-free:1"), "this model's null label is not known"),
        ({}, None, ("--generation.steps", "2000"), "the model has 1000 timesteps"),
        ({}, None, ("--generation.window", "0", "2000"), "must satisfy 0 <= low < high <= 1000, the model's timesteps"),
    ],
)
def test_other_diffusion_models_are_refused_before_anything_is_trained(pipeline, tmp_path, capsys, config, weights, flags, message):
    path = changed(pipeline, tmp_path / "d", config, weights)
    line = one_line(capsys, "--methods", "infonce:0.1", "--diffusion", path, *flags, "--out", tmp_path / "out", "--dry-run")
    assert line.startswith("error: --")
    assert re.search(message, line)


def _without(weights, start):
    return {name: tensor for name, tensor in weights.items() if not name.startswith(start)}


def test_a_network_far_too_large_for_its_file_is_refused_before_it_is_made(tmp_path):
    """wrn-994-99 would take 0.6 TB."""
    path = write_safetensors(tmp_path / "e.safetensors", {"conv.weight": torch.zeros(3)}, {})
    with pytest.raises(
        ValueError, match=r"does not hold the weights of wrn-994-99, which has \S+e\+11 numbers: name the network it holds"
    ):
        read_classifier(path, 10, (3, 32, 32), "wrn-994-99")


def test_an_older_torch_is_warned_of(tmp_path, monkeypatch):
    classifier = make_classifier("linear", 10, SHAPE, [0.0], [1.0])
    torch.save(classifier.state_dict(), tmp_path / "e.pt")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.warns(
        UserWarning, match=r"e.pt: a file made for it can run code in torch 2.9.1\+cpu \(CVE-2026-24747, mended in 2.10\)"
    ):
        read_classifier(tmp_path / "e.pt", 10, SHAPE, "linear")


def test_classes_are_drawn_by_name_or_as_one_says(pipeline, tmp_path):
    """Data of the classes 7, 8, 9 beside a model of ten: its labels 7, 8, 9 are drawn, not 0, 1, 2."""
    x, t, y = torch.randn(3, *SHAPE), torch.tensor([3, 700, 5]), torch.tensor([0, 1, 2])
    whole = read_diffusion(DiffusionSettings(load=pipeline), None, TEN, SHAPE)[0]
    expected = whole(x, t, y + 7)
    named = shutil.copytree(pipeline, tmp_path / "named")
    (named / "classes.json").write_text(json.dumps({"classes": TEN}))
    for told in (DiffusionSettings(load=named), DiffusionSettings(load=pipeline, class_labels=(7, 8, 9))):
        relabelled, schedule, _ = read_diffusion(told, None, ("7", "8", "9"), SHAPE)
        assert torch.equal(relabelled(x, t, y), expected)
        assert relabelled.schedule is schedule  # which prepared_unet copies to the device before it compiles


# Flags.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--eps", "8"), r"--eps 8.0: turns every image into any other.*; did you mean 8/255\?"),
        (("--eps", "nan"), "--eps nan: must be a finite number > 0"),
        (("--eps", "inf"), "--eps inf: must be a finite number > 0"),
        (("--eps", "-8/255"), "must be a finite number > 0"),
        (("--norm", "l2", "--eps", "128"), r"did you mean 128/255\?"),
        (("--norm", "l2", "--eps", "9"), r"--eps 9 in l2: images of 8x8 lie at most 8 apart; did you mean 9/255\?"),
        (("--evaluation.threats", "linf:8"), r"--evaluation.threats linf:8: .*did you mean 8/255\?"),
        (("--synthetic", "1"), "--synthetic 1: must lie in 2"),
        (("--test", "1"), "--test 1: one image gives no accuracy"),
        (("--test", "1198"), "--test 1198: there are 1197 test images"),
        (("--dataset", "mnist", "--image-size", "2"), "--image-size 2: networks halve images twice; use at least 4"),
        (
            ("--methods", "anchored:0.1", "--generation.anchors", "1"),
            "--generation.anchors 1: anchored:0.1 needs one of each",
        ),
        (("--methods", "anchored:0.1", "--train", "4"), "--train 4: anchored:0.1 needs a training image of each of 10 classes"),
        (
            ("--methods", "unguided", "--train", "4", "--selection.surplus", "2", "--selection.criterion", "class-separation"),
            "--train 4: --selection.criterion class-separation needs a training image of each of 10 classes",
        ),
        (("--diffusion.channels", *["8"] * 5), "images of 8x8 cannot be halved 4 times"),
        (("--methods", "npz:a/x.npz", "npz:b/x.npz"), "results are named by the file, and both are called x; rename one of them"),
        (("--methods", "npz:a/edm.npz", "npz:b/EDM.npz"), "and some disks do not tell EDM from edm; rename one of them"),
        (("--methods", f"npz:{'x' * 240}.npz"), "no such file|bytes in the name|File name too long"),
        (("--norm", "l2", "--dataset", "mnist", "--image-size", "4"), "Square attack cannot tile images of 4x4 pixels"),
        (("--diffusion.null-label", "3"), "class_labels and null_label belong to a loaded model"),
        (("--classifier.network", "wrn-12-1"), "network 'wrn-12-1' is unknown"),
    ],
)
def test_flags_are_refused_before_anything_is_read(tmp_path, capsys, flags, message):
    """By the dry run and by the run alike; tyro itself ends with status 2 where it cannot make the settings."""
    for more in (("--dry-run",), ()):
        try:
            status = run_cifar.main([*flags, "--out", str(tmp_path / "out"), *more])
        except SystemExit as exit:
            status = exit.code
        shown = capsys.readouterr()
        assert status in (1, 2)
        assert re.search(message, " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown.err + shown.out).split())), shown.err
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_long_name_is_refused_before_anything_is_made(tmp_path, capsys):
    npz(tmp_path / f"{'x' * 220}.npz")
    line = one_line(capsys, "--methods", f"npz:{tmp_path / ('x' * 220)}.npz", "--synthetic", "20", "--out", tmp_path / "out")
    assert "bytes in the name, more than 200; rename the file" in line
    assert not (tmp_path / "out").exists()


def test_fractions_are_radii(capsys, tmp_path):
    flags = ("--eps", "8/255", "--evaluation.threats", "linf:4/255", "l2:128/255", "--methods", "real", "--until", "encoder")
    assert run_cifar.main([*flags, "--out", str(tmp_path / "out"), "--dry-run"]) == 1  # nothing to do until then, which is said
    output = capsys.readouterr()
    assert "names no" not in output.err
    settings = run_cifar.resolve(replace(smoke(), eps=number("8/255"), norm="linf"))
    assert settings.eps == 8 / 255
    assert [number(text) for text in ("0.5", "1/3", " 2 / 4", "1e-3")] == [0.5, 1 / 3, 0.5, 1e-3]
    for text in ("8/0", "8/", "/255", "1_000", "eight", "1/2/3", "8/-255", "++inf", "1.2.3", "٣"):
        with pytest.raises(ValueError, match="is no number"):
            number(text)


def test_weights_of_safetensors_by_another_name(tmp_path):
    save_file({name: tensor.clone() for name, tensor in STATE.items()}, tmp_path / "e.bin")
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_classifier(tmp_path / "e.bin", 10, SHAPE, "small-cnn-8")(x), PLAIN.eval()(x))


def test_a_label_for_none_is_no_class(pipeline, tmp_path):
    named = shutil.copytree(pipeline, tmp_path / "named")
    (named / "classes.json").write_text(json.dumps({"classes": TEN}))
    for null, which in ((0, "0"), (9, "9")):
        with pytest.raises(ValueError, match=f"--diffusion.null-label {null}: is the model's label of {which}; give another"):
            read_diffusion(DiffusionSettings(load=named, null_label=null), None, TEN, SHAPE)
    with pytest.raises(ValueError, match="give each label once"):
        DiffusionSettings(load=named, class_labels=(1, 2), null_label=2)


def test_generated_images_of_some_classes_are_told(tmp_path, capsys):
    """Labels that are counted from one, of fewer classes: nothing is out of range, and the first class is empty."""
    npz(tmp_path / "made.npz", label=np.arange(60) % 9 + 1)
    flags = ("--methods", f"npz:{tmp_path / 'made.npz'}", "--synthetic", "20", "--until", "generation", "--workers", "1")
    fast = ("--encoder.steps", "2", "--description.steps", "2", "--out", str(tmp_path / "out"))
    assert run_cifar.main([*flags, *fast]) == 0
    assert "made.npz has no images of 0: are its labels numbered as the data's classes are?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--train", "590", "--validation", "100"),
            "--train 590: 500 images are left beside 100 for validation, of 600 in all",
        ),
        (("--train", "0", "--validation", "600"), "--validation 600: 0 images are left beside 600"),
        (("--out", "FILE"), "--out .*: .* is a file; choose another path"),
        (("--out", "FILE/below"), "is a file|cannot create the folder"),
    ],
)
def test_the_dry_run_refuses_what_the_run_refuses(tmp_path, capsys, flags, message):
    (tmp_path / "file").write_text("x")
    given = [flag.replace("FILE", str(tmp_path / "file")) for flag in flags]
    place = () if "--out" in flags else ("--out", str(tmp_path / "out"))
    for more in (("--dry-run",), ()):
        assert run_cifar.main([*given, *place, "--methods", "real", *more]) == 1
        assert re.search(message if more or "--out" not in flags else "cannot create the folder", capsys.readouterr().err)


def test_an_encoder_that_no_method_needs_is_no_error(tmp_path, capsys):
    torch.save(STATE, tmp_path / "e.pt")
    flags = (
        "--encoder-from",
        tmp_path / "e.pt",
        "--encoder.network",
        "small-cnn-8",
        "--methods",
        "real",
        "--classifier.steps",
        "2",
    )
    more = ("--evaluation.autoattack-images", "0", "--evaluation.pgd-steps", "1", "--test", "20", "--workers", "1")
    assert run_cifar.main([*map(str, flags), *more, "--out", str(tmp_path / "out")]) == 0


def test_a_run_that_was_stopped_before_it_trained_holds_no_folder(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    flags = ["--methods", "real", "--out", str(tmp_path), "--train", "60", "--validation", "20", "--test", "20", "--workers", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "note_claim", interrupted)
        assert run_cifar.main([*flags, "--eps", "0.3"]) == 130
    quick = ["--classifier.steps", "2", "--evaluation.autoattack-images", "0", "--evaluation.pgd-steps", "1"]
    assert run_cifar.main([*flags, *quick, "--eps", "0.1"]) == 0
    assert run_cifar.main([*flags, *quick, "--eps", "0.3", "--dry-run"]) == 0
    assert "warning: the run itself will be refused: --out" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["data", "data/results", "data/../data/new"])
@pytest.mark.parametrize("flags", [("--dataset", "images", "--data-dir"), ("--methods", "unguided", "--diffusion")])
def test_results_are_not_written_into_what_is_read(tmp_path, capsys, place, flags):
    """The run would find another content there than it began with, and never go on."""
    (tmp_path / "data" / "train").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for more in ((), ("--dry-run",)):
        assert run_cifar.main([*flags, str(tmp_path / "data"), "--out", str(tmp_path / place), *more]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f": lies in {flags[-1]} {tmp_path / 'data'}, whose content every result would change; give another --out" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_nothing_but_the_summary_of_another_experiment_is_refused(tmp_path, capsys):
    (tmp_path / "summary.json").write_text('{"settings": {"eps": 0.3, "norm": "linf"}}')
    assert run_cifar.main(["--methods", "real", "--eps", "0.1", "--out", str(tmp_path), "--workers", "1"]) == 1
    assert "holds another experiment (eps 0.3 there, 0.1 here)" in capsys.readouterr().err
    assert not (tmp_path / "stages").exists()


def test_a_missing_package_is_said_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("image_experiments.output.tensorboard.find_spec", lambda name: None)
    assert run_cifar.main(["--preset", "smoke", "--tensorboard", "--out", str(tmp_path / "out")]) == 1
    assert "--tensorboard: the package tensorboard is missing; pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_images_is_taken_from_the_command_line(tmp_path, capsys):
    """A preset with all its settings but this folder would be refused where the summary of the settings is made."""
    write_folder(tmp_path / "set", np.random.default_rng(0), train=24, test=12, size=8)
    flags = ["--preset", "smoke", "--dataset", "images", "--data-dir", str(tmp_path / "set"), "--train", "16", "--validation", "4"]
    from image_experiments.run_cifar import beginning

    told = beginning(experiment.prepared(settings_from([*flags, "--test", "12", "--out", str(tmp_path / "out")])))
    assert "preset smoke on images" in told
    assert f"--data-dir {tmp_path / 'set'}" in told
