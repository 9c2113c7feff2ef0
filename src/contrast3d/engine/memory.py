"""How the C library keeps the memory that tensors leave behind."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def keep_freed_memory() -> bool:
    """Let this process reuse large freed blocks instead of returning them to the system; True where that worked.

    By default glibc maps every large array anew and unmaps it when freed, so that each step of a training
    zeroes and faults in the same pages again: up to half of the time of a memory-bound layer. The price: the
    process stays as large as it once was. Only glibc needs it; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
