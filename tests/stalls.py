"""Counts what would make the host wait for a device: values read by the host, and tensors whose size depends on values.

On a CPU nothing waits, so the operations are counted by name; with CUDA, torch.cuda.set_sync_debug_mode("error") does it.
"""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.equal.default}
SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
}


class Stalls(TorchDispatchMode):
    """`with Stalls() as stalls:` collects the places; torch's optimisers read step counters that they keep on the host anyway.

    Tensor.cpu, .tolist and .numpy, which do nothing that torch would tell of where a tensor is on the CPU already, are counted by patches,
    and so is .to with a device, which copies and waits unless it is told not to.
    """

    def __init__(self):
        super().__init__()
        self.places, self.patches = [], ExitStack()

    def __enter__(self):
        for name in ("cpu", "tolist", "numpy"):
            self.patches.enter_context(mock.patch.object(torch.Tensor, name, self._counted(name, getattr(torch.Tensor, name))))
        self.patches.enter_context(mock.patch.object(torch.Tensor, "to", self._counted("to", torch.Tensor.to, to_a_device)))
        return super().__enter__()

    def __exit__(self, *error):
        self.patches.close()
        return super().__exit__(*error)

    def _counted(self, name, original, counts=lambda *_args, **_kwargs: True):
        def counted(tensor, *args, **kwargs):
            if counts(*args, **kwargs):
                stack = traceback.extract_stack()[:-1]
                frames = [frame for frame in stack if "site-packages" not in frame.filename]
                # torch knows what it does; transfer.py copies from pinned memory; labels are where the sampler put them
                free = stack[-1] is not frames[-1] or frames[-1].filename.endswith("transfer.py") or "labels" in frames[-1].line
                if name != "to" or not free:
                    self.places.append(f"Tensor.{name} at {frames[-1].filename}:{frames[-1].lineno}")
            return original(tensor, *args, **kwargs)

        return counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if func in READS or func in SIZED_BY_VALUES or masked:
            frames = [frame for frame in traceback.extract_stack()[:-1] if "torch/utils" not in frame.filename]
            if not any("torch/optim/" in frame.filename and "swa_utils" not in frame.filename for frame in frames):
                ours = [frame for frame in frames if "site-packages" not in frame.filename]
                if masked or "one_hot" not in ours[-1].line:  # reads the labels' range on a CPU only
                    self.places.append(f"{func} at {ours[-1].filename}:{ours[-1].lineno}")
        return func(*args, **(kwargs or {}))


def to_a_device(*args, device=None, non_blocking=False, **_kwargs):
    """Whether Tensor.to with these arguments copies to a device and waits for it."""
    return not non_blocking and (device is not None or any(isinstance(one, torch.device | str) for one in args))


def assert_no_stall_a_step(run, fewer=3, more=8):
    """run(steps) may wait as often as it likes before and after its steps, but not more often for more of them."""
    found = {}
    for steps in (fewer, more):
        with Stalls() as stalls:
            run(steps)
        found[steps] = stalls.places
    extra = [place for place in set(found[more]) if found[more].count(place) > found[fewer].count(place)]
    assert not extra, f"waits in every step: {extra}"
