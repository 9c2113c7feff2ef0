"""How a CPU kernel uses several threads: a plain loop over a range, cut into one piece per torch thread.

Kernels are compiled by numba without its own threading layer (`nogil=True`, never `parallel=True`). That
layer is what makes numba fragile: workqueue aborts on concurrent entry and GNU OpenMP hangs after a fork.
Here a piece is an ordinary function call in an ordinary thread, so kernels can be entered from anywhere.
Each output row is computed by exactly one piece: results do not depend on the number of threads.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import torch

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def kernel(function: Callable) -> Callable:
    """Compile `function(..., start, stop)`: releases the GIL, cached on disk.

    Reassociation is allowed so that reductions use vector registers; NaN and infinity keep their meaning.
    """
    function = inspect.unwrap(function)  # a type checker's import hook may have wrapped it
    return numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})(function)


def _pool(workers: int) -> ThreadPoolExecutor:
    key = (os.getpid(), workers)  # threads do not survive a fork
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="contrast3d")
    return _pools[key]


def run(kernel: Callable, count: int, *args, threads: int | None = None, least: int = 1) -> None:
    """Call `kernel(*args, start, stop)` over pieces of range(count), one per torch thread.

    The caller's own thread computes the first piece. An exception in any piece is raised here.
    least: how many of `count` a thread of its own is worth starting for.
    """
    pieces = min(threads or torch.get_num_threads(), max(1, count // least))
    if pieces <= 1:
        if count:
            kernel(*args, 0, count)
        return
    bounds = [count * i // pieces for i in range(pieces + 1)]
    jobs = [_pool(pieces - 1).submit(kernel, *args, a, b) for a, b in pairwise(bounds[1:])]
    kernel(*args, bounds[0], bounds[1])
    for job in jobs:
        job.result()
