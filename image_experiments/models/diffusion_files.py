"""Diffusion models in files: saved as pipelines of diffusers, read from them, their labels matched to the classes of the data."""

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
    settings: UNetSettings, path: Path | None, classes: int | Sequence[str], shape: tuple[int, int, int]
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


def _labels_of(settings: UNetSettings, known: int, count: int, names: Sequence[str] | None) -> tuple[list[int], int | None]:
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
