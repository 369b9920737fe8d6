"""Autoguidance: away from a weaker model of the same recipe (Karras et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from contrastive_dp._checks import non_negative, shaped_like
from contrastive_dp.wrapped import Wrapped


def autoguidance(noise_prediction: Callable[..., Tensor], weaker: Callable[..., Tensor], scale: float) -> Callable[..., Tensor]:
    """Autoguidance (Karras et al. 2024, arXiv 2406.02507) as a noise prediction: eps_w + (1 + scale) (eps - eps_w), so scale 0 is unguided.

    noise_prediction, weaker: functions of (x, t) or (x, t, labels) for the same data and schedule; weaker: a smaller network, or one
    trained for fewer steps. Raises ValueError for a negative or NaN scale, or a prediction that is no tensor of x's shape.
    """
    return Wrapped(partial(_guided, strength=non_negative(scale, "scale")), noise_prediction, weaker)


def _guided(
    noise_prediction: Callable[..., Tensor],
    weaker: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    labels: Tensor | None,
    strength: float,
) -> Tensor:
    given = (x, t) if labels is None else (x, t, labels)
    away = shaped_like(x, weaker(*given)).clone()  # compiled, the next call of a network may overwrite it
    return torch.lerp(away, shaped_like(x, noise_prediction(*given)), 1 + strength)
