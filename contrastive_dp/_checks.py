"""Input checks shared by contrastive_dp: each raises ValueError naming the value, the cause and the remedy."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


def check_float64(device: torch.device) -> None:
    """Raise ValueError for a device without float64, which noise levels and timesteps are computed in."""
    if device.type == "mps":
        raise ValueError("device mps has no float64, which noise levels need: use a CPU or CUDA")


def positive(value: float, name: str) -> float:
    """Return `value` as a finite float > 0."""
    number = _number(value, name)
    if not number > 0:
        raise ValueError(f"{name}={number:g} must be > 0")
    return number


def non_negative(value: float, name: str, remedy: str = "") -> float:
    """Return `value` as a finite float >= 0."""
    number = _number(value, name)
    if number < 0:
        raise ValueError(f"{name}={number:g} is negative: it must be >= 0{remedy}")
    return number


def finite_number(value: float, name: str) -> float:
    """Return `value` as a finite float."""
    return _number(value, name)


def in_unit(value: float, name: str) -> float:
    """Return `value` as a float in [0, 1)."""
    number = _number(value, name)
    if not 0 <= number < 1:
        raise ValueError(f"{name}={number:g} must lie in [0, 1)")
    return number


def count(value: int, name: str, minimum: int = 1) -> int:
    """Return `value` as an int >= minimum."""
    # a float would round numpy's large whole numbers
    number = int(value) if isinstance(value, int | np.integer) else _number(value, name)
    if number != int(number) or number < minimum:
        raise ValueError(f"{name}={number} must be a whole number >= {minimum}")
    return int(number)


def whole_timestep(t: Any, total: int) -> int:
    """Return a timestep of a schedule, given as a number or a tensor of one, as an int in 0 .. total - 1."""
    number = t.item() if isinstance(t, torch.Tensor) and t.numel() == 1 else t
    if not isinstance(number, int | float | np.number) or not 0 <= number < total or number != int(number):
        raise ValueError(
            f"t={number} is no timestep of the schedule: give one whole number from 0 to {total - 1}; a loop whose times are others, such "
            "as those of flows or between timesteps, is guided by guide_states"
        )
    return int(number)


def per_sample(t: Any, x: torch.Tensor) -> torch.Tensor:
    """Timesteps (n,) on the device of the states x (n, ...): loops of diffusers pass one for all, often on the CPU."""
    return torch.as_tensor(t, device=x.device).expand(len(x))


def wide_type(x: torch.Tensor) -> torch.dtype:
    """float32, or the type of x if that is wider: of times, sums and products that half precision would spoil."""
    return torch.promote_types(x.dtype, torch.float32)


def one_of(value: str, name: str, known: Sequence[str]) -> str:
    """Return `value` if it is one of `known`, otherwise raise and suggest the nearest known name."""
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}={value!r} is unknown: use one of {', '.join(map(repr, known))}{hint}")


def batch_labels(labels: Any, n: int) -> torch.Tensor:
    """Return integer labels of shape (n,)."""
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"labels is {type(labels).__name__}: give an integer tensor of shape ({n},)")
    if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels has shape {tuple(labels.shape)} and dtype {labels.dtype}: give an integer tensor of shape ({n},)")
    return labels


def finite(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Return `tensor` if it holds no NaN or infinity. Waits for the device: use it on inputs, not inside loops."""
    if not torch.isfinite(tensor).all():
        index = tuple(int(i) for i in torch.nonzero(~torch.isfinite(tensor))[0])
        raise ValueError(f"{name} contains {float(tensor[index])} at index {index}: remove or replace it")
    return tensor


def shaped_like(x: torch.Tensor, noise_prediction: Any) -> torch.Tensor:
    """Return a network's noise prediction for x if it is a tensor of x's shape: others would be broadcast."""
    if not isinstance(noise_prediction, torch.Tensor):
        kind = type(noise_prediction).__name__
        raise ValueError(f"the noise prediction returned {kind}: it must return a tensor shaped like x (a U-Net's .sample)")
    if noise_prediction.shape != x.shape:
        found = tuple(noise_prediction.shape)
        raise ValueError(f"the noise prediction has shape {found}, x has {tuple(x.shape)}: they must be equal")
    return noise_prediction


def real_samples(x: torch.Tensor, name: str) -> torch.Tensor:
    """Real samples, checked as a whole: uint8 images, or floating-point samples without NaN; images in [0, 255] are refused, in [0, 1]
    warned of."""
    if x.is_floating_point():
        finite(x, name)
    if x.dtype != torch.uint8:
        warn_if_unit_range(signed_images(x, name), name)
    return x


def normal_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy if it was made in inference mode: autograd cannot save such a tensor for a backward pass."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def signed_images(x: torch.Tensor, name: str) -> torch.Tensor:
    """Real samples as input for a diffusion model: uint8 images (n, C, H, W) are mapped from 0..255 to [-1, 1], others are unchanged.

    Raises ValueError for other integer types, and for images whose values show that they are in [0, 255].
    """
    if x.dtype == torch.uint8:
        return x.float() / 127.5 - 1
    if not x.is_floating_point():
        raise ValueError(f"{name} has dtype {x.dtype}: give floating-point samples (images in [-1, 1]) or uint8 images")
    if x.ndim == 4 and x.numel() and float(x.min()) >= 0 and float(x.max()) > 2:
        raise ValueError(
            f"{name} reaches from {float(x.min()):g} to {float(x.max()):g}, which looks like [0, 255]: give images in [-1, 1], or as uint8"
        )
    return x


def warn_if_unit_range(x: torch.Tensor, name: str) -> None:
    """Warn of images of which none leaves [0, 1]: [-1, 1] is meant."""
    if x.ndim == 4 and x.numel() and 0 <= float(x.min()) < float(x.max()) <= 1:
        warnings.warn(f"{name} lies in [0, 1], but images in [-1, 1] are meant: give 2 * {name} - 1, or uint8 images", stacklevel=4)


def warn_if_training(network: Any, name: str) -> None:
    """Warn of a network whose dropout is on, or whose batch norm would go on learning from what it is given."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    if isinstance(network, nn.Module) and any(isinstance(part, kinds) and part.training for part in network.modules()):
        warnings.warn(f"{name} is in training mode, so dropout is on and batch norm changes: call {name}.eval()", stacklevel=4)


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}={number} is not finite: give a finite number")
    return number
