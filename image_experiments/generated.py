"""Generated images on their way to other trainers: an npz file, a folder of pictures, a torch Dataset."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from command_line.output import UserError, prepare_folder, temporary_name, write_csv
from image_experiments.data.dataset import Array
from image_experiments.data.npz_files import ImageFile, stream_images

HEADER = ("file_name", "label", "class", "method", "strength", "seed", "number")
"""Of metadata.csv. No column may be called image: Hugging Face's datasets would take it for the picture."""


@dataclass(frozen=True, eq=False)
class Made:
    """The images of a method and seed. strength: scale of the guidance, or standard deviation of the noise; nan if there is none."""

    file: ImageFile
    method: str
    strength: float
    seed: int


class Generated(torch.utils.data.Dataset[tuple[Any, int]]):
    """Generated images of a run, of one method or several, as a torch Dataset: `generated[i]` is (image (C, H, W) in [0, 1], label).

    parts: where they are; mapped, not read. classes: names. transform: of the image tensor, for example an augmentation.
    """

    def __init__(self, parts: Sequence[Made], classes: Sequence[str], transform: Callable[[Tensor], Any] | None = None) -> None:
        self.parts, self.classes, self.transform = list(parts), list(classes), transform
        self.starts = np.cumsum([0, *(len(part.file) for part in parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range: there are {len(self)} images")
        number = index % len(self)
        place = int(np.searchsorted(self.starts, number, side="right")) - 1
        images, labels = self.parts[place].file.rows(np.array([number - self.starts[place]]))
        image = torch.from_numpy(images[0]).permute(2, 0, 1).float() / 255
        return (image if self.transform is None else self.transform(image)), int(labels[0])

    def pieces(self) -> Iterator[tuple[Array, Array]]:
        """uint8 images (n, H, W, C) and labels, in pieces."""
        for part in self.parts:
            yield from part.file.pieces()

    def table(self) -> Any:
        """A row an image, as a pandas DataFrame: label, class, method, strength, seed, and its number within its method and seed."""
        import pandas as pd

        return pd.DataFrame(self._rows(), columns=list(HEADER)).drop(columns="file_name")

    def to_npz(self, path: str | Path) -> Path:
        """Write `image` uint8 (N, H, W, C), `label` (N,), and soft labels if all images have them, as Gowal's, Rebuffi's and Wang's code
        reads them. One method and seed is the run's own file byte by byte. Raises UserError for a path that does not end in .npz."""
        target = Path(path)
        if target.suffix != ".npz":
            raise UserError(f"{path}: give a name that ends in .npz")
        prepare_folder(target.parent)
        soft = [np.asarray(part.file.soft) for part in self.parts if part.file.soft is not None]
        whole = np.concatenate(soft) if len(soft) == len(self.parts) else None
        return stream_images(target, len(self), self.parts[0].file.images.shape[1:], self.pieces(), whole)

    def to_image_folder(self, folder: str | Path) -> Path:
        """Write FOLDER/train/CLASS/METHOD-seedN-NUMBER.png and FOLDER/train/metadata.csv with label, method, strength and seed of each.

        It is a folder of images for torchvision's ImageFolder (FOLDER/train) and for Hugging Face's datasets: load_dataset("imagefolder",
        data_dir=FOLDER). ImageFolder numbers classes by their letters ("10" before "8"): take `label` from metadata.csv. It refuses a class
        without images unless allow_empty=True. Written beside and renamed, so it is whole or not there. Raises UserError if there is one
        already.
        """
        from PIL import Image

        target = Path(folder)
        if target.exists():
            raise UserError(f"{folder}: is there already; give a folder that is not, or remove it")
        prepare_folder(target.parent)
        making = target.with_name(temporary_name(target.name))
        try:
            rows = self._rows()
            # also classes without images, or ImageFolder would number the others anew (with allow_empty=True)
            for name in self.classes:
                _make_class(making / "train", str(name))
            pictures = (image for images, _ in self.pieces() for image in images)
            for image, row in zip(pictures, rows, strict=True):
                Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(making / "train" / row[0])
            write_csv(making / "train" / "metadata.csv", HEADER, rows)
            os.replace(making, target)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return target

    def _rows(self) -> list[tuple[Any, ...]]:
        """Under HEADER."""
        rows = []
        for part in self.parts:
            for number, label in enumerate(part.file.labels.tolist()):
                name = self.classes[label]
                file = f"{name}/{part.method}-seed{part.seed}-{number:07d}.png"
                rows.append((file, label, name, part.method, part.strength, part.seed, number))
        return rows


def _make_class(folder: Path, name: str) -> None:
    """Create its folder there. Raises UserError for a name that leads elsewhere, and if there is one already: for a disk that does not tell
    capitals apart the classes A and a are one folder."""
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"class {name!r}: is no name of a folder; rename it")
    try:
        (folder / name).mkdir(parents=True)
    except FileExistsError:
        raise UserError(
            f"class {name}: this disk takes its folder for that of another class, as of the same letters; choose another disk"
        ) from None
