"""Training of noise-prediction networks: one loop for a 2D perceptron and an image U-Net. Resuming is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from contrastive_dp._checks import (
    batch_labels,
    count,
    in_unit,
    non_negative,
    one_of,
    positive,
    real_samples,
    shaped_like,
    wide_type,
)
from contrastive_dp.processes import ALONE, Processes, normalise_across
from contrastive_dp.randomness import mixed_seed, seeded
from contrastive_dp.resumable import Checkpoints, ResumableTraining, advance_to, fingerprint
from contrastive_dp.schedules import NoiseSchedule, check_same_schedule
from contrastive_dp.transfer import room_on, sent

LOSSES = ("noise", "v")
PRECISIONS = ("float32", "bfloat16")
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of train_noise_prediction. Batch size, learning rate, ema and clip are by default those published for CIFAR-10 (Ho, Jain,
    Abbeel 2020), who trained 800,000 steps with a warm-up of 5,000 and random flips.

    steps: total optimiser steps. batch_size. learning_rate of Adam, reached after `warmup` steps. ema: decay of the averaged weights,
    min(ema, (1 + step) / (10 + step)) so that short runs are averaged too. clip: largest gradient norm (0: no clipping).
    label_dropout: fraction of labels replaced by "no label" (null_label), for classifier-free guidance. seed: for all random numbers.
    loss: "noise", the squared error of the noise prediction; or "v", the same over alpha_bar_t, which is the squared error of
    v = sqrt(a) eps - sqrt(1-a) x_0 and gives weight to what is decided at high noise, such as mean colour (Salimans, Ho 2022).
    "v" is for networks that predict v, as DiffusersNoisePrediction(..., "v_prediction") does: for others its weights are too large.
    null_label: replaces the labels that label_dropout drops. precision: "bfloat16" trains in mixed precision.
    augment: (x, generator) -> x, applied to each batch. checkpoint_every: steps between checkpoints.
    """

    steps: int = 100_000
    batch_size: int = 128
    learning_rate: float = 2e-4
    warmup: int = 0
    ema: float = 0.9999
    clip: float = 1.0
    label_dropout: float = 0.0
    seed: int = 0
    loss: Literal["noise", "v"] = "noise"
    null_label: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    augment: Augment | None = None
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name, minimum in (("steps", 1), ("batch_size", 1), ("warmup", 0), ("seed", 0), ("checkpoint_every", 1)):
            self._keep(name, count(getattr(self, name), name, minimum))
        if self.null_label is not None:
            self._keep("null_label", int(self.null_label))
        self._keep("learning_rate", positive(self.learning_rate, "learning_rate"))
        self._keep("ema", float(in_unit(self.ema, "ema")))
        self._keep("clip", non_negative(self.clip, "clip"))
        self._keep("label_dropout", float(in_unit(self.label_dropout, "label_dropout")))
        one_of(self.loss, "loss", LOSSES)
        one_of(self.precision, "precision", PRECISIONS)

    def _keep(self, name: str, value: float) -> None:
        """As a plain number: a checkpoint with one of numpy would not be read again."""
        object.__setattr__(self, name, value)


def train_noise_prediction(
    network: nn.Module,
    data: Tensor,
    schedule: NoiseSchedule,
    settings: TrainingSettings,
    labels: Tensor | None = None,
    *,
    checkpoint: str | Path | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    processes: Processes = ALONE,
) -> nn.Module:
    """Minimise E ||noise - network(x_t, t[, labels])||^2 / dim over uniform t (Ho et al. 2020, L_simple), or with settings.loss = "v" the
    same over alpha_bar_t; returns the EMA network.

    network: trained in place, on its own device; network(x, t) or, with labels, network(x, t, labels). data: (n, ...), uint8 images are
    mapped to [-1, 1]. labels: (n,) int.
    checkpoint: file for weights, averages, optimiser and step; if it exists, training resumes from it. Batch, noise and dropout of step i
    depend only on (seed, i), so an interrupted run ends bit-identical to an uninterrupted one (on a CPU). On Ctrl-C or SIGTERM (if the
    program turns it into a KeyboardInterrupt), training finishes the step, saves and raises KeyboardInterrupt.
    on_step(step, loss): called after each step; the loss stays on the device.
    processes: each takes its share of every batch, and all end with the same network as one process would, up to rounding (except for
    dropout masks). The first writes the checkpoint, which all must be able to read.

    Raises ValueError for data, labels, a schedule or a checkpoint that do not fit; FloatingPointError naming the step at which the loss
    became NaN.
    """
    device = next(network.parameters()).device
    x, y = _check_data(data, labels, settings)
    _check_trainable(network, data)
    check_same_schedule(network, schedule)
    x, y = _held(x, device), None if y is None else y.to(device)
    network, share = normalise_across(network, processes), processes.share(settings.batch_size)
    checkpoints = Checkpoints(None if checkpoint is None else Path(checkpoint), settings.checkpoint_every)
    run = ResumableTraining(
        network,
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        settings.ema,
        {name: value for name, value in asdict(settings).items() if name != "checkpoint_every"}
        | {"augment": _name_of(settings.augment)},
        "" if checkpoint is None else fingerprint(data, labels, schedule.alpha_bar),
    )
    if checkpoints.path is not None and checkpoints.path.exists():
        run.restore(checkpoints.path)
    run.check_same_step(processes)
    alpha_bar = schedule.alpha_bar_on(device)
    shared = processes.sharing_gradients(network)

    def advance() -> Tensor:
        with _streams(settings.seed, run.step, device, processes.rank) as generator:
            x_t, t, noise, given = _batch(x, y, settings, schedule, generator)
            x_t, t, noise, given = x_t[share], t[share], noise[share], None if given is None else given[share]
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                loss = _loss(shared, x_t, t, noise, given, 1 / alpha_bar[t] if settings.loss == "v" else None)
            return _update(run, loss, settings, processes)

    network.train()
    advance_to(run, settings.steps, advance, checkpoints, on_step, processes.first)
    if checkpoints.path is not None and processes.first:
        run.save(checkpoints.path)
    return run.averaged.eval().requires_grad_(False)


def _update(run: ResumableTraining, loss: Tensor, settings: TrainingSettings, processes: Processes) -> Tensor:
    """One optimiser step; returns the loss of the whole batch, on the device."""
    for group in run.optimiser.param_groups:
        group["lr"] = settings.learning_rate * min(1.0, (run.step + 1) / max(settings.warmup, 1))
    run.optimiser.zero_grad()
    processes.backward(loss)
    found = loss.detach()
    processes.mean(found)
    if settings.clip:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip)
    run.optimiser.step()
    run.stepped()
    return found


def _name_of(augment: Augment | None) -> str:
    """What a checkpoint knows of an augmentation: its name, "" for none."""
    return "" if augment is None else getattr(augment, "__qualname__", type(augment).__name__)


@contextmanager
def _streams(seed: int, step: int, device: torch.device, rank: int) -> Iterator[torch.Generator]:
    """The generator of a step, the same for all processes; within, torch's own stream, which dropout layers use, is seeded too."""
    with seeded(mixed_seed(mixed_seed(seed, rank) if rank else seed, 2 * step), device):
        yield torch.Generator(device).manual_seed(mixed_seed(seed, 2 * step + 1))


def _batch(
    x: Tensor, y: Tensor | None, settings: TrainingSettings, schedule: NoiseSchedule, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Noisy batch x_t, timesteps, noise, labels."""
    size, device = settings.batch_size, generator.device
    index = torch.randint(len(x), (size,), device=device, generator=generator)
    x_0 = x[index] if x.device == device else sent(x[index.cpu()], device)
    if x_0.dtype == torch.uint8:
        x_0 = x_0.float() / 127.5 - 1
    if settings.augment is not None:
        x_0 = settings.augment(x_0, generator)
    t = torch.randint(len(schedule), (size,), device=device, generator=generator)
    noise = torch.randn(x_0.shape, device=device, dtype=x_0.dtype, generator=generator)
    labels = None if y is None else y[index]
    if labels is not None and settings.label_dropout and settings.null_label is not None:
        dropped = torch.rand(size, device=device, generator=generator) < settings.label_dropout
        labels = labels.masked_fill(dropped, settings.null_label)
    return schedule.add_noise(x_0, t, noise), t, noise, labels


def _check_trainable(network: nn.Module, data: Tensor) -> None:
    """Raise ValueError for a network that is frozen, or of half precision, or of another floating type than the data."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(
            "every parameter of the network is frozen, as load_diffusers leaves them: call network.requires_grad_(True) first"
        )
    needed = next(network.parameters()).dtype
    if needed in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"the network's parameters are {needed}, in which steps and averages are rounded away: train it in float32, with "
            'precision="bfloat16"'
        )
    if data.is_floating_point() and data.dtype != needed:
        raise ValueError(f"data is {data.dtype}, the network {needed}: give data.to({needed})")


def _held(x: Tensor, device: torch.device) -> Tensor:
    """The data on the device, or where they are if they would fill more than a quarter of a GPU's free memory; then every step waits."""
    fits = device.type != "cuda" or x.numel() * x.element_size() <= room_on(device)
    return x.to(device) if fits else x


def _loss(network: nn.Module, x_t: Tensor, t: Tensor, noise: Tensor, labels: Tensor | None, weight: Tensor | None = None) -> Tensor:
    predicted = shaped_like(x_t, network(x_t, t) if labels is None else network(x_t, t, labels))
    wide = wide_type(predicted)
    predicted, noise = predicted.to(wide), noise.to(wide)
    if weight is None:
        return torch.nn.functional.mse_loss(predicted, noise)
    errors = (predicted - noise).square().flatten(1).mean(dim=1)
    return (weight.to(errors.dtype) * errors).mean()


def _check_data(data: Tensor, labels: Tensor | None, settings: TrainingSettings) -> tuple[Tensor, Tensor | None]:
    null_label = settings.null_label
    if data.ndim < 2 or len(data) == 0:
        raise ValueError(f"data has shape {tuple(data.shape)}: give (n, ...) with n >= 1")
    real_samples(data, "data")
    if settings.label_dropout and (labels is None or null_label is None):
        raise ValueError(f"label_dropout={settings.label_dropout:g} needs labels and null_label, the label that stands for none")
    if labels is not None and null_label is not None and bool((batch_labels(labels, len(data)) == null_label).any()):
        raise ValueError(f"labels contain null_label={null_label}: give a null_label that no sample has")
    return data, None if labels is None else batch_labels(labels, len(data)).long()
