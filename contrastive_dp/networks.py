"""A small noise-prediction network for vectors; for images use a U-Net from diffusers (see adapters.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contrastive_dp._checks import check_float64, count


class NoisePredictionMLP(nn.Module):
    """eps(x, t[, labels]) for vectors: a residual perceptron, its activations shifted and scaled by an embedding of t (and the label).

    dim: d of x (n, d). classes: K, with labels 0..K-1, and K for "no label", as in a call without labels (classifier-free guidance);
    None: unconditional. width, depth: of the hidden layers. Time enters as sines and cosines of t at geometric frequencies
    (Vaswani et al. 2017), as in Ho et al. (2020).
    """

    def __init__(self, dim: int, classes: int | None = None, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.classes, self.width = classes, count(width, "width", 4)
        self.input = nn.Linear(count(dim, "dim"), width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.blocks = nn.ModuleList(_Block(width) for _ in range(count(depth, "depth")))
        self.output = nn.Linear(width, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = self.time(sinusoidal(t, self.width).to(x.dtype))
        if self.label is not None and self.classes is not None:
            condition = condition + self.label(t.new_full((len(x),), self.classes) if labels is None else labels)
        hidden = self.input(x)
        for block in self.blocks:
            hidden = block(hidden, condition)
        out: Tensor = self.output(F.silu(hidden))
        return out


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.condition = nn.Linear(width, 2 * width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.condition(condition).chunk(2, dim=1)
        return hidden + self.second(F.silu(self.first(F.silu(self.norm(hidden) * (1 + scale) + shift))))


def sinusoidal(t: Tensor, width: int, longest_period: float = 10_000.0) -> Tensor:
    """(n, width) cosines and sines of t at frequencies 1 .. 1/longest_period in geometric progression. t: (n,)."""
    check_float64(t.device)
    half = width // 2
    frequencies = torch.exp(-math.log(longest_period) * torch.arange(half, device=t.device, dtype=torch.float64) / half)
    angles = t[:, None].double() * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2)).float()
