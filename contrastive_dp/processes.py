"""Several processes training one network: each takes its share of every batch, and the result is the same as with one process."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel


class ProcessLostError(RuntimeError):
    """Another process of the group is gone."""


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `count`. The default is a single process, which sends nothing.

    With more, torch.distributed must be initialised first, for example by torchrun and accelerate.PartialState.
    """

    rank: int = 0
    count: int = 1
    talk: Any = field(default=None, repr=False, compare=False)
    """Group for plain values, in which a process may wait for hours; None: the group of gradients."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ValueError(f"rank={self.rank} must lie in 0..{self.count - 1}, count={self.count}")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's rows of a batch of n. All shares are equal, so the mean of their means is the mean of the batch.

        Raises ValueError if the count does not divide n.
        """
        if n % self.count:
            fitting = ", ".join(str(k) for k in range(1, min(n, 64) + 1) if n % k == 0)
            raise ValueError(
                f"{self.count} processes cannot share a batch of {n} equally: use {fitting} processes, or another batch size"
            )
        size = n // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def sharing_gradients(self, network: nn.Module) -> nn.Module:
        """`network`, or around it torch's DistributedDataParallel: its gradients are the mean over the processes, sent during backward.

        For the passes whose loss is differentiated by parameters; all steps must use the same parameters. Those of the first process go to
        the others.
        """
        if self.count == 1:
            return network
        device = next(network.parameters()).device
        cards = [device] if device.type == "cuda" else None
        # normalise_across keeps the buffers equal. static_graph: several passes may precede one backward, and parameters may be unused.
        parallel: list[nn.Module] = []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            _call(lambda: parallel.append(DistributedDataParallel(network, cards, broadcast_buffers=False, static_graph=True)))
        return parallel[0]

    def listening(self) -> AbstractContextManager[None]:
        """For passes through batch norm over all processes: within, a process that does not answer is a ProcessLostError."""
        return nullcontext() if self.count == 1 else _told_apart()

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss`. Raises ProcessLostError if those of another process do not arrive."""
        if self.count == 1:
            loss.backward()
        else:
            _call(loss.backward)

    def mean(self, value: Tensor) -> None:
        """Replace a tensor by its mean over the processes, bit-identical on all."""
        if self.count > 1:
            _call(dist.all_reduce, value)
            value /= self.count

    def told(self, value: Any) -> Any:
        """The value that the first process passed, returned on all processes, which wait for it. For plain values."""
        if self.count == 1:
            return value
        held = [value]
        _call(dist.broadcast_object_list, held, 0, self.talk)
        return held[0]

    def all_of(self, value: Any) -> list[Any]:
        """The values that all processes passed, in order; the processes wait for each other. For plain values."""
        if self.count == 1:
            return [value]
        held: list[Any] = [None] * self.count
        _call(dist.all_gather_object, held, value, self.talk)
        return held


def _call(operation: Any, *arguments: Any) -> None:
    with _told_apart():
        operation(*arguments)


@contextmanager
def _told_apart() -> Iterator[None]:
    """Within, an error of gloo or nccl is a ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not LOST.search(str(error)):
            raise
        raise ProcessLostError(f"another process of this run is gone ({' '.join(str(error).split())[:120]})") from error


LOST = re.compile(r"gloo|NCCL|nccl|[Cc]onnection (closed|reset|refused)|[Tt]imed out|[Bb]roken pipe|Socket")
"""What gloo and nccl say, in errors of no type of their own, if another process does not answer."""
ALONE = Processes()


class _BatchNormAcross(nn.BatchNorm2d):
    """Batch norm over the batch of all processes; torch's own SyncBatchNorm has no CPU form."""

    def forward(self, x: Tensor) -> Tensor:
        from torch.distributed.nn.functional import all_reduce

        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        wide = x.float()
        count = wide.numel() // wide.shape[1] * dist.get_world_size()
        mean = all_reduce(wide.sum(dim=(0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = all_reduce((centred**2).sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        out = centred * (variance + self.eps).rsqrt()[:, None, None]
        return (out * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def normalise_across(network: nn.Module, processes: Processes) -> nn.Module:
    """`network` with its BatchNorm2d layers taking statistics over all processes, in place; parameter names do not change.

    On a GPU these are torch's SyncBatchNorm, whose training pass waits for the card once a layer.
    Raises ValueError for BatchNorm1d and BatchNorm3d on a CPU, which have no such form here.
    """
    if processes.count == 1:
        return network
    if next(network.parameters()).device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return synchronised
    for module in network.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm3d):
            raise ValueError(f"{type(module).__name__} takes statistics in each process alone: use BatchNorm2d, or one process")
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _BatchNormAcross
    return network
