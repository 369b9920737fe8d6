"""Assigns the files of a folder or archive to classes: only ROOT/train/CLASS/FILE and ROOT/test/CLASS/FILE are images of CLASS."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from command_line.output import UserError, printable
from image_experiments.data.archives import (
    IMAGE_SUFFIXES,
    TINY_LABELS,
    Entry,
    Rest,
    archive_entries,
    folder_entries,
)
from image_experiments.data.dataset import Array, Dataset
from image_experiments.data.decoding import Met, decode_all

PARTS = ("train", "test")
Arranged = dict[str, list[tuple[str, Entry]]]
"""{"train": [(class, file), ...], "test": [...]}"""


def from_tiny_imagenet(entries: Sequence[Entry], rest: Rest) -> tuple[list[Entry], list[str]]:
    """TinyImageNet's layout as train/CLASS/FILE and test/CLASS/FILE, and a message; other layouts as they are.

    There train/CLASS/images/FILE are training images, val/images/FILE those of val/val_annotations.txt (file and class between tabs), which
    become the test images, and test/images/FILE have no labels. Raises UserError for a validation image that is not in that file.
    """
    labels = next((entry for entry in entries if entry.name.endswith(TINY_LABELS)), None)
    if labels is None:
        return list(entries), []
    root = labels.name.removesuffix(TINY_LABELS)
    lines = [line.split("\t") for line in labels.read().decode("utf-8", "replace").splitlines() if line.strip()]
    class_of = {line[0]: line[1] for line in lines if len(line) > 1}
    found = []
    for entry in entries:
        steps = entry.name.removeprefix(root).split("/")
        if steps[0] == "train" and len(steps) == 4 and steps[2] == "images":
            steps = [*steps[:2], steps[3]]
        elif steps[:2] == ["val", "images"] and len(steps) == 3:
            if steps[2] not in class_of:
                raise UserError(f"{entry.source}: {entry.name} is not in {labels.name}; get the whole file")
            steps = ["test", class_of[steps[2]], steps[2]]
        elif steps[0] == "test":
            steps = ["unlabelled", *steps[1:]]
        if entry is not labels:
            found.append(replace(entry, name=root + "/".join(steps)))
    rest.folders = {name for name in rest.folders if not name.startswith(f"{root}test")}
    return sorted(found, key=lambda entry: entry.name), ["TinyImageNet's layout: its validation images are the test images"]


def arranged(entries: Sequence[Entry], rest: Rest, source: Path) -> tuple[Arranged, list[str]]:
    """Training and test files with their classes, and messages about what was left out.

    ROOT is the folder or archive itself, or one folder within it. Class names are compared in Unicode NFC, so the encoding of accents does
    not matter. Raises UserError if a file's class is unclear (outside the class folders, one folder deeper, in two ROOTs), for a class
    without a readable file, and for an image whose name is not UTF-8.
    """
    images = [entry for entry in entries if not entry.name.lower().endswith(".csv")]
    rest.others += [entry.name for entry in entries if entry.name.lower().endswith(".csv")]
    places = {entry.name: _place(entry.name) for entry in images}
    root = _root({place[:2] for place in places.values() if place is not None}, source)
    found: Arranged = {part: [] for part in PARTS}
    beside = []
    for entry in images:
        if (shown := printable(entry.name)) != entry.name:  # results are UTF-8, and hold these names
            raise UserError(f"{printable(str(source))}: the name {shown} is not UTF-8; rename it")
        place = places[entry.name]
        if place is None or place[0] != root:
            beside.append(entry.name)
            continue
        _, part, steps = place
        if len(steps) != 2:
            where = (
                f"lies in no class folder; put it into {part}/CLASS/"
                if len(steps) < 2
                else f"lies deeper than {part}/CLASS/; move it up"
            )
            raise UserError(f"{source}: {entry.name} {where}, or remove it")
        found[part].append((unicodedata.normalize("NFC", steps[0]), entry))
    for part in PARTS:
        if not found[part]:
            hint = "" if not beside else f" (images lie elsewhere: {beside[0]})"
            raise UserError(
                f"{source}: no images in {part}/CLASS/{hint}; give a folder with train/CLASS/* and test/CLASS/*, or a tar or zip of one"
            )
    _check_empty_classes(found, rest, root, source)
    return found, _left_out(beside, rest)


def _place(name: str) -> tuple[str, str, list[str]] | None:
    """(root, part, path components below) of a file, by the first folder named train or test; None if there is no such folder."""
    steps = name.split("/")
    at = next((i for i, step in enumerate(steps[:-1]) if step in PARTS), None)
    return None if at is None else ("/".join(steps[:at]), steps[at], steps[at + 1 :])


def _root(found: set[tuple[str, str]], source: Path) -> str:
    """The outermost folder that holds train/ and test/. Raises UserError if there are two at the same depth, or none.

    found: (folder, train or test) for all places with images.
    """
    roots = sorted({root for root, _ in found})
    whole = [root for root in roots if all((root, part) in found for part in PARTS)]
    if len(roots) > 1 and not whole:
        where = " and ".join(f"{part}/ lies in {root or '.'}/" for root, part in sorted(found)[:2])
        raise UserError(f"{source}: no folder holds both train/ and test/ ({where}); bring them together")
    outermost = [root for root in whole if root.count("/") + bool(root) == min(r.count("/") + bool(r) for r in whole)]
    if len(outermost) > 1:
        how = f"give one of them, for example {source / outermost[0]}" if source.is_dir() else "unpack it and give one of them"
        raise UserError(f"{source}: {outermost[0]}/ and {outermost[1]}/ both hold train/ and test/; {how}")
    return (outermost or roots or [""])[0]


def _check_empty_classes(found: Arranged, rest: Rest, root: str, source: Path) -> None:
    """Raise UserError for a class folder without any readable file, or for an image in a format that is not read."""
    below = f"{root}/" if root else ""
    for part in PARTS:
        folder = f"{below}{part}/"
        unread = next((name for name in rest.unread if name.startswith(folder)), None)
        if unread is not None:
            raise UserError(f"{source}: {unread} is of a kind that is not read; save it as png, jpg or ppm, or remove it")
        known = {name for name, _ in found[part]}
        kept = [*rest.folders, *(name.rpartition("/")[0] for name in rest.others)]
        steps = {name.removeprefix(folder).split("/")[0] for name in kept if name.startswith(folder)}
        empty = sorted(unicodedata.normalize("NFC", step) for step in steps if unicodedata.normalize("NFC", step) not in known)
        if empty:
            first = next((name for name in rest.others if name.startswith(f"{folder}{empty[0]}/")), None)
            holds = "is empty" if first is None else f"holds no image ({first.rpartition('/')[2]})"
            raise UserError(
                f"{source}: {folder}{empty[0]} {holds}; fill it with files of {' '.join(sorted(IMAGE_SUFFIXES))}, or remove the folder"
            )


def _left_out(beside: list[str], rest: Rest) -> list[str]:
    """One message for each kind of file that was left out."""
    kinds = {
        "outside train/ and test/": beside,
        "hidden": rest.hidden,
        "no images": [*rest.others, *rest.unread],
        "replaced by a later member of the same name": rest.replaced,
    }
    lines = []
    for kind, names in kinds.items():
        if names:
            suffixes = ", ".join(
                f"{n} {suffix or 'without a suffix'}" for suffix, n in Counter(Path(n).suffix for n in names).most_common(3)
            )
            lines.append(f"left out, {kind}: {len(names)} ({suffixes}), the first {names[0]}")
    return list(map(printable, lines))


TRACK_AND_FRAME = r"(?:\d{5}_)?(\d{5})_\d{5}"
"""GTSRB, as published or with the class before it: frames of one track are near-identical photographs of one sign."""


def read_class_folders(path: Path, image_size: int, group_pattern: str | None) -> Dataset:
    """Read a folder with train/CLASS/* and test/CLASS/*, or a tar or zip of one; classes are numbered in the order of their names.

    group_pattern: regular expression matched against the stem of a training file's name. Images with the same first group, of one class or
    of several, belong together and are never split between training and validation. None: GTSRB's names, TRACK_FRAME with five digits
    each, are recognised if every name has that form; there a track number starts again in every class.
    """
    rest = Rest()
    entries = folder_entries(path, rest) if path.is_dir() else archive_entries(path, rest)
    entries, tiny = from_tiny_imagenet(entries, rest)
    parts, left_out = arranged(entries, rest, path)
    notes = [*tiny, *left_out]
    classes = tuple(sorted({name for name, _ in parts["train"]}, key=lambda name: (natural(name), name)))
    strangers = sorted({name for name, _ in parts["test"]} - set(classes))
    if strangers:
        raise UserError(f"{path}: test class {strangers[0]!r} has no training images; add some or remove it")
    number = {name: i for i, name in enumerate(classes)}
    labels = {part: np.array([number[name] for name, _ in found], dtype=np.int64) for part, found in parts.items()}
    met = Met()
    images = {part: decode_all([entry for _, entry in found], image_size, met) for part, found in parts.items()}
    channels = max(part.shape[3] for part in images.values())
    # one grey, the other in colour
    images = {part: np.repeat(x, 3, axis=3) if x.shape[3] < channels else x for part, x in images.items()}
    names = {part: [(name, entry.name) for name, entry in found] for part, found in parts.items()}
    groups = group_numbers(names["train"], group_pattern)
    if group_pattern is None and len(set(groups.tolist())) < len(groups):
        notes.append(
            "groups: names have GTSRB's form TRACK_FRAME, so images of one track stay together; --group-pattern '' parts them"
        )
    notes += met.lines()
    doubts = shared_groups(names, group_pattern) if group_pattern else ()
    return Dataset(
        images["train"], labels["train"], groups, images["test"], labels["test"], classes, str(path), tuple(notes), tuple(doubts)
    )


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts class 10 after class 9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def shared_groups(names: Mapping[str, list[tuple[str, str]]], pattern: str) -> list[str]:
    """A doubt if test images are of groups, by the user's pattern, that training images have: of the same patient, or of one video."""
    expression = re.compile(pattern)
    found = {part: [expression.fullmatch(Path(name).stem) for _, name in files] for part, files in names.items()}
    known = {match.group(1) for match in found["train"] if match}
    seen = sum(match is not None and match.group(1) in known for match in found["test"])
    told = f"{seen} of {len(found['test'])} test images have names of groups (--group-pattern) that training images have"
    return [f"{told}: if these are the same groups, accuracy on them says nothing of new ones"] if seen else []


def group_numbers(files: list[tuple[str, str]], pattern: str | None) -> Array:
    """Group of each training file (class, name); by default each file is its own group. Raises UserError for a bad pattern."""
    stems = [Path(name).stem for _, name in files]
    try:
        expression = re.compile(TRACK_AND_FRAME if pattern is None else pattern)
    except re.error as error:
        raise UserError(f"--group-pattern {pattern}: no regular expression ({error}); for example '(\\d+)_\\d+'") from None
    matches = [expression.fullmatch(stem) for stem in stems] if expression.groups else []
    matches = [match if match and match.group(1) is not None else None for match in matches]
    if not all(matches) or not matches:
        if pattern:
            odd = next((stem for stem, match in zip(stems, matches, strict=False) if not match), stems[0])
            raise UserError(f"--group-pattern {pattern}: does not match {odd!r} with one group; for example '(\\d+)_\\d+'")
        return np.arange(len(files))
    keys = [("" if pattern else f"{name}/") + match.group(1) for (name, _), match in zip(files, matches, strict=True) if match]
    return np.unique(keys, return_inverse=True)[1]
