"""The diffusion model: a U-Net of diffusers, trained by contrastive_dp on real images, or loaded from a folder in diffusers' format."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
import tyro
from torch import Tensor, nn

from contrastive_dp import (
    DiffusersNoisePrediction,
    NoiseSchedule,
    Processes,
    TrainingSettings,
    load_diffusers,
    train_noise_prediction,
)
from contrastive_dp.processes import ALONE
from image_experiments.augmentation import Augmentation, augment
from image_experiments.speed import Compile, Precision, prepared_unet


@dataclass(frozen=True)
class DiffusionSettings:
    """The U-Net and its training."""

    load: Annotated[Path | None, tyro.conf.arg(aliases=["--diffusion"])] = None
    """Folder of a diffusers pipeline (unet, scheduler), or the name of one on the Hugging Face hub, instead of training."""
    conditional: bool = True
    """Class-conditional; without, images get labels from the encoder."""
    channels: tuple[int, ...] = (32, 64)
    """Channels at each resolution, halved from one to the next."""
    blocks: int = 1
    """Residual blocks at each resolution."""
    attention: tuple[bool, ...] = ()
    """Self-attention at each resolution (default: none but in the middle)."""
    dropout: float = 0.0
    """Dropout of the residual blocks."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Noise schedule."""
    timesteps: int = 1000
    """Its length."""
    prediction: Literal["noise", "v"] = "noise"
    """What a network trained here gives and is trained for: the noise, or v, which keeps mean colours right where training is short."""
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
    label_dropout: float = 0.0
    """Share of labels left out in training, for classifier-free guidance."""
    augmentation: Augmentation = "none"
    """none, crop or crop-flip (what the model has not seen it does not make)."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""
    precision: Precision = "float32"
    """float32; bfloat16: mixed precision; auto: the faster, as measured at the beginning of the run."""
    compile: Compile = "no"
    """Let torch.compile fuse the network, which takes a minute first; auto: if it pays, as measured at the beginning of the run."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 8 or any(c % 8 for c in self.channels):
            raise ValueError(f"channels={self.channels} must be multiples of 8, one for each resolution")
        if self.attention and len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention has {len(self.attention)} entries, channels {len(self.channels)}: give one for each resolution"
            )
        if self.blocks < 1 or self.timesteps < 2 or self.checkpoint_every < 1:
            raise ValueError(
                f"blocks={self.blocks}, timesteps={self.timesteps}, checkpoint_every={self.checkpoint_every}: too small"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")
        if self.augmentation == "auto":
            raise ValueError("augmentation=auto: give none, crop or crop-flip")
        self.training(0)

    def training(self, seed: int) -> TrainingSettings:
        """The settings of contrastive_dp's loop."""
        names = ("steps", "batch_size", "learning_rate", "warmup", "ema", "label_dropout")
        return TrainingSettings(**{name: getattr(self, name) for name in names}, loss=self.prediction, seed=seed)

    @property
    def prediction_type(self) -> str:
        """As diffusers calls it."""
        return {"noise": "epsilon", "v": "v_prediction"}[self.prediction]

    def noise_schedule(self) -> NoiseSchedule:
        """The noise schedule; a linear one keeps its last level whatever its length."""
        if self.schedule == "cosine":
            return NoiseSchedule.cosine(self.timesteps)
        stretch = 1000 / self.timesteps
        return NoiseSchedule.linear(self.timesteps, 1e-4 * stretch, min(0.02 * stretch, 0.999))


def make_unet(settings: DiffusionSettings, classes: int, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """A fresh UNet2DModel for images (C, H, W); with label dropout, label `classes` stands for "no label".

    Raises ValueError for images that cannot be halved as often as there are channels.
    """
    from diffusers import UNet2DModel

    channels, height, width = shape
    halvings = 2 ** (len(settings.channels) - 1)
    if height % halvings or width % halvings:
        raise ValueError(
            f"images of {width}x{height} cannot be halved {len(settings.channels) - 1} times: give fewer channels, or resize the images"
        )
    attention = settings.attention or (False,) * len(settings.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: Any = UNet2DModel(
            sample_size=(height, width),
            in_channels=channels,
            out_channels=channels,
            layers_per_block=settings.blocks,
            block_out_channels=settings.channels,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
            norm_num_groups=math.gcd(32, *settings.channels),
            dropout=settings.dropout,
            num_class_embeds=classes + bool(settings.label_dropout) if settings.conditional else None,
        )
    made: nn.Module = unet
    return made


def make_noise_prediction(
    settings: DiffusionSettings, classes: int, shape: tuple[int, int, int], seed: int
) -> DiffusersNoisePrediction:
    """A fresh U-Net as a noise prediction; see make_unet."""
    null_label = classes if settings.conditional and settings.label_dropout else None
    unet = make_unet(settings, classes, shape, seed)
    return DiffusersNoisePrediction(unet, settings.noise_schedule(), settings.prediction_type, null_label=null_label)


def train_diffusion(
    settings: DiffusionSettings,
    x: Tensor,
    y: Tensor,
    classes: int,
    seed: int,
    device: torch.device,
    checkpoint: Path | None,
    on_step: Callable[[int, Tensor], None],
    processes: Processes = ALONE,
) -> nn.Module:
    """Train on uint8 images x (n, C, H, W) with labels y (n,); returns the averaged noise prediction."""
    network = make_noise_prediction(settings, classes, (x.shape[1], x.shape[2], x.shape[3]), seed).to(device)
    prepared_unet(network.unet, settings.compile)
    return train_noise_prediction(
        network,
        x,
        network.schedule,
        settings.training(seed),
        y if settings.conditional else None,
        null_label=network.null_label,
        checkpoint=checkpoint,
        checkpoint_every=settings.checkpoint_every,
        augment=lambda batch, generator: augment(batch, settings.augmentation, generator, fill=-1.0),
        autocast=torch.bfloat16 if settings.precision == "bfloat16" else None,
        on_step=on_step,
        processes=processes,
    )


FILES = {
    "weights": "unet/diffusion_pytorch_model.safetensors",
    "unet": "unet/config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "index": "model_index.json",
}
"""What a diffusers pipeline of ours consists of, within its folder."""


def save_diffusion(folder: Path, network: nn.Module, schedule: NoiseSchedule) -> Path:
    """Write a trained noise prediction as a pipeline of diffusers, which DDIMPipeline.from_pretrained and `--diffusion` read."""
    from diffusers import DDIMPipeline, DDIMScheduler

    unet, kind = cast(Any, network.unet), str(network.prediction_type)
    scheduler = DDIMScheduler(num_train_timesteps=len(schedule), trained_betas=schedule.betas.tolist(), prediction_type=kind)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline: Any = DDIMPipeline(unet=unet, scheduler=scheduler)
    pipeline.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def read_diffusion(
    settings: DiffusionSettings, path: Path | None, classes: int, shape: tuple[int, int, int]
) -> tuple[DiffusersNoisePrediction, NoiseSchedule, bool]:
    """Noise prediction, schedule and whether it is class-conditional; from the folder `path` of `save_diffusion`, or from the pipeline that
    settings.load names. Raises ValueError for weights, classes or images that do not fit.
    """
    if settings.load is not None:
        network, schedule = load_diffusers(settings.load, null_label=None)
        config: Any = network.unet.config
        found = (config["in_channels"], *_pair(config["sample_size"]))
        if found != shape:
            raise ValueError(
                f"{settings.load} makes images {found}, the data have {shape}: use another model, or resize the images"
            )
        known = config.get("num_class_embeds")
        if known and known < classes:
            raise ValueError(f"{settings.load} knows {known} classes, the data have {classes}: use another model")
        if known == classes + 1:  # the one left over stands for "no label"
            network.null_label = classes
        return network, schedule, bool(network.conditional)
    assert path is not None
    network, _ = load_diffusers(path, null_label=classes if settings.label_dropout else None)
    schedule = network.schedule = settings.noise_schedule()  # in double precision, where files of diffusers have single
    return network, schedule, settings.conditional


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
