"""Sparse convolution on voxels (Graham and van der Maaten 2017; Choy et al., CVPR 2019): exact, without a compiler.

out[u] = bias + sum_i features[u + offset_i] W_i over the offsets of the kernel; voxels that are not there add nothing.
On the CPU the products of a pair are made in vector registers from where its rows lie (`kernels/register_tile.py`);
`neighbor_table.py` has the way of other devices.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from contrast3d.errors import DataError
from contrast3d.ops import neighbor_table as device
from contrast3d.ops.kernel_map import KernelMap, coarser, finer, kernel_map
from contrast3d.ops.kernels import register_tile as tile
from contrast3d.ops.kernels import sparse_conv as kernels
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.neighbor_table import NeighborTable
from contrast3d.types import Voxels

Weight = Float[Tensor, "k c d"]
Map = KernelMap | NeighborTable


def sparse_conv(
    voxels: Voxels, weight: Weight, bias: Float[Tensor, "d"] | None = None, kernel_size: int = 3, stride: int = 1,
    dilation: int = 1,
) -> Voxels:
    """Convolution onto the same voxels (stride 1) or onto the coarser ones that hold them.

    weight: (kernel_size^3, C, D), its slots in the order of `kernel_map.offsets_of`, x fastest.
    """
    check_weight(voxels, weight, kernel_size)
    out = convolve(voxels.features, weight, kernel_map(voxels, kernel_size, stride, dilation))
    out = out if bias is None else out + bias
    if stride == 1:
        return voxels.replace(features=out)
    coords, offsets = coarser(voxels, stride)
    return Voxels(coords, out, offsets, voxels.stride * stride, maps=voxels.maps)


def sparse_conv_transpose(
    voxels: Voxels, weight: Weight, bias: Float[Tensor, "d"] | None = None, kernel_size: int = 2, stride: int = 2
) -> Voxels:
    """Transposed convolution back onto the finer voxels that a strided convolution of that size came from.

    out[v + offset_i] += features[v] W_i. A DataError where there was no such convolution.
    """
    check_weight(voxels, weight, kernel_size)
    coords, offsets = finer(voxels, stride)
    fine = Voxels(coords, voxels.features.new_empty(len(coords), 0), offsets, voxels.stride // stride, maps=voxels.maps)
    out = convolve(voxels.features, weight, kernel_map(fine, kernel_size, stride).transposed)
    return fine.replace(features=out if bias is None else out + bias)


def check_weight(voxels: Voxels, weight: Tensor, kernel_size: int) -> None:
    """A DataError unless the weight fits the kernel and the features, which are of floating point."""
    if not voxels.features.is_floating_point():
        raise DataError("features", f"{voxels.features.dtype}", "floating point", "features.float()")
    wanted = (kernel_size**3, voxels.features.shape[1])
    if weight.ndim != 3 or weight.shape[:2] != wanted:
        raise DataError("weight", f"shape {tuple(weight.shape)}", f"({wanted[0]}, {wanted[1]}, width) for a kernel of "
                        f"{kernel_size} on features of width {wanted[1]}")


def convolve(features: Float[Tensor, "m c"], weight: Weight, pairs: Map) -> Float[Tensor, "u d"]:
    """out[u] = sum of features[in] @ weight[i] over the pairs (in, u) of every offset i.

    Under autocast to bfloat16 products are of bfloat16 and sums of float32; the result is float32. On the CPU the
    gradient of the weight is always made in full. float16 and bfloat16 features are widened.
    """
    low = torch.is_autocast_enabled(features.device.type) or features.dtype in (torch.bfloat16, torch.float16)
    if features.dtype in (torch.bfloat16, torch.float16):
        features = features.float()
    with torch.autocast(features.device.type, enabled=False):
        return _Convolve.apply(features, weight.to(features.dtype), pairs, low and features.dtype == torch.float32)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, pairs, low):
        features, weight = features.contiguous(), weight.contiguous()
        ctx.save_for_backward(features, weight)
        ctx.pairs, ctx.low = pairs, low
        return products(features.detach(), weight.detach(), pairs, low)

    @staticmethod
    def backward(ctx, grad):
        features, weight = ctx.saved_tensors
        grad = grad.contiguous()
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            of_features = products(grad, weight.transpose(1, 2).contiguous(), ctx.pairs.transposed, ctx.low)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(features, grad, ctx.pairs, ctx.low)
        return of_features, of_weight, None, None


def products(features: Tensor, weight: Tensor, pairs: Map, low: bool = False) -> Tensor:
    """`convolve` without gradient. low: products of bfloat16."""
    if isinstance(pairs, NeighborTable):
        return device.products(features, weight, pairs, low)
    if low and not tile.has_bfloat16():  # the same numbers, without the speed
        features, weight, low = features.bfloat16().float(), weight.bfloat16().float(), False
    width = weight.shape[2]
    lanes = tile.lanes(features.element_size())
    weight = _whole_vectors(weight, lanes)
    out = features.new_zeros(pairs.num_out, weight.shape[2])
    if low:
        features, weight = _bfloat16_pairs(features, weight)
    vectors = tile.panel(out.shape[1] // lanes)
    if len(pairs.in_rows) and features.shape[1]:
        units = (pairs.bounds.shape[1] - 1) * (out.shape[1] // (vectors * lanes))
        run(kernels.PRODUCTS[vectors], units, features.numpy(), pairs.in_rows.numpy(), weight.numpy(), out.numpy(),
            pairs.out_rows.numpy(), pairs.bounds, vectors * lanes)
    return out if width == out.shape[1] else out[:, :width].contiguous()


def weight_gradient(features: Tensor, grad: Tensor, pairs: Map, low: bool = False) -> Tensor:
    """(K, C, D): for each offset the sum over its pairs of features[in]^T grad[out]; low counts off the CPU alone."""
    if isinstance(pairs, NeighborTable):
        return device.weight_gradient(features, grad, pairs, low)
    width = grad.shape[1]
    lanes = tile.lanes(features.element_size())
    grad = _whole_vectors(grad, lanes)
    out = features.new_zeros(len(pairs), features.shape[1], grad.shape[1])
    vectors = tile.panel(grad.shape[1] // lanes)
    run(kernels.GRADIENTS[vectors], len(pairs), features.numpy(), pairs.in_rows.numpy(), grad.numpy(),
        pairs.out_rows.numpy(), out.numpy(), _balanced(pairs.starts), pairs.bounds, vectors * lanes)
    return out if width == out.shape[2] else out[:, :, :width].contiguous()


def _whole_vectors(values: Tensor, lanes: int) -> Tensor:
    """The last axis padded with zeros to whole vector registers."""
    missing = -values.shape[-1] % lanes
    return pad(values, (0, missing)) if missing else values.contiguous()


def _bfloat16_pairs(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(M, C) and (K, C, D) -> int32 (M, C / 2) and (K, C / 2, D) that hold the bfloat16 of channels 2j and 2j + 1."""
    if features.shape[1] % 2:
        features, weight = pad(features, (0, 1)), pad(weight, (0, 0, 0, 1))
    k, c, d = weight.shape
    paired = weight.bfloat16().view(k, c // 2, 2, d).transpose(2, 3).contiguous()
    return features.bfloat16().view(torch.int32), paired.view(torch.int32).view(k, c // 2, d)


def _balanced(starts: tuple[int, ...]) -> np.ndarray:
    """The offsets in an order that gives contiguous parts of it about equally many pairs: large and small by turns."""
    by_size = np.argsort(np.diff(starts), kind="stable")[::-1]
    return np.concatenate([by_size[::2], by_size[1::2][::-1]])
