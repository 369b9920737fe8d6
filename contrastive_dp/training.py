"""Training of noise-prediction networks: one loop for a 2D perceptron and an image U-Net, exact after any interruption."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from contrastive_dp._checks import batch_labels, count, finite, in_unit, non_negative, positive
from contrastive_dp.files import read_checkpoint, write_whole
from contrastive_dp.randomness import mixed_seed
from contrastive_dp.schedules import NoiseSchedule

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of train_noise_prediction; the defaults are those published for CIFAR-10 (Ho, Jain, Abbeel 2020).

    steps: optimiser steps in all. batch_size. learning_rate of Adam, reached after `warmup` steps. ema: decay of the averaged weights,
    min(ema, (1 + step) / (10 + step)) so that short runs are averaged too. clip: largest gradient norm (0: none).
    label_dropout: share of labels replaced by "no label" (null_label), for classifier-free guidance. seed: of every random number.
    """

    steps: int = 100_000
    batch_size: int = 128
    learning_rate: float = 2e-4
    warmup: int = 0
    ema: float = 0.9999
    clip: float = 1.0
    label_dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in (("steps", 1), ("batch_size", 1), ("warmup", 0), ("seed", 0)):
            count(getattr(self, name), name, minimum)
        positive(self.learning_rate, "learning_rate")
        in_unit(self.ema, "ema")
        non_negative(self.clip, "clip")
        in_unit(self.label_dropout, "label_dropout")


def train_noise_prediction(
    network: nn.Module,
    data: Tensor,
    schedule: NoiseSchedule,
    settings: TrainingSettings,
    labels: Tensor | None = None,
    *,
    null_label: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    augment: Augment | None = None,
    autocast: torch.dtype | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> nn.Module:
    """Minimise E ||noise - network(x_t, t[, labels])||^2 / dim over uniform t (Ho et al. 2020, L_simple); returns the EMA network.

    network: trained in place, on its own device; network(x, t) or, with labels, network(x, t, labels). data: (n, ...), uint8 images are
    mapped to [-1, 1]. labels: (n,) int. null_label: what label_dropout puts in place of a label.
    checkpoint: file for weights, averages, optimiser and step; if it exists, training goes on from it. Batch, noise and dropout of step i
    depend on (seed, i) alone, so an interrupted run ends bit-identical to an uninterrupted one (on a CPU). A KeyboardInterrupt saves first.
    augment: (x, generator) -> x on a batch. autocast: torch.bfloat16 for mixed precision. on_step(step, loss): loss stays on the device.

    Raises ValueError for data, labels or a checkpoint that do not fit; FloatingPointError naming the step when the loss turns NaN.
    """
    device = next(network.parameters()).device
    x, y = _check_data(data, labels, settings, null_label)
    x, y = x.to(device), None if y is None else y.to(device)
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"checkpoint={path}: the folder {path.parent} does not exist; create it first")
    count(checkpoint_every, "checkpoint_every")
    run = _Run(network, settings, "" if path is None else _fingerprint(data, labels, schedule.alpha_bar))
    if path is not None and path.exists():
        run.restore(path)
    losses: list[Tensor] = []
    network.train()
    try:
        while run.step < settings.steps:
            run.within_step = True
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                generator = _streams(settings.seed, run.step, device)
                batch = _batch(x, y, settings, null_label, schedule, augment, generator)
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    loss = _loss(network, *batch)
                run.update(loss)
            losses.append(loss.detach())
            run.within_step = False
            if on_step is not None:
                on_step(run.step, losses[-1])
            due = path is not None and run.step % checkpoint_every == 0
            if due or run.step % 100 == 0 or run.step == settings.steps:
                _check_losses(losses, run.step)
            if path is not None and due:
                run.save(path)
    except KeyboardInterrupt:
        if (
            path is not None and not run.within_step
        ):  # within a step weights or buffers have moved already: the last checkpoint holds
            _check_losses(losses, run.step)
            run.save(path)
        raise
    if path is not None:
        run.save(path)
    averaged: nn.Module = run.average.module
    return averaged.eval().requires_grad_(False)


class _Run:
    """Network, averaged network, optimiser and step: what a checkpoint holds."""

    def __init__(self, network: nn.Module, settings: TrainingSettings, fingerprint: str) -> None:
        def decayed(averaged: Sequence[Tensor], current: Sequence[Tensor], _count: Any) -> None:
            decay = min(settings.ema, (1 + self.step) / (10 + self.step))
            for mean, value in zip(averaged, current, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)

        self.network, self.settings, self.fingerprint = network, settings, fingerprint
        self.step, self.within_step = 0, False
        self.optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        self.average = AveragedModel(network, multi_avg_fn=decayed, use_buffers=True)
        self.average.update_parameters(network)

    def update(self, loss: Tensor) -> None:
        """One optimiser step."""
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (self.step + 1) / max(settings.warmup, 1))
        self.optimiser.zero_grad()
        loss.backward()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        self.optimiser.step()
        self.step += 1
        self.average.update_parameters(self.network)

    def save(self, path: Path) -> None:
        content = {
            "step": self.step,
            "settings": asdict(self.settings),
            "data": self.fingerprint,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_whole(path, lambda temporary: torch.save(content, temporary))

    def restore(self, path: Path) -> None:
        content: dict[str, Any] = read_checkpoint(path)
        missing = {"step", "settings", "data", "network", "average", "optimiser"} - set(content)
        if missing:
            raise ValueError(f"{path} lacks {sorted(missing)}: it is no checkpoint of ours; delete it to start again")
        ours, theirs = asdict(self.settings), dict(content["settings"])
        changed = [f"{key} {theirs.get(key)} -> {ours[key]}" for key in ours if key != "steps" and theirs.get(key) != ours[key]]
        if changed:
            raise ValueError(
                f"{path} was made with other settings ({', '.join(changed)}): restore them or delete it to start again"
            )
        if content["data"] != self.fingerprint:
            raise ValueError(f"{path} was made with other data, labels or noise schedule: restore them or delete it to start again")
        try:
            self.network.load_state_dict(content["network"])
            self.average.load_state_dict(content["average"])
            self.optimiser.load_state_dict(content["optimiser"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not fit the network ({reason}): delete it to start again") from None
        self.step = content["step"]
        if self.step > self.settings.steps:
            raise ValueError(f"{path} is at step {self.step}, beyond steps={self.settings.steps}: raise steps or delete it")


def _fingerprint(*tensors: Tensor | None) -> str:
    """Shapes, types and checksums of what is trained on."""
    parts = []
    for tensor in tensors:
        if tensor is not None:
            content = np.ascontiguousarray(tensor.detach().cpu().numpy())
            parts.append(f"{tuple(tensor.shape)} {tensor.dtype} {zlib.crc32(content.tobytes()):08x}")
    return "; ".join(parts)


def _streams(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of a step; also seeds torch's own stream, which dropout layers draw from."""
    torch.manual_seed(mixed_seed(seed, 2 * step))
    return torch.Generator(device).manual_seed(mixed_seed(seed, 2 * step + 1))


def _batch(
    x: Tensor,
    y: Tensor | None,
    settings: TrainingSettings,
    null_label: int | None,
    schedule: NoiseSchedule,
    augment: Augment | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Noisy batch x_t, timesteps, noise, labels."""
    size, device = settings.batch_size, x.device
    index = torch.randint(len(x), (size,), device=device, generator=generator)
    x_0 = x[index]
    if x_0.dtype == torch.uint8:
        x_0 = x_0.float() / 127.5 - 1
    if augment is not None:
        x_0 = augment(x_0, generator)
    t = torch.randint(len(schedule), (size,), device=device, generator=generator)
    noise = torch.randn(x_0.shape, device=device, dtype=x_0.dtype, generator=generator)
    labels = None if y is None else y[index]
    if labels is not None and settings.label_dropout and null_label is not None:
        dropped = torch.rand(size, device=device, generator=generator) < settings.label_dropout
        labels = labels.masked_fill(dropped, null_label)
    return schedule.add_noise(x_0, t, noise), t, noise, labels


def _loss(network: nn.Module, x_t: Tensor, t: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
    predicted = network(x_t, t) if labels is None else network(x_t, t, labels)
    return torch.nn.functional.mse_loss(predicted.float(), noise.float())


def _check_losses(losses: list[Tensor], step: int) -> None:
    """Look at the losses since the last look, in one copy to the host."""
    if not losses:
        return
    values = torch.stack(losses)
    bad = torch.nonzero(~torch.isfinite(values))
    if len(bad):
        first = step - len(losses) + 1 + int(bad[0])
        raise FloatingPointError(
            f"the loss at step {first} is {float(values[bad[0]])}: lower learning_rate, or check data and network"
        )
    losses.clear()


def _check_data(
    data: Tensor, labels: Tensor | None, settings: TrainingSettings, null_label: int | None
) -> tuple[Tensor, Tensor | None]:
    if data.ndim < 2 or len(data) == 0:
        raise ValueError(f"data has shape {tuple(data.shape)}: give (n, ...) with n >= 1")
    if data.is_floating_point():
        finite(data, "data")
    elif data.dtype != torch.uint8:
        raise ValueError(f"data has dtype {data.dtype}: give floating-point samples or uint8 images")
    if settings.label_dropout and (labels is None or null_label is None):
        raise ValueError(f"label_dropout={settings.label_dropout:g} needs labels and null_label, the label that stands for none")
    if labels is not None and null_label is not None and bool((batch_labels(labels, len(data)) == null_label).any()):
        raise ValueError(f"labels contain null_label={null_label}: give the label that stands for none a number of its own")
    return data, None if labels is None else batch_labels(labels, len(data)).long()
