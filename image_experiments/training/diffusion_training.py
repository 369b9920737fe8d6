"""Trains the diffusion model on real images: contrastive_dp's loop with the settings of an image experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from contrastive_dp import Processes, TrainingSettings, train_noise_prediction
from contrastive_dp.processes import ALONE
from contrastive_dp.training import Augment
from image_experiments.data.images import Images
from image_experiments.models.precision import Compile, Precision, prepared_unet
from image_experiments.models.unet import UNetSettings, make_noise_prediction
from image_experiments.training.augmentation import Augmentation, augment


@dataclass(frozen=True)
class DiffusionSettings(UNetSettings):
    """The U-Net and its training."""

    steps: int = 1500
    """Optimiser steps."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    warmup: int = 50
    """Linear warm-up steps."""
    ema: float = 0.998
    """Decay of the averaged weights."""
    augmentation: Augmentation = "none"
    """none, crop or crop-flip (the model only generates what it has seen)."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    precision: Precision = "float32"
    """float32; bfloat16: mixed precision; auto: whichever is faster, as measured at the start of the run."""
    compile: Compile = "no"
    """Use torch.compile, which first takes about a minute; auto: only if it pays off, as measured at the start of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augmentation == "auto":
            raise ValueError("augmentation=auto: give none, crop or crop-flip")
        self.training(0)

    def training(self, seed: int) -> TrainingSettings:
        """The settings for contrastive_dp's training loop."""
        names = ("steps", "batch_size", "learning_rate", "warmup", "ema", "label_dropout", "checkpoint_every")
        return TrainingSettings(
            **{name: getattr(self, name) for name in names},
            loss=self.prediction,
            seed=seed,
            precision="bfloat16" if self.precision == "bfloat16" else "float32",
            augment=AUGMENT[self.augmentation],
        )


def _crop(batch: Tensor, generator: torch.Generator) -> Tensor:
    return augment(batch, "crop", generator, fill=-1.0)


def _crop_flip(batch: Tensor, generator: torch.Generator) -> Tensor:
    return augment(batch, "crop-flip", generator, fill=-1.0)


AUGMENT: dict[str, Augment | None] = {"none": None, "crop": _crop, "crop-flip": _crop_flip}
"""Functions with names of their own, by which a checkpoint knows them."""


def train_diffusion(
    settings: DiffusionSettings,
    images: Images,
    classes: int,
    seed: int,
    device: torch.device,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    processes: Processes = ALONE,
) -> nn.Module:
    """Train on uint8 images; returns the averaged noise prediction."""
    channels, height, width = images.x.shape[1:]
    network = make_noise_prediction(settings, classes, (channels, height, width), seed).to(device)
    prepared_unet(network.unet, settings.compile)
    return train_noise_prediction(
        network,
        images.x,
        network.schedule,
        replace(settings.training(seed), null_label=network.null_label),
        images.y if settings.conditional else None,
        checkpoint=checkpoint,
        on_step=on_step,
        processes=processes,
    )
