"""npz files of generated images: what is written comes back, both key conventions are read, everything else is refused."""

import contextlib
import zipfile

import numpy as np
import pytest

from command_line.output import UserError
from image_experiments.data.npz_files import ImageFile, check_content, stream_images

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8), np.array([0, 1, 2, 0, 1, 2])


def read(path, shape=(4, 5, 3)):
    found = ImageFile(path, 3, shape)
    check_content(path)
    return np.array(found.images), np.array(found.labels)


def write(path):
    stream_images(path, len(IMAGES), IMAGES.shape[1:], [(IMAGES, LABELS)])


def test_what_is_written_comes_back_under_the_fields_names(tmp_path):
    write(tmp_path / "a.npz")
    images, labels = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    with np.load(tmp_path / "a.npz") as content:
        assert {name: content[name].dtype.name for name in content.files} == {"image": "uint8", "label": "int64"}
    write(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_file_is_read_once_for_its_damage_and_errors_of_a_moment_are_not_remembered(tmp_path, monkeypatch):
    write(tmp_path / "a.npz")
    tested, failing = [], [OSError(24, "Too many open files")]

    def test(archive):
        tested.append(archive)
        if failing:
            raise failing.pop()

    monkeypatch.setattr(zipfile.ZipFile, "testzip", test)
    with pytest.raises(UserError, match="Too many open files"):
        check_content(tmp_path / "a.npz")
    for _ in range(3):
        check_content(tmp_path / "a.npz")
    assert len(tested) == 2
    write(tmp_path / "a.npz")
    check_content(tmp_path / "a.npz")
    assert len(tested) == 3


def test_unnamed_arrays_and_grey_images_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", IMAGES, LABELS.astype(np.int32))
    np.testing.assert_array_equal(read(tmp_path / "a.npz")[0], IMAGES)
    np.savez_compressed(tmp_path / "b.npz", image=IMAGES[..., 0], label=LABELS.astype(np.uint8))
    images, labels = read(tmp_path / "b.npz", (4, 5, 1))
    np.testing.assert_array_equal(images, IMAGES[..., :1])
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image": IMAGES, "label": np.array([{}] * 6, dtype=object)}, "Python objects"),
        ({"image": np.array([None] * 6, dtype=object), "label": LABELS}, "Python objects"),
        ({"image": IMAGES, "label": LABELS + 1}, r"reach from 1 to 3; the data have classes 0\.\.2"),
        ({"image": IMAGES, "label": LABELS - 1}, "reach from -1"),
        ({"image": IMAGES, "label": LABELS[:5]}, r"labels have shape \(5,\)"),
        ({"image": IMAGES, "label": LABELS + 0.5}, "float64"),
        ({"image": IMAGES / 255, "label": LABELS}, "float64"),
        ({"image": IMAGES[:, :3], "label": LABELS}, r"\(6, 3, 5, 3\)"),
        ({"image": IMAGES[:0], "label": LABELS[:0]}, "at least one"),
        ({"pictures": IMAGES}, "has pictures"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_every_damaged_byte_is_seen_or_one_line(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", image=IMAGES, label=LABELS)
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    for place in range(0, len(whole), 7):
        changed = whole.copy()
        changed[place] ^= 0xFF
        (tmp_path / "b.npz").write_bytes(changed)
        with contextlib.suppress(UserError):  # nothing else may be raised; bytes that nothing reads, such as times, may change
            np.testing.assert_array_equal(read(tmp_path / "b.npz")[0], IMAGES)
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("image", b"no array")
        archive.writestr("label", b"neither")
    with pytest.raises(UserError, match="damaged"):
        read(tmp_path / "c.npz")


def test_arrays_in_fortrans_order_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.asfortranarray(IMAGES), label=LABELS)
    file = ImageFile(tmp_path / "a.npz", 3, (4, 5, 3))
    np.testing.assert_array_equal(file.images, IMAGES)
    np.testing.assert_array_equal(file.rows(np.array([4, 1]))[0], IMAGES[[4, 1]])


def test_labels_of_any_integer_type_are_read_row_by_row(tmp_path):
    for kind in (np.uint8, np.int32, np.uint64, ">i8"):
        np.savez(tmp_path / "a.npz", image=IMAGES, label=LABELS.astype(kind))
        images, labels = ImageFile(tmp_path / "a.npz", 3, (4, 5, 3)).rows(np.array([5, 0, 3]))
        np.testing.assert_array_equal(images, IMAGES[[5, 0, 3]])
        np.testing.assert_array_equal(labels, LABELS[[5, 0, 3]])


def test_damaged_files_are_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", image=IMAGES, label=LABELS)
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x04nothing", whole[:200] + bytes(40) + whole[240:]):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"make it again|plain arrays|is empty: get it again"):
            read(tmp_path / "b.npz")
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "c.npz")
    np.save(tmp_path / "d.npy", IMAGES)
    with pytest.raises(UserError, match="no npz file"):
        read(tmp_path / "d.npy")
