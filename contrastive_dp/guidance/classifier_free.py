"""Classifier-free guidance: pushes away from the unconditional prediction (Ho, Salimans 2022)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from contrastive_dp._checks import non_negative, per_sample, shaped_like
from contrastive_dp.wrapped import Wrapped


def classifier_free(noise_prediction: Callable[..., Tensor], scale: float, null_label: int | None = None) -> Callable[..., Tensor]:
    """Classifier-free guidance (Ho, Salimans 2022) as a noise prediction: eps_u + (1 + scale) (eps_c - eps_u), so scale 0 is unguided.

    noise_prediction: a function of (x, t) and (x, t, labels). Unconditional predictions come from null_label, the label that meant
    "no label" in training, or from a call without labels. With null_label, both are evaluated in one batch, otherwise one after the other.
    Raises ValueError for a negative or NaN scale, labels missing, or a prediction that is no tensor of x's shape.
    """
    return Wrapped(partial(_guided, strength=non_negative(scale, "scale"), null_label=null_label), noise_prediction)


def _guided(
    noise_prediction: Callable[..., Tensor], x: Tensor, t: Tensor, labels: Tensor | None, strength: float, null_label: int | None
) -> Tensor:
    if labels is None:
        raise ValueError("classifier_free needs labels: pass labels=... to the sampler")
    t = per_sample(t, x)
    if null_label is None:
        conditional = shaped_like(x, noise_prediction(x, t, labels)).clone()  # compiled, its next call may overwrite it
        unconditional = shaped_like(x, noise_prediction(x, t))
    else:
        twice = x.repeat(2, *[1] * (x.ndim - 1))
        both = noise_prediction(twice, t.repeat(2), torch.cat([labels, labels.new_full(labels.shape, null_label)]))
        conditional, unconditional = shaped_like(twice, both).chunk(2)
    return torch.lerp(unconditional, conditional, 1 + strength)
