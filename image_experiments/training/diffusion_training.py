"""Training of the diffusion model on real images: contrastive_dp's loop with the settings of an image experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from contrastive_dp import Processes, TrainingSettings, train_noise_prediction
from contrastive_dp.processes import ALONE
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
    """Images a step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    warmup: int = 50
    """Steps of linear warm-up."""
    ema: float = 0.998
    """Decay of the averaged weights."""
    augmentation: Augmentation = "none"
    """none, crop or crop-flip (what the model has not seen it does not make)."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""
    precision: Precision = "float32"
    """float32; bfloat16: mixed precision; auto: the faster, as measured at the beginning of the run."""
    compile: Compile = "no"
    """Let torch.compile fuse the network, which takes a minute first; auto: if it pays, as measured at the beginning of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augmentation == "auto":
            raise ValueError("augmentation=auto: give none, crop or crop-flip")
        self.training(0)

    def training(self, seed: int) -> TrainingSettings:
        """The settings of contrastive_dp's loop."""
        names = ("steps", "batch_size", "learning_rate", "warmup", "ema", "label_dropout", "checkpoint_every")
        return TrainingSettings(
            **{name: getattr(self, name) for name in names},
            loss=self.prediction,
            seed=seed,
            precision="bfloat16" if self.precision == "bfloat16" else "float32",
            augment=self._augment,
        )

    def _augment(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return augment(batch, self.augmentation, generator, fill=-1.0)


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
