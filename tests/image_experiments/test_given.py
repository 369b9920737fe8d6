"""Generated images as others publish them: parts of one set, channels first or last, under any of the usual names."""

import csv
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from command_line.output import UserError
from image_experiments import run_cifar
from image_experiments.data.given import GivenImages, absolute, check_given, parts_of, stem_of
from image_experiments.engine.presets import smoke
from image_experiments.experiment import Result, identity
from image_experiments.synthesis.methods import parse_method

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (70, 6, 5, 3), dtype=np.uint8), RNG.integers(0, 4, 70)
SHAPE = (6, 5, 3)
CUTS = [0, 9, 10, 40, 70]


def save_parts(folder, names=("image", "label"), save=np.savez, first=False, **more):
    """The set in four parts, numbered so that text order is wrong."""
    folder.mkdir(exist_ok=True)
    for number, (a, b) in enumerate(itertools.pairwise(CUTS), 8):
        images = IMAGES[a:b].transpose(0, 3, 1, 2) if first else IMAGES[a:b]
        save(folder / f"part{number}.npz", **{names[0]: images, names[1]: LABELS[a:b]}, **{k: v[a:b] for k, v in more.items()})
    return folder


def everything(given, chosen=None):
    pieces = list(given.pieces(np.arange(len(given)) if chosen is None else chosen))
    return np.concatenate([images for images, _ in pieces]), np.concatenate([labels for _, labels in pieces])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("names", [("image", "label"), ("images", "labels"), ("x", "y"), ("arr_0", "arr_1"), ("image", "y")])
def test_parts_are_the_whole_set_in_order(tmp_path, names, first, save):
    given = GivenImages(save_parts(tmp_path / "set", names, save, first), 4, SHAPE)
    images, labels = everything(given)
    assert (images == IMAGES).all()
    assert (labels == LABELS).all()
    assert (given.labels == LABELS).all()
    assert (given.class_counts(4) == np.bincount(LABELS, minlength=4)).all()
    form = "channels first, (N, C, H, W)" if first else "(N, H, W, C)"
    assert given.said() == f"set: 4 files, 70 images, {form}, under {names[0]} and {names[1]}"


def test_some_of_the_images_come_from_their_files(tmp_path):
    soft = RNG.dirichlet(np.ones(4), 70).astype(np.float32)
    given = GivenImages(save_parts(tmp_path / "set", soft_label=soft), 4, SHAPE)
    for size in (0, 1, 5, 33):
        chosen = np.sort(np.random.default_rng(size).choice(70, size, replace=False))
        if size:
            images, labels = everything(given, chosen)
            assert (images == IMAGES[chosen]).all()
            assert (labels == LABELS[chosen]).all()
            assert (given.soft_rows(chosen) == soft[chosen]).all()
    assert given.soft_rows(np.array([8, 9, 10, 69])).tolist() == soft[[8, 9, 10, 69]].tolist()


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 3, 3), (3, 4, 3)])
def test_channels_last_wins_where_both_are_possible(tmp_path, size):
    height, width, channels = size[1], size[2], size[0]
    images = RNG.integers(0, 256, (5, *size), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", image=images, label=np.arange(5) % 4)
    given = GivenImages(tmp_path / "a.npz", 4, (height, width, channels))
    last = images.shape[1:] == (height, width, channels)
    assert (everything(given)[0] == (images if last else images.transpose(0, 2, 3, 1))).all()


def test_labels_in_a_column_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS[:, None])
    assert (GivenImages(tmp_path / "a.npz", 4, SHAPE).labels == LABELS).all()


def test_ways_to_name_the_parts(tmp_path, monkeypatch):
    folder = save_parts(tmp_path / "set")
    whole = [folder / f"part{k}.npz" for k in (8, 9, 10, 11)]
    assert parts_of(folder) == whole
    assert parts_of(folder / "part*.npz") == whole
    assert parts_of(folder / "part1[01].npz") == whole[2:]
    assert parts_of(whole[1]) == whole[1:2]
    assert [*map(str, parts_of(_several(whole[3], whole[0])))] == [str(whole[3]), str(whole[0])]
    monkeypatch.chdir(folder)
    assert [path.name for path in parts_of(_path("part?.npz"))] == ["part8.npz", "part9.npz"]
    assert absolute(_several("part8.npz", "part9.npz")) == f"{folder}/part8.npz,{folder}/part9.npz"
    assert absolute(_path("part8.npz")) == str(folder / "part8.npz")
    assert [stem_of(path) for path in (folder, folder / "part*.npz", whole[0])] == ["set", "set", "part8"]
    assert stem_of(_several(whole[0], whole[2])) == "part8-part10"
    for path in (_path("part?.npz"), _path("."), _several("part8.npz", "part1*.npz")):
        assert stem_of(path) == stem_of(_path(absolute(path)))  # on a cluster paths are absolute, names are those of before
        assert parts_of(_path(absolute(path))) == [part.absolute() for part in parts_of(path)]
    assert parse_method(f"npz:{folder}/part*.npz").label == "npz-set"


def test_other_images_under_the_same_pattern_are_another_experiment(tmp_path):
    """A pattern and a list have the content of what they name; a pattern that names nothing is refused."""
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        for part in (1, 2):
            np.savez(tmp_path / folder / f"part{part}.npz", image=np.full((4, 8, 8, 1), value, np.uint8), label=np.arange(4))
    for named in ("{}/part*.npz", "{}/part1.npz,{}/part2.npz"):
        a, b = (identity(replace(smoke(), methods=(f"npz:{named.format(*[tmp_path / one] * 2)}",))) for one in "ab")
        assert a["methods"][0].split()[0] == b["methods"][0].split()[0]
        assert a["methods"] != b["methods"]
    with pytest.raises(UserError, match="no file"):
        identity(replace(smoke(), methods=(f"npz:{tmp_path}/c*.npz",)))


def test_hidden_files_are_no_parts_and_capital_suffixes_are(tmp_path):
    folder = save_parts(tmp_path / "set")
    (folder / "._part8.npz").write_bytes(b"macOS")
    (folder / "part11.npz").rename(folder / "part11.NPZ")
    names = [f"part{k}" for k in (8, 9, 10, 11)]
    assert [path.stem for path in parts_of(folder)] == names
    assert [path.stem for path in parts_of(folder / "*.npz")] == names[:3]


def test_a_set_has_one_name_and_one_identity_however_its_path_is_written(tmp_path, monkeypatch):
    save_parts(tmp_path / "v1.5")
    monkeypatch.chdir(tmp_path / "v1.5")
    monkeypatch.setenv("HOME", str(tmp_path))
    for spellings in (
        ("part8.npz,part9.npz", "./part8.npz,./part9.npz", "~/v1.5/part8.npz,~/v1.5/part9.npz"),
        (".", "../v1.5", "~/v1.5", f"{tmp_path}/v1.5/"),
    ):
        methods = [parse_method(f"npz:{text}") for text in spellings]
        assert {m.label for m in methods} == {"npz-part8-part9" if "," in spellings[0] else "npz-v1.5"}
        assert len({identity(replace(smoke(), methods=(m.text,)))["methods"][0] for m in methods}) == 1


def test_names_with_commas_and_brackets_are_names(tmp_path, monkeypatch):
    """Whatever is there is what it is called; patterns and lists stand for what is not."""
    monkeypatch.chdir(tmp_path)
    for name in ("a,b", "data[v2]", "plain"):
        save_parts(tmp_path / name)
    (tmp_path / "one[1],x.npz").write_bytes((tmp_path / "plain" / "part9.npz").read_bytes())
    (tmp_path / "1\u00b23.npz").write_bytes((tmp_path / "plain" / "part9.npz").read_bytes())
    for text, count in (
        ("a,b", 4), ("a,b/part1*.npz", 2), ("data[v2]/part*.npz", 4), ("one[1],x.npz", 1), ("a,b,plain/part8.npz", 5), ("*.npz", 2),
        ("plain/part1*.npz,data[v2]/part9.npz,one[1],x.npz", 4), ("a,b/part8.npz,plain/part*.npz", 5),
    ):  # fmt: skip
        assert len(parts_of(_path(text))) == count, text
        assert parts_of(_path(absolute(_path(text)))) == [path.absolute() for path in parts_of(_path(text))]
    for text, message in (
        ("plain/part8.npz,", "names nothing before or after a comma"),
        ("plain,./plain/part9.npz", "named twice"),
        (f"plain,{tmp_path}/plain/../plain/part9.npz", "named twice"),
        ("**.npz", "no pattern of files|fits this pattern"),
    ):
        if text == "**.npz" and tuple(map(int, __import__("platform").python_version_tuple()[:2])) >= (3, 13):
            continue
        with pytest.raises(UserError, match=message):
            parts_of(_path(text))


def _path(text):
    from pathlib import Path

    return Path(text)


def _several(*paths):
    return _path(",".join(map(str, paths)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "nowhere", "no such file; check the path"),
        (lambda f: f / "*.zip", "no file fits this pattern"),
        (lambda f: _several(f / "part8.npz", f / "part8.npz"), "part8.npz is named twice"),
        (lambda f: _several(f / "part8.npz", f / "part7.npz"), "part7.npz: no such file"),
        (lambda f: (f / "empty").mkdir() or f / "empty", "holds no npz files"),
        (lambda f: np.savez(f / "part12.npz", image=IMAGES[:2, :5], label=LABELS[:2]) or f, "part12.npz: images have shape"),
        (lambda f: np.savez(f / "part12.npz", image=IMAGES[:2], label=[0, 4]) or f, "part12.npz: labels reach from 0 to 4"),
        (lambda f: (f / "part12.npz").write_bytes(b"<html>") and f, "part12.npz is a web page"),
        (
            lambda f: np.savez(f / "part12.npz", image=IMAGES[:2], label=LABELS[:2], soft_label=np.full((2, 4), 0.25)) or f,
            "part12.npz: has soft labels, unlike",
        ),
        (lambda f: np.savez(f / "part12.npz", image=IMAGES[:2] // 255, label=LABELS[:2]) or f, "part12.npz: images hold the value"),
        (
            lambda f: np.savez(f / "part12.npz", pictures=IMAGES[:2], y=LABELS[:2]) or f,
            "has pictures, y; an npz with image and label",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_naming_the_part(tmp_path, make, message):
    path = make(save_parts(tmp_path / "set"))
    with pytest.raises(UserError) as caught:
        check_given(path, 4, SHAPE, 10)
    assert message in str(caught.value)


def test_too_many_are_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"--synthetic 71: .*set holds 70 images"):
        check_given(save_parts(tmp_path / "set"), 4, SHAPE, 71)


def test_a_run_on_a_folder_of_parts_is_that_on_one_file(tmp_path, capsys, monkeypatch):
    """The same balanced choice by seed, and classifiers to the same number; what was recognised is said. Read from any folder later."""
    images, labels = RNG.integers(0, 256, (90, 8, 8, 1), dtype=np.uint8), np.arange(90) % 10
    (tmp_path / "set").mkdir()
    np.savez(tmp_path / "whole.npz", image=images, label=labels)
    for number, rows in enumerate((slice(0, 50), slice(50, 90)), 9):
        np.savez(tmp_path / "set" / f"{number}.npz", x=images[rows].transpose(0, 3, 1, 2), y=labels[rows])
    small = ["--synthetic", "40", "--classifier.steps", "5", "--evaluation.autoattack-images", "0", "--evaluation.pgd-steps", "2"]
    small += ["--encoder.steps", "5", "--test", "40", "--description.steps", "5", "--workers", "1"]
    rows = []
    for name, text, place in (("whole", "whole.npz", "."), ("set", "*.npz", "set")):
        out = tmp_path / f"out-{name}"
        monkeypatch.chdir(tmp_path / place)
        assert run_cifar.main(["--methods", f"npz:{text}", *small, "--out", str(out)]) == 0
        monkeypatch.chdir(tmp_path)
        assert len(Result(out).synthetic(f"npz-{name}")[1]) == 40
        output = capsys.readouterr().out
        with (out / "metrics.csv").open() as stream:
            rows.append([{key: row[key] for key in row if key not in ("method",)} for row in csv.DictReader(stream)])
        made = next((out / "synthetic").rglob("seed0.npz"))
        rows.append(made.read_bytes())
    assert "read set: 2 files, 90 images, channels first, (N, C, H, W), under x and y" in re.sub(r"\s+", " ", output)
    assert rows[0] == rows[2]
    assert rows[1] == rows[3]


def test_images_that_are_only_read_need_no_encoder_if_nothing_is_described(tmp_path, capsys):
    """And a description can follow in the same folder. That --selection does nothing to them, and how many are taken, is said."""
    np.savez(tmp_path / "set.npz", image=RNG.integers(0, 256, (90, 8, 8, 1), dtype=np.uint8), label=np.arange(90) % 10)
    small = [
        "--methods",
        f"npz:{tmp_path / 'set.npz'}",
        "--synthetic",
        "40",
        "--test",
        "40",
        "--workers",
        "1",
        "--selection.labels",
        "soft",
    ]
    for part in ("encoder", "classifier", "description"):
        small += [f"--{part}.steps", "5"]
    small += ["--evaluation.autoattack-images", "0", "--evaluation.pgd-steps", "2", "--out", str(tmp_path / "out")]
    assert run_cifar.main([*small, "--no-describe"]) == 0
    captured = capsys.readouterr()
    assert "90 images, (N, H, W, C), under image and label; 40 of them are taken (--synthetic)" in " ".join(captured.out.split())
    assert "keep their labels and are not selected" in captured.err
    first = json.loads((tmp_path / "out" / "summary.json").read_text())["results"]
    assert sorted(first) == ["classifier/npz-set/seed0", "data", "evaluate/npz-set/seed0", "read/npz-set/seed0", "split/seed0"]
    assert len(Result(tmp_path / "out").description) == 0
    assert run_cifar.main(small) == 0
    second = json.loads((tmp_path / "out" / "summary.json").read_text())["results"]
    assert set(second) - set(first) == {"encoder/seed0", "judge/seed0", "describe/npz-set/seed0"}
    assert {name: second[name] for name in first} == first
    assert run_cifar.main([*small, "--no-describe", "--until", "description"]) == 1
    assert "--until description: --no-describe leaves it out" in capsys.readouterr().err
