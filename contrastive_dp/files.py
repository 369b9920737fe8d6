"""Files: written atomically (written whole, then renamed), and read without ever unpickling code."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

TEMPORARY = ".contrastive-dp-unfinished-"
"""Prefix of files that are still being written. It marks what a killed process left behind; nothing else is ever removed."""


PROCESS = secrets.token_hex(4)
"""Two containers may have processes of one number."""


def temporary_name(name: str) -> str:
    """Temporary name, unique to this process, for a file or folder being written. Keeps the suffix; its length is bounded for any name."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{TEMPORARY}{PROCESS}-{os.getpid()}-{digest}{Path(name).suffix}"


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Call write(temporary path in the same folder), flush the file to disk and rename it to `path`.

    Raises OSError naming `path` if nothing can be written there.
    """
    target = Path(path)
    temporary = target.with_name(temporary_name(target.name))
    try:
        temporary.touch()
    except OSError as error:  # before a writer, whose own errors do not say why
        raise OSError(error.errno, error.strerror, str(target)) from None
    try:
        write(temporary)
        with temporary.open("r+b") as stream:  # Windows flushes only what is open for writing
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write named tensors and text metadata."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        return write_whole(path, lambda temporary: save_file(plain, temporary, dict(metadata)))
    except SafetensorError as error:
        raise _unwritten(path, error) from None


def write_checkpoint(path: str | Path, content: Mapping[str, object]) -> Path:
    """Write a file for `read_checkpoint`: tensors, numbers, text, and lists and dictionaries of these. Raises OSError on a full disk."""
    try:
        return write_whole(path, lambda temporary: torch.save(dict(content), temporary))
    except RuntimeError as error:  # torch's error for a full disk
        raise _unwritten(path, error) from None


def _unwritten(path: str | Path, error: Exception) -> OSError:
    reason = " ".join(str(error).split())
    if known := re.search(r"os error (\d+)", reason):
        return OSError(int(known[1]), os.strerror(int(known[1])), str(path))
    return OSError(errno.ENOSPC, f"cannot write, the disk is full perhaps: {reason[:120]}", str(path))


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata. Raises FileNotFoundError, or ValueError for a damaged file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    if (problem := not_the_file(path)) is not None:
        raise ValueError(f"{path} {problem}")
    try:
        with safe_open(str(path), framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): make it again") from None


PREFIXES = (
    *("module.0.", "module.", "ema_model.", "ema.", "model.", "net.", "network."),
    *("encoder.", "backbone.", "classifier.", "1."),
)
"""Prefixes that wrappers add to every name: DataParallel, an averaged model, a training script's own class, Sequential(normalise, ...)."""


def bare_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the network's own names, without the prefixes that torch.compile and wrappers add, in any order."""
    found = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items() if name.rpartition(".")[2] != "n_averaged"}
    while found and (prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in found)), None)):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights whose names and shapes all match. Raises ValueError naming what is missing, left over, or has another shape."""
    expected = network.state_dict()
    check_names([name for name in expected if name not in tensors], [name for name in tensors if name not in expected])
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}")
    network.load_state_dict(dict(tensors))


def check_names(missing: Collection[str], unknown: Collection[str]) -> None:
    """Raise ValueError for missing or unknown weights, naming the first of them."""
    problems = []
    for what, names in (("it lacks", sorted(missing)), ("the network does not know", sorted(unknown))):
        if names:
            problems.append(f"{what} {', '.join(names[:2])}" + (f" and {len(names) - 2} more" if len(names) > 2 else ""))
    if problems:
        raise ValueError("; ".join(problems))


def not_the_file(path: str | Path) -> str | None:
    """What a file from a failed download is instead of what its name says, and the remedy; None for anything else."""
    if is_safetensors(path):  # the length of its header may look like text
        return None
    with Path(path).open("rb") as stream:
        start = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty: get it again"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "is a web page, not the file: the download met a log-in or an error; get it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file: run git lfs pull"
    if start.startswith((b"{", b"[")):
        return "is text, not the file: an error message perhaps; get it again"
    return None


def is_safetensors(path: str | Path) -> bool:
    """Whether a file, whatever its name, is in safetensors format: the length of a header, then JSON."""
    with Path(path).open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= Path(path).stat().st_size


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """Read a training checkpoint with weights_only=True. Raises ValueError for a damaged file or one with code in it."""
    if (problem := not_the_file(path)) is not None:
        raise ValueError(f"{path} {problem}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch raises many different exceptions for files that are not checkpoints
        raise ValueError(f"{path} is damaged or no checkpoint of ours ({type(error).__name__}): delete it to start again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no checkpoint of ours: delete it to start again")
    return content
