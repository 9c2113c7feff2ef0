"""Two gloo processes against one process on the joined batch: loss, gradients and batch-norm statistics."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from contrast3d.methods.simclr import SimCLR
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.pointnet import PointNet
from contrast3d.types import Clouds

BATCH, POINTS = 6, 20
ENCODERS = {
    "dgcnn": lambda: DGCNN(16, ((8,), (8,)), k=4),
    "pyramid": lambda: DGCNN(16, ((8,), (8,)), k=4, strides=(1, 2)),
    "report": lambda: DGCNN(16, ((8, 8), (8,)), k=4, plain=True, negative_slope=0.0, readout=("max",)),
    "pointnet": lambda: PointNet(16, widths=(8,)),
}


def method_and_views(name):
    torch.manual_seed(0)
    method = SimCLR(ENCODERS[name](), projection_dim=4, hidden_dim=8).double()
    views = torch.randn(2, BATCH, POINTS, 3, dtype=torch.float64)
    return method, views


def outcome(method, loss):
    gradients = {n: p.grad.clone() for n, p in method.named_parameters()}
    buffers = {n: b.clone() for n, b in method.named_buffers() if b.is_floating_point()}
    return {"loss": loss, "gradients": gradients, "buffers": buffers}


def worker(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for name in ENCODERS:
        method, views = method_and_views(name)
        parallel = torch.nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
        share = BATCH // world
        mine = views[:, rank * share : (rank + 1) * share]
        loss = parallel([Clouds.from_dense(v) for v in mine])["loss"]
        loss.backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        torch.save(outcome(method, mean / world), os.path.join(folder, f"{name}{rank}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    mp.spawn(worker, (2, str(path)), nprocs=2)
    return path


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_equal_one(folder, name, rank):
    method, views = method_and_views(name)
    loss = method([Clouds.from_dense(v) for v in views])["loss"]
    loss.backward()
    one = outcome(method, loss.detach())
    two = torch.load(folder / f"{name}{rank}.pt", weights_only=True)
    torch.testing.assert_close(two["loss"], one["loss"], rtol=0, atol=1e-12)
    torch.testing.assert_close(two["gradients"], one["gradients"], rtol=0, atol=1e-12)
    torch.testing.assert_close(two["buffers"], one["buffers"], rtol=0, atol=1e-12)
