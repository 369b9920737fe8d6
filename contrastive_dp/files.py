"""Files: written whole and then renamed, read without ever unpickling code."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Call write(temporary path in the same folder), flush it to the disk and rename it to `path`."""
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as stream:
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
    """Write what `read_checkpoint` reads: tensors, numbers, text, and lists and dictionaries of them. Raises OSError on a full disk."""
    try:
        return write_whole(path, lambda temporary: torch.save(dict(content), temporary))
    except RuntimeError as error:  # torch's word for a disk that takes no more
        raise _unwritten(path, error) from None


def _unwritten(path: str | Path, error: Exception) -> OSError:
    reason = " ".join(str(error).split())[:120]
    return OSError(errno.ENOSPC, f"cannot write, the disk is full perhaps: {reason}", str(path))


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata. Raises FileNotFoundError, or ValueError for a damaged file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    try:
        with safe_open(str(path), framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): make it again") from None


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """Read a training checkpoint with weights_only=True. Raises ValueError for a damaged file or one with code in it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # torch raises many kinds for what is not a checkpoint
        raise ValueError(f"{path} is damaged or no checkpoint of ours ({type(error).__name__}): delete it to start again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no checkpoint of ours: delete it to start again")
    return content
