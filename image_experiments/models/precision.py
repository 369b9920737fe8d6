"""What makes a step fast on this device, by measurement, not guesswork: mixed precision, compilation, memory format of the channels."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from torch import nn

Precision = Literal["float32", "bfloat16", "auto"]
Compile = Literal["no", "yes", "auto"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def prepared(network: ModuleT, compiled: str, channels_last: bool = True) -> ModuleT:
    """The network, changed in place: channels last in memory, which convolutions prefer, and compiled if requested.

    Its copies, its parameter names and its weights in files are not affected.
    """
    if channels_last:
        order: Any = {"memory_format": torch.channels_last}
        network.to(**order)
    if compiled == "yes":
        network.compile()
    return network


def prepared_unet(network: ModuleT, compiled: str) -> ModuleT:
    """The same for a U-Net, which channels last does not speed up on CPUs."""
    return prepared(network, compiled, channels_last=next(network.parameters()).is_cuda)
