"""Published checkpoints: which network their keys belong to, and the names of the same weights in ours.

Layouts (names and shapes as the public code of these papers has them):

    dm-wrn-D-K           Gowal et al. 2020, Rebuffi et al. 2021, Wang et al. 2023   init_conv, layer.G.block.B.batchnorm_0, ..., logits
    dm-preact-resnet-18  the same, and Rade et al. 2021                             conv_2d, layer_G.B.conv_2d_1, ..., logits
    wrn-D-K-relu         TRADES, Carmon et al. 2019, RobustBench's Standard         conv1, blockG.layer.B.bn1, ..., bn1, fc
    preact-resnet-18     Rice et al. 2020                                           conv1, layerG.B.bn1, ..., bn, linear
    wong-preact-resnet-18  Wong et al. 2020                                         the same without bn
    kuangliu-preact-resnet-18  pytorch-cifar                                        the same names again, shortcuts of activated inputs
    resnet-18            He et al. 2015, for small images                           conv1, bn1, layerG.B.conv1, ..., linear
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

MEANS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "pytorch-cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "half": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
}
"""Means and standard deviations that the public code of these papers subtracts and divides by."""
CODED = {"cifar10": "cifar10", "cifar100": "cifar100", "svhn": "half"}
"""{data set: which of these its public code takes}, for layouts whose files do not hold them."""
NORMALISERS = {"mean": "mean", "mu": "mean", "std": "std", "sigma": "std"}
"""Last parts of the names of tensors that are a mean or a standard deviation of the pixels, and which."""


@dataclass(frozen=True)
class Layout:
    """first: a key that only this layout has. within: form of the names in a block, with `group`, `block` and `part`. parts: {theirs: ours}
    of the parts. outer: the same outside the blocks; "norm" is the norm after the last block."""

    network: str
    first: str
    within: str
    parts: Mapping[str, str]
    outer: Mapping[str, str]
    coded: bool = False
    """Whether the public code normalises pixels, with numbers that are not in the file."""
    after_norm: bool = False
    """Whether a norm follows the first convolution."""

    @property
    def block(self) -> str:
        """Pattern of the names in a block."""
        part = "|".join(re.escape(name) for name in self.parts)
        return (
            re.escape(self.within)
            .replace(r"\{group\}", r"(?P<group>\d)")
            .replace(r"\{block\}", r"(?P<block>\d+)")
            .replace(r"\{part\}", f"(?P<part>{part})")
        )


DM = {"batchnorm_0": "norm1", "batchnorm_1": "norm2", "shortcut": "shortcut"}
PREACT = {"bn1": "norm1", "conv1": "conv1", "bn2": "norm2", "conv2": "conv2"}
LAYOUTS = (
    Layout(
        "dm-wrn",
        "init_conv.weight",
        "layer.{group}.block.{block}.{part}",
        {**DM, "conv_0": "conv1", "conv_1": "conv2"},
        {"init_conv": "first", "batchnorm": "norm", "logits": "head"},
        coded=True,
    ),
    Layout(
        "dm-preact-resnet-18",
        "conv_2d.weight",
        "layer_{group}.{block}.{part}",
        {**DM, "conv_2d_1": "conv1", "conv_2d_2": "conv2"},
        {"conv_2d": "first", "batchnorm": "norm", "logits": "head"},
        coded=True,
    ),
    Layout(
        "wrn-relu",
        "block1.layer.0.bn1.weight",
        "block{group}.layer.{block}.{part}",
        {**PREACT, "convShortcut": "shortcut"},
        {"conv1": "first", "bn1": "norm", "fc": "head"},
    ),
    Layout(
        "preact-resnet-18",
        "bn.weight",
        "layer{group}.{block}.{part}",
        {**PREACT, "shortcut.0": "shortcut"},
        {"conv1": "first", "bn": "norm", "linear": "head"},
        coded=True,
    ),
    Layout(
        "resnet-18",
        "bn1.weight",
        "layer{group}.{block}.{part}",
        {**PREACT, **{f"{name}.{i}": f"shortcut.{i}" for name in ("shortcut", "downsample") for i in (0, 1)}},
        {"conv1": "first", "bn1": "first_norm", "linear": "head", "fc": "head"},
        after_norm=True,
    ),
    Layout(
        "wong-preact-resnet-18",
        "linear.weight",
        "layer{group}.{block}.{part}",
        {**PREACT, "shortcut.0": "shortcut"},
        {"conv1": "first", "linear": "head"},
        coded=True,
    ),
)
"""The first whose `first` is there is the one, so the more particular come first."""
UNUSED = ("sub_block1.",)
"""Weights that the public code holds and never uses."""


@dataclass(frozen=True)
class Found:
    """A published checkpoint under our names. coded: see Layout."""

    network: str
    tensors: dict[str, Tensor]
    coded: bool
    names: dict[str, str]
    """{ours: theirs} of modules."""

    def may_be(self, network: str) -> bool:
        """Whether it may be a network of this name: its own, or its twin."""
        return network in (self.network, twin_of(self.network))


def twin_of(network: str) -> str | None:
    """The other network that public code has under the same names and shapes: with the other activation, or other shortcuts."""
    if network.startswith("dm-"):
        return network.removesuffix("-relu") if network.endswith("-relu") else f"{network}-relu"
    return TWINS.get(network)


TWINS = {"wong-preact-resnet-18": "kuangliu-preact-resnet-18", "kuangliu-preact-resnet-18": "wong-preact-resnet-18"}


def as_ours(tensors: Mapping[str, Tensor]) -> Found | None:
    """The weights under our names, and their network; None if they are in no layout of LAYOUTS.

    Names that the layout does not have stay as they are, so that a strict loader names them. Counters of batch norm that old files lack are
    added. Raises ValueError for a layout whose sizes are those of no network here.
    """
    layout = next((one for one in LAYOUTS if one.first in tensors and any(re.match(one.block, name) for name in tensors)), None)
    if layout is None:
        return None
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    places = sorted({(int(m["group"]), int(m["block"])) for name in kept if (m := re.match(layout.block, name))})
    before = 3 if layout.after_norm else 1
    index = {place: before + i for i, place in enumerate(places)}
    outer = {"first": "body.0", "first_norm": "body.1", "norm": f"body.{before + len(places)}", "head": "head"}
    found: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        stem, _, leaf = name.rpartition(".")
        match = re.fullmatch(layout.block, stem)
        if match and match["part"] in layout.parts:
            found[f"body.{index[int(match['group']), int(match['block'])]}.{layout.parts[match['part']]}.{leaf}"] = tensor
        elif stem in layout.outer:
            found[f"{outer[layout.outer[stem]]}.{leaf}"] = tensor
        else:
            found[name] = tensor
    for name in [name for name in found if name.endswith(".running_mean")]:
        found.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    names = {outer[ours]: theirs for theirs, ours in reversed(list(layout.outer.items()))}
    for (group, block), i in index.items():
        of = {"group": group, "block": block}
        names |= {
            f"body.{i}.{ours}": layout.within.format(part=theirs, **of) for theirs, ours in reversed(list(layout.parts.items()))
        }
    return Found(_network(layout, places, kept), found, layout.coded, names)


def _network(layout: Layout, places: list[tuple[int, int]], tensors: Mapping[str, Tensor]) -> str:
    """Its name, with depth and width from the sizes. Raises ValueError if there is none of that size."""
    counts = [sum(group == g for group, _ in places) for g in sorted({group for group, _ in places})]
    if not layout.network.startswith(("wrn", "dm-wrn")):
        if counts != [2, 2, 2, 2]:
            raise ValueError(
                f"it is a {layout.network.removesuffix('-18')} with {counts} blocks, of which only 18 layers are known here"
            )
        return layout.network
    name = next(theirs for theirs, ours in layout.outer.items() if ours == "norm") + ".weight"
    last = tensors.get(name)
    if last is None or last.ndim != 1:
        raise ValueError(f"it lacks {name}, or that has another shape; get the whole file")
    depth, width = 6 * counts[0] + 4, len(last) / 64
    if len(counts) != 3 or len(set(counts)) != 1 or width != int(width):
        raise ValueError(f"it is a wide residual network of {counts} blocks and {len(last)} features, which is no WRN-D-K")
    network = f"wrn-{depth}-{int(width)}"
    return f"dm-{network}" if layout.network == "dm-wrn" else f"{network}-relu"


def nearest(tensors: Mapping[str, Tensor]) -> str | None:
    """The layout that most of the names belong to, and the names that do not; None if fewer than a third belong to any."""
    best: tuple[float, str, list[str]] | None = None
    for layout in LAYOUTS:
        stems = {name: name.rpartition(".")[0] for name in tensors}
        odd = [name for name, stem in stems.items() if not re.fullmatch(layout.block, stem) and stem not in layout.outer]
        share = 1 - len(odd) / max(len(tensors), 1)
        if best is None or share > best[0]:
            best = (share, layout.network, odd)
    if best is None or best[0] < 1 / 3:
        return None
    others = (
        f", but for {', '.join(best[2][:2])}" + (f" and {len(best[2]) - 2} more" if len(best[2]) > 2 else "") if best[2] else ""
    )
    return f"{best[1]}{others}"


def with_normalisation(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with a mean and deviation of the pixels, whatever their names and wherever they stand, as `mean` and `std` (1, C, 1, 1).

    Raises ValueError for one without the other, for several, and for numbers that images in [0, 1] cannot have.
    """
    found, taken = dict(tensors), dict[str, Tensor]()
    for name, tensor in tensors.items():
        kind = NORMALISERS.get(name.rpartition(".")[2])
        if kind and tensor.numel() in (1, 3) and tensor.is_floating_point():
            if kind in taken and not torch.equal(taken[kind].flatten(), tensor.flatten()):
                raise ValueError(f"it holds several normalisations of pixels, {name} is one; leave one of them in the file")
            del found[name]
            taken[kind] = tensor.reshape(1, -1, 1, 1)
    if len(taken) == 1:
        missing = "std" if "mean" in taken else "mean"
        raise ValueError(f"it holds a {next(iter(taken))} of the pixels and no {missing}; give a file with both or none")
    if taken and not ((taken["mean"].abs() <= 1).all() and (taken["std"] > 0).all() and (taken["std"] <= 1).all()):
        numbers = " and deviation ".join(str(taken[kind].flatten().tolist()) for kind in ("mean", "std"))
        raise ValueError(
            f"it normalises pixels by mean {numbers}, which images in [0, 1] do not have; divide both by 255, if that is meant"
        )
    return found | taken


def pixels(normalisation: str, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, C, 1, 1) of a name in MEANS. Raises ValueError for another, or another number of channels."""
    if normalisation not in MEANS:
        raise ValueError(f"normalisation {normalisation!r} is unknown: use {', '.join(MEANS)}")
    values = [torch.tensor(part).reshape(1, -1, 1, 1) for part in MEANS[normalisation]]
    if values[0].numel() not in (1, channels):
        raise ValueError(f"normalisation {normalisation}: is for 3 channels, the images have {channels}; use none")
    return values[0].expand(1, channels, 1, 1).clone(), values[1].expand(1, channels, 1, 1).clone()
