"""Memory of CPU tensors: kept by the process between steps, where the C library would give it back and fetch it anew."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB: every step allocates the same tensors, and fresh pages cost up to a fifth of its time.

    Returns whether that was possible; elsewhere nothing happens. Numbers do not change, and no more memory is held than was once in use.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_TOP_PAD, 2**26))
