"""The state of every training loop in the project: network, averaged network, optimiser and step. Resuming is exact."""

from __future__ import annotations

import signal
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from contrastive_dp._checks import count
from contrastive_dp.files import read_checkpoint, write_checkpoint
from contrastive_dp.processes import Processes

CHECK_LOSSES_EVERY = 50
PARTS = {"step", "settings", "data", "network", "average", "optimiser", "extra"}


class ResumableTraining:
    """A network in training with its exponential moving average; saved to and restored from one file, atomically and bit-identically.

    average = decay average + (1 - decay) network after each step, decay = min(ema, (1 + step) / (10 + step)), so that short runs are
    averaged too. Buffers (batch statistics) are averaged in the same way; counters, and buffers that hold an infinity from the start
    (masks), are copied.

    network: trained in place. optimiser: for its parameters. settings: everything that determines the result, compared when restoring
    ("steps", the length of the run, may change). fingerprint: of the data, see `fingerprint`. extra: anything else the loop must remember
    (tensors, numbers, lists, dictionaries).
    """

    def __init__(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, ema: float, settings: Mapping[str, Any], data: str
    ) -> None:
        self.network, self.optimiser, self.settings, self.data = network, optimiser, dict(settings), data
        self.step, self.ema = 0, ema
        self.extra: dict[str, Any] = {}
        self.average = AveragedModel(network, use_buffers=True)
        # inf - inf is NaN
        self.copied = [not one.is_floating_point() or not bool(one.isfinite().all()) for one in tensors_of(network)]
        self.average.update_parameters(network)  # the first time it copies

    @property
    def averaged(self) -> nn.Module:
        """The averaged network."""
        module: nn.Module = self.average.module
        return module

    def stepped(self) -> None:
        """Count an optimiser step and update the average.

        Not by AveragedModel.update_parameters, which waits for the device to read its own counter.
        """
        self.step += 1
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        pairs = list(zip(tensors_of(self.averaged), tensors_of(self.network), self.copied, strict=True))
        floating = [(mean, value) for mean, value, copied in pairs if not copied]
        with torch.no_grad():
            if floating:
                means, values = zip(*floating, strict=True)
                get_ema_multi_avg_fn(decay)(list(means), list(values), 0)  # a launch for many tensors
            for mean, value, copied in pairs:
                if copied:
                    mean.copy_(value)

    def check_same_step(self, processes: Processes) -> None:
        """Raise ValueError if the processes would resume from different checkpoints."""
        steps = processes.all_of(self.step)
        if len(set(steps)) > 1:
            raise ValueError(f"the processes found checkpoints of steps {steps}: give them one output folder that all of them see")

    def save(self, path: Path) -> None:
        content = {
            "step": self.step,
            "settings": self.settings,
            "data": self.data,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "extra": self.extra,
        }
        write_checkpoint(path, content)

    def restore(self, path: Path) -> None:
        """Resume from a file written by `save`. Raises ValueError if settings, data or network differ, or the file is damaged."""
        content: dict[str, Any] = read_checkpoint(path)
        missing = PARTS - set(content)
        if missing:
            raise ValueError(f"{path} lacks {sorted(missing)}: it is no checkpoint of ours; delete it to start again")
        ours, theirs = self.settings, dict(content["settings"])
        changed = [f"{key} {theirs.get(key)} -> {ours[key]}" for key in ours if key != "steps" and theirs.get(key) != ours[key]]
        if changed:
            raise ValueError(
                f"{path} was made with other settings ({', '.join(changed)}): restore them or delete it to start again"
            )
        if content["data"] != self.data:
            raise ValueError(f"{path} was made with other data, labels or noise schedule: restore them or delete it to start again")
        if content["step"] > self.settings["steps"]:
            raise ValueError(
                f"{path} is at step {content['step']}, beyond steps={self.settings['steps']}: raise steps or delete it"
            )
        try:  # the caller's network last: what does not fit shows before it is changed
            self.average.load_state_dict(content["average"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.network.load_state_dict(content["network"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not fit the network ({reason}): delete it to start again") from None
        self.step, self.extra = content["step"], content["extra"]


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, always in the same order."""
    return [*module.parameters(), *module.buffers()]


class Stoppable:
    """Context in which Ctrl-C and SIGTERM wait for the end of a step: `check()` then raises KeyboardInterrupt. A second Ctrl-C acts at
    once; SIGTERM, which the parent of a worker sends after it, does not.

    A signal that the program ignores or leaves to the system is not changed, and outside the main thread nothing is.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stoppable:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):
                    self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Call this between steps. Raises KeyboardInterrupt if an interrupt was requested."""
        if self.asked:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training is saved. path: None if it is not saved."""

    path: Path | None = None
    every: int = 1000

    def __post_init__(self) -> None:
        count(self.every, "checkpoint_every")
        if self.path is not None and not self.path.parent.is_dir():
            raise FileNotFoundError(f"checkpoint={self.path}: the folder {self.path.parent} does not exist; create it first")


def advance_to(
    run: ResumableTraining,
    steps: int,
    advance: Callable[[], Tensor],
    checkpoints: Checkpoints,
    on_step: Callable[[int, Tensor], None] | None = None,
    first: bool = True,
) -> None:
    """Take steps until run.step == steps. advance: takes one step, calls run.stepped(), and returns the loss on the device.

    Losses are checked every CHECK_LOSSES_EVERY steps, before each checkpoint and at the end. first: whether this process writes files.
    On Ctrl-C or SIGTERM, finish the step, save and raise KeyboardInterrupt. Raises FloatingPointError naming the step of a NaN loss.
    """
    path = checkpoints.path if first else None
    losses: list[Tensor] = []
    within_step = False
    with Stoppable() as stop:
        try:
            while run.step < steps:
                within_step = True
                loss = advance()
                losses.append(loss)
                within_step = False
                due = run.step % checkpoints.every == 0 and run.step < steps
                if due or run.step % CHECK_LOSSES_EVERY == 0 or run.step == steps:
                    check_losses(losses, run.step)
                if on_step is not None:
                    on_step(run.step, loss)
                if due and path is not None:
                    run.save(path)
                stop.check()
        except KeyboardInterrupt:
            # in the middle of a step, weights or buffers have already changed: keep the last checkpoint
            if path is not None and not within_step:
                check_losses(losses, run.step)
                run.save(path)
            raise


def fingerprint(*tensors: Tensor | None) -> str:
    """Shapes, types and checksums of the training data."""
    parts = []
    for tensor in tensors:
        if tensor is not None:
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()  # bfloat16 too, which numpy lacks
            parts.append(f"{tuple(tensor.shape)} {tensor.dtype} {zlib.crc32(content.data):08x}")
    return "; ".join(parts)


def check_losses(losses: list[Tensor], step: int) -> None:
    """Check the losses since the last check, in one copy to the host. Raises FloatingPointError naming the step of a NaN or infinity."""
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
