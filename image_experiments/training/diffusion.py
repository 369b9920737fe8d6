"""The diffusion model: a U-Net of diffusers, trained by contrastive_dp on real images, or loaded from a folder in diffusers' format."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
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
from contrastive_dp.files import temporary_name
from contrastive_dp.processes import ALONE
from image_experiments.models.precision import Compile, Precision, prepared_unet
from image_experiments.training.augmentation import Augmentation, augment


@dataclass(frozen=True)
class DiffusionSettings:
    """The U-Net and its training."""

    load: Annotated[Path | None, tyro.conf.arg(aliases=["--diffusion"])] = None
    """Folder of a diffusers pipeline (unet, scheduler), or the name of one on the Hugging Face hub, instead of training."""
    class_labels: tuple[int, ...] = ()
    """Of a loaded model: its labels for the data's classes, in the order of the data set (default: by name where it was trained here, else
    0, 1, ..., which must be all it has)."""
    null_label: int | None = None
    """Of a loaded model: its label that stands for none, for classifier-free guidance."""
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
        if self.load is None and (self.class_labels or self.null_label is not None):
            raise ValueError("class_labels and null_label belong to a loaded model: give --diffusion FOLDER, or leave them out")
        if len(set(self.class_labels)) < len(self.class_labels) or self.null_label in self.class_labels:
            raise ValueError(f"class_labels={self.class_labels}, null_label={self.null_label}: give each label once")
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
    "classes": "classes.json",
}
"""What a diffusers pipeline of ours consists of, within its folder."""


def save_diffusion(folder: Path, network: nn.Module, schedule: NoiseSchedule, classes: Sequence[str] = ()) -> Path:
    """Write a trained noise prediction as a pipeline of diffusers, which DDIMPipeline.from_pretrained and `--diffusion` read.

    classes: their names in the order of the labels, for those who load it beside data with other classes.
    """
    from diffusers import DDIMPipeline, DDIMScheduler

    unet, kind = cast(Any, network.unet), str(network.prediction_type)
    scheduler = DDIMScheduler(num_train_timesteps=len(schedule), trained_betas=schedule.betas.tolist(), prediction_type=kind)
    temporary = folder.with_name(temporary_name(folder.name))
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline: Any = DDIMPipeline(unet=unet, scheduler=scheduler)
    pipeline.save_pretrained(temporary)
    (temporary / FILES["classes"]).write_text(json.dumps({"classes": list(classes)}), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


class Relabelled(nn.Module):
    """A class-conditional noise prediction by the data's labels: class k of the data is the model's label labels[k].

    null_label: the label len(labels), which stands for none, where the model has one.
    """

    def __init__(self, network: DiffusersNoisePrediction, labels: Sequence[int], null: int | None) -> None:
        super().__init__()
        self.network, self.unet, self.conditional = network, network.unet, True
        self.null_label = None if null is None else len(labels)
        self.register_buffer("theirs", torch.tensor([*labels, *([] if null is None else [null])]))
        self.theirs: Tensor

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.network(x, t, self.theirs[labels])
        return out


def read_diffusion(
    settings: DiffusionSettings, path: Path | None, classes: int | Sequence[str], shape: tuple[int, int, int]
) -> tuple[DiffusersNoisePrediction | Relabelled, NoiseSchedule, bool]:
    """Noise prediction, schedule and whether it is class-conditional; from the folder `path` of `save_diffusion`, or from the pipeline that
    settings.load names. classes: of the data, their number or names. Raises ValueError for weights, classes or images that do not fit.
    """
    count = classes if isinstance(classes, int) else len(classes)
    if settings.load is not None:
        network, schedule = load_diffusers(settings.load, null_label=None)
        config: Any = network.unet.config
        _check_images(settings.load, config, shape)
        known = config.get("num_class_embeds")
        if not known:
            return network, schedule, False
        names = None if isinstance(classes, int) else classes
        labels, null = _labels_of(settings, known, count, names)
        return Relabelled(network, labels, null), schedule, True
    assert path is not None
    network, _ = load_diffusers(path, null_label=count if settings.label_dropout else None)
    schedule = network.schedule = settings.noise_schedule()  # in double precision, where files of diffusers have single
    return network, schedule, settings.conditional


def _check_images(load: Path, config: Any, shape: tuple[int, int, int]) -> None:
    """ValueError for a model of other images than the data's; one without a size of its own takes all that it can halve."""
    size = config.get("sample_size")
    found = (config["in_channels"], *(shape[1:] if size is None else _pair(size)))
    if found != shape:
        raise ValueError(f"{load} makes images {found}, the data have {shape}: use another model, or resize the images")
    halvings = 2 ** (len(config["block_out_channels"]) - 1)
    if shape[1] % halvings or shape[2] % halvings:
        raise ValueError(
            f"{load} halves images {len(config['block_out_channels']) - 1} times, {shape[2]}x{shape[1]} cannot be: resize them"
        )


def _labels_of(settings: DiffusionSettings, known: int, count: int, names: Sequence[str] | None) -> tuple[list[int], int | None]:
    """The loaded model's labels of the data's classes, and that which stands for none. Raises ValueError where they are in doubt."""
    assert settings.load is not None
    theirs = _names_in(settings.load)
    labels, null = list(settings.class_labels), settings.null_label
    flags = "--diffusion.class-labels with a label for each class, and --diffusion.null-label if one stands for none"
    if labels and len(labels) != count:
        raise ValueError(f"--diffusion.class-labels has {len(labels)} labels, the data have {count} classes: give one for each")
    if not labels and theirs and names is not None:
        strangers = [name for name in names if name not in theirs]
        if strangers:
            raise ValueError(
                f"{settings.load} was not trained on class {strangers[0]!r}, but on {', '.join(theirs)}: use another model, or give {flags}"
            )
        labels, null = [theirs.index(name) for name in names], len(theirs) if null is None and known == len(theirs) + 1 else null
    if not labels:
        if known != count + (null is not None) or null not in (None, count):
            raise ValueError(f"{settings.load} knows {known} labels, the data have {count} classes: say which are which, {flags}")
        labels = list(range(count))
    if null in labels:
        which = theirs[null] if null is not None and null < len(theirs) else "a class"
        raise ValueError(f"--diffusion.null-label {null}: is the model's label of {which}; give another")
    outside = [label for label in [*labels, *([] if null is None else [null])] if not 0 <= label < known]
    if outside:
        raise ValueError(
            f"{settings.load} knows the labels 0 to {known - 1}, not {outside[0]}: mend --diffusion.class-labels or null-label"
        )
    return labels, null


def _names_in(load: Path) -> list[str]:
    """Names of the classes of a model that was trained here; none for others. Raises ValueError for a damaged file."""
    path = Path(load) / FILES["classes"]
    if not path.is_file():
        return []
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["classes"]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is damaged: get the folder again, or delete the file and give --diffusion.class-labels")


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
