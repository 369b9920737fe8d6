"""Checks before anything is trained: whether files, networks and sizes fit the data. Raises UserError, one line each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from command_line.output import UserError, listed
from image_experiments.data.dataset import Dataset
from image_experiments.data.given import check_given
from image_experiments.data.npz_files import ImageFile
from image_experiments.data.official import CLASSES, check_official, is_a_copy
from image_experiments.data.read_dataset import read_dataset
from image_experiments.engine.plan import may_relabel
from image_experiments.engine.settings import Settings, check_labels, check_windows
from image_experiments.engine.stages import Stage, flat_name
from image_experiments.evaluation.robustness import lacks_tiles
from image_experiments.models.classifier_files import read_classifier
from image_experiments.models.classifiers import classifier_without_weights
from image_experiments.models.diffusion_files import read_diffusion
from image_experiments.models.unet import make_unet
from image_experiments.synthesis.methods import UNCONDITIONAL
from image_experiments.training.attacks import Threat

LONGEST_NAME = 200
"""Longest file name in bytes that leaves room for suffixes; file systems allow 255."""


@dataclass(frozen=True)
class Facts:
    """What the checks need to know about the data. shape: (C, H, W); classes: names; pool, test: number of images to train and test on."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    pool: int
    test: int


def facts_of(data: dict[str, Any]) -> Facts:
    """The facts about data that were read, from the results of the data stage."""
    height, width, channels = data["shape"]
    return Facts((channels, height, width), tuple(data["classes"]), data["pool"], data["test"])


KNOWN: dict[str, tuple[tuple[int, int, int], int, int]] = {
    "digits": ((1, 8, 8), 600, 1197),
    "cifar10": ((3, 32, 32), 50_000, 10_000),
    "gtsrb": ((3, 32, 32), 26_640, 12_630),
    "svhn": ((3, 32, 32), 73_257, 26_032),
    "stl10": ((3, 96, 96), 5_000, 8_000),
    "mnist": ((1, 32, 32), 60_000, 10_000),
    "mnist-t10k": ((1, 32, 32), 5_000, 5_000),
}
"""Shape, training images and test images of data sets for which these are known without reading."""


def facts_without_reading(settings: Settings) -> Facts | None:
    """The facts about a whole data set whose sizes are known in advance; None for others, and for some classes, which differ in number."""
    if settings.classes or settings.dataset not in KNOWN or is_a_copy(settings.dataset, settings.data_dir):
        return None
    shape, pool, test = KNOWN[settings.dataset]
    if settings.image_size:
        shape = (shape[0], settings.image_size, settings.image_size)
    return Facts(shape, tuple(CLASSES[settings.dataset]), pool, test)


def known_facts(settings: Settings) -> tuple[Dataset | None, Facts]:
    """The data, read only if their sizes are not known in advance, and the facts about them."""
    facts = facts_without_reading(settings)
    if facts is not None:
        return None, facts
    found = read_dataset(settings.dataset, settings.data_dir, settings.image_size, settings.group_pattern, settings.classes)
    _, height, width, channels = found.images.shape
    return found, Facts((channels, height, width), found.classes, len(found.labels), len(found.test_labels))


def check_beforehand(settings: Settings, facts: Facts) -> list[str]:
    """Check everything that depends on the data; returns what is doubtful but not wrong."""
    if settings.dataset in CLASSES and not is_a_copy(settings.dataset, settings.data_dir):
        check_official(settings.dataset, settings.data_dir)
    if settings.test > facts.test:
        raise UserError(f"--test {settings.test}: there are {facts.test} test images; use at most that many, or 0 for all")
    left = facts.pool - settings.validation
    if left < max(settings.train, 1):
        name, value = ("train", settings.train) if settings.train and left > 0 else ("validation", settings.validation)
        raise UserError(
            f"--{name} {value}: {max(left, 0)} images are left beside {settings.validation} for validation, of {facts.pool} in all; use "
            "fewer"
        )
    _check_networks(settings, facts)
    _check_counts(settings, facts)
    _check_threats(settings, facts)
    doubts = _check_files(settings, facts)
    if settings.diffusion.load is not None:
        _check_diffusion(settings, facts)
    return doubts


def check_names(stages: Sequence[Stage]) -> None:
    """Raise UserError for a stage whose files could not be written under its name."""
    for stage in stages:
        parts = [flat_name(stage.name), *(step for path in stage.outputs.values() for step in path.split("/"))]
        longest = max(parts, key=lambda part: len(part.encode()))
        if len(longest.encode()) > LONGEST_NAME:
            raise UserError(
                f"--methods: results of {stage.name[:60]}... would be files of {len(longest.encode())} bytes in the name, more than "
                f"{LONGEST_NAME}; rename the file"
            )


def _check_networks(settings: Settings, facts: Facts) -> None:
    makes_images = any(method.generates or method.kind == "noise" for method in settings.parsed_methods())
    for part in ("classifier", "encoder"):
        try:
            classifier_without_weights(getattr(settings, part).network, len(facts.classes), facts.shape)
        except ValueError as error:
            raise UserError(f"--{part}.network: {error}") from None
    if makes_images and settings.diffusion.load is None:
        try:
            with torch.device("meta"):
                make_unet(settings.diffusion, len(facts.classes), facts.shape, 0)
        except ValueError as error:
            raise UserError(f"--diffusion.channels: {error}") from None


def _check_counts(settings: Settings, facts: Facts) -> None:
    classes, methods = len(facts.classes), settings.parsed_methods()
    anchored = next((method.text for method in methods if method.kind == "anchored"), None)
    if anchored and settings.generation.anchors < classes:
        raise UserError(
            f"--generation.anchors {settings.generation.anchors}: {anchored} needs one of each of {classes} classes; use more"
        )
    by_centre = settings.selection.criterion == "class-separation"
    if 0 < settings.train < classes and (anchored or by_centre):
        needs = anchored or "--selection.criterion class-separation"
        raise UserError(f"--train {settings.train}: {needs} needs a training image of each of {classes} classes; use more")


def check_distance(flag: str, threat: Threat, shape: tuple[int, int, int]) -> None:
    """Raise UserError for an l_2 radius that reaches from an image to any other."""
    channels, height, width = shape
    across = math.sqrt(channels * height * width)  # the largest distance between two images
    if threat.norm == "l2" and threat.eps >= across:
        raise UserError(
            f"{flag} {threat.eps:g} in l2: images of {width}x{height} lie at most {across:.3g} apart; did you mean {threat.eps:g}/255?"
        )


def _check_threats(settings: Settings, facts: Facts) -> None:
    _, height, width = facts.shape
    threats = [settings.threat(), *settings.evaluation.further()]
    for threat in threats:
        check_distance("--eps" if threat == settings.threat() else "--evaluation.threats", threat, facts.shape)
        if lacks_tiles(settings.evaluation, threat, height, width):
            raise UserError(
                f"--norm l2: AutoAttack's Square attack cannot tile images of {width}x{height} pixels; use "
                "--evaluation.autoattack-parts apgd, or another --image-size"
            )


def _check_files(settings: Settings, facts: Facts) -> list[str]:
    channels, height, width = facts.shape
    doubts = []
    for method in settings.parsed_methods():
        if method.kind == "noise-real" and (settings.selection.surplus > 1 or may_relabel(settings)):
            doubts.append(
                f"{method.text}: noise on real images keeps their labels, and is not selected; --selection does not act on it"
            )
        if method.file is not None:
            given = check_given(method.file, len(facts.classes), (height, width, channels), settings.synthetic)
            lacking = [name for name, count in zip(facts.classes, given.class_counts(len(facts.classes)), strict=True) if not count]
            doubts += [doubt for part in given.files for doubt in _soft_doubts(part)]
            if lacking:
                doubts.append(
                    f"{method.file} has no images of {listed(lacking)}: are its labels numbered as the data's classes are?"
                )
    if settings.encoder_from is not None:
        try:
            _, found, _ = read_classifier(
                settings.encoder_from, len(facts.classes), facts.shape, settings.encoder.network, dataset=settings.dataset
            )
        except (ValueError, OSError) as error:
            raise UserError(f"--encoder-from: {error}") from None
        if found != settings.encoder.network:
            raise UserError(
                f"--encoder.network {settings.encoder.network}: {settings.encoder_from} says that it holds a {found}; name that"
            )
    return doubts


def _soft_doubts(given: ImageFile) -> list[str]:
    """What is doubtful about the soft labels of a file, if it has any."""
    if given.soft is None:
        return []
    other = sum(
        int((np.asarray(given.soft[i : i + ROWS]).argmax(axis=1) != given.labels[i : i + ROWS]).sum())
        for i in range(0, len(given), ROWS)
    )
    given.forget()
    return [
        f"{given.path}: {other} of {len(given)} labels are not the most probable class of their soft label; classifiers learn the soft "
        "labels, the description uses the hard ones"
    ] * (other > 0)


ROWS = 100_000


def _check_diffusion(settings: Settings, facts: Facts) -> None:
    methods = [method for method in settings.parsed_methods() if method.generates]
    try:
        network, schedule, conditional = read_diffusion(settings.diffusion, None, facts.classes, facts.shape)
    except (ValueError, OSError) as error:
        raise UserError(f"--diffusion: {error}") from None
    check_labels(settings, methods, conditional)
    null: Any = network.null_label
    for method in methods:
        if method.kind == "classifier-free" and null is None:
            raise UserError(
                f"--methods {method.text}: this model's null label is not known; give --diffusion.null-label, or use "
                "one trained with label dropout"
            )
        if method.automatic and not conditional:
            raise UserError(f"--methods {method.text}: {UNCONDITIONAL}; give a number")
    check_windows(settings, methods, len(schedule), "model's timesteps")
    if settings.generation.steps > len(schedule):
        raise UserError(f"--generation.steps {settings.generation.steps}: the model has {len(schedule)} timesteps; use fewer")


def encoder_line(settings: Settings, stage: str, results: dict[str, Any]) -> str:
    """What to print about an encoder that was read: its accuracy shows whether it expects images in this form."""
    found = f"{results['last_clean_accuracy']:.3f} of the {results['tried_on']} images right"
    return f"{stage}, {Path(settings.encoder_from or '').name}: {found}"


def encoder_doubts(read: dict[str, dict[str, Any]], classes: int) -> list[str]:
    """What is doubtful about encoders that were read."""
    return [
        f"{stage}: {one['last_clean_accuracy']:.3f} right is next to guessing ({1 / classes:.3f}): its classes may be in another order, or "
        "it may expect images that are normalised, not in [0, 1]"
        for stage, one in read.items()
        if one["last_clean_accuracy"] < min(2 / classes, 0.5 + 0.5 / classes)
    ]
