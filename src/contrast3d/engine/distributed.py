"""Ranks, devices and the few collectives the loop needs. Every function also works in a single process."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from contrast3d.errors import ConfigError, FailedElsewhere
from contrast3d.ops.collective import rank

# Ranks wait so long for each other: features of teachers can be hours of work of the first one. Those who lost a fellow
# need not wait for it, torchrun ends them.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Ranks:
    """This process among its fellows: rank of world, and the device it computes on."""

    rank: int
    world: int
    local_rank: int
    device: torch.device


def setup(device: str = "auto") -> Ranks:
    """Join the process group that torchrun describes in the environment; alone, only pick the device.

    device: auto (CUDA, else Apple GPU, else CPU), cpu, cuda, cuda:1, mps. CPU tensors travel by gloo, CUDA
    tensors by nccl. A ConfigError names a device that is not there.
    """
    if "RANK" not in os.environ:
        return Ranks(0, 1, 0, pick_device(device))
    rank, world, local_rank = (int(os.environ[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    try:
        chosen = pick_device(device)
    except ConfigError:
        if local_rank == 0:
            raise
        raise FailedElsewhere("the first process of this machine says why") from None
    if chosen.type == "mps":  # there are no collectives on Apple GPUs
        chosen = torch.device("cpu")
    if chosen.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"local rank {local_rank} has no GPU of its own: {torch.cuda.device_count()} found. "
                "Try: torchrun --nproc-per-node with at most as many processes as GPUs"
            )
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(rank, world, local_rank, chosen)


def cleanup() -> None:
    """Leave the process group, if there is one."""
    if is_distributed():
        dist.destroy_process_group()


def pick_device(name: str = "auto") -> torch.device:
    """"auto" or a device name -> a device that exists; a ConfigError otherwise."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    kind = name.partition(":")[0]
    if not available.get(kind, False):
        there = [k for k, v in available.items() if v]
        raise ConfigError(f"device {name!r} is not available here; expected auto or one of {there}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is none; expected {kind}, or {kind}:0 and so on") from None
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not available here; there are {torch.cuda.device_count()} GPUs")
    return device


def is_distributed() -> bool:
    """True within a process group, be it of one process."""
    return dist.is_available() and dist.is_initialized()


def is_main() -> bool:
    """True in the one process that writes files and prints."""
    return rank() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that all ranks leave together, or fail together: the first that failed raises its own error.

    The others raise FailedElsewhere instead of waiting for it forever, so that a mistake which all of them
    made is told once. Every rank must come by; a block may hold others of its kind, and must not talk to other
    ranks by any other way. A rank that fails outside of an inner block is heard by those that are in it.
    """
    error = None
    try:
        yield
    except Exception as own:
        if getattr(own, "agreed", False):  # in a block within: nobody waits for an answer any more
            raise
        error = own
    first_failed = -maximum(-float("inf") if error is None else -rank())[0]
    if first_failed < float("inf"):
        mine = error is not None and first_failed == rank()
        failed = error if mine else FailedElsewhere(f"rank {int(first_failed)} says why")
        failed.agreed = True
        raise failed


def maximum(*values: float | int) -> list[float]:
    """The largest of each value over the ranks: how ranks agree to stop or save at the same step."""
    if not is_distributed():
        return [float(v) for v in values]
    agreed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(agreed, dist.ReduceOp.MAX)
    return agreed.tolist()


def gather(value: dict) -> list[dict]:
    """One value per rank, in order."""
    if not is_distributed():
        return [value]
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def parallel(method: nn.Module) -> nn.Module:
    """`method` whose gradients are averaged over the ranks; itself in a single process.

    Parameters and buffers start as those of rank 0. Afterwards buffers are left alone: queues, momentum
    encoders and cross-rank batch norm keep them equal by themselves, and a broadcast in every forward pass
    would only cost time.
    """
    if not is_distributed():
        return method
    start_alike(method)
    parallel_class = nn.parallel.DistributedDataParallel
    if "forward_sync_buffers" in inspect.signature(parallel_class).parameters:  # the name since torch 2.13
        return parallel_class(method, forward_sync_buffers=False)
    return parallel_class(method, broadcast_buffers=False)


@torch.no_grad()
def start_alike(method: nn.Module) -> None:
    """Parameters and buffers of rank 0 on every rank."""
    if is_distributed():
        for tensor in (*method.parameters(), *method.buffers()):
            dist.broadcast(tensor, src=0)


@torch.no_grad()
def average_gradients(method: nn.Module) -> None:
    """The mean over ranks of every gradient, in one message; a parameter without one counts as zero.

    For trainings that DistributedDataParallel cannot serve, since their forward is not one call.
    """
    if not is_distributed():
        return
    parameters = [p for p in method.parameters() if p.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters])):
        parameter.grad.copy_(mean.view_as(parameter))
