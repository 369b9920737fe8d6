"""How strongly, and for how long, to guide: chosen from training and validation images, on which the judge is trained, so that labels
stay right. Evaluation on the validation split is then not independent of the choice; the test images are."""

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
    """Scale and window of a method: within each of settings.windows the largest of SCALES at which the judge, a classifier that guides
    nothing, disagrees with the labels of at most settings.label_error more of the images than unguided; of the windows that with the most
    diverse images there (mean distance to the own class centre in the judge's features).

    make(method, settings): images of that scale and window, all trials from the same noise. The label error is taken to grow with the
    scale: bisection. Returns scale, window, label_error, diversity, and whether the least scale already asks too much (reached: False).
    """
    tries = count(2)  # the unguided images are the first
    found: list[dict[str, Any]] = []
    most = _wrong(judge, make(Method("unguided", "unguided"), settings)) + settings.label_error
    for window in settings.windows:
        seen: dict[int, dict[str, Any]] = {}  # by place in SCALES
        low, high = -1, len(SCALES)  # kept, refused
        while high - low > 1:
            place = (low + high) // 2
            images = make(replace(method, scale=SCALES[place], automatic=False), replace(settings, window=window))
            seen[place] = {"scale": SCALES[place], "window": list(window), **_described(judge, images)}
            low, high = (place, high) if seen[place]["label_error"] <= most else (low, place)
            on_trial(next(tries), trials(settings))
        found.append({**seen[max(low, 0)], "reached": low >= 0})
    return max(found, key=lambda one: (one["reached"], one["diversity"]))


def _described(judge: nn.Module, images: Images) -> dict[str, float]:
    features = unit_features(ClassifierFeatures(judge), images.x).double().numpy()
    return {"label_error": _wrong(judge, images), "diversity": separation_and_diversity(features, images.y.numpy())[1]}


def trials(settings: GenerationSettings) -> int:
    """Sets of pilot images that choose_strength looks at, at most."""
    return 1 + len(settings.windows) * len(SCALES).bit_length()


def _wrong(judge: nn.Module, images: Images) -> float:
    """Share of labels with which the judge disagrees."""
    return float((pseudo_labels(judge, images.x) != images.y).double().mean())
