"""Chooses how strongly and how long to guide so that labels stay right, using the training and validation images that the judge is trained
on. Evaluation on the validation split is therefore not independent of the choice; evaluation on the test images is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
from torch import nn

from contrastive_dp import ClassifierFeatures
from image_experiments.data.images import Images
from image_experiments.evaluation.features import separation_and_diversity
from image_experiments.models.labels_and_features import pseudo_labels, unit_features
from image_experiments.synthesis.generation import GenerationSettings
from image_experiments.synthesis.methods import Method

SCALES = tuple(float(scale) for scale in np.geomspace(0.02, 1.28, 25))


def choose_strength(
    make: Callable[[Method, GenerationSettings], Images],
    method: Method,
    settings: GenerationSettings,
    judge: nn.Module,
    on_trial: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Scale and window of a method. For each of settings.windows: the largest of SCALES at which the judge, a classifier not used for
    guidance, disagrees with the labels at most settings.label_error more often than for unguided images. Of the windows: the one whose
    images are then most diverse (mean distance to the centre of their class in the judge's features).

    make(method, settings): images with that scale and window; all trials use the same noise. Bisection assumes that the label error grows
    with the scale. Returns scale, window, label_error, diversity, reached (False if even the smallest scale is too strong), largest (True
    if the largest scale is not too strong, so that a larger one might do) and unguided_label_error.
    """
    tries = count(2)  # the unguided images are the first try
    found: list[dict[str, Any]] = []
    unguided = _wrong(judge, make(Method("unguided", "unguided"), settings))
    most = unguided + settings.label_error
    for window in settings.windows:
        seen: dict[int, dict[str, Any]] = {}  # by index in SCALES
        low, high = -1, len(SCALES)  # accepted, rejected
        while high - low > 1:
            place = (low + high) // 2
            images = make(replace(method, scale=SCALES[place], automatic=False), replace(settings, window=window))
            seen[place] = {"scale": SCALES[place], "window": list(window), **_described(judge, images)}
            low, high = (place, high) if seen[place]["label_error"] <= most else (low, place)
            on_trial(next(tries), trials(settings))
        found.append({**seen[max(low, 0)], "reached": low >= 0, "largest": high == len(SCALES)})
    return {**max(found, key=lambda one: (one["reached"], one["diversity"])), "unguided_label_error": unguided}


def _described(judge: nn.Module, images: Images) -> dict[str, float]:
    features = unit_features(ClassifierFeatures(judge), images.x).double().numpy()
    return {"label_error": _wrong(judge, images), "diversity": separation_and_diversity(features, images.y.numpy())[1]}


def trials(settings: GenerationSettings) -> int:
    """Largest number of pilot sets that choose_strength tries."""
    return 1 + len(settings.windows) * len(SCALES).bit_length()


def images_of_trial(settings: GenerationSettings, size: int) -> int:
    """The pilot, in whole batches: guidance compares the images of a batch."""
    return -(-settings.pilot // size) * size


def images_tried(settings: GenerationSettings, size: int) -> int:
    """Images of all trials together, at most."""
    return images_of_trial(settings, size) * trials(settings)


def _wrong(judge: nn.Module, images: Images) -> float:
    """Fraction of labels that the judge disagrees with."""
    return float((pseudo_labels(judge, images.x) != images.y).double().mean())
