"""What makes a step fast on this device, by measurement, not guesswork: mixed precision, compilation, memory format of the channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from contrastive_dp import NoiseSchedule

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
    """The same for a U-Net, which channels last does not speed up on CPUs, or for a noise prediction with its schedule."""
    weight, schedule = next(network.parameters()), getattr(network, "schedule", None)
    if compiled == "yes" and isinstance(schedule, NoiseSchedule):
        schedule.alpha_bar_on(weight.device)  # a copy made while it is traced would be a change, after which all is compiled again
    return prepared(network, compiled, channels_last=weight.is_cuda)


@contextmanager
def gpu_arithmetic(tf32: bool, cudnn_benchmark: bool = False) -> Iterator[None]:
    """Within, float32 products and convolutions on a GPU use TensorFloat-32 (mantissas of 10 bits), or full float32; and cuDNN times its
    algorithms to take the fastest, or takes its usual ones. torch's own default uses TensorFloat-32 for convolutions."""
    cudnn: Any = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32, cudnn.benchmark = tf32, cudnn_benchmark
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]
