"""Guidance: what is added to a noise prediction so that sampling descends a loss.

    eps_hat = eps + lambda_t sqrt(1 - a_t) grad_x L,    a = alpha_bar,    L summed over samples (so lambda does not depend on the batch).

A guidance is a frozen description; `guidance.start(schedule, labels)` begins one trajectory batch and returns a function of (x, t, eps)
that any sampler can call, ours or another:

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
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from contrastive_dp._checks import batch_labels, count, non_negative, normal_tensor, one_of
from contrastive_dp.losses import ContrastiveLoss
from contrastive_dp.schedules import NoiseSchedule
from contrastive_dp.watch import Watch

Embed = Callable[[Tensor], Tensor]
At = Literal["x0", "xt"]


class Guidance(ABC):
    """Base of every guidance: a subclass says `gradient`; strength, window and the rest are handled here.

    Fields of every subclass:
    scale: lambda >= 0, one number or (T,) numbers, one for each timestep.
    window: (low, high), guided at timesteps low <= t < high; None: at all.
    at: what the loss sees, "x0" or "xt".
    relative: lambda is the norm of the push as a fraction of the noise prediction's norm, sample by sample; less where the loss is as good
        as flat (see LEAST_CHANGE), as where a classifier is certain: the direction of such a gradient is rounding error.
    every: guide only the first of every k visited steps of the window, k times as strongly (the whole push is lambda's if k divides their
        number).
    reverse: ascend the loss instead.
    """

    scale: float | Sequence[float] | Tensor
    window: tuple[int, int] | None
    at: At
    relative: bool
    every: int
    reverse: bool
    needs_labels: ClassVar[bool] = False

    def _check(self) -> None:
        one_of(self.at, "at", ("x0", "xt"))
        count(self.every, "every")
        self.strengths(None)
        window: Any = self.window
        if window is not None:
            whole = isinstance(window, tuple | list) and len(window) == 2 and all(isinstance(edge, int) for edge in window)
            if not (whole and 0 <= window[0] < window[1]):
                raise ValueError(f"window={window}: give whole timesteps (low, high) with 0 <= low < high")

    def strengths(self, total: int | None) -> list[float]:
        """lambda at timesteps 0..total-1 (a single number when total is None). Raises for NaN, negative values, a wrong length."""
        values = self.scale.tolist() if isinstance(self.scale, Tensor) else self.scale
        if isinstance(values, Sequence):
            checked = [non_negative(value, f"scale[{t}]", NEGATIVE) for t, value in enumerate(values)]
            if total is not None and len(checked) != total:
                raise ValueError(f"scale has {len(checked)} values, the schedule {total} timesteps: give one for each")
            return checked
        return [non_negative(values, "scale", NEGATIVE)] * (total or 1)

    def start(self, schedule: NoiseSchedule, labels: Tensor | None = None) -> GuidedRun:
        """Begin one batch of trajectories. Raises ValueError for a window or scale that does not fit the schedule, labels missing."""
        total = len(schedule)
        if self.window is not None and self.window[1] > total:
            raise ValueError(f"window={self.window} lies outside the schedule's {total} timesteps: use 0 <= low < high <= {total}")
        if labels is not None:
            batch_labels(labels, len(labels))
        if labels is None and self.needs_labels:
            raise ValueError(f"{type(self).__name__} needs labels: pass labels=... to the sampler")
        return GuidedRun(self, schedule, None if labels is None else normal_tensor(labels), self.strengths(total))

    @abstractmethod
    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor | None:
        """Gradient of the summed loss with respect to `seen` (n, ...), the state or denoised estimate; None: no guidance at this step."""


NEGATIVE = "; to ascend the loss use reverse=True"
LEAST_CHANGE = 1e-3
"""Nats by which a push as long as the noise prediction must change the loss to have its full relative strength."""


class GuidedRun:
    """One batch of trajectories under guidance: guide(x, t, eps) -> eps_hat. Holds what guidance remembers between steps: O(batch).

    NaN raise FloatingPointError at once on a CPU; on a device they are looked for every ten guided steps, and by `guide.watch.report()`.
    """

    def __init__(self, guidance: Guidance, schedule: NoiseSchedule, labels: Tensor | None, strengths: list[float]) -> None:
        self.guidance, self.schedule, self.labels, self.strengths = guidance, schedule, labels, strengths
        self.embedding: Tensor | None = None
        """Embeddings of the last encoded state."""
        self.last: tuple[Tensor, Tensor, float] | None = None
        """(x, eps, alpha_bar) of the step before, while it is not encoded."""
        self.visits = 0
        self.watch = Watch()

    @torch.inference_mode(False)  # within a caller's inference mode, gradients could not be taken
    @torch.no_grad()
    def __call__(self, x: Tensor, t: int, eps: Tensor) -> Tensor:
        """Return eps with the guidance of timestep t added. x, eps: (n, ...)."""
        t = int(t)  # diffusers' loops hand over tensors
        guidance, a, strength = self.guidance, self.schedule[t], self.strengths[t]
        low, high = guidance.window or (0, len(self.schedule))
        if strength == 0 or not low <= t < high:
            self.last, self.embedding = (x.clone(), eps.clone(), a), None
            return eps
        self.visits += 1
        if (self.visits - 1) % guidance.every:
            return eps
        self.watch("state", t, x)
        self.watch("noise prediction", t, eps)
        gradient = guidance.gradient(self.see(x, eps, a), self, t)
        self.last = None
        if gradient is None:
            return eps
        if guidance.at == "x0":
            gradient = gradient / math.sqrt(a)
        push = self._push(gradient, eps, math.sqrt(1 - a))
        self.watch("guidance gradient", t, push)
        return torch.add(eps, push, alpha=strength * guidance.every * (-1 if guidance.reverse else 1))

    def see(self, x: Tensor, eps: Tensor, a: float) -> Tensor:
        """What the loss sees of a state."""
        return x.clone() if self.guidance.at == "xt" else (x - math.sqrt(1 - a) * eps) / math.sqrt(a)

    def _push(self, gradient: Tensor, eps: Tensor, noise_level: float) -> Tensor:
        if not self.guidance.relative:
            return gradient * noise_level
        axes = tuple(range(1, eps.ndim))
        norm, size = (torch.linalg.vector_norm(of, dim=axes, keepdim=True) for of in (gradient, eps))
        # |gradient| |eps| is what the loss would change by along a push as long as eps; below LEAST_CHANGE the push shrinks with it
        return gradient * (size * size / (norm * size).clamp(min=LEAST_CHANGE))


@dataclass(frozen=True, eq=False)
class ContrastiveGuidance(Guidance):
    """Descend a contrastive loss L of the embeddings of a batch of samples (Ouyang, Xie, Cheng 2023):

    eps_hat = eps + scale_t sqrt(1 - alpha_bar_t) grad_x L, L summed over samples, of x_t or of x0_hat with eps held constant.

    embed: any function or module (n, ...) -> (n, k); its output is normalised to unit length here. loss: InfoNCE, HardNegativeMining,
    SupervisedContrastive, ClassAnchored or your own (see ContrastiveLoss). batch_size: encode at most this many samples at once; the
    result is the same, memory is bounded, and one more forward pass is spent. The previous state's embedding is kept, not computed again.
    A loss that needs the previous state starts at the second visited step. Other fields: see Guidance.
    Raises ValueError for bad settings, and when the embedding has a wrong shape; FloatingPointError naming the step when it has NaN.
    """

    embed: Embed
    loss: ContrastiveLoss
    scale: float | Sequence[float] | Tensor
    window: tuple[int, int] | None = None
    at: At = "x0"
    relative: bool = False
    _: KW_ONLY
    every: int = 1
    reverse: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        self._check()
        if self.batch_size is not None:
            count(self.batch_size, "batch_size")

    def start(self, schedule: NoiseSchedule, labels: Tensor | None = None) -> GuidedRun:
        run = super().start(schedule, labels)
        if labels is not None and hasattr(self.loss, "check_labels"):
            self.loss.check_labels(labels)
        return run

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor | None:
        previous = run.embedding
        if previous is None and run.last is not None and self.loss.needs_previous:
            previous = torch.cat([self._encode(piece, run, t) for piece in self._pieces(run.see(*run.last))])
        if previous is None and self.loss.needs_previous:
            run.embedding = torch.cat([self._encode(piece, run, t) for piece in self._pieces(seen)])
            return None
        pieces = self._pieces(seen)
        if len(pieces) == 1:
            leaf = _leaf(seen)
            with torch.enable_grad():
                z = self._encode(leaf, run, t)
                loss = self.loss(z, previous, run.labels)
                (gradient,) = torch.autograd.grad(loss, leaf)
            run.embedding = z.detach()
            return gradient
        # in pieces: embeddings of all, gradient of the loss with respect to them, then back through the encoder piece by piece
        z = _leaf(torch.cat([self._encode(piece, run, t) for piece in pieces]))
        with torch.enable_grad():
            (down,) = torch.autograd.grad(self.loss(z, previous, run.labels), z)
            gradients = []
            for piece, down_piece in zip(pieces, down.split(self.batch_size or len(seen)), strict=True):
                leaf = _leaf(piece)
                (gradient,) = torch.autograd.grad(self._encode(leaf, run, t), leaf, down_piece)
                gradients.append(gradient)
        run.embedding = z.detach()
        return torch.cat(gradients)

    def _pieces(self, seen: Tensor) -> tuple[Tensor, ...]:
        return seen.split(self.batch_size or len(seen))

    def _encode(self, x: Tensor, run: GuidedRun, t: int) -> Tensor:
        """Unit-norm embeddings of x."""
        raw = self.embed(x)
        if not isinstance(raw, Tensor) or raw.ndim != 2 or len(raw) != len(x):
            found = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
            raise ValueError(
                f"embed returned {found} for {len(x)} samples: it must return a tensor of shape ({len(x)}, k), features flattened or pooled"
            )
        if torch.is_grad_enabled() and not raw.requires_grad:
            raise ValueError("embed returned a tensor without gradient: it must be differentiable (no torch.no_grad, no detach)")
        run.watch("embedding", t, raw)
        return F.normalize(raw, dim=1)


@dataclass(frozen=True, eq=False)
class ClassifierGuidance(Guidance):
    """Descend L = -sum_i log p(y_i | what the classifier sees of x_i) (Dhariwal, Nichol 2021): a baseline.

    classifier: function or module (n, ...) -> (n, K) logits, on the sampler's inputs (for images wrap it: OnUnitRange).
    Needs labels. Other fields: see Guidance.
    """

    classifier: Callable[[Tensor], Tensor]
    scale: float | Sequence[float] | Tensor
    window: tuple[int, int] | None = None
    at: At = "x0"
    _: KW_ONLY
    relative: bool = False
    every: int = 1
    reverse: bool = False
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()

    def gradient(self, seen: Tensor, run: GuidedRun, t: int) -> Tensor:
        labels = batch_labels(run.labels, len(seen))
        leaf = _leaf(seen)
        with torch.enable_grad():
            logits = self.classifier(leaf)
            if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(seen):
                found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise ValueError(
                    f"classifier returned {found} for {len(seen)} samples: it must return a tensor (n, classes); wrap a model that returns "
                    "more, for example lambda x: model(x).logits"
                )
            if run.visits == 1 and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:  # looked at once a run
                raise ValueError(
                    f"labels reach from {int(labels.min())} to {int(labels.max())}, the classifier has classes 0..{logits.shape[1] - 1}"
                )
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels.long().to(logits.device), reduction="sum"), leaf)
        return gradient


def classifier_free(noise_prediction: Callable[..., Tensor], scale: float, null_label: int | None = None) -> Callable[..., Tensor]:
    """Classifier-free guidance (Ho, Salimans 2022) as a noise prediction: eps_u + (1 + scale) (eps_c - eps_u), so scale 0 is unguided.

    noise_prediction: a function of (x, t) and (x, t, labels). Unconditional predictions come from null_label, the label that stood for
    "no label" in training, or from a call without labels. Both are evaluated in one batch with null_label, else one after the other.
    Raises ValueError for a negative or NaN scale, or labels missing.
    """
    strength = non_negative(scale, "scale")

    def guided(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            raise ValueError("classifier_free needs labels: pass labels=... to the sampler")
        if null_label is None:
            conditional, unconditional = noise_prediction(x, t, labels), noise_prediction(x, t)
        else:
            both = noise_prediction(
                x.repeat(2, *[1] * (x.ndim - 1)), t.repeat(2), torch.cat([labels, labels.new_full(labels.shape, null_label)])
            )
            conditional, unconditional = both.chunk(2)
        return torch.lerp(unconditional, conditional, 1 + strength)

    return guided


def _leaf(x: Tensor) -> Tensor:
    """A tensor to differentiate by: detached, and a normal one even where the caller is in inference mode."""
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()
