"""Classifier-free guidance: pushes away from the unconditional prediction (Ho, Salimans 2022)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from contrastive_dp._checks import non_negative


def classifier_free(noise_prediction: Callable[..., Tensor], scale: float, null_label: int | None = None) -> Callable[..., Tensor]:
    """Classifier-free guidance (Ho, Salimans 2022) as a noise prediction: eps_u + (1 + scale) (eps_c - eps_u), so scale 0 is unguided.

    noise_prediction: a function of (x, t) and (x, t, labels). Unconditional predictions come from null_label, the label that meant
    "no label" in training, or from a call without labels. With null_label, both are evaluated in one batch, otherwise one after the other.
    Raises ValueError for a negative or NaN scale, or labels missing.
    """
    strength = non_negative(scale, "scale")

    def guided(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            raise ValueError("classifier_free needs labels: pass labels=... to the sampler")
        t = t.expand(len(x))  # loops of diffusers pass one for all
        if null_label is None:
            conditional, unconditional = noise_prediction(x, t, labels), noise_prediction(x, t)
        else:
            both = noise_prediction(
                x.repeat(2, *[1] * (x.ndim - 1)), t.repeat(2), torch.cat([labels, labels.new_full(labels.shape, null_label)])
            )
            conditional, unconditional = both.chunk(2)
        return torch.lerp(unconditional, conditional, 1 + strength)

    return guided
