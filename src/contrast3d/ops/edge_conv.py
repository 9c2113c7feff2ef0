"""The edge convolution of DGCNN (Wang et al. 2019, eq. 7-8) with batch norm, fused and exact.

A layer `max_j act(BN(W [x_i, x_j - x_i]))` over the neighbours j of point i costs one product per *point*:
W [x_i, x_j - x_i] = (W1 - W2) x_i + W2 x_j = center_i + neighbor_j. Batch norm followed by a rising
activation is monotone in each channel, so the maximum may be taken before both, and the batch statistics
over all edges follow from sums over points. No (B, N, K, C) array is ever stored.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops import neighbor_reduce as graph
from contrast3d.ops.collective import world_size, world_sum_
from contrast3d.ops.kernels import edge as kernels
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.portable import is_portable


def edge_conv(
    center: Float[Tensor, "b m c"],
    neighbor: Float[Tensor, "b n c"],
    index: Int[Tensor, "b m k"],
    weight: Float[Tensor, "c"],
    bias: Float[Tensor, "c"],
    running_mean: Float[Tensor, "c"],
    running_var: Float[Tensor, "c"],
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    negative_slope: float = 0.0,
    signs: Float[Tensor, "c"] | None = None,
) -> Float[Tensor, "b m c"]:
    """out_i = max over j in index_i of act(batch_norm(center_i + neighbor_j)).

    center: of the M points where the result is wanted; neighbor: of the N points that `index` names.
    weight, bias, running_mean, running_var, momentum, eps: as in torch.nn.functional.batch_norm, the running
    statistics updated in place when training. The statistics run over all B*M*K edges of every process.
    negative_slope: of the leaky ReLU; 0 is ReLU, 1 the identity. Must not be negative.
    signs: `channel_signs(weight)` where center and neighbor are already multiplied by them, which costs nothing in
        the weights of the product that makes them; None where they are as the formula has them.
    """
    if negative_slope < 0:
        raise DataError("negative_slope", f"{negative_slope}", "0 or more: the activation must rise")
    graph.check_graph(neighbor, index, center)
    check_widths(neighbor.shape[2], weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    # A negative weight turns max into min. Flipping the channel's sign turns it back, exactly.
    sign = channel_signs(weight) if signs is None else signs
    if signs is None and (is_portable() or bool((sign < 0).any())):
        center, neighbor = center * sign, neighbor * sign
    weight = weight * sign
    if is_portable() and not training:
        scale, shift = eval_affine(weight, bias, running_mean * sign, running_var, eps)
        best = graph.neighbor_max(neighbor, index)
        return torch.nn.functional.leaky_relu(scale * (center + best) + shift, negative_slope)
    mean = var = None
    if not training:
        mean, var = running_mean * sign, running_var
    out, mean, var, edges = _EdgeConv.apply(
        center, neighbor, index, weight, bias, mean, var, eps, negative_slope
    )
    if training:
        update_running(running_mean, running_var, mean * sign, var, edges, momentum)
    return out


def channel_signs(weight: Float[Tensor, "c"]) -> Float[Tensor, "c"]:
    """-1 where batch norm's weight is negative, else 1; without gradient."""
    return torch.where(weight.detach() < 0, -1.0, 1.0).to(weight.dtype)


def eval_affine(weight, bias, mean, var, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that batch norm is in evaluation mode."""
    scale = weight * (var + eps).rsqrt()
    return scale, bias - mean * scale


def check_widths(channels: int, **vectors: Tensor) -> None:
    """A DataError unless each vector has one number per channel."""
    for name, vector in vectors.items():
        if vector.shape != (channels,):
            raise DataError(name, f"shape {tuple(vector.shape)}", f"({channels},)")


@torch.no_grad()
def update_running(running_mean, running_var, mean, var, count: float, momentum: float) -> None:
    """Exponential averages of batch norm; the variance unbiased, as torch keeps it."""
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * (count / max(count - 1, 1))).to(running_var.dtype), momentum)


class _EdgeConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, center, neighbor, index, weight, bias, mean, var, eps, slope):
        center, neighbor, index = center.contiguous(), neighbor.contiguous(), index.contiguous()
        ctx.training = mean is None
        if ctx.training:
            best, arg, total = graph.max_with_sum(neighbor, index)
            stats = EdgeStatistics.of(center, neighbor, index, total)
        else:
            best, arg = graph.max_with_arg(neighbor, index)
            stats = EdgeStatistics(None, mean, var, index.numel())
        inv_std = (stats.var + eps).rsqrt()
        scale = weight * inv_std
        shift = bias - stats.mean * scale
        out = affine_activation(center, best, scale, shift, slope)
        ctx.save_for_backward(center, neighbor, index, weight, inv_std, out, best, arg)
        ctx.stats, ctx.slope = stats, slope
        ctx.mark_non_differentiable(stats.mean, stats.var)
        return out, stats.mean, stats.var, stats.edges

    @staticmethod
    def backward(ctx, grad, *_):
        center, neighbor, index, weight, inv_std, out, best, arg = ctx.saved_tensors
        parts = _selected(grad.contiguous(), out, best, arg, ctx.slope, center, neighbor.shape[1])
        grads = edge_norm_backward(center, neighbor, index, *parts, weight, inv_std, ctx.stats, ctx.training)
        return grads[0], grads[1], None, grads[2], grads[3], None, None, None, None


class EdgeStatistics:
    """Mean and variance per channel over all edges e = center_i + neighbor_j, of every process.

    total: (B, M, C) sum of neighbor_j over each point's edges; None in eval mode, where the statistics are
    the running ones. edges: the number of edges.
    """

    def __init__(self, total, mean, var, edges):
        self.total, self.mean, self.var, self.edges = total, mean, var, edges

    @classmethod
    def of(cls, center, neighbor, index, total) -> EdgeStatistics:
        moments = edge_moments(center, neighbor, index, total)
        count = moments.new_tensor([[float(index.numel())]])
        packed = world_sum_(torch.cat([moments, count.expand(1, moments.shape[1])]))
        edges = float(packed[2, 0]) if packed.numel() else 0.0
        mean = packed[0] / edges
        var = (packed[1] / edges - mean * mean).clamp_min_(0)
        return cls(total, mean.to(center.dtype), var.to(center.dtype), edges)


def edge_moments(center, neighbor, index, total) -> Tensor:
    """(2, C): the sums of e and e^2 over this process's edges, in float64 (float32 where a device lacks it)."""
    b, _, c = center.shape
    n, k = neighbor.shape[1], index.shape[2]
    if center.device.type == "cpu":
        degree = torch.zeros(b, n, dtype=torch.int32)
        degree.scatter_add_(1, index.reshape(b, -1), torch.ones(b, index[0].numel(), dtype=torch.int32))
        sums = torch.zeros(2, b, c, dtype=torch.float64)
        run(kernels.edge_moments, b, center.detach().numpy(), neighbor.detach().numpy(), total.numpy(),
            degree.numpy(), float(k), sums[0].numpy(), sums[1].numpy())
        return sums.sum(1)
    wide = torch.float32 if center.device.type == "mps" else torch.float64
    degree = graph.scatter_over(torch.ones_like(center[..., :1], dtype=wide), index, n)[0]
    a, v, s = center.to(wide), neighbor.to(wide), total.to(wide)
    first = (k * a + s).sum((0, 1))
    second = (a * (k * a + 2 * s)).sum((0, 1)) + (degree * v * v).sum((0, 1))
    return torch.stack([first, second])


def affine_activation(center, best, scale, shift, slope: float) -> Tensor:
    """act(scale * (center + best) + shift)."""
    if center.device.type == "cpu":
        out = torch.empty_like(center)
        run(kernels.affine_activation, center.shape[0] * center.shape[1], center.detach().numpy(), best.numpy(),
            scale.detach().numpy(), shift.detach().numpy(), scalar(slope, center), out.numpy())
        return out
    return torch.nn.functional.leaky_relu(scale * (center + best) + shift, slope)


def _selected(grad, out, best, arg, slope: float, center, points: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> dL/dy of the winning edges, summed over i's and over j's edges; its sum and its sum times e, (C,)."""
    if grad.device.type == "cpu":
        center_part, neighbor_part = torch.empty_like(grad), grad.new_zeros(len(grad), points, grad.shape[2])
        sums = torch.zeros(2, len(grad), grad.shape[2], dtype=torch.float64)
        run(kernels.edge_conv_selected, len(grad), grad.numpy(), out.detach().numpy(), arg.numpy(),
            scalar(slope, grad), center.detach().numpy(), best.numpy(), center_part.numpy(),
            neighbor_part.numpy(), sums[0].numpy(), sums[1].numpy())
        return center_part, neighbor_part, *sums.sum(1).to(grad.dtype)
    center_part = torch.where(out > 0, grad, slope * grad)
    neighbor_part = graph.scatter_by_arg(center_part, arg, points)
    return center_part, neighbor_part, center_part.sum((0, 1)), (center_part * (center + best)).sum((0, 1))


def part_sums(center, neighbor, center_part, neighbor_part) -> tuple[Tensor, Tensor]:
    """(C,) sums over edges of dL/dy and of dL/dy * (center_i + neighbor_j)."""
    dot = (center_part * center).sum((0, 1)) + (neighbor_part * neighbor).sum((0, 1))
    return center_part.sum((0, 1)), dot


def scalar(value: float, like: Tensor):
    """`value` in the array type of `like`, so that kernels do not widen float32 to float64."""
    return torch.empty(0, dtype=like.dtype).numpy().dtype.type(value)


def edge_norm_backward(center, neighbor, index, center_part, neighbor_part, bias_grad, dot, weight, inv_std,
                       stats, training):
    """Back through y = weight * (center_i + neighbor_j - mean) * inv_std + bias over all edges.

    center_part, neighbor_part: dL/dy summed over the edges of each i and of each j, overwritten; bias_grad, dot:
    its sums of `part_sums`. -> gradients of center, neighbor, weight, bias.
    """
    scale = weight * inv_std
    weight_grad = inv_std * (dot - stats.mean * bias_grad)
    if not training:
        return center_part.mul_(scale), neighbor_part.mul_(scale), weight_grad, bias_grad
    sums = torch.stack([bias_grad, weight_grad])
    if world_size() > 1:
        sums = world_sum_(sums.clone())
    shared = scale * sums[0] / stats.edges  # the mean over edges of dL/d xhat, times inv_std
    slope = scale * inv_std * sums[1] / stats.edges  # the part along xhat
    k = index.shape[2]
    if center.device.type == "cpu":
        reverse = torch.zeros_like(neighbor)
        degree = torch.zeros(neighbor.shape[:2], dtype=torch.int32)
        inputs = [t.detach().numpy() for t in (center, neighbor, index, stats.total, reverse, degree,
                                               scale, shared, slope, stats.mean)]
        run(kernels.edge_norm_backward, len(center), *inputs, center_part.numpy(), neighbor_part.numpy())
        return center_part, neighbor_part, weight_grad, bias_grad
    reverse, degree = graph.scatter_over(center, index, neighbor.shape[1])
    degree = degree[..., None].to(center.dtype)
    center_part = center_part * scale - k * shared - slope * (k * (center - stats.mean) + stats.total)
    neighbor_part = neighbor_part * scale - degree * shared - slope * (degree * (neighbor - stats.mean) + reverse)
    return center_part, neighbor_part, weight_grad, bias_grad
