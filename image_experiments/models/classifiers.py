"""Classifiers: networks from [0, 1] images to logits, with normalisation inside. Needs only torch: this file goes into exported models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NETWORKS = ("linear", "small-cnn", "preact-resnet-18", "wrn-28-10", "wrn-34-10", "wrn-16-4")
PUBLISHED = (
    "dm-wrn-28-10",
    "dm-preact-resnet-18",
    "wrn-28-10-relu",
    "wong-preact-resnet-18",
    "kuangliu-preact-resnet-18",
    "resnet-18",
)
"""Networks of published checkpoints that are none of these."""


class Normalised(nn.Module):
    """The form of all our classifiers: (x - mean) / std per channel, then `body`, then `head`, the last linear layer."""

    def __init__(self, body: nn.Module, head: nn.Linear, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body, self.head = body, head
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x (n, C, H, W) in [0, 1] -> (n, K) logits."""
        out: Tensor = self.head(self.body((x - self.mean) / self.std))
        return out


def make_classifier(
    network: str, classes: int, shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float], seed: int = 0
) -> Normalised:
    """A classifier with fresh weights, which depend only on the seed.

    network: "linear"; "small-cnn" (three convolutions, or "small-cnn-W" with W channels); "preact-resnet-18" (He et al. 2016);
    "wrn-D-K", a wide residual network of depth D and width K with SiLU activations (Zagoruyko, Komodakis 2016; Gowal et al. 2020), or
    "wrn-D-K-relu". Those of published checkpoints: "dm-wrn-D-K" and "dm-preact-resnet-18" (SiLU, or "-relu") of Gowal, Rebuffi and Wang,
    which pad below and right alone where they halve the image; "wong-preact-resnet-18", whose shortcuts start before the activation and
    which ends without one (Wong, Rice, Kolter 2020); "resnet-18", activated after the sum (He et al. 2015).
    shape: (C, H, W). mean, std: per channel, of images in [0, 1].
    Raises ValueError for an unknown network, and for images too small for its downsampling.
    """
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body: nn.Module
        if network == "linear":
            body, features = nn.Flatten(), channels * height * width
        elif match := re.fullmatch(r"small-cnn(?:-(\d{1,4}))?", network):
            body, features = _small_cnn(channels, height, width, int(match.group(1) or 16))
        elif (form := _form(network)) is not None:
            body, features = _residual(channels, form)
        else:
            near = difflib.get_close_matches(network, (*NETWORKS, *PUBLISHED), n=1)
            raise ValueError(
                f"network {network!r} is unknown: use {', '.join((*NETWORKS, *PUBLISHED))}, small-cnn-W (W < 10,000) or wrn-D-K with "
                "D = 6n + 4 (D < 1,000, K < 100)" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        return Normalised(body, nn.Linear(features, classes), mean, std)


def classifier_without_weights(network: str, classes: int, shape: tuple[int, int, int]) -> Normalised:
    """The same on the device "meta": names and shapes alone, at no cost. Raises ValueError as make_classifier does."""
    with torch.device("meta"):
        return make_classifier(network, classes, shape, [0.0] * shape[0], [1.0] * shape[0])


def _small_cnn(channels: int, height: int, width: int, w: int) -> tuple[nn.Module, int]:
    """Two convolutions, pooling, another convolution, pooling, and a hidden layer of 128 units."""
    if min(height, width) < 4:
        raise ValueError(
            f"images of {width}x{height} cannot be halved twice, as small-cnn does: use larger ones, or network linear"
        )
    body = nn.Sequential(
        nn.Conv2d(channels, w, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(w, w, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(w, 2 * w, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * w * (height // 4) * (width // 4), 128),
        nn.ReLU(),
    )
    return body, 128


class _Form(NamedTuple):
    """What tells residual networks apart. widths: channels of the first convolution and of each group of `blocks`."""

    widths: Sequence[int]
    blocks: int
    activation: Callable[[], nn.Module]
    uneven: bool = False
    """Convolutions that halve the image pad below and right alone (TensorFlow's "same")."""
    shortcut: int = 1
    """Kernel of the convolution on a shortcut."""
    activated: bool = True
    """Whether that convolution sees the activated input."""
    post: bool = False
    """Activation after the sum, in place of norm and activation before each convolution."""
    ending: bool = True
    """Norm and activation after the last block."""


WIDTHS = (64, 64, 128, 256, 512)


def _form(network: str) -> _Form | None:
    """The residual network of this name."""
    plain, relu = network.removesuffix("-relu"), network.endswith("-relu")
    ours = plain.removeprefix("dm-")
    uneven, activation = ours != plain, nn.ReLU if relu else nn.SiLU
    if (match := re.fullmatch(r"wrn-(\d{1,3})-(\d{1,2})", ours)) and (depth := int(match.group(1)) - 4) >= 6 and depth % 6 == 0:
        k = int(match.group(2))
        return _Form((16, 16 * k, 32 * k, 64 * k), depth // 6, activation, uneven) if k else None
    if plain == "dm-preact-resnet-18":
        return _Form(WIDTHS, 2, activation, uneven, shortcut=3, activated=False)
    return {
        "preact-resnet-18": _Form(WIDTHS, 2, nn.ReLU),
        "wong-preact-resnet-18": _Form(WIDTHS, 2, nn.ReLU, activated=False, ending=False),
        "kuangliu-preact-resnet-18": _Form(WIDTHS, 2, nn.ReLU, ending=False),
        "resnet-18": _Form(WIDTHS, 2, nn.ReLU, post=True, ending=False),
    }.get(network)


class _Uneven(nn.Conv2d):
    """A convolution that pads below and right."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def _convolution(inside: int, outside: int, kernel: int, stride: int, uneven: bool) -> nn.Conv2d:
    if uneven and stride > 1 and kernel > 1:
        return _Uneven(inside, outside, kernel, stride, bias=False)
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    """Pre-activation residual block (He et al. 2016): x + conv(act(norm(conv(act(norm(x)))))), a convolved shortcut where shapes change."""

    def __init__(self, inside: int, outside: int, stride: int, form: _Form) -> None:
        super().__init__()
        self.activated = form.activated
        self.norm1, self.act1 = nn.BatchNorm2d(inside), form.activation()
        self.conv1 = _convolution(inside, outside, 3, stride, form.uneven)
        self.norm2, self.act2 = nn.BatchNorm2d(outside), form.activation()
        self.conv2 = _convolution(outside, outside, 3, 1, form.uneven)
        changes = stride > 1 or inside != outside
        self.shortcut = _convolution(inside, outside, form.shortcut, stride, form.uneven) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act1(self.norm1(x))
        out = self.conv2(self.act2(self.norm2(self.conv1(hidden))))
        kept: Tensor = x if self.shortcut is None else self.shortcut(hidden if self.activated else x)
        return kept + out


class _PostBlock(nn.Module):
    """Residual block of He et al. 2015: act(x + norm(conv(act(norm(conv(x)))))), a convolved and normed shortcut where shapes change."""

    def __init__(self, inside: int, outside: int, stride: int, form: _Form) -> None:
        super().__init__()
        self.conv1 = _convolution(inside, outside, 3, stride, form.uneven)
        self.norm1, self.act1 = nn.BatchNorm2d(outside), form.activation()
        self.conv2 = _convolution(outside, outside, 3, 1, form.uneven)
        self.norm2, self.act2 = nn.BatchNorm2d(outside), form.activation()
        self.shortcut: nn.Module | None = None
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(_convolution(inside, outside, 1, stride, form.uneven), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.act2(kept + self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x))))))
        return out


def _residual(channels: int, form: _Form) -> tuple[nn.Module, int]:
    """Convolution, groups of blocks (each but the first halves the image), norm, activation, global mean."""
    inside = form.widths[0]
    layers: list[nn.Module] = [nn.Conv2d(channels, inside, 3, padding=1, bias=False)]
    if form.post:
        layers += [nn.BatchNorm2d(inside), form.activation()]
    for group, outside in enumerate(form.widths[1:]):
        for block in range(form.blocks):
            kind = _PostBlock if form.post else _Block
            layers.append(kind(inside, outside, 2 if group > 0 and block == 0 else 1, form))
            inside = outside
    if form.ending:
        layers += [nn.BatchNorm2d(inside), form.activation()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    body = nn.Sequential(*layers)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body, inside
