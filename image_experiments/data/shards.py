"""Generated images in shards: each depends only on its recipe and its number, so any machine can make any of them, in any order.

Why our own code: the field's programs read npz; shard libraries (webdataset, datasets) write other formats, and none checks recipes.

A shard is an npz file plus a note (JSON: recipe, number, images, checksum). The note is written last; without it the shard does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line.output import UserError, file_digest, walk_links, write_json
from image_experiments.data.dataset import Array
from image_experiments.data.npz_files import ImageFile, stream_images

MOST = 1000  # shards per set: an interruption loses at most one shard, and 10^5 files in a folder would be unwieldy
NOTE = {"recipe", "about", "number", "shards", "count", "classes", "shape", "images", "sha256"}


@dataclass(frozen=True, eq=False)
class ShardPlan:
    """How a set of images is divided into shards.

    recipe: fingerprint of everything that determines the images. about: the same in words, for messages. count: total number of images.
    batch_size: images sampled together. classes: their number. shape: (H, W, C).
    """

    recipe: str
    about: dict[str, Any]
    count: int
    batch_size: int
    classes: int
    shape: tuple[int, int, int]

    @property
    def batches(self) -> int:
        """Total number of batches; the last one is cut."""
        return -(-self.count // self.batch_size)

    @property
    def batches_of_a_shard(self) -> int:
        """Batches per shard, such that there are at most MOST shards."""
        return -(-self.batches // MOST)

    @property
    def shards(self) -> int:
        """Total number of shards."""
        return -(-self.batches // self.batches_of_a_shard)

    def batches_of(self, number: int) -> range:
        """The batches of a shard."""
        return range(number * self.batches_of_a_shard, min((number + 1) * self.batches_of_a_shard, self.batches))

    def size(self, batches: range) -> int:
        """Number of images in these batches."""
        return min(batches.stop * self.batch_size, self.count) - batches.start * self.batch_size


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npz"


def make_shards(
    folder: Path,
    plan: ShardPlan,
    numbers: Iterable[int],
    make: Callable[[int], tuple[Array, Array]],
    on_batch: Callable[[int], None],
) -> None:
    """Make the missing ones of the shards `numbers`; make(batch) -> images (n, H, W, C) and labels of a full batch.

    on_batch(total number of batches done). Raises UserError if the folder has a shard of another recipe.
    """
    for number in numbers:
        batches = plan.batches_of(number)
        path = shard_path(folder, number)
        note = read_note(path)
        if note is not None and path.is_file():
            _check_recipe(note, plan, path)
            if file_digest(path) == note["sha256"]:  # otherwise it is damaged and made again
                continue

        def pieces(batches: range = batches) -> Iterator[tuple[Array, Array]]:
            for batch in batches:
                images, labels = make(batch)
                kept = plan.size(range(batch, batch + 1))
                on_batch(batch + 1)
                yield images[:kept], labels[:kept]

        stream_images(path, plan.size(batches), plan.shape, pieces())
        about = {"recipe": plan.recipe, "about": plan.about, "number": number, "shards": plan.shards, "count": plan.count}
        data = {"classes": plan.classes, "shape": list(plan.shape), "images": plan.size(batches), "sha256": file_digest(path)}
        write_json(path.with_suffix(".json"), about | data)


def read_note(path: Path) -> dict[str, Any] | None:
    """The note of a shard, or None if there is none. Raises UserError for a damaged one."""
    note = path.with_suffix(".json")
    if not note.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        if set(found) == NOTE and 0 < found["shards"] <= MOST:
            return found
    except (ValueError, TypeError):
        pass
    raise UserError(f"{note} is damaged; delete it and its npz, and make the shard again")


SHARD = re.compile(r"shard-\d.*\.npz")


def find_shards(folders: Sequence[Path]) -> list[Path]:
    """All shards in these folders and their subfolders, also linked ones. Raises UserError if there are none."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give folders of shards")
        here = sorted(
            place / name for place, _, names in walk_links(folder, lambda _path: None) for name in names if SHARD.fullmatch(name)
        )
        if not here:
            raise UserError(f"{folder}: no shards (shard-NUMBER.npz) in there; give folders of shards")
        found += here
    return found


def merge(paths: Sequence[Path], out: Path, manifest: Path, on_shard: Callable[[int], None] = lambda _n: None) -> dict[str, Any]:
    """Merge the shards of one set, given in any order, into one npz file, and list their checksums in the manifest.

    The file depends only on the set. Constant memory. If a shard is missing, altered, present twice with different content, or of another
    set, raises UserError naming it and writes nothing. Replaces what is there; see check_replaced.
    """
    notes: dict[int, tuple[Path, dict[str, Any]]] = {}
    for path in paths:
        note = read_note(path)
        if note is None:
            raise UserError(f"{path}: has no note ({path.with_suffix('.json').name}) beside it; copy both, or make the shard again")
        first = next(iter(notes.values()), (path, note))
        _check_same_set(first, (path, note))
        if note["number"] in notes and notes[note["number"]][1]["sha256"] != note["sha256"]:
            raise UserError(
                f"{path} and {notes[note['number']][0]} are the same shard with different content; find out which is right, delete one"
            )
        notes.setdefault(note["number"], (path, note))
    some = next(iter(notes.values()))[1]
    missing = [number for number in range(some["shards"]) if number not in notes]
    if missing:
        names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise UserError(f"{len(missing)} of {some['shards']} shards are missing ({names}); make them, or name their folders too")
    ordered = [notes[number] for number in range(some["shards"])]
    for path, note in ordered:
        if file_digest(path) != note["sha256"]:
            raise UserError(
                f"{path}: altered or damaged since it was made (its checksum is not its note's); delete it, make it again"
            )
    shape = (some["shape"][0], some["shape"][1], some["shape"][2])

    def pieces() -> Iterator[tuple[Array, Array]]:
        for number, (path, _) in enumerate(ordered):
            yield from ImageFile(path, some["classes"], shape).pieces()
            on_shard(number + 1)

    unfinished = stream_images(out.with_name(f"unfinished-{out.name}"), some["count"], shape, pieces())
    content = {
        **{key: some[key] for key in ("recipe", "about", "count", "classes", "shape")},
        "sha256": file_digest(unfinished),
        "shards": [{key: note[key] for key in ("number", "images", "sha256")} for _, note in ordered],
    }
    write_json(manifest, content)  # before the images get their name: images without a manifest are taken for those of others
    unfinished.replace(out)
    return content


def _check_recipe(note: dict[str, Any], plan: ShardPlan, path: Path) -> None:
    """Raise UserError for a shard that was made with other settings, or with another precision that was measured to be fast."""
    if (note["recipe"], note["about"]) != (plan.recipe, plan.about):
        raise UserError(f"{path}: made with {_difference(note['about'], plan.about)}; delete it or use another folder")


def _check_same_set(first: tuple[Path, dict[str, Any]], other: tuple[Path, dict[str, Any]]) -> None:
    if any(first[1][name] != other[1][name] for name in ("recipe", "about")):  # about: also what was measured to be fast
        words = _difference(other[1]["about"], first[1]["about"])
        raise UserError(f"{other[0]} is of another set than {first[0]}, made with {words}; merge shards of one set only")


def check_replaced(out: Path, manifest: Path, shard: Path) -> None:
    """Raise UserError if what is there already is of another set than a shard: it may have taken days."""
    note = read_note(shard)
    if note is None or not manifest.is_file():
        return
    try:
        before = json.loads(manifest.read_text(encoding="utf-8"))
        recipe, about = before["recipe"], before["about"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{manifest}: is damaged or no manifest of merged shards; choose another name than {out.name}") from None
    if recipe != note["recipe"]:
        raise UserError(f"{out}: holds another set, made with {_difference(about, note['about'])}; choose another name")


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """What differs, in words."""
    left, right = _flat(found), _flat(expected)
    changed = [
        f"{key} {left.get(key)} in place of {right.get(key)}" for key in sorted(left | right) if left.get(key) != right.get(key)
    ]
    return ", ".join(changed[:4]) or "other weights, code or versions"


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"settings.steps": 25, ...} of nested dictionaries."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
