"""How much work each stage is relative to the others, in rough multiplications. For the progress bar; cost.py measures seconds."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from image_experiments.engine.checks import Facts
from image_experiments.engine.settings import Settings
from image_experiments.engine.stages import Stage
from image_experiments.evaluation.robustness import PASSES, parts_for, targets_of
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.unet import UNetSettings
from image_experiments.synthesis.strength import images_tried
from image_experiments.training.adversarial_training import ClassifierSettings, steps_of
from image_experiments.training.diffusion_training import DiffusionSettings

SMALL = 1e8
"""Work of a stage that only reads, writes or counts."""
BACKWARD = 3.0
"""Cost of a forward and a backward pass, in forward passes."""
ROBUST = 0.6
"""Assumed share of the test images that withstand an attack: AutoAttack's later parts attack only these."""


def work_of(stages: Sequence[Stage], settings: Settings, facts: Facts) -> dict[str, float]:
    """{stage: its work}."""
    return {stage.name: SMALL + _work(stage, settings, facts) for stage in stages}


def _work(stage: Stage, settings: Settings, facts: Facts) -> float:
    kind, arguments = stage.name.partition("/")[0], stage.arguments
    chosen: Any = arguments.get("settings")
    if (steps := steps_trained(stage)) and isinstance(chosen, DiffusionSettings):
        return steps * chosen.batch_size * BACKWARD * unet_work(chosen, facts.shape)
    if steps:
        passes = BACKWARD * (1 + (chosen.adversary != "none") * chosen.attack_steps)
        return float(steps * chosen.batch_size * passes * _classifier(chosen.network, facts.shape, len(facts.classes)))
    if kind in ("generate", "strength"):
        count = arguments.get("count") or images_tried(chosen, arguments["size"])
        guided = 0.0 if not arguments["method"].uses_encoder else BACKWARD * _network(settings, "encoder", facts)
        return float(count * chosen.steps * (unet_work(settings.diffusion, facts.shape) + guided))
    if kind == "evaluate":
        images, n = attacked(settings, facts)
        classes = len(facts.classes)
        parts = sum(PASSES[part] * targets_of(part, classes) for part in parts_for(classes, chosen.autoattack_parts))
        passes = images * chosen.pgd_steps * chosen.pgd_restarts + n * ROBUST * parts
        return float(len(arguments["threats"]) * passes * BACKWARD * _network(settings, "classifier", facts))
    return 0.0


def steps_trained(stage: Stage) -> int:
    """Steps of the training that a stage does, 0 if it trains nothing; a round does its part of all."""
    chosen = stage.arguments.get("settings")
    if stage.name.startswith("speed/") or not isinstance(chosen, ClassifierSettings | DiffusionSettings):
        return 0
    first, last = steps_of(chosen.steps, stage.arguments.get("of_rounds", (1, 1)))
    return last - first


def attacked(settings: Settings, facts: Facts) -> tuple[int, int]:
    """Numbers of images that PGD and AutoAttack attack."""
    images = (settings.test or facts.test) if settings.evaluation.split == "test" else settings.validation
    n = settings.evaluation.autoattack_images
    return images, images if n is None else min(n, images)


def _network(settings: Settings, part: str, facts: Facts) -> float:
    return _classifier(getattr(settings, part).network, facts.shape, len(facts.classes))


@functools.cache
def _classifier(network: str, shape: tuple[int, int, int], classes: int) -> float:
    """Multiplications in a forward pass of one image, counted by torch without computing anything."""
    with torch.device("meta"):
        made = make_classifier(network, classes, shape, [0.0] * shape[0], [1.0] * shape[0])
        with FlopCounterMode(display=False) as counter:
            made.eval()(torch.empty(1, *shape))
    return float(counter.get_total_flops())


def unet_work(settings: UNetSettings, shape: tuple[int, int, int]) -> float:
    """The same for a U-Net, from its convolutions: 2 k^2 c^2 per pixel, two per block, in both arms; the up arm has twice the input."""
    pixels = shape[1] * shape[2]
    blocks = 2 * settings.blocks + 2 * 1.5 * (settings.blocks + 1)
    return math.fsum(2 * 9 * width**2 * pixels / 4**level * blocks for level, width in enumerate(settings.channels))
