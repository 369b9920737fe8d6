"""Classifiers: networks from [0, 1] images to logits, with normalisation inside. Needs only torch: this file goes into exported models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

NETWORKS = ("linear", "small-cnn", "preact-resnet-18", "wrn-28-10", "wrn-34-10", "wrn-16-4")


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
    "wrn-D-K", a wide residual network of depth D and width K with SiLU activations (Zagoruyko, Komodakis 2016; Gowal et al. 2020).
    shape: (C, H, W). mean, std: per channel, of images in [0, 1].
    Raises ValueError for an unknown network, and for images too small for its downsampling.
    """
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body: nn.Module
        if network == "linear":
            body, features = nn.Flatten(), channels * height * width
        elif match := re.fullmatch(r"small-cnn(?:-(\d+))?", network):
            body, features = _small_cnn(channels, height, width, int(match.group(1) or 16))
        elif network == "preact-resnet-18":
            body, features = _residual(channels, (64, 64, 128, 256, 512), 2, nn.ReLU)
        elif (match := re.fullmatch(r"wrn-(\d+)-(\d+)", network)) and (int(match.group(1)) - 4) % 6 == 0:
            k = int(match.group(2))
            body, features = _residual(channels, (16, 16 * k, 32 * k, 64 * k), (int(match.group(1)) - 4) // 6, nn.SiLU)
        else:
            near = difflib.get_close_matches(network, NETWORKS, n=1)
            raise ValueError(
                f"network {network!r} is unknown: use {', '.join(NETWORKS)}, small-cnn-W or wrn-D-K with D = 6n + 4"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
        return Normalised(body, nn.Linear(features, classes), mean, std)


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


class _Block(nn.Module):
    """Pre-activation residual block (He et al. 2016): x + conv(act(norm(conv(act(norm(x)))))), a 1x1 shortcut where shapes change."""

    def __init__(self, inside: int, outside: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.act1 = nn.BatchNorm2d(inside), activation()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm2, self.act2 = nn.BatchNorm2d(outside), activation()
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False) if stride > 1 or inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act1(self.norm1(x))
        out = self.conv2(self.act2(self.norm2(self.conv1(hidden))))
        kept: Tensor = x if self.shortcut is None else self.shortcut(hidden)
        return kept + out


def _residual(channels: int, widths: Sequence[int], blocks: int, activation: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    """Convolution, groups of blocks (each but the first halves the image), norm, activation, global mean."""
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)]
    inside = widths[0]
    for group, outside in enumerate(widths[1:]):
        for block in range(blocks):
            layers.append(_Block(inside, outside, 2 if group > 0 and block == 0 else 1, activation))
            inside = outside
    layers += [nn.BatchNorm2d(inside), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    body = nn.Sequential(*layers)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body, inside
