"""Short reprs of objects that hold tensors and networks."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch

FEW = 4
"""Tensors with at most this many numbers are printed; larger ones are shown by their shape."""


class ShortRepr:
    """Base of a dataclass (with repr=False) that shows its fields: tensors by shape, networks and functions by name."""

    def __repr__(self) -> str:
        entries: Any = self
        if not is_dataclass(entries):  # somebody's own class
            return f"{type(self).__name__}()"
        given = [(entry.name, getattr(self, entry.name)) for entry in fields(entries) if entry.repr]
        return f"{type(self).__name__}({', '.join(f'{name}={shown(value)}' for name, value in given)})"


def shown(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, torch.Tensor):
        return str(value.tolist()) if value.numel() <= FEW else f"<tensor {tuple(value.shape)}>"
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if isinstance(value, list | tuple) and len(value) > FEW:
        return f"<{len(value)} values>"
    return repr(value)
