"""The U-Net of the diffusion model: its architecture, its noise schedule, and how to make one with fresh weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import nn

from contrastive_dp import DiffusersNoisePrediction, NoiseSchedule
from contrastive_dp.randomness import seeded

MOST_BLOCKS, MOST_CHANNELS, MOST_TIMESTEPS = 32, 4096, 100_000


@dataclass(frozen=True)
class UNetSettings:
    """A U-Net to make, or a model to load."""

    load: Annotated[Path | None, tyro.conf.arg(aliases=["--diffusion"])] = None
    """Load a diffusers pipeline (unet, scheduler) from this folder, or by its name on the Hugging Face hub, instead of training."""
    class_labels: tuple[int, ...] = ()
    """For a loaded model: its labels for the data's classes, in the order of the data set (default: matched by name if it was trained here,
    otherwise 0, 1, ..., which must be all its labels)."""
    null_label: int | None = None
    """For a loaded model: its label for "no class", for classifier-free guidance."""
    conditional: bool = True
    """Train a class-conditional model. Without, the encoder labels the images."""
    channels: tuple[int, ...] = (32, 64)
    """Channels at each resolution; each resolution is half the previous one."""
    blocks: int = 1
    """Residual blocks at each resolution."""
    attention: tuple[bool, ...] = ()
    """Self-attention at each resolution (default: only in the middle)."""
    dropout: float = 0.0
    """Dropout of the residual blocks."""
    label_dropout: float = 0.0
    """Fraction of labels dropped in training, for classifier-free guidance."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Noise schedule."""
    timesteps: int = 1000
    """Length of the noise schedule."""
    prediction: Literal["noise", "v"] = "noise"
    """What a network trained here predicts: the noise, or v, which keeps mean colours right even after short training."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 8 or any(c % 8 for c in self.channels):
            raise ValueError(f"channels={self.channels} must be multiples of 8, one for each resolution")
        if self.attention and len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention has {len(self.attention)} entries, channels {len(self.channels)}: give one for each resolution"
            )
        if not 1 <= self.blocks <= MOST_BLOCKS:
            raise ValueError(
                f"blocks={self.blocks} must lie in 1 .. {MOST_BLOCKS}: published networks have up to 4 at each resolution"
            )
        if max(self.channels) > MOST_CHANNELS:
            raise ValueError(
                f"channels={self.channels}: give at most {MOST_CHANNELS} at each resolution; published networks have up to 1,024"
            )
        if not 2 <= self.timesteps <= MOST_TIMESTEPS:
            raise ValueError(f"timesteps={self.timesteps} must lie in 2 .. {MOST_TIMESTEPS}: 1,000 is usual")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")
        if self.load is None and (self.class_labels or self.null_label is not None):
            raise ValueError("class_labels and null_label belong to a loaded model: give --diffusion FOLDER, or leave them out")
        if len(set(self.class_labels)) < len(self.class_labels) or self.null_label in self.class_labels:
            raise ValueError(f"class_labels={self.class_labels}, null_label={self.null_label}: give each label once")

    @property
    def prediction_type(self) -> str:
        """The name diffusers uses for `prediction`."""
        return {"noise": "epsilon", "v": "v_prediction"}[self.prediction]

    def noise_schedule(self) -> NoiseSchedule:
        """The noise schedule; a linear one is stretched, so that a few hundred steps reach nearly the last level of a thousand."""
        if self.schedule == "cosine":
            return NoiseSchedule.cosine(self.timesteps)
        stretch = 1000 / self.timesteps
        return NoiseSchedule.linear(self.timesteps, 1e-4 * stretch, min(0.02 * stretch, 0.999))


def make_unet(settings: UNetSettings, classes: int, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """A fresh UNet2DModel for images (C, H, W); with label dropout, label `classes` stands for "no label".

    Raises ValueError for images that cannot be halved once per further entry of channels.
    """
    with torch.device("cpu"):  # torch 2.6 computes while it is imported, which the device "meta" of a caller would not let it
        from diffusers import UNet2DModel

    channels, height, width = shape
    halvings = 2 ** (len(settings.channels) - 1)
    if height % halvings or width % halvings:
        raise ValueError(
            f"images of {width}x{height} cannot be halved {len(settings.channels) - 1} times: give fewer channels, or resize the images "
            "(--image-size 32)"
        )
    attention = settings.attention or (False,) * len(settings.channels)
    with seeded(seed):
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


def make_noise_prediction(settings: UNetSettings, classes: int, shape: tuple[int, int, int], seed: int) -> DiffusersNoisePrediction:
    """A noise prediction by a U-Net with fresh weights; see make_unet."""
    null_label = classes if settings.conditional and settings.label_dropout else None
    unet = make_unet(settings, classes, shape, seed)
    return DiffusersNoisePrediction(unet, settings.noise_schedule(), settings.prediction_type, null_label=null_label)
