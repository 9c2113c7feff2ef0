"""A contrastive step of a large batch, gradients cached over pieces of 32, against the plain step of the whole batch.

Memory is the point: cached, a batch of 4,096 takes that of 32 and, on top, its points and embeddings. The plain step
is timed as far as it fits; its time over ours is the price of the second forward pass (a ratio below 1).
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable
from functools import partial

import harness  # before torch: sets how OpenMP threads wait
import torch
from harness import Case, relative_difference
from torch.utils.flop_counter import FlopCounterMode

from contrast3d.engine.gradient_cache import cached_backward
from contrast3d.methods.simclr import SimCLR
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.types import Clouds

FLOAT = 4  # bytes
MICRO_BATCH, POINTS, WIDTH = 32, 256, 128
PLAIN_UP_TO = 512  # shapes: 1 GB and more of activations


def cases(quick: bool) -> dict[tuple[str, str], Callable[[], Case]]:
    """Every row's name and variant, and what builds its case."""
    sizes = (8, 16) if quick else (32, 128, 512, 1024, 4096)
    return {("simclr_cached", f"batch {size}"): partial(step_case, size, 4 if quick else MICRO_BATCH) for size in sizes}


def step_case(batch: int, micro_batch: int) -> Case:
    """Forward and backward of two views, in the encoder of recipe simclr-ldraw40."""
    torch.manual_seed(0)
    encoder = DGCNN(1024, ((64,), (128,), (256,)), k=16, dynamic=False, strides=(1, 2, 2))
    method = SimCLR(encoder, projection_dim=WIDTH)
    views = torch.randn(2, batch, POINTS, 3)

    def ours(method: SimCLR, views: torch.Tensor) -> float:
        method.zero_grad()
        outputs = cached_backward(method, list(map(Clouds.from_dense, views)), micro_batch, contextlib.nullcontext())
        return float(outputs["loss"].detach())

    def plain(method: SimCLR, views: torch.Tensor) -> float:
        method.zero_grad()
        loss = method(list(map(Clouds.from_dense, views)))["loss"]
        loss.backward()
        return float(loss.detach())

    def difference(dtype: torch.dtype) -> float:
        """Of the gradients, in evaluation mode: there batch norm is a map per shape, as the comparison needs it."""
        some = views[:, : 3 * micro_batch // 2].to(dtype)
        pair = [copy.deepcopy(method).to(dtype).eval() for _ in range(2)]
        for run, own in zip((ours, plain), pair):
            run(own, some)
        return relative_difference(*([p.grad for p in own.parameters()] for own in pair))

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method.embed([Clouds.from_dense(view[:micro_batch]) for view in views])
    flops = 4 * counter.get_total_flops() * batch / min(micro_batch, batch)  # two forward passes, and a backward
    moved = FLOAT * 2 * batch * (3 * POINTS + 4 * WIDTH)  # points, embeddings; a piece stays near the cache
    note = "Products alone are counted; graphs, sampling and edge reductions come on top, twice."
    reference = partial(plain, method, views) if batch <= PLAIN_UP_TO else None
    return Case(partial(ours, method, views), flops, moved, note, reference, difference, max_rounds=3)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, cases))
