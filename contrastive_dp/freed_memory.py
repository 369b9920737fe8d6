"""Keeps the memory of CPU tensors between steps; by default the C library returns it to the system and requests it again."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB: every step allocates the same tensors, and fresh pages take up to a fifth of its time.

    Returns whether this was possible; elsewhere it does nothing. Results do not change, and memory never exceeds its earlier peak.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_TOP_PAD, 2**26))
