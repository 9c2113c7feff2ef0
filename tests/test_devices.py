"""What runs on a GPU is what runs on the CPU: every operation, network and method, forward and backward.

On machines with a GPU alone; elsewhere the plain torch paths are tested on the CPU, inside `portable()`.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect

import pytest
import torch
from torch import Tensor

from contrast3d import methods, ops
from contrast3d import nn as networks
from contrast3d.nn.patches import PatchEmbed
from contrast3d.ops.kernel_map import KernelMap
from contrast3d.ops.neighbor_table import NeighborTable
from contrast3d.ops.patch_embed import PatchWeights, Running
from contrast3d.types import Clouds, Features, ViewPairs, Voxels

GPUS = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
GPU = next((name for name, there in GPUS.items() if there), None)
pytestmark = pytest.mark.skipif(GPU is None, reason="no CUDA or Apple GPU")
DTYPE = torch.float32 if GPU == "mps" else torch.float64  # Apple GPUs have no float64
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}
CLOSE = FLOAT32 if GPU == "mps" else {"rtol": 1e-9, "atol": 1e-10}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=DTYPE, generator=torch.Generator().manual_seed(seed))


def graph(b: int, m: int, n: int, k: int) -> Tensor:
    return torch.randint(n, (b, m, k), generator=torch.Generator().manual_seed(1))


def scene() -> Clouds:
    """Two clouds and an empty one between them, negative coordinates among the voxels."""
    return Clouds.from_list([rand(60, 3), rand(0, 3), rand(90, 3, seed=1)], features=rand(150, 5, seed=2))


def triangles() -> Tensor:
    return rand(12, 3, 3) + torch.tensor([0, 0, 4], dtype=DTYPE)


def moved(value, device):
    """On the device: tensors and batches, also within tuples and dicts."""
    if isinstance(value, dict):
        return {name: moved(v, device) for name, v in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(v, device) for v in value)
    return value.to(device) if hasattr(value, "to") else value


def parts(value) -> list[Tensor]:
    """The tensors of a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [t for v in value for t in parts(v)]
    if isinstance(value, dict):
        return parts(list(value.values()))
    if isinstance(value, NeighborTable):
        value = KernelMap(value.in_rows, value.out_rows, value.starts, value.num_in, value.num_out)
    if dataclasses.is_dataclass(value):
        return parts([getattr(value, f.name) for f in dataclasses.fields(value) if f.name != "maps"])
    return []


def on(device, call, arguments):
    """Results of call(*arguments) on a device, and the gradients of those arguments that can have one."""
    arguments = moved(copy.deepcopy(arguments), device)
    leaves = [a for a in arguments if isinstance(a, Tensor) and a.is_floating_point()]
    leaves += [a.features for a in arguments if isinstance(a, Voxels)]
    for leaf in leaves:
        leaf.requires_grad_()
    results = parts(call(*arguments))
    learnt = [r for r in results if r.requires_grad]
    if not learnt:
        return [r.cpu() for r in results], []
    total = sum((r * torch.linspace(-1, 1, r.numel(), dtype=r.dtype, device=device).view_as(r)).sum() for r in learnt)
    grads = torch.autograd.grad(total, leaves, allow_unused=True)
    return [r.detach().cpu() for r in results], [None if g is None else g.cpu() for g in grads]


def same(found: list, wanted: list, **close) -> None:
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted):
        assert (f is None) == (w is None)
        if f is not None:
            torch.testing.assert_close(f, w, **(FLOAT32 if f.dtype == torch.float32 else close or CLOSE))


NORM = (1 + 0.1 * rand(6, seed=7), rand(6, seed=8), rand(6, seed=9), 1 + rand(6, seed=6).square())
OPS = {  # name: the call, its arguments
    "ball_query": (lambda p, q: ops.ball_query(p, q, 0.7, 5), (rand(2, 40, 3), rand(2, 9, 3, seed=1))),
    "chamfer": (ops.chamfer, (rand(3, 20, 3), rand(3, 30, 3, seed=1))),
    "correspondences": (lambda a, b, t: ops.correspondences(a, b, t, 0.5),
                        (rand(80, 3), rand(70, 3, seed=1), torch.eye(4, dtype=DTYPE))),
    "cross_attention": (ops.cross_attention, (rand(2, 3, 2, 8), rand(2, 11, 2, 2, 8, seed=1))),
    "depth_images": (lambda t, p: ops.depth_images(t, p, torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]]), (12, 16)),
                     (triangles(), torch.eye(4, dtype=DTYPE)[None])),
    "edge_conv": (lambda c, n, i, w, b, m, v: ops.edge_conv(c, n, i, w, b, m, v, False, negative_slope=0.2),
                  (rand(2, 20, 6), rand(2, 30, 6, seed=1), graph(2, 20, 30, 4), *NORM)),
    "edge_conv in training": (
        lambda c, n, i, w, b: ops.edge_conv(c, n, i, w, b, torch.zeros_like(b), torch.ones_like(b), True),
        (rand(2, 20, 6), rand(2, 30, 6, seed=1), graph(2, 20, 30, 4), *NORM[:2])),
    "edge_mlp": (
        lambda c, n, i, w, b, o, s: ops.edge_mlp(c, n, i, w, b, torch.zeros_like(b), torch.ones_like(b), o, s, True),
        (rand(2, 20, 6), rand(2, 30, 6, seed=1), graph(2, 20, 30, 4), *NORM[:2], rand(9, 6, seed=3), rand(9))),
    "farthest_point_sampling": (lambda p: ops.farthest_point_sampling(p, 12), (rand(3, 50, 3),)),
    "from_coords": (ops.from_coords, (graph(1, 30, 5, 4)[0].unique(dim=0).flip(0)[:20], rand(20, 2))),
    "gather": (ops.gather, (rand(2, 30, 6), graph(2, 20, 30, 4))),
    "global_pool": (lambda v: ops.global_pool(v, "mean"), (ops.voxelize(scene(), 0.4),)),
    "kernel_map": (lambda v: (ops.kernel_map(v, 3), ops.kernel_map(v, 3, 1, 2), ops.kernel_map(v, 2, 2)),
                   (ops.voxelize(scene(), 0.4),)),
    "knn": (lambda p: ops.knn(p, 5), (rand(2, 40, 3),)),
    "knn of features": (lambda p, q: ops.knn(p, 5, q), (rand(2, 40, 9), rand(2, 7, 9, seed=1))),
    "linear": (lambda x, w, b: ops.linear(x, w, b, "gelu"), (rand(2, 7, 6), rand(9, 6, seed=1), rand(9))),
    "neighbor_max": (ops.neighbor_max, (rand(2, 30, 6), graph(2, 20, 30, 4))),
    "offsets": (ops.offsets, (rand(2, 30, 3), graph(2, 5, 30, 4), rand(2, 5, 3, seed=1))),
    "patch_embed": (lambda x, *weights: embedded(x, weights),
                    (rand(2, 6, 5, 3), *PatchEmbed(16).to(DTYPE).parameters())),
    "radius_matches": (lambda a, b: ops.radius_matches(a, b, 0.5), (rand(80, 3), rand(70, 3, seed=1))),
    "self_attention": (ops.self_attention, (rand(2, 11, 3, 2, 8),)),
    "shaded_views": (lambda p: ops.shaded_views(p.detach().float(), 2, 32), (rand(2, 200, 3),)),
    "sparse_conv": (ops.sparse_conv, (ops.voxelize(scene(), 0.4), rand(27, 5, 9), rand(9))),
    "sparse_conv down": (lambda v, w: ops.sparse_conv(v, w, None, 2, 2), (ops.voxelize(scene(), 0.4), rand(8, 5, 9))),
    "sparse_conv dilated": (lambda v, w: ops.sparse_conv(v, w, None, 3, 1, 2),
                            (ops.voxelize(scene(), 0.4), rand(27, 5, 9))),
    "sparse_conv_transpose": (lambda v, w, back: ops.sparse_conv_transpose(ops.sparse_conv(v, w, None, 2, 2), back),
                              (ops.voxelize(scene(), 0.4), rand(8, 5, 9), rand(8, 9, 4))),
    "sparse_pool": (ops.sparse_pool, (ops.voxelize(scene(), 0.4),)),
    "three_interpolate": (ops.three_interpolate, (rand(2, 40, 3), rand(2, 40, 6), rand(2, 9, 3, seed=1))),
    "voxel_labels": (lambda v, labels: ops.voxel_labels(labels, v),
                     (ops.voxelize(scene(), 0.8), torch.arange(150) % 3)),
    "voxelize": (lambda c: ops.voxelize(c, 0.4), (scene(),)),
}


def embedded(points: Tensor, weights: tuple) -> Tensor:
    names = [name.split(".") for name, _ in PatchEmbed(16).named_parameters()]
    of = {layer + kind[0]: w for (layer, kind), w in zip(names, weights)}
    order = ("conv1w", "conv1b", "norm1w", "norm1b", "conv2w", "conv2b", "conv3w", "conv3b", "norm2w", "norm2b",
             "conv4w", "conv4b")
    running = Running(*(f(of[n]) for n in ("norm1w", "norm2w") for f in (torch.zeros_like, torch.ones_like)))
    visible = torch.tensor([True, False, True], device=points.device).repeat(2, 2)
    return ops.patch_embed(points, PatchWeights(*(of[name] for name in order)), running, True, visible)


@pytest.mark.parametrize("name", OPS)
def test_operations(name):
    call, arguments = OPS[name]
    for found, wanted in zip(on(GPU, call, arguments), on("cpu", call, arguments)):
        same(found, wanted)


def test_every_operation_is_here():
    assert set(ops.__all__) <= {name.split()[0] for name in OPS}


def sparse(**options) -> networks.SparseUNet:
    return networks.SparseUNet(3, 8, depth=14, width=0.25, voxel_size=0.5, **options)


PATCHES = {"width": 16, "depth": 2, "num_heads": 2, "num_patches": 6, "patch_size": 4, "drop_path": 0.0}
ENCODERS = {
    "DGCNN": lambda: networks.DGCNN(32, ((8,), (16,), (16,)), k=4, strides=(1, 2, 2)),
    "DGCNN report": lambda: networks.DGCNN(32, ((8, 8), (16,)), k=4, plain=True, negative_slope=0.0, readout=("max",)),
    "PointNet": lambda: networks.PointNet(32, widths=(8, 8)),
    "SparseUNet": sparse,
    "SparseUNet encoder": lambda: sparse(decoder=False),
    "PatchTransformer": lambda: networks.PatchTransformer(**PATCHES),
    "PatchTransformer standard": lambda: networks.PatchTransformer(**PATCHES, block="standard"),
    "TwoTowers": lambda: networks.TwoTowers(**PATCHES),
}


def twins(make):
    """The same network on both devices, in DTYPE."""
    torch.manual_seed(0)
    network = make().to(DTYPE)
    return copy.deepcopy(network).to(GPU), network


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("training", [True, False])
def test_networks(name, training):
    """Features, gradients of all weights, running statistics."""
    clouds, seen = Clouds.from_dense(rand(4, 24, 3)), []
    for device, network in zip((GPU, "cpu"), twins(ENCODERS[name])):
        network.train(training)
        features = network(clouds.to(device))
        assert isinstance(features, Features)
        loss = sum((f * torch.linspace(-1, 1, f.numel(), dtype=f.dtype, device=device).view_as(f)).sum()
                   for f in (features.pooled, features.points) if f is not None)
        loss.backward()
        grads = [p.grad.cpu() for p in network.parameters() if p.grad is not None]
        seen.append([t.detach().cpu() for t in parts(features)] + grads + [b.cpu() for b in network.buffers()])
    same(*seen, rtol=1e-3 if GPU == "mps" else 1e-7, atol=1e-4 if GPU == "mps" else 1e-8)


METHODS = {name: getattr(methods, name) for name in methods.__all__}
SHAPES = 6


def make(kind):
    takes = inspect.signature(kind).parameters
    wanted = {"num_shapes": SHAPES} if "num_shapes" in takes else {}
    wanted |= {"self_contrast": "instance"} if "self_contrast" in takes else {}
    encoder = networks.PatchTransformer(**PATCHES) if "tokens" in kind.needs else networks.PointNet(16, widths=(8,))
    return kind(encoder, **wanted)


def batch(method):
    base, ids = rand(SHAPES, 24, 3), torch.arange(SHAPES)
    views = [Clouds.from_dense(base + 0.1 * rand(SHAPES, 24, 3, seed=i), ids=ids) for i in range(method.views)]
    matches = torch.arange(SHAPES * 24)[:, None].expand(-1, 2)
    return ViewPairs(*views, matches) if "dense" in method.needs else views


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    """Two steps: queues, momentum encoders and banks included. What a method draws, it draws alike on all devices
    or not at all; PointContrast alone draws matches on the device, of which it is given no more than it takes."""
    seen = []
    for device, method in zip((GPU, "cpu"), twins(lambda: make(METHODS[name]))):
        views = batch(method)
        views = views.to(device) if isinstance(views, ViewPairs) else [v.to(device) for v in views]
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
        torch.manual_seed(1)
        for _ in range(2):
            if hasattr(method, "before_step"):
                method.before_step(0.5)
            outputs = method(views)
            optimizer.zero_grad()
            outputs["loss"].backward()
            optimizer.step()
            if hasattr(method, "after_step"):
                method.after_step()
        logged = {k: v for k, v in outputs.items() if k == "loss" or "dense" not in method.needs}
        seen.append([t.detach().cpu() for t in (*logged.values(), *method.parameters(), *method.buffers())])
    same(*seen, rtol=1e-3 if GPU == "mps" else 1e-5, atol=1e-4 if GPU == "mps" else 1e-5)


cuda = pytest.mark.skipif(GPU != "cuda", reason="kernels of CUDA")


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.cpu().double() - wanted.double()).norm() / wanted.double().norm())


@cuda
@pytest.mark.parametrize(("channels", "width"), [(3, 32), (40, 70), (128, 256), (1, 1)])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (2, 2), (1, 1)])
def test_sparse_convolution_in_float32(channels, width, size, stride):
    """One kernel gathers and multiplies, with all digits of float32."""
    voxels = ops.voxelize(Clouds.from_list([rand(3000, 3), rand(700, 3, seed=1)]), 0.1)
    features, weight = rand(len(voxels.coords), channels), rand(size**3, channels, width, seed=3)

    def convolved(voxels, features, weight):
        return ops.sparse_conv(voxels.replace(features=features), weight, None, size, stride).features

    wanted = on("cpu", lambda f, w: convolved(voxels, f, w), (features, weight))
    found = on(GPU, lambda f, w: convolved(voxels.to(GPU), f, w), (features.float(), weight.float()))
    for f, w in zip((*found[0], *found[1]), (*wanted[0], *wanted[1])):
        assert f.dtype == torch.float32
        assert error(f, w) < 5e-6


@cuda
@pytest.mark.parametrize("points", [1, 50, 1024, 20_000])
def test_farthest_points_in_float32(points):
    clouds, first = rand(3, points, 3).float(), torch.tensor([0, points // 2, points - 1])
    wanted = ops.farthest_point_sampling(clouds, min(points, 64), first)
    assert torch.equal(ops.farthest_point_sampling(clouds.cuda(), min(points, 64), first.cuda()).cpu(), wanted)


@cuda
def test_without_a_compiler_plain_torch_does_it(monkeypatch):
    from contrast3d.ops.kernels import farthest_point_sampling_triton, fused

    def fails(device):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(farthest_point_sampling_triton, "try_out", fails)
    fused._module.cache_clear()
    clouds = rand(3, 50, 3).float()
    try:
        with pytest.warns(UserWarning, match="no Triton kernels for farthest_point_sampling .*C compiler"):
            found = ops.farthest_point_sampling(clouds.cuda(), 9)
        assert torch.equal(found.cpu(), ops.farthest_point_sampling(clouds, 9))
    finally:
        fused._module.cache_clear()


@cuda
def test_bfloat16_is_close():
    """Sparse convolutions under autocast: products of bfloat16, sums of float32."""
    torch.manual_seed(0)
    voxels = ops.voxelize(scene(), 0.4)
    voxels = voxels.replace(features=voxels.features.float())
    weight = torch.randn(27, 5, 9)
    weight.requires_grad_()
    wanted = ops.sparse_conv(voxels, weight).features
    there = weight.detach().cuda().requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        found = ops.sparse_conv(voxels.to("cuda"), there).features
    wanted.square().sum().backward()
    found.square().sum().backward()
    assert found.dtype == there.grad.dtype == torch.float32
    assert error(found.detach(), wanted.detach()) < 0.01
    assert error(there.grad, weight.grad) < 0.02


@pytest.mark.parametrize("dtype", {torch.float32, DTYPE})
def test_a_second_time_gives_the_same_bits(dtype):
    """Forward and backward of the sparse network on voxels: no convolution adds up in an order of chance."""
    network = twins(sparse)[0].to(dtype)
    voxels, seen = ops.voxelize(Clouds.from_dense(rand(4, 200, 3).to(dtype)).to(GPU), 0.5), []
    voxels = voxels.replace(features=torch.ones(len(voxels.coords), 3, dtype=dtype, device=GPU))
    for _ in range(2):
        again = copy.deepcopy(network)
        points = again(voxels.replace(features=voxels.features)).points
        (points * torch.linspace(-1, 1, points.numel(), dtype=dtype, device=GPU).view_as(points)).sum().backward()
        seen.append([p.grad.cpu() for p in again.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*seen))
