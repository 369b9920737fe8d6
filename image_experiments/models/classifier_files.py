"""Saves classifiers with what is needed to rebuild them, and loads them strictly, in any of the usual wrappings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contrastive_dp.files import (
    bare_names,
    is_safetensors,
    load_strictly,
    not_the_file,
    read_checkpoint,
    read_safetensors,
    write_safetensors,
)
from image_experiments.models.classifiers import NETWORKS, Normalised, make_classifier


def save_classifier(path: Path, classifier: Normalised, network: str, shape: tuple[int, int, int]) -> Path:
    """Write weights and architecture to a safetensors file."""
    about = {"network": network, "classes": classifier.head.out_features, "shape": list(shape)}
    return write_safetensors(path, classifier.state_dict(), {"classifier": json.dumps(about)})


def load_classifier(path: Path, classes: int, shape: tuple[int, int, int], network: str | None = None) -> Normalised:
    """Read a classifier, frozen and in evaluation mode; every key must match.

    path: a file of `save_classifier`, which names its network; or the weights of `network` as .safetensors or .pt (read without unpickling
    code), with or without the prefixes of DataParallel, torch.compile and averaging, at the top level or under one of the keys WRAPPERS.
    Weights without mean and std take images in [0, 1] without normalisation.
    Raises FileNotFoundError, or ValueError for a different architecture, classes or image shape, or a damaged file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    safe = path.suffix == ".safetensors" or is_safetensors(path)  # whatever its name
    tensors, metadata = read_safetensors(path) if safe else (_read_weights(path), {})
    tensors = bare_names(tensors)
    if "classifier" in metadata:
        try:
            about: dict[str, Any] = json.loads(metadata["classifier"])
            found = (about["classes"], tuple(about["shape"]))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} does not say what it holds: its description is damaged; give another file") from None
        if found != (classes, shape):
            raise ValueError(
                f"{path} is for {found[0]} classes and images {found[1]}, the data have {classes} and {shape}: use another"
            )
        network = about["network"]
    if network is None:
        raise ValueError(f"{path} does not say which network it holds: name it, for example wrn-28-10")
    classifier = make_classifier(network, classes, shape, [0.0] * shape[0], [1.0] * shape[0])
    if "mean" not in tensors and "std" not in tensors:
        tensors = {**tensors, "mean": classifier.mean, "std": classifier.std}
    try:
        load_strictly(classifier, tensors)
    except ValueError as error:
        raise ValueError(f"{path} does not hold the weights of {network} ({error}): {_remedy(tensors, classifier)}") from None
    odd = next((name for name, tensor in classifier.state_dict().items() if not torch.isfinite(tensor).all()), None)
    if odd is not None:
        raise ValueError(f"{path} holds NaN or infinity in {odd}: its training failed; give another file")
    return classifier.eval().requires_grad_(False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a torch file, wrappers and prefixes removed."""
    if (problem := not_the_file(path)) is not None:
        raise ValueError(f"{path} {problem}")
    try:
        content: dict[str, Any] = read_checkpoint(path)
    except ValueError:
        raise ValueError(f"{path} holds no plain weights (code is never run): save it as safetensors, or a state_dict") from None
    while (wrapper := next((name for name in WRAPPERS if isinstance(content.get(name), dict)), None)) is not None:
        content = content[wrapper]
    if not content or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        raise ValueError(f"{path} holds no plain weights by name: save a state_dict")
    return content


WRAPPERS = (
    "model_state_dict",
    "state_dict",
    "model",
    "net",
    "network",
    "classifier",
    "weights",
    "params",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "params_ema",
    "ema",
)
"""Keys under which training scripts store the weights, next to the epoch and the optimiser; the first one present is used."""


def _remedy(tensors: dict[str, Tensor], classifier: Normalised) -> str:
    """What to do about weights that do not fit: name another network, get a complete file, or convert it."""
    theirs = _shapes(tensors)
    ours = _shapes(classifier.state_dict())
    classes, shape = classifier.head.out_features, (classifier.mean.shape[1], 32, 32)
    for other in NETWORKS:
        with torch.device("meta"):
            if _shapes(make_classifier(other, classes, shape, [0.0] * shape[0], [1.0] * shape[0]).state_dict()) == theirs != ours:
                return f"it is a {other}, name that"
    if len(theirs.items() & ours.items()) > len(ours) / 2:
        return "it is incomplete, or a part of it was changed; get the whole file"
    return "its layers, their shapes or names are those of no network here; convert it"


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if name not in ("mean", "std")}


def mean_and_std(images: Tensor) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of uint8 images (n, C, H, W), on the [0, 1] scale."""
    values = images.double() / 255
    return values.mean(dim=(0, 2, 3)).tolist(), values.std(dim=(0, 2, 3)).clamp(min=1e-3).tolist()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(n, K) float32."""
    return F.one_hot(labels, classes).float()
