"""Saves classifiers with what is needed to rebuild them, and loads them strictly, in any of the usual wrappings."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
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
from image_experiments.models.classifiers import NETWORKS, PUBLISHED, Normalised, classifier_without_weights, make_classifier
from image_experiments.models.published import CODED, MEANS, as_ours, nearest, pixels, with_normalisation
from image_experiments.models.timm_networks import PREFIX, timm_classifier


def save_classifier(path: Path, classifier: Normalised, network: str, shape: tuple[int, int, int]) -> Path:
    """Write weights and architecture to a safetensors file."""
    about = {"network": network, "classes": classifier.head.out_features, "shape": list(shape)}
    return write_safetensors(path, classifier.state_dict(), {"classifier": json.dumps(about)})


def load_classifier(path: Path, classes: int, shape: tuple[int, int, int], network: str | None = None, **more: Any) -> Normalised:
    """read_classifier's classifier alone. more: its normalisation and dataset."""
    return read_classifier(path, classes, shape, network, **more)[0]


def read_classifier(
    path: Path,
    classes: int,
    shape: tuple[int, int, int],
    network: str | None = None,
    normalisation: str = "auto",
    dataset: str | None = None,
) -> tuple[Normalised, str, str]:
    """(a classifier, frozen and in evaluation mode; its network's name; where its normalisation is from: file, timm, or a name in MEANS).

    Every key must match. path: a file of `save_classifier`, which names its network; a published checkpoint in one of
    published.LAYOUTS; or weights of `network`. As .safetensors or .pt (read without unpickling code), with or without the prefixes of
    DataParallel, torch.compile and averaging, at the top level or under one of the keys WRAPPERS.
    network: None recognises it from the keys and sizes.
    normalisation: of pixels, a name in published.MEANS. auto: as in the file; else, if the layout's public code normalises, as it does for
    the data set of this name (None: CIFAR's, by the number of classes); else none.
    Raises FileNotFoundError, or ValueError for a different architecture, classes or image shape, or a damaged file.
    """
    if network is not None and network.startswith(PREFIX):
        return _read_timm(path, classes, shape, network, normalisation)
    tensors, network, coded, names = _recognised(path, classes, shape, network)
    head = tensors.get("head.weight")
    known = classes if head is None or head.ndim != 2 else len(head)
    if known != classes:
        raise ValueError(
            f"{path} does not hold the weights of {network} for these data: it knows {known} classes, they have {classes}"
        )
    inside = {name: tensors[name] for name in NORMALISATION if name in tensors}
    usual = {10: "cifar10", 100: "cifar100"}.get(classes) if dataset is None else CODED.get(dataset)
    usual = "pytorch-cifar" if network.startswith("kuangliu-") and usual == "cifar10" else usual
    source = _normalisation(path, normalisation, inside, coded, usual if shape[0] == 3 else None)
    if source != "file":
        inside = dict(zip(NORMALISATION, pixels(source, shape[0]), strict=True))
    tensors |= {name: value.expand(1, shape[0], 1, 1) if value.numel() == 1 else value for name, value in inside.items()}
    _check_size(path, network, classes, shape, tensors)
    classifier = make_classifier(network, classes, shape, [0.0] * shape[0], [1.0] * shape[0])
    try:
        load_strictly(classifier, tensors)
    except ValueError as error:
        text = _in_their_words(str(error), names)
        raise ValueError(f"{path} does not hold the weights of {network} ({text}): {_remedy(tensors, classifier)}") from None
    _check_finite(path, classifier.state_dict(), names)
    return classifier.eval().requires_grad_(False), network, source


NORMALISATION = ("mean", "std")
SMALL_NETWORK = 2**28
"""Numbers that any machine has room for."""


def _check_size(path: Path, network: str, classes: int, shape: tuple[int, int, int], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a name of a network so large that its weights cannot be in the file, before it fills the memory."""
    needed = sum(tensor.numel() for tensor in classifier_without_weights(network, classes, shape).state_dict().values())
    if needed > max(SMALL_NETWORK, 2 * sum(tensor.numel() for tensor in tensors.values())):
        raise ValueError(
            f"{path} does not hold the weights of {network}, which has {needed:.2g} numbers: name the network it holds"
        )


def _check_finite(path: Path, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Raise ValueError for weights that are not finite."""
    odd = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
    if odd is not None:
        raise ValueError(f"{path} holds NaN or infinity in {_in_their_words(odd, names)}: its training failed; give another file")


def _read_timm(
    path: Path, classes: int, shape: tuple[int, int, int], network: str, normalisation: str
) -> tuple[Normalised, str, str]:
    """read_classifier for a network "timm:NAME", whose names are timm's. Pixels as in the file, else as timm's configuration says."""
    tensors, _ = _named_tensors(path)
    _check_finite(path, tensors, {})
    inside = {name: tensors.pop(name) for name in NORMALISATION if name in tensors}

    def load(model: nn.Module) -> None:
        try:
            load_strictly(model, tensors)
        except ValueError as error:
            raise ValueError(
                f"{path} does not hold the weights of {network} ({error}): name the network it was made with"
            ) from None

    classifier = timm_classifier(network, classes, shape, load)
    odd = next((name for name, value in inside.items() if value.numel() not in (1, shape[0])), None)
    if odd is not None:
        raise ValueError(f"{path}: its {odd} has {inside[odd].numel()} channels, the images have {shape[0]}: use another data set")
    source = normalisation if normalisation != "auto" else "file" if len(inside) == 2 else "timm"
    if source != "timm":
        values = inside if source == "file" else dict(zip(NORMALISATION, pixels(source, shape[0]), strict=True))
        classifier.mean, classifier.std = (values[name].float().expand(1, shape[0], 1, 1).clone() for name in NORMALISATION)
    return classifier.eval().requires_grad_(False), network, source


def _in_their_words(text: str, names: Mapping[str, str]) -> str:
    """The same with the names that stand in the file."""
    for ours in sorted(names, key=len, reverse=True):
        text = re.sub(rf"\b{re.escape(ours)}\.(?=\w)", f"{names[ours]}.", text)
    return text


class _Read(NamedTuple):
    """Weights under our names, their network, whether its public code normalises pixels by numbers that are not in the file, and the
    modules' names in it if they are others."""

    tensors: dict[str, Tensor]
    network: str
    coded: bool = False
    names: Mapping[str, str] = MappingProxyType({})


def _recognised(path: Path, classes: int, shape: tuple[int, int, int], network: str | None) -> _Read:
    """What a file holds. Raises FileNotFoundError, or ValueError where the network is not clear."""
    tensors, metadata = _named_tensors(path)
    if "classifier" in metadata:
        return _Read(tensors, _said(path, metadata["classifier"], classes, shape))
    try:
        found = as_ours(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; convert it") from None
    if found is not None:
        if network is not None and not found.may_be(network):
            raise ValueError(f"{path} does not hold the weights of {network}: it is a {found.network}, name that")
        return _Read(found.tensors, network or found.network, found.coded, found.names)
    network = network or _card_beside(path)
    fitting = [] if network else _fitting(tensors, shape)
    if network is None and len(fitting) != 1:
        which = f"its names and shapes are those of {', '.join(fitting)}" if fitting else _unlike(tensors)
        raise ValueError(
            f"{path} does not say which network it holds, and {which}: name it, for example {(*fitting, 'wrn-28-10')[0]}"
        )
    return _Read(tensors, network or fitting[0])


def _named_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors by their bare names, with a normalisation of pixels under NORMALISATION; metadata of a safetensors file)."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    tensors, metadata = read_safetensors(path) if _is_safe(path) else (_read_weights(path), {})
    try:
        tensors = with_normalisation(tensors) if "classifier" not in metadata else tensors
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    inside: dict[str, Tensor] = {name: tensors.pop(name) for name in NORMALISATION if name in tensors}
    return {**bare_names(tensors), **inside}, metadata


def _said(path: Path, text: str, classes: int, shape: tuple[int, int, int]) -> str:
    """The network that a file of ours names. Raises ValueError if it is for other data."""
    try:
        about: dict[str, Any] = json.loads(text)
        found = (about["classes"], tuple(about["shape"]))
        network = str(about["network"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} does not say what it holds: its description is damaged; give another file") from None
    if found != (classes, shape):
        raise ValueError(
            f"{path} is for {found[0]} classes and images {found[1]}, the data have {classes} and {shape}: use another"
        )
    return network


def _normalisation(path: Path, chosen: str, inside: dict[str, Tensor], coded: bool, usual: str | None) -> str:
    """Where mean and deviation of the pixels come from. usual: those of the public code for these data, if it is known.

    Raises ValueError where only a person can know.
    """
    if chosen != "auto":
        return chosen
    if len(inside) == 2:
        return "file"
    if not coded:
        return "none"
    if usual is None:
        raise ValueError(
            f"{path}: its code normalises pixels by numbers that are not in the file; add tensors mean and std to it, or (evaluate.py) "
            f"name them, --normalisation {'|'.join(MEANS)}"
        )
    return usual


def names_its_network(path: Path) -> bool:
    """Whether a file, or the card beside it, says which network it holds."""
    return _card_beside(path) is not None or (_is_safe(path) and "classifier" in read_safetensors(path)[1])


def _is_safe(path: Path) -> bool:
    """Whether it is a safetensors file, whatever its name."""
    return path.suffix == ".safetensors" or is_safetensors(path)


def _card_beside(path: Path) -> str | None:
    """The network that the model card of export.py beside the weights names."""
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["architecture"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)


def _fitting(tensors: dict[str, Tensor], shape: tuple[int, int, int]) -> list[str]:
    """The networks of ours with these names and shapes. Several differ in what no weight shows: the activation, the padding. Of the two
    PreActResNet-18 that differ in their shortcuts alone, Wong's, as in published layouts."""
    first, head = tensors.get("body.0.weight"), tensors.get("head.weight")
    if head is None or head.ndim != 2:
        return []
    names = ["linear", "small-cnn", "preact-resnet-18", "wong-preact-resnet-18", "resnet-18", "dm-preact-resnet-18"]
    names += ["dm-preact-resnet-18-relu"]
    if first is not None and first.ndim == 4:
        names += [f"small-cnn-{first.shape[0]}"] * (first.shape[0] != 16)
        blocks = sum(name.endswith(".norm1.weight") for name in tensors)
        if blocks % 3 == 0 and head.shape[1] % 64 == 0:
            wide = f"wrn-{2 * blocks + 4}-{head.shape[1] // 64}"
            names += [wide, f"{wide}-relu", f"dm-{wide}", f"dm-{wide}-relu"]
    return [name for name in names if _same_shapes(name, len(head), shape, tensors)]


def _same_shapes(network: str, classes: int, shape: tuple[int, int, int], tensors: dict[str, Tensor]) -> bool:
    try:
        made = classifier_without_weights(network, classes, shape)
    except ValueError:  # images too small for it
        return False
    return _shapes(made.state_dict()) == _shapes(tensors)


def _unlike(tensors: dict[str, Tensor]) -> str:
    near = nearest(tensors)
    return f"its names are nearest to those of {near}" if near else "its names are those of no network here"


SAFE_TORCH = (2, 10)
UNSAFE = (
    "{path}: a file made for it can run code in torch {torch} (CVE-2026-24747, mended in 2.10); use it only if you trust where it is from, "
    "or take another torch"
)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a torch file, wrappers and prefixes removed."""
    if (problem := not_the_file(path)) is not None:
        raise ValueError(f"{path} {problem}")
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        warnings.warn(UNSAFE.format(path=path, torch=torch.__version__), stacklevel=2)
    try:
        content: dict[str, Any] = read_checkpoint(path)
    except ValueError:
        raise ValueError(
            f"{path} holds no plain weights (code is never run), or is damaged: save it as safetensors or a state_dict, or copy it again"
        ) from None
    while found := [name for name in WRAPPERS if isinstance(content.get(name), dict)]:
        several = [name for name in found if any(isinstance(value, Tensor) for value in content[name].values())]
        several += _same_names(content, several[0]) if len(several) == 1 else []
        if len(several) > 1:
            wanted = next((key for key in several if re.search("ema|swa|average", key)), several[0])
            raise ValueError(
                f"{path} holds several weights, under {', '.join(several)}: save those to use alone, for example "
                f"torch.save(torch.load(FILE)[{wanted!r}], NEW) (published accuracies are usually those of averaged weights, ema or swa)"
            )
        content = content[several[0] if several else found[0]]
    if not _all_named_tensors(content):
        raise ValueError(f"{path} holds no plain weights by name: save a state_dict")
    return content


def _same_names(content: dict[str, Any], chosen: str) -> list[str]:
    """Keys of other weights of the same network, such as swa_state_dict. Public code that also keeps unaveraged_... names the averaged ones
    model_state_dict, so there is no doubt."""
    weights = {key: value for key, value in content.items() if isinstance(value, dict) and _all_named_tensors(value)}
    others = [key for key in weights if key != chosen and not key.startswith("unaveraged_")] if chosen in weights else []
    return [key for key in others if set(bare_names(weights[key])) == set(bare_names(weights[chosen]))]


def _all_named_tensors(content: dict[Any, Any]) -> bool:
    return bool(content) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


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
"""Keys under which training scripts store the weights, next to the epoch and the optimiser."""


def _remedy(tensors: dict[str, Tensor], classifier: Normalised) -> str:
    """What to do about weights that do not fit: name another network, get a complete file, or convert it."""
    theirs = _shapes(tensors)
    ours = _shapes(classifier.state_dict())
    classes, shape = classifier.head.out_features, (classifier.mean.shape[1], 32, 32)
    for other in (*NETWORKS, *PUBLISHED):
        if theirs != ours and _same_shapes(other, classes, shape, tensors):
            return f"it is a {other}, name that"
    if len(theirs.items() & ours.items()) > len(ours) / 2:
        return "it is incomplete, or a part of it was changed; get the whole file"
    near = nearest(tensors)
    return (
        "its layers, their shapes or names are those of no network here" + (f" (nearest: {near})" if near else "") + "; convert it"
    )


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if name not in ("mean", "std")}


def mean_and_std(images: Tensor) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of uint8 images (n, C, H, W), on the [0, 1] scale."""
    # from how often each of 256 values occurs: exact, and without eight bytes for every value
    pieces = images.transpose(0, 1).flatten(1).split(1 << 24, dim=1)
    counts = [torch.stack([torch.bincount(row.int(), minlength=256) for row in piece]) for piece in pieces]
    often = torch.stack(counts).sum(dim=0).double()  # (C, 256)
    count, values = often[0].sum(), torch.arange(256, dtype=torch.float64) / 255
    mean = (often @ values) / count
    variance = (often * (values - mean[:, None]) ** 2).sum(dim=1) / (count - 1)
    return mean.tolist(), variance.sqrt().clamp(min=1e-3).tolist()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(n, K) float32."""
    return F.one_hot(labels, classes).float()
