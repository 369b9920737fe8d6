"""Generated images for other trainers: the same bytes in each format, and whole or not there."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from command_line.output import UserError
from image_experiments import generated, preset, run
from image_experiments.data.class_folders import read_class_folders
from image_experiments.data.given import GivenImages
from image_experiments.generated import Generated
from tests.image_experiments.test_python import TINY

METHODS = ("unguided", "infonce-0.3", "noise-0.2")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = {**TINY, "methods": ["unguided", "infonce:0.3", "noise:0.2", "anchored:auto"], "seeds": 2, "generation.pilot": 20}
    out = tmp_path_factory.mktemp("formats") / "out"
    return run(preset("smoke", out=str(out), **settings))


def everything(result, *methods, seeds=(0, 1)):
    sets = [result.synthetic(method, seed) for method in methods for seed in seeds]
    return [np.concatenate([np.asarray(part[i]) for part in sets]) for i in (0, 1)]


def test_a_torch_dataset_gives_every_image_with_its_label(result):
    images, labels = everything(result, *METHODS)
    made = result.generated(*METHODS)
    assert isinstance(made, torch.utils.data.Dataset)
    assert len(made) == len(images)
    for i in (0, 1, len(made) // 2, len(made) - 1, -1):
        image, label = made[i]
        assert image.dtype == torch.float32
        assert (image.numpy() == images[i].transpose(2, 0, 1) / np.float32(255)).all()
        assert label == labels[i]
    with pytest.raises(IndexError):
        made[len(made)]
    loaded = torch.utils.data.DataLoader(result.generated(*METHODS, transform=lambda x: 1 - x), batch_size=7)
    batches = list(loaded)
    assert (torch.cat([x for x, _ in batches]).numpy() == 1 - images.transpose(0, 3, 1, 2) / np.float32(255)).all()
    assert torch.cat([y for _, y in batches]).tolist() == labels.tolist()


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_worker_processes_read_the_same_images(result, way):
    made = result.generated("unguided", seeds=0)
    loaded = torch.utils.data.DataLoader(made, batch_size=9, num_workers=1, multiprocessing_context=way)
    assert torch.equal(torch.cat([x for x, _ in loaded]), torch.stack([made[i][0] for i in range(len(made))]))


def test_npz_files_hold_the_same_bytes(result, tmp_path):
    one = result.generated("infonce-0.3", seeds=[1]).to_npz(tmp_path / "new" / "one.npz")
    assert one.read_bytes() == (result.out / "synthetic" / "infonce-0.3" / "seed1.npz").read_bytes()
    images, labels = everything(result, *METHODS)
    given = GivenImages(result.generated(*METHODS).to_npz(tmp_path / "all.npz"), len(result.classes), images.shape[1:])
    found = list(given.pieces(np.arange(len(given))))
    assert (np.concatenate([x for x, _ in found]) == images).all()
    assert (np.concatenate([y for _, y in found]) == labels).all()


def test_a_folder_of_pictures_says_what_each_is(result, tmp_path):
    folder = result.generated(*METHODS).to_image_folder(tmp_path / "pictures")
    images, labels = everything(result, *METHODS)
    with (folder / "train" / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(images) == sum(path.suffix == ".png" for path in folder.rglob("*"))
    for row, image, label in zip(rows, images, labels, strict=True):
        with Image.open(folder / "train" / row["file_name"]) as picture:
            assert (np.asarray(picture)[..., None] == image).all()
        assert (int(row["label"]), row["class"]) == (label, result.classes[label])
        assert row["file_name"].split("/")[0] == row["class"]
    assert {(row["method"], float(row["strength"]), int(row["seed"])) for row in rows if row["method"] != "unguided"} == {
        ("infonce-0.3", 0.3, 0), ("infonce-0.3", 0.3, 1), ("noise-0.2", 0.2, 0), ("noise-0.2", 0.2, 1),
    }  # fmt: skip
    assert {row["strength"] for row in rows if row["method"] == "unguided"} == {"nan"}
    table = result.generated(*METHODS).table()
    assert table["label"].tolist() == labels.tolist()
    assert "image" not in rows[0]  # Hugging Face's datasets would take it for the picture
    assert table["number"].tolist() == list(range(len(labels) // 6)) * 6
    (folder / "test").symlink_to(folder / "train")
    read = read_class_folders(folder, 0, None)  # our own reader of image folders, in the order of names
    assert sorted(map(bytes, read.images)) == sorted(map(bytes, images))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that datasets leaves open
def test_hugging_faces_reader_gives_the_same_pictures(result, tmp_path):
    datasets = pytest.importorskip("datasets")  # not among the requirements
    folder = result.generated("unguided").to_image_folder(tmp_path / "pictures")
    images, labels = everything(result, "unguided")
    read = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert read["label"] == labels.tolist()
    assert all((np.asarray(row["image"])[..., None] == image).all() for row, image in zip(read, images, strict=True))


def test_a_strength_that_was_found_is_told(result):
    found = result.summary["results"]["strength/anchored-auto/seed1"]["scale"]
    assert result.generated("anchored-auto", seeds=[1]).table()["strength"].unique().tolist() == [found]


def test_what_cannot_be_is_one_line_and_leaves_nothing(result, tmp_path, monkeypatch):
    made = result.generated("unguided")
    (tmp_path / "there").mkdir()
    for call, message in (
        (lambda: made.to_image_folder(tmp_path / "there"), "is there already"),
        (
            lambda: Generated(made.parts, [*"ABCDEFGHIA"]).to_image_folder(tmp_path / "new"),
            "class A: this disk takes its folder for",
        ),
        (
            lambda: Generated(made.parts, ["..", *"BCDEFGHIJ"]).to_image_folder(tmp_path / "new"),
            "'..': is no name of a folder",
        ),
        (
            lambda: Generated(made.parts, ["../up", *"BCDEFGHIJ"]).to_image_folder(tmp_path / "new"),
            "'../up': is no name of a folder",
        ),
        (lambda: made.to_npz(tmp_path / "a.zip"), "ends in .npz"),
        (lambda: result.generated("infonce-0.7"), "has no synthetic images of 'infonce-0.7'"),
        (lambda: result.generated("unguided", seeds=[5]), "seed 5"),
        (result.generated, "name at least one method"),
        (lambda: result.generated("unguided", "unguided"), "named twice"),
        (lambda: result.generated("../synthetic/unguided"), "has no synthetic images"),
    ):
        with pytest.raises(UserError, match=message):
            call()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generated, "write_csv", stop)
    with pytest.raises(KeyboardInterrupt):
        made.to_image_folder(tmp_path / "broken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]
    assert isinstance(made, Generated)
