"""Pictures of a run: samples of every method (one row per class), learning curves, robust accuracy by method. Drawn from its files only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from command_line.drawing import DASHES, DPI, bare_figure, draw, new_figure, read_columns, shape, styled
from command_line.output import prepare_folder, write_whole
from command_line.words import attack_in_words, distinct_places, in_words
from image_experiments.data.dataset import Array
from image_experiments.data.npz_files import ImageFile
from image_experiments.data.stored_dataset import load_dataset
from image_experiments.engine.settings import Settings

ACROSS = 8
LEGIBLE_CLASSES = 43


def draw_all(out: Path, settings: Settings) -> list[Path]:
    """Draw samples.png for all methods and for each one, curves.png and robust_accuracy.png; returns their paths."""
    methods = [method.label for method in settings.parsed_methods()]
    data = load_dataset(out / "data" / "images.npz")
    panels = {"real": (data.images, data.labels)}
    for label in methods:
        path = out / "synthetic" / label / f"seed{settings.seed}.npz"
        if path.is_file() and label != "real":
            file = ImageFile(path, len(data.classes), data.images.shape[1:])
            panels[label] = (file.images, file.labels)
    write_mosaics(out, panels, len(data.classes))
    written = [_draw_samples(out / "samples.png", panels, data.classes)]
    for label, panel in panels.items():
        if label != "real":
            written.append(_draw_samples(out / "synthetic" / label / "samples.png", {label: panel}, data.classes))
    drawings: dict[str, Callable[[Path], Any]] = {
        "curves": partial(
            draw_curves, methods=methods, seed=settings.seed, models=0 if settings.diffusion.load else settings.seeds
        ),
        "robust_accuracy": draw_robust_accuracy,
    }
    return written + draw(out, drawings)


def write_mosaics(out: Path, panels: dict[str, tuple[Array, Array]], classes: int) -> list[Path]:
    """Write mosaics/METHOD.png: the images in samples.png, pixel for pixel, for use in figures/."""
    prepare_folder(out / "mosaics")
    rows = min(classes, LEGIBLE_CLASSES)
    return [
        write_whole(out / "mosaics" / f"{label}.png", Image.fromarray(mosaic(images, labels, rows)).save)
        for label, (images, labels) in panels.items()
    ]


def _draw_samples(path: Path, panels: dict[str, tuple[Array, Array]], classes: tuple[str, ...]) -> Path:
    """Images of each class, one row per class and one panel per method."""
    with styled():
        rows = min(len(classes), LEGIBLE_CLASSES)
        side = 0.32
        width = (ACROSS * side + 0.4) * len(panels) + 0.9
        figure = bare_figure((width, rows * side + 0.5))
        axes = figure.subplots(1, len(panels), squeeze=False)
        for axis, (name, (images, labels)) in zip(axes[0], panels.items(), strict=True):
            axis.imshow(mosaic(images, labels, rows), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_title(in_words(name), fontsize=10)
            axis.set_xticks([])
            height = images.shape[1] + 1
            axis.set_yticks([height * k + height / 2 for k in range(rows)], classes[:rows] if axis is axes[0][0] else [""] * rows)
            axis.tick_params(length=0)
            axis.grid(False)
            for spine in axis.spines.values():
                spine.set_visible(False)
        return write_whole(path, partial(figure.savefig, dpi=DPI, metadata={"Software": None}))


def mosaic(images: Array, labels: Array, rows: int) -> Array:
    """Images of classes 0 .. rows-1, one row each, spread over the file, as neighbours may be frames of one video; white where missing."""
    _, height, width, channels = images.shape
    sheet = np.full((rows * (height + 1), ACROSS * (width + 1), channels), 255, dtype=np.uint8)
    for k in range(rows):
        members = np.flatnonzero(labels == k)
        shown = members[np.linspace(0, len(members) - 1, min(ACROSS, len(members))).astype(int)]
        for i, image in enumerate(images[shown]):
            sheet[k * (height + 1) : k * (height + 1) + height, i * (width + 1) : i * (width + 1) + width] = image
    return sheet[..., 0] if channels == 1 else sheet


def draw_curves(out: Path, methods: list[str], seed: int, models: int) -> Any:
    """Loss of the diffusion models, one for each of `models` seeds; loss and validation accuracy of the classifiers of the first seed."""
    figure, (left, middle, right) = new_figure(3)
    paths = [out / "curves" / f"diffusion-seed{number}.csv" for number in range(seed, seed + models)]
    trained = [curve for path in paths if path.is_file() and (curve := read_columns(path))]
    for i, curve in enumerate(trained):
        said = None if i else f"each seed ({len(trained)})"
        left.plot(curve["step"], curve["loss"], lw=1, alpha=0.6, color=shape(0)["color"], label=said)
    names = [in_words(method) for method in methods]
    for method, name, place in zip(methods, names, distinct_places(names), strict=True):
        curve = read_columns(out / "curves" / f"{method}-seed{seed}.csv")
        if not curve:
            continue
        look = {**shape(place), "ls": DASHES[place % len(DASHES)], "ms": 4}
        middle.plot(curve["step"], curve["loss"], label=name, **look)
        if curve["robust_accuracy"].dtype.kind == "f":
            right.plot(curve["step"], curve["robust_accuracy"], **look)
    for axis, title, y in (
        (left, "diffusion model", "loss"),
        (middle, "classifiers, first seed", "training loss"),
        (right, "validation images, PGD-10", "robust accuracy"),
    ):
        axis.set(xlabel="step", ylabel=y)
        axis.set_xlim(left=0)  # a single mark would otherwise get an axis of its own step alone
        axis.set_title(title, fontsize=10)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    return figure


def draw_robust_accuracy(out: Path) -> Any:
    """Robust accuracy of every method: one mark per seed with two standard errors of its test images, and the mean as a bar."""
    table = read_columns(out / "details.csv")
    attacks = list(dict.fromkeys(zip(table["attack"], table["norm"], table["eps"], strict=True)))
    methods = list(dict.fromkeys(table["method"]))
    names = [in_words(method) for method in methods]
    places = distinct_places(names)
    figure, axes = new_figure(len(attacks), height=1.2 + 0.35 * len(methods), one_scale=True)
    for axis, (attack, norm, eps) in zip(axes, attacks, strict=True):
        rows = (table["attack"] == attack) & (table["norm"] == norm) & (table["eps"] == eps)
        for i, method in enumerate(methods):
            of = rows & (table["method"] == method)
            values, reach = table["robust_accuracy"][of], 2 * table["standard_error"][of]
            height = i + np.linspace(-0.2, 0.2, len(values) + 2)[1:-1]  # beside each other, so that each can be seen
            axis.errorbar(values, height, xerr=reach, **{**shape(places[i]), "ms": 4, "elinewidth": 0.8, "alpha": 0.6})
            axis.plot([values.mean()] * 2, [i - 0.3, i + 0.3], color="0.2", lw=2)
        axis.set_yticks(range(len(methods)), names)
        axis.invert_yaxis()
        axis.set_xlabel("robust accuracy")
        axis.set_title(f"{attack_in_words(attack, norm, eps)}, {table['images'][rows][0]:,.0f} images", fontsize=10)
    figure.suptitle("dots: seeds, with two standard errors of the test images; bars: means", fontsize=8)
    return figure
