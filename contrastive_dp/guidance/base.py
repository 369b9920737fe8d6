"""Guidance: what is added to a noise prediction so that sampling descends a loss.

    eps_hat = eps + lambda_t sqrt(1 - a_t) grad_x L,    a = alpha_bar,    L summed over samples (so lambda does not depend on the batch).

A guidance is a frozen description; `guidance.start(schedule, labels)` begins one trajectory batch and returns a function of (x, t, eps)
that any sampler can call, ours or any other:

    guide = ContrastiveGuidance(embed, InfoNCE(), scale=0.3, relative=True).start(schedule, labels)
    for t in timesteps:
        eps = guide(x, t, network(x, t))

The loss sees the noisy state x_t (at="xt", as in the paper) or the denoised estimate x0_hat = (x_t - sqrt(1-a) eps) / sqrt(a) with eps held
constant (at="x0": no backward pass through the network, gradient divided by sqrt(a)).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from contrastive_dp._checks import (
    batch_labels,
    count,
    non_negative,
    normal_tensor,
    one_of,
    shaped_like,
    warn_if_training,
    whole_timestep,
    wide_type,
)
from contrastive_dp._repr import ShortRepr
from contrastive_dp.nan_watch import Watch
from contrastive_dp.schedules import NoiseSchedule

Embed = Callable[[Tensor], Tensor]
At = Literal["x0", "xt"]
State = tuple[Tensor, Tensor, float]
"""x, eps and alpha_bar."""


class Guidance(ShortRepr, ABC):
    """Base class of every guidance: a subclass defines `gradient`; strength, window and the rest are handled here.

    Fields of every subclass:
    scale: lambda >= 0, one number, or (T,) numbers, one per timestep.
    window: (low, high), guided at timesteps low <= t < high; None: at every timestep. Pure noise (alpha_bar < 1e-6) is never guided.
    at: what the loss sees, "x0" or "xt".
    relative: lambda is the norm of the push as a fraction of the noise prediction's norm, per sample. It is smaller where the loss is
        almost flat (see LEAST_CHANGE), for example if a classifier is certain, because such a gradient's direction is rounding error.
    every: guide only the first of every k visited steps in the window, k times as strongly (the total push is that of lambda if k divides
        their number).
    reverse: ascend the loss instead.
    """

    scale: float | Sequence[float] | Tensor
    window: tuple[int, int] | None
    at: At
    relative: bool
    every: int
    reverse: bool
    needs_labels: ClassVar[bool] = False

    @property
    def fewest(self) -> int:
        """The least number of samples that can be guided together."""
        return 1

    def _check(self) -> None:
        one_of(self.at, "at", ("x0", "xt"))
        count(self.every, "every")
        self.strengths(None)
        window: Any = self.window
        if window is not None:
            whole = (
                isinstance(window, tuple | list) and len(window) == 2 and all(isinstance(edge, int | np.integer) for edge in window)
            )
            if not (whole and 0 <= window[0] < window[1]):
                raise ValueError(f"window={window}: give whole timesteps (low, high) with 0 <= low < high")

    def strengths(self, total: int | None) -> list[float]:
        """lambda at timesteps 0..total-1 (a single number if total is None). Raises for NaN, negative values or a wrong length."""
        values = self.scale.tolist() if isinstance(self.scale, Tensor | np.ndarray) else self.scale
        if isinstance(values, Sequence):
            checked = [non_negative(value, f"scale[{t}]", NEGATIVE) for t, value in enumerate(values)]
            if total is not None and len(checked) != total:
                raise ValueError(f"scale has {len(checked)} values, the schedule {total} timesteps: give one for each")
            return checked
        return [non_negative(values, "scale", NEGATIVE)] * (total or 1)

    def start(self, schedule: NoiseSchedule, labels: Tensor | None = None) -> GuidedRun:
        """Begin one batch of trajectories. Raises ValueError for missing labels, too few of them (see `fewest`), anything but a
        NoiseSchedule, or a window or scale that does not fit the schedule."""
        self._check()
        if not isinstance(schedule, NoiseSchedule):
            raise ValueError(
                f"schedule is {type(schedule).__name__}: it must be a NoiseSchedule; that of diffusers' scheduler is schedule_of(scheduler)"
            )
        total = len(schedule)
        if self.window is not None and self.window[1] > total:
            raise ValueError(f"window={self.window} lies outside the schedule's {total} timesteps: use 0 <= low < high <= {total}")
        if labels is not None:
            batch_labels(labels, len(labels))
            self.check_samples(len(labels))
        if labels is None and self.needs_labels:
            raise ValueError(f"{type(self).__name__} needs labels: pass labels=... to the sampler")
        entries: Any = self
        if is_dataclass(entries):  # of others the networks are not known
            for entry in fields(entries):
                warn_if_training(getattr(self, entry.name), entry.name)
        return GuidedRun(self, schedule, None if labels is None else normal_tensor(labels), self.strengths(total))

    def check_samples(self, n: int) -> None:
        """Raise ValueError if n samples are too few to be guided together."""
        if n == 0:
            raise ValueError("there are 0 samples to guide: sample at least one")
        if n < self.fewest:
            raise ValueError(f"{n} sample cannot be guided: its loss compares samples; sample at least {self.fewest} together")

    def least_change(self, size: Tensor, a: float) -> Tensor | float:
        """With relative=True: a push has full strength only if, at the length of the noise prediction, it would change the loss by this
        much; otherwise it shrinks with the gradient. size: norms of the noise prediction, (n, 1, ...). a: alpha_bar."""
        return LEAST_CHANGE

    def takes_float32(self) -> bool:
        """Whether every network of it takes states in float32, so that gradients by states of half precision are not rounded to 0.

        Modules do, unless they are of half precision themselves; a function may hide such a network, and gets states as they are.
        """
        entries: Any = self
        given = [getattr(self, entry.name) for entry in fields(entries)] if is_dataclass(entries) else [None]
        networks = [one for one in given if callable(one) and not hasattr(one, "needs_previous")]  # a loss sees embeddings
        return is_dataclass(entries) and all(takes_float32(one) for one in networks)

    @abstractmethod
    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor | None:
        """Gradient of the summed loss with respect to `seen` (n, ...), the state or denoised estimate; None: no guidance at this step."""


PURE = 1e-6
"""alpha_bar below which a state counts as pure noise and is not guided: there x0_hat moves a thousand times as far as the prediction."""
NEGATIVE = "; to ascend the loss use reverse=True"
HALF = (torch.float16, torch.bfloat16)
LEAST_CHANGE = 1e-3
"""Usual least change of the loss, in nats, see Guidance.least_change."""


class GuidedRun:
    """One batch of guided trajectories: guide(x, t, eps) -> eps_hat. Holds the state of the guidance between steps, O(batch).

    The push is a constant: a gradient through eps_hat is that through eps.
    Raises ValueError for a t that is no timestep of the schedule, and for labels or a noise prediction that do not fit x. A NaN raises
    FloatingPointError, at once on a CPU; on a device, NaNs are checked every ten guided steps and by `guide.watch.report()`.
    """

    def __init__(self, guidance: Guidance, schedule: NoiseSchedule, labels: Tensor | None, strengths: list[float]) -> None:
        self.guidance, self.schedule, self.labels, self.strengths = guidance, schedule, labels, strengths
        self.kept: list[tuple[int, Tensor | State]] = []
        """The last states at two timesteps, for losses that compare with the one before: t with the embeddings or, until it is encoded, the
        state. Two, because solvers of second order visit a timestep twice."""
        self.visits = 0
        self.watch = Watch()
        self.wide = guidance.takes_float32()

    def __call__(self, x: Tensor, t: int, eps: Tensor) -> Tensor:
        """Return eps plus the guidance of timestep t. x, eps: (n, ...). t: int, or a tensor of one, as in loops of diffusers."""
        t = whole_timestep(t, len(self.schedule))
        shaped_like(x, eps)
        if self.labels is not None and len(self.labels) != len(x):
            raise ValueError(
                f"guidance was started with {len(self.labels)} labels and got {len(x)} samples: start it anew for each batch"
            )
        push = self._pushed(x, t, eps)
        if push is None:
            return eps
        strength = self.strengths[t] * self.guidance.every * (-1 if self.guidance.reverse else 1)
        return torch.add(eps, push, alpha=strength).to(eps.dtype)

    @torch.inference_mode(False)  # in the caller's inference mode, gradients could not be computed
    @torch.no_grad()
    def _pushed(self, x: Tensor, t: int, eps: Tensor) -> Tensor | None:
        """What is added to eps, at strength 1; None where timestep t is not guided."""
        guidance, a, strength = self.guidance, self.schedule[t], self.strengths[t]
        low, high = guidance.window or (0, len(self.schedule))
        if strength == 0 or not low <= t < high or a < PURE:
            if a < PURE:
                self.kept = []  # there is nothing in pure noise to compare with
            else:
                self.keep(t, (x.clone(), eps.clone(), a))
            return None
        if self.labels is not None and self.labels.device != x.device:
            self.labels = self.labels.to(x.device)  # once, not in every step
        self.visits += 1
        if (self.visits - 1) % guidance.every:
            self.keep(t, (x.clone(), eps.clone(), a))
            return None
        self.watch("state", t, x)
        self.watch("noise prediction", t, eps)
        gradient = guidance.gradient(self.see(x, eps, a), self, t)
        self.kept = [one for one in self.kept if isinstance(one[1], Tensor)]  # other states are of no more use
        if gradient is None:
            self.visits -= 1  # a step without guidance is none of every k
            return None
        if guidance.at == "x0":
            gradient = gradient / math.sqrt(a)
        push = self._push(gradient, eps, a)
        self.watch("guidance gradient", t, push)
        return push

    def keep(self, t: int, what: Tensor | State) -> None:
        """Note the embeddings at timestep t, or a state that is not encoded, in place of an earlier note at t."""
        self.kept = [*[one for one in self.kept if one[0] != t][-1:], (t, what)]

    def before(self, t: int) -> tuple[int, Tensor | State] | None:
        """The last note at another timestep than t."""
        return next((one for one in reversed(self.kept) if one[0] != t), None)

    def see(self, x: Tensor, eps: Tensor, a: float) -> Tensor:
        """What the loss sees of a state, in float32 at least where the networks take it."""
        if self.wide and x.dtype in HALF:
            x, eps = x.float(), eps.float()
        return x.clone() if self.guidance.at == "xt" else (x - math.sqrt(1 - a) * eps) / math.sqrt(a)

    def _push(self, gradient: Tensor, eps: Tensor, a: float) -> Tensor:
        if not self.guidance.relative:
            return gradient * math.sqrt(1 - a)
        axes, wide = tuple(range(1, eps.ndim)), wide_type(eps)  # products overflow in half precision
        norm, size = (torch.linalg.vector_norm(of, dim=axes, keepdim=True, dtype=wide) for of in (gradient, eps))
        # |gradient| |eps| is by how much a push as long as eps would change the loss; below the least change the push shrinks with it
        change = norm * size
        return gradient * (size * size / change.clamp(min=self.guidance.least_change(size, a)))


def takes_float32(network: Any) -> bool:
    """Whether it is a module, and not of half precision itself. A function may hide one that is."""
    if not isinstance(network, nn.Module):
        return False
    return next((one.dtype for one in network.parameters() if one.is_floating_point()), torch.float32) not in HALF


def embedding_of(embed: Embed, x: Tensor) -> Tensor:
    """embed(x), (n, k). Raises ValueError for another shape, or if there is no gradient where one is needed."""
    z = embed(x)
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(x):
        found = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"embed returned {found} for {len(x)} samples: it must return a tensor of shape ({len(x)}, k), features flattened or pooled"
        )
    if torch.is_grad_enabled() and not z.requires_grad:
        raise ValueError(NO_GRADIENT.format("embed"))
    return z


NO_GRADIENT = "{} has no gradient at the samples: it must be differentiable throughout (no torch.no_grad, no detach)"


def gradient_of(value: Tensor, leaf: Tensor, name: str, down: Tensor | None = None) -> Tensor:
    """Gradient of a sum of per-sample values with respect to the samples, or of value . down if that is given. name: of what computed it.

    Raises ValueError if there is none; trainable weights alone do not make one.
    """
    found = torch.autograd.grad(value, leaf, down, allow_unused=True)[0] if value.requires_grad else None
    if found is None:
        raise ValueError(NO_GRADIENT.format(name))
    return found


def gradient_through(
    encode: Callable[[Tensor], Tensor], loss: Callable[[Tensor], Tensor], seen: Tensor, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """(gradient of loss(encode(seen)) with respect to seen, the embeddings). batch_size: encode at most so many samples at once, with the
    same result, for one more forward pass: all embeddings first, then the loss's gradient, then back through the encoder in pieces."""
    pieces = seen.split(batch_size or len(seen))
    if len(pieces) == 1:
        leaf = leaf_of(seen)
        with torch.enable_grad():
            z = encode(leaf)
            return gradient_of(_differentiable(loss(z)), leaf, "embed"), z.detach()
    z = leaf_of(torch.cat([encode(leaf_of(piece)) for piece in pieces]))  # as leaves, like the states that are differentiated
    gradients = []
    with torch.enable_grad():
        (down,) = torch.autograd.grad(_differentiable(loss(z)), z)
        for piece, down_piece in zip(pieces, down.split(batch_size or len(seen)), strict=True):
            leaf = leaf_of(piece)
            gradients.append(gradient_of(encode(leaf), leaf, "embed", down_piece))
    return torch.cat(gradients), z.detach()


def _differentiable(value: Tensor) -> Tensor:
    if not value.requires_grad:
        raise ValueError("loss has no gradient at the embeddings: it must be computed from z (no detach, no constant)")
    return value


def leaf_of(x: Tensor) -> Tensor:
    """A leaf tensor to differentiate with respect to: detached, and a normal tensor even if the caller is in inference mode."""
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()
