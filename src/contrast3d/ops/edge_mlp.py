"""The edge convolution with a hidden layer: max_j V act(BN(center_i + neighbor_j)) + v, fused and exact.

This is PyTorch Geometric's `DynamicEdgeConv(MLP([2 C, H, O]))`, whose last layer is plain, as the report of
Bernini (2022) uses it. The first layer splits as in `ops.edge_conv`; the second one is a true product per
edge, done in blocks that stay in cache. Backward, only the edge that won each maximum carries a gradient:
O * H operations per point instead of K * O * H.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops import neighbor_reduce as graph
from contrast3d.ops.edge_conv import (
    EdgeStatistics,
    check_widths,
    edge_norm_backward,
    eval_affine,
    part_sums,
    scalar,
    update_running,
)
from contrast3d.ops.gather import gather
from contrast3d.ops.kernels import edge as kernels
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.portable import is_portable

BLOCK_EDGES = 8192  # hidden and output rows of one block: 4 MB in float32 at width 64, cache-resident


def edge_mlp(
    center: Float[Tensor, "b m h"],
    neighbor: Float[Tensor, "b n h"],
    index: Int[Tensor, "b m k"],
    weight: Float[Tensor, "h"],
    bias: Float[Tensor, "h"],
    running_mean: Float[Tensor, "h"],
    running_var: Float[Tensor, "h"],
    out_weight: Float[Tensor, "o h"],
    out_bias: Float[Tensor, "o"],
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    negative_slope: float = 0.0,
) -> Float[Tensor, "b m o"]:
    """out_i = max over j in index_i of out_weight @ act(batch_norm(center_i + neighbor_j)) + out_bias.

    The batch-norm arguments are those of `edge_conv`; the statistics run over all edges of every process.
    """
    graph.check_graph(neighbor, index, center)
    check_widths(neighbor.shape[2], weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    if out_weight.shape != (len(out_bias), neighbor.shape[2]):
        raise DataError("out_weight", f"shape {tuple(out_weight.shape)}", f"({len(out_bias)}, {neighbor.shape[2]})")
    if is_portable() and not training:
        scale, shift = eval_affine(weight, bias, running_mean, running_var, eps)
        edges = scale * (center[:, :, None] + gather(neighbor, index)) + shift
        return (torch.nn.functional.leaky_relu(edges, negative_slope) @ out_weight.T).amax(2) + out_bias
    mean, var = (None, None) if training else (running_mean, running_var)
    out, mean, var, edges = _EdgeMLP.apply(
        center, neighbor, index, weight, bias, out_weight, mean, var, eps, negative_slope
    )
    if training:
        update_running(running_mean, running_var, mean, var, edges, momentum)
    return out + out_bias


class _EdgeMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, center, neighbor, index, weight, bias, out_weight, mean, var, eps, slope):
        center, neighbor, index = center.contiguous(), neighbor.contiguous(), index.contiguous()
        ctx.training = mean is None
        if ctx.training:
            stats = EdgeStatistics.of(center, neighbor, index, graph.sum_over(neighbor, index))
        else:
            stats = EdgeStatistics(None, mean, var, index.numel())
        inv_std = (stats.var + eps).rsqrt()
        scale = weight * inv_std
        shift = bias - stats.mean * scale
        out, slot = _forward(center, neighbor, index, scale, shift, slope, out_weight)
        ctx.save_for_backward(center, neighbor, index, weight, out_weight, inv_std, scale, shift, slot)
        ctx.stats, ctx.slope = stats, slope
        ctx.mark_non_differentiable(stats.mean, stats.var)
        return out, stats.mean, stats.var, stats.edges

    @staticmethod
    def backward(ctx, grad, *_):
        center, neighbor, index, weight, out_weight, inv_std, scale, shift, slot = ctx.saved_tensors
        center_part, neighbor_part, out_weight_grad = _backward(
            grad.contiguous(), index, slot, center, neighbor, out_weight, scale, shift, ctx.slope
        )
        sums = part_sums(center, neighbor, center_part, neighbor_part)
        grads = edge_norm_backward(
            center, neighbor, index, center_part, neighbor_part, *sums, weight, inv_std, ctx.stats, ctx.training
        )
        return grads[0], grads[1], None, grads[2], grads[3], out_weight_grad, None, None, None, None


def _forward(center, neighbor, index, scale, shift, slope, out_weight) -> tuple[Tensor, Tensor]:
    """-> maxima (B, M, O) and the slots t of the winning neighbours (B, M, O) int32."""
    if center.device.type != "cpu":
        return _torch_forward(center, neighbor, index, scale, shift, slope, out_weight)
    b, n, k = index.shape
    out = center.new_empty(b, n, len(out_weight))
    slot = torch.empty(out.shape, dtype=torch.int32)
    block = max(1, BLOCK_EDGES // k)
    hidden = center.new_empty(block * k, center.shape[2])
    edges = center.new_empty(block * k, len(out_weight))
    flat_out, flat_slot = out.view(b * n, -1).numpy(), slot.view(b * n, -1).numpy()
    points = [t.detach().numpy() for t in (center, neighbor, index, scale, shift)]
    for row in range(0, b * n, block):
        rows = min(block, b * n - row)
        run(kernels.edge_mlp_hidden, rows, *points, scalar(slope, center), row, hidden.numpy())
        torch.mm(hidden[: rows * k], out_weight.detach().T, out=edges[: rows * k])
        run(kernels.edge_mlp_max, rows, edges.numpy(), k, flat_out[row : row + rows], flat_slot[row : row + rows])
    return out, slot


def _backward(grad, index, slot, center, neighbor, out_weight, scale, shift, slope):
    """-> dL/dy summed over the edges of i and of j, y the normalised sum, and the gradient of out_weight."""
    if center.device.type != "cpu":
        return _torch_backward(grad, index, slot, center, neighbor, out_weight, scale, shift, slope)
    center_part, neighbor_part = torch.zeros_like(center), torch.zeros_like(neighbor)
    weight_part = out_weight.new_zeros(len(center), *out_weight.shape)
    inputs = [t.detach().contiguous().numpy() for t in (grad, index, slot, center, neighbor, out_weight, scale, shift)]
    run(kernels.edge_mlp_backward, len(center), *inputs, scalar(slope, center),
        center_part.numpy(), neighbor_part.numpy(), weight_part.numpy())
    return center_part, neighbor_part, weight_part.sum(0)


def _torch_hidden(center, neighbor, index, t, scale, shift, slope):
    rows = index[..., t, None].expand(center.shape)
    return torch.nn.functional.leaky_relu(scale * (center + neighbor.gather(1, rows)) + shift, slope)


def _torch_forward(center, neighbor, index, scale, shift, slope, out_weight):
    out = slot = None
    for t in range(index.shape[2]):
        edges = _torch_hidden(center, neighbor, index, t, scale, shift, slope) @ out_weight.T
        if out is None:
            out, slot = edges, torch.zeros(edges.shape, dtype=torch.int32, device=edges.device)
            continue
        better = edges > out
        out, slot = torch.where(better, edges, out), torch.where(better, t, slot)
    return out, slot


def _torch_backward(grad, index, slot, center, neighbor, out_weight, scale, shift, slope):
    center_part, neighbor_part = torch.zeros_like(center), torch.zeros_like(neighbor)
    weight_grad = torch.zeros_like(out_weight)
    for t in range(index.shape[2]):
        hidden = _torch_hidden(center, neighbor, index, t, scale, shift, slope)
        won = torch.where(slot == t, grad, 0)
        weight_grad += torch.einsum("bno,bnh->oh", won, hidden)
        back = won @ out_weight
        back = torch.where(hidden > 0, back, slope * back)
        center_part += back
        neighbor_part.scatter_add_(1, index[..., t, None].expand(back.shape), back)
    return center_part, neighbor_part, weight_grad
