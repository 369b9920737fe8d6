"""Predictions and features of a classifier on uint8 images, in pieces that fit in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@torch.no_grad()
def pseudo_labels(encoder: nn.Module, x: Tensor) -> Tensor:
    """Most probable class of each uint8 image (n, C, H, W)."""
    return _of_pieces(lambda unit: encoder(unit).argmax(dim=1), x, _device(encoder))


@torch.no_grad()
def probabilities(classifier: nn.Module, x: Tensor) -> Tensor:
    """Class probabilities (n, K), single precision, of uint8 images (n, C, H, W)."""
    return _of_pieces(lambda unit: classifier(unit).float().softmax(dim=1), x, _device(classifier))


@torch.no_grad()
def unit_features(features: nn.Module, x: Tensor) -> Tensor:
    """Unit-norm features (n, k) of uint8 images."""
    device = _device(features)
    return torch.cat([F.normalize(features(piece.to(device).float() / 127.5 - 1), dim=1).cpu() for piece in x.split(500)])


def _of_pieces(function: Callable[[Tensor], Tensor], x: Tensor, device: torch.device) -> Tensor:
    """A function of images in [0, 1], of uint8 images (n, C, H, W)."""
    return torch.cat([function(piece.to(device).float() / 255).cpu() for piece in x.split(500)])


def _device(network: nn.Module) -> torch.device:
    """The device of a network; pieces of the images are moved there."""
    return next(network.parameters()).device
