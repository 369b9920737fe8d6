"""Projected gradient descent against a classifier on [0, 1] images, in l_inf and l_2: for training, and as a check on AutoAttack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Classifier = Callable[[Tensor], Tensor]
Norm = Literal["linf", "l2"]
AttackLoss = Literal["cross-entropy", "kl"]


@dataclass(frozen=True)
class Threat:
    """All x + delta in [0, 1] with ||delta||_p <= eps. norm: "linf" or "l2" (of the whole image). eps: on the [0, 1] scale."""

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm {self.norm!r} is unknown: use 'linf' or 'l2'")
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps={self.eps} must be a finite number >= 0, on the scale of images in [0, 1]")

    def __str__(self) -> str:
        return f"{self.norm} {self.eps:.4g}"

    def project(self, delta: Tensor, x: Tensor) -> Tensor:
        """The nearest perturbation of norm at most eps, then clipped so that x + delta stays in [0, 1] (which never increases the norm)."""
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            delta = delta * (self.eps / _lengths(delta).clamp(min=1e-12)).clamp(max=1.0)
        return (x + delta).clamp(0, 1) - x

    def steepest(self, gradient: Tensor) -> Tensor:
        """The unit-norm direction in which the loss rises fastest."""
        return gradient.sign() if self.norm == "linf" else gradient / _lengths(gradient).clamp(min=1e-12)

    def random(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random start: l_inf uniform in the box; l_2 a uniform direction at a uniform radius."""
        if self.norm == "linf":
            start = (torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) * 2 - 1) * self.eps
        else:
            start = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            radius = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype) * self.eps
            start = start / _lengths(start) * radius.reshape(-1, *[1] * (x.ndim - 1))
        return self.project(start, x)


def pgd(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    steps: int,
    step_size: float,
    start: torch.Generator | Tensor,
    loss: AttackLoss = "cross-entropy",
) -> Tensor:
    """Ascend the loss by projected gradient steps from a random start (Madry et al. 2018):

    delta <- project(delta + step_size steepest(grad L(x + delta))).  Returns x + delta, (n, C, H, W) in [0, 1].

    start: a generator for the random start, or the first delta itself, see `first_delta`.
    loss: "cross-entropy" to y; "kl", KL(p(x) || p(x + delta)) (TRADES, Zhang et al. 2019, started from a small Gaussian).
    classifier: in evaluation mode, otherwise the attack changes its batch statistics. Gradients of its parameters are not computed.
    """
    if threat.eps == 0:
        return x
    delta = start if isinstance(start, Tensor) else first_delta(x, threat, start, loss)
    if loss == "kl":
        with torch.no_grad():
            clean = F.log_softmax(classifier(x), dim=1)
    for _ in range(steps):
        seen = (x + delta).requires_grad_()
        with torch.enable_grad():
            logits = classifier(seen)
            if loss == "kl":
                value = F.kl_div(F.log_softmax(logits, dim=1), clean, reduction="sum", log_target=True)
            else:
                value = F.cross_entropy(logits, y, reduction="sum")
            (gradient,) = torch.autograd.grad(value, seen)
        delta = threat.project(delta + step_size * threat.steepest(gradient), x)
    return (x + delta).detach()


@torch.no_grad()
def first_delta(x: Tensor, threat: Threat, generator: torch.Generator, loss: AttackLoss = "cross-entropy") -> Tensor:
    """The first delta of an attack: see Threat.random; for "kl", 0.001 times a standard normal."""
    if loss == "kl":
        return threat.project(1e-3 * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype), x)
    return threat.random(x, generator)


def strongest(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    steps: int,
    restarts: int,
    generator: torch.Generator,
) -> Tensor:
    """(n,) bool: classified as y at x and at the end of every one of `restarts` runs of PGD with step size 2.5 eps / steps."""
    with torch.no_grad():
        right = classifier(x).argmax(dim=1) == y
    for _ in range(restarts):
        attacked = pgd(classifier, x, y, threat, steps, 2.5 * threat.eps / steps, generator)
        with torch.no_grad():
            right &= classifier(attacked).argmax(dim=1) == y
    return right


def _lengths(delta: Tensor) -> Tensor:
    """l_2 norm of each sample, shaped to divide it."""
    return delta.flatten(1).norm(dim=1).reshape(-1, *[1] * (delta.ndim - 1))
