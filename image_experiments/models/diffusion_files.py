"""Saves diffusion models as diffusers pipelines, loads them, and matches their labels to the classes of the data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from contrastive_dp import (
    DiffusersNoisePrediction,
    NoiseSchedule,
    load_diffusers,
)
from contrastive_dp.files import temporary_name
from image_experiments.models.unet import UNetSettings

FILES = {
    "weights": "unet/diffusion_pytorch_model.safetensors",
    "unet": "unet/config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "index": "model_index.json",
    "classes": "classes.json",
}
"""The files in the folder of a diffusers pipeline saved here."""


def save_diffusion(folder: Path, network: nn.Module, schedule: NoiseSchedule, classes: Sequence[str] = ()) -> Path:
    """Save a trained noise prediction as a diffusers pipeline, readable by DDIMPipeline.from_pretrained and `--diffusion`.

    classes: their names in the order of the labels, for loading the model with data that have other classes.
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
    """A class-conditional noise prediction that takes the data's labels: class k of the data is the model's label labels[k].

    null_label: the label len(labels), which means "no class", if the model has one.
    """

    def __init__(self, network: DiffusersNoisePrediction, labels: Sequence[int], null: int | None) -> None:
        super().__init__()
        self.network, self.unet, self.schedule, self.conditional = network, network.unet, network.schedule, True
        self.null_label = None if null is None else len(labels)
        self.register_buffer("theirs", torch.tensor([*labels, *([] if null is None else [null])]))
        self.theirs: Tensor

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.network(x, t, self.theirs[labels])
        return out


def read_diffusion(
    settings: UNetSettings, path: Path | None, classes: int | Sequence[str], shape: tuple[int, int, int]
) -> tuple[DiffusersNoisePrediction | Relabelled, NoiseSchedule, bool]:
    """(noise prediction, schedule, whether it is class-conditional), from the folder `path` of `save_diffusion` or from the pipeline
    settings.load. classes: number or names of the data's classes. Raises ValueError for weights, classes or images that do not fit.
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
    schedule = network.schedule = settings.noise_schedule()  # in double precision; diffusers files have single precision
    return network, schedule, settings.conditional


def _check_images(load: Path, config: Any, shape: tuple[int, int, int]) -> None:
    """Raise ValueError if the model is for other images than the data's; a model without a fixed size takes any it can downsample."""
    size = config.get("sample_size")
    found = (config["in_channels"], *(shape[1:] if size is None else _pair(size)))
    if found != shape:
        raise ValueError(f"{load} makes images {found}, the data have {shape}: use another model, or resize the images")
    halvings = 2 ** (len(config["block_out_channels"]) - 1)
    if shape[1] % halvings or shape[2] % halvings:
        raise ValueError(
            f"{load} halves images {len(config['block_out_channels']) - 1} times, {shape[2]}x{shape[1]} cannot be: resize them"
        )


def _labels_of(settings: UNetSettings, known: int, count: int, names: Sequence[str] | None) -> tuple[list[int], int | None]:
    """The loaded model's labels for the data's classes, and its label for "no class". Raises ValueError if these are unclear."""
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
        labels = [theirs.index(name) for name in names]
    if theirs and null is None and known == len(theirs) + 1:
        null = len(theirs)  # trained with label dropout
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
            f"{settings.load} knows the labels 0 to {known - 1}, not {outside[0]}: fix --diffusion.class-labels or null-label"
        )
    return labels, null


def _names_in(load: Path) -> list[str]:
    """Class names of a model that was trained here; empty for others. Raises ValueError for a damaged file."""
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
