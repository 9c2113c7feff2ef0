"""Sparse convolution, kernel maps and SR-UNet34 on an indoor scan, against plain PyTorch.

The reference is what an engine without kernels does: coordinates sorted and searched by torch, and for each offset of
a kernel a gather, a product and an index_add, with its backward written out and maps cached. Known CPU engines are not
more than 8 % away from it. Both run the same network with the same weights; results are compared before timing.
"""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from unittest import mock

import harness  # before torch: sets how OpenMP threads wait
import torch
from harness import Case, relative_difference
from torch import Tensor

from contrast3d.data.rooms import make_room, scan
from contrast3d.nn.sparse_unet import SparseUNet
from contrast3d.ops.kernel_map import KernelMap
from contrast3d.ops.voxels import from_coords
from contrast3d.types import Voxels

# the modules, whose names in the package are those of their functions
maps, ops = (importlib.import_module(f"contrast3d.ops.{name}") for name in ("kernel_map", "sparse_conv"))
FLOAT, INDEX = 4, 4  # bytes


@dataclass(frozen=True)
class Sizes:
    """M voxels of 2.5 cm; the width of the network."""

    voxels: int = 40_000
    width: float = 1.0


QUICK = Sizes(600, 0.125)
LAYERS = {  # name: (kernel, stride, level of the input, channels in, channels out)
    "k3_3_32": (3, 1, 1, 3, 32), "k3_64_64": (3, 1, 1, 64, 64), "k3_96_96": (3, 1, 1, 96, 96),
    "k2s2_64_64": (2, 2, 1, 64, 64), "k3_128_128_at_4": (3, 1, 4, 128, 128), "k3_256_256_at_16": (3, 1, 16, 256, 256),
}


def cases(quick: bool) -> dict[tuple[str, str], Callable[[], Case]]:
    """Every row's name and variant, and what builds its case."""
    s = QUICK if quick else Sizes()
    found = {("kernel_maps", "five levels"): partial(maps_case, s)}
    for name in LAYERS:
        wanted = 1.7 if name == "k3_96_96" else None
        found[name, "forward"] = partial(conv_case, s, name, backward=False, wanted=wanted)
        found[name, "forward+backward"] = partial(conv_case, s, name, backward=True)
    found["k3_96_96", "forward, bfloat16"] = partial(conv_case, s, "k3_96_96", backward=False, low=True, wanted=2.4)
    found["sr_unet34", "forward"] = partial(network_case, s, backward=False)
    peaks = harness.device.type == "cpu" and not quick
    found["sr_unet34", "forward+backward"] = partial(network_case, s, backward=True, peaks=peaks)
    found["sr_unet34", "forward+backward, bfloat16"] = partial(network_case, s, backward=True, low=True, peaks=peaks)
    if harness.device.type == "cpu":
        found["k3_96_96", "forward, two threads over one"] = partial(scaling_case, s)
        found["sr_unet34", "forward+backward, two threads over one"] = partial(network_scaling_case, s)
    return found


@cache
def room(count: int) -> Tensor:
    """(count, 4) int32 voxels of 2.5 cm of a generated room, turned about all axes: those nearest its middle."""
    points = torch.from_numpy(scan(make_room("train", 0), 8000.0).points)
    turn = torch.linalg.matrix_exp(0.5 * torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]))
    cells = torch.floor((points - points.mean(0)) @ turn.T / 0.025).int().unique(dim=0)
    cells = cells[cells.double().square().sum(1).argsort()[:count]]
    return torch.cat([torch.zeros(len(cells), 1, dtype=torch.int32), cells], 1).to(harness.device)


# ---- the straightforward version


class PlainConvolve(torch.autograd.Function):
    """Gather, product, index_add for each offset."""

    @staticmethod
    def forward(ctx, features, weight, pairs):
        ctx.save_for_backward(features, weight)
        ctx.pairs = pairs
        out = features.new_zeros(pairs.num_out, weight.shape[2])
        for w, (a, b) in zip(weight, long_pairs(pairs)):
            out.index_add_(0, b, features[a] @ w)
        return out

    @staticmethod
    def backward(ctx, grad):
        features, weight = ctx.saved_tensors
        of_features, of_weight = torch.zeros_like(features), torch.zeros_like(weight)
        for i, (a, b) in enumerate(long_pairs(ctx.pairs)):
            part = grad[b]
            of_features.index_add_(0, a, part @ weight[i].T)
            torch.mm(features[a].T, part, out=of_weight[i])
        return of_features, of_weight, None


def plain_convolve(features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    return PlainConvolve.apply(features, weight, pairs)


def long_pairs(pairs: KernelMap) -> list[tuple[Tensor, Tensor]]:
    """The pairs of each offset, widened once, as an engine of torch operations keeps them."""
    if "long" not in pairs.__dict__:
        ins, outs = pairs.in_rows.long(), pairs.out_rows.long()
        pairs.__dict__["long"] = [(ins[a:b], outs[a:b]) for a, b in pairwise(pairs.starts)]
    return pairs.__dict__["long"]


def plain_map(voxels: Voxels, kernel_size: int, stride: int, dilation: int) -> KernelMap:
    """Keys sorted and searched by torch, all offsets at once."""
    ins = voxels.coords.long()
    outs = maps.coarser(voxels, stride)[0].long()
    offsets = maps.offsets_of(kernel_size, voxels.stride * dilation)
    offsets = offsets.to(ins.device)
    low = ins.amin(0) - int(offsets.abs().max()) - voxels.stride * stride
    high = ins.amax(0) + int(offsets.abs().max()) + voxels.stride * stride
    extent = high - low + 1
    weights = torch.stack([extent[1:].prod(), extent[2:].prod(), extent[3], torch.ones_like(extent[3])])
    keys, order = ((ins - low) * weights).sum(1).sort()
    wanted = ((outs - low) * weights).sum(1) + (offsets * weights[1:]).sum(1)[:, None]
    places = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    hit = keys[places] == wanted
    counts = hit.sum(1)
    out_rows = hit.nonzero()[:, 1]
    starts = (0, *counts.cumsum(0).tolist())
    return KernelMap(order[places[hit]], out_rows, starts, len(ins), len(outs))


def plain_coarsen(coords: Tensor, step: int, clouds: int) -> tuple[Tensor, Tensor]:
    floored = coords.clone()
    floored[:, 1:] = torch.div(coords[:, 1:], step, rounding_mode="floor") * step
    rows = floored.unique(dim=0)
    return rows, torch.searchsorted(rows[:, 0].contiguous(), torch.arange(clouds + 1).to(rows))


@contextmanager
def plain() -> Iterator[None]:
    """Inside, networks run on the straightforward version."""
    with mock.patch.object(ops, "convolve", plain_convolve), mock.patch.object(maps, "_make", plain_map), \
            mock.patch.object(maps, "_coarsen", plain_coarsen):
        yield


# ---- cases


def maps_case(s: Sizes) -> Case:
    """What a forward pass of the network needs: k3 on five levels, k2 between them."""
    coords = room(s.voxels)

    def build() -> list[KernelMap]:
        voxels, found = from_coords(coords, ones(len(coords)))[0], []
        for _ in range(4):
            found += [maps.kernel_map(voxels, 3), maps.kernel_map(voxels, 2, 2)]
            rows, offsets = maps.coarser(voxels, 2)
            voxels = Voxels(rows, ones(len(rows)), offsets, voxels.stride * 2, maps=voxels.maps)
        return [*found, maps.kernel_map(voxels, 3)]

    def reference() -> list[KernelMap]:
        with plain():
            return build()

    def difference(dtype: torch.dtype) -> float:
        rows = [
            (own.long(), theirs.long()) for a, b in zip(build(), reference(), strict=True)
            for own, theirs in ((a.in_rows, b.in_rows), (a.out_rows, b.out_rows), torch.tensor([a.starts, b.starts]))
        ]
        return 0.0 if all(torch.equal(*both) for both in rows) else 1.0

    pairs = sum(len(m.in_rows) for m in build())
    note = f"{pairs:,} pairs; merging compares each key once per offset, and is bound by its branches."
    return Case(build, 0.0, 2 * INDEX * 2 * pairs, note, reference, difference, wanted_ratio=5)


def layer(s: Sizes, name: str) -> tuple[KernelMap, Tensor, Tensor]:
    """The map of a layer, its features and its weight."""
    kernel, stride, level, c, d = LAYERS[name]
    voxels = from_coords(room(s.voxels), ones(s.voxels))[0]
    if level > 1:
        rows, offsets = maps.coarser(voxels, level)
        voxels = Voxels(rows, ones(len(rows)), offsets, level, maps=voxels.maps)
    torch.manual_seed(0)
    pairs = maps.kernel_map(voxels, kernel, stride)
    features, weight = torch.randn(pairs.num_in, c), torch.randn(kernel**3, c, d) / (c * kernel**3) ** 0.5
    return pairs, features.to(harness.device), weight.to(harness.device)


def ones(rows: int, channels: int = 1) -> Tensor:
    return torch.ones(rows, channels, device=harness.device)


def conv_case(s: Sizes, name: str, backward: bool, low: bool = False, wanted: float | None = None) -> Case:
    """One convolution, its map known."""
    pairs, features, weight = layer(s, name)
    grad = torch.randn(pairs.num_out, weight.shape[2], device=harness.device)

    def results(convolve: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
        inputs = [t.to(dtype).requires_grad_(backward) for t in (features, weight)]
        with torch.autocast(harness.device.type, torch.bfloat16) if low and convolve is ops.convolve else nullcontext():
            out = convolve(*inputs, pairs)
        return [out, *torch.autograd.grad(out, inputs, grad.to(dtype))] if backward else [out]

    def difference(dtype: torch.dtype) -> float:
        if low:  # operands have 8 bits
            return relative_difference(results(ops.convolve), results(plain_convolve)) / 2
        return relative_difference(results(ops.convolve, dtype), results(plain_convolve, dtype))

    _, c, d = weight.shape
    passes = 3 if backward else 1
    flops = passes * 2 * len(pairs.in_rows) * c * d
    moved = passes * (FLOAT * (features.numel() + grad.numel() + weight.numel()) + 2 * INDEX * len(pairs.in_rows))
    note = f"{len(pairs.in_rows) / pairs.num_out:.1f} pairs a row; the ceiling is torch's float32 product."
    ours, reference = partial(results, ops.convolve), partial(results, plain_convolve)
    return Case(ours, flops, moved, note, reference, None if low else difference, wanted_ratio=wanted)


def network(s: Sizes) -> tuple[SparseUNet, Callable[..., list[Tensor]]]:
    """SR-UNet34, and run(net, backward) -> results, coordinates and maps made anew."""
    coords, features = room(s.voxels), ones(s.voxels, 3)
    torch.manual_seed(0)
    net = SparseUNet(width=s.width).to(harness.device)

    def run(net: SparseUNet, backward: bool, low: bool = False) -> list[Tensor]:
        dtype = next(net.parameters()).dtype
        voxels, _ = from_coords(coords, features.to(dtype))
        with torch.set_grad_enabled(backward), torch.autocast(harness.device.type, torch.bfloat16, enabled=low):
            out = net(voxels).points
        if not backward:
            return [out]
        out.float().square().mean().backward() if low else out.square().mean().backward()
        grads = [p.grad for p in net.parameters()]
        net.zero_grad()  # nothing stays behind, which the memory of the next run would then seem to be spared
        return [out.detach(), *grads]

    return net, run


def network_case(s: Sizes, backward: bool, low: bool = False, peaks: bool = False) -> Case:
    """One pass of a training step, coordinates, maps and batch norm included. peaks: measure memory by itself too."""
    net, run = network(s)

    def reference() -> list[Tensor]:
        with plain():
            return run(net, backward)

    def difference(dtype: torch.dtype) -> float:
        wide = copy.deepcopy(net).to(dtype)
        ours = run(wide, False)
        with plain():
            theirs = run(wide, False)
        return relative_difference(ours, theirs)

    flops = (3 if backward else 1) * network_flops(s, net)
    note = "Batch norm, ReLU, sums and concatenations pass over memory on top."
    if peaks:
        ours, theirs = (fresh_peak_mb(side, low) for side in ("ours", "reference"))
        note += (f" In a process of its own three steps take {ours:.0f} MB, the reference's in float32 {theirs:.0f} "
                 "MB, gradients included.")
    return Case(lambda: run(net, backward, low), flops, 0.0, note, reference, None if low else difference,
                wanted_ratio=None if low else 1.6, as_in_training=True)


def step_peak_mb(s: Sizes, side: str, low: bool) -> float:
    """MiB by which three training steps raise the memory of this process, which has done nothing before.

    What is freed is handed back at once, so that only what is in use counts, not holes between it.
    """
    harness.set_memory_kept(False)
    net, run = network(s)

    def steps() -> None:
        with plain() if side == "reference" else nullcontext():
            for _ in range(3):
                run(net, True, low and side == "ours")

    return harness.peak_growth_mb(steps) or float("nan")


@cache
def fresh_peak_mb(side: str, low: bool) -> float:
    """`step_peak_mb` in a process of its own: what ran before in one leaves memory that counts for nobody."""
    command = [sys.executable, __file__, "--peak", side, str(int(low))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def network_flops(s: Sizes, net: SparseUNet) -> float:
    """Of one forward pass: two for each pair of each convolution and each pair of channels."""
    total, plainly = 0, ops.products

    def counted(features, weight, pairs, low=False):
        nonlocal total
        total += 2 * len(pairs.in_rows) * weight.shape[1] * weight.shape[2]
        return plainly(features, weight, pairs, low)

    voxels, _ = from_coords(room(s.voxels), ones(s.voxels, 3))
    with mock.patch.object(ops, "products", counted), torch.no_grad():
        net(voxels)
    return total


def scaling_case(s: Sizes) -> Case:
    """The layer on two threads (ours) and on one (reference)."""
    pairs, features, weight = layer(s, "k3_96_96")
    return _scaling(lambda: ops.convolve(features, weight, pairs), 2 * len(pairs.in_rows) * 96 * 96)


def network_scaling_case(s: Sizes) -> Case:
    """A training step on two threads (ours) and on one (reference)."""
    net, run = network(s)
    return _scaling(lambda: run(net, True), 3 * network_flops(s, net))


def _scaling(run: Callable[[], object], flops: float) -> Case:
    def on(threads: int) -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        harness.set_memory_kept(True)  # both, as in training: page faults do not come in parallel
        try:
            return run()
        finally:
            torch.set_num_threads(before)

    return Case(lambda: on(2), flops, 0.0, "Ours on two threads, the reference ours on one, whatever the row says.",
                lambda: on(1), wanted_ratio=1.7)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(step_peak_mb(Sizes(), sys.argv[2], sys.argv[3] == "1"))
        sys.exit()
    sys.exit(harness.main(__doc__, cases, devices=("cpu", "cuda")))
