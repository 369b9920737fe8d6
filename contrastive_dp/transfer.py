"""Copies to a device that nobody waits for, and how much may be held there."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`. To a GPU it goes from pinned memory: a copy from any other memory would wait for all work on the GPU."""
    pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=device.type == "cuda")  # what comes from a GPU is read at once


def room_on(device: torch.device) -> float:
    """Bytes of training images that may be held on a device: a quarter of what is free on a GPU, none on a CPU, where they are already.

    Free is also what torch keeps of earlier work and nobody uses.
    """
    if device.type != "cuda":
        return 0.0
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + kept) / 4
