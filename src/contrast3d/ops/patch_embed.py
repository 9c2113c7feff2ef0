"""The mini-PointNet of patch transformers (Yu et al., CVPR 2022, section 3.1) with its batch norms, fused and exact.

A token of a patch is max_i W4 relu(BN2(W3 [g, f_i])), g = max_i f_i, f_i = W2 relu(BN1(W1 x_i)). As written it costs
half a million products per point, three times over. What is needed of them:

- W3 [g, f_i] = Wg g + Wf W2 h_i, h_i the first layer: one product per patch, and one of h's width per point.
- BN1's statistics follow from the covariance of the points, BN2's from that of [g, h_i]: W3 is linear.
- So hidden patches need f for its maximum, and no more; batch norm's part of their gradient is affine in h_i.
- Backward, only the point that won a channel of a token carries its gradient; W2 has no product per point at all, since
  sum_i df_i h_i^T = Wf^T sum_i dy_i h_i^T, y being W3's result.
- Biases before batch norm get no gradient in training; it is zero.

Layers are made anew where they are needed, in blocks that stay in cache: nothing of size (B, G, K, .) is stored but the
gradient of the visible points' first layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from contrast3d.errors import DataError
from contrast3d.ops.collective import world_size, world_sum
from contrast3d.ops.edge_conv import update_running
from contrast3d.ops.kernels.panels import panel_width
from contrast3d.ops.kernels.register_tile import has_bfloat16
from contrast3d.ops.packing import has_kernels
from contrast3d.ops.patch_passes import Pass
from contrast3d.ops.portable import may_look


class PatchWeights(NamedTuple):
    """The layers of the network: linear ones as in nn.Linear, each batch norm with its running statistics.

    3 -> H, norm1, H -> F, [max, point] 2F -> I, norm2, I -> C.
    """

    conv1: Float[Tensor, "h 3"]
    bias1: Float[Tensor, "h"]
    norm1: Float[Tensor, "h"]
    shift1: Float[Tensor, "h"]
    conv2: Float[Tensor, "f h"]
    bias2: Float[Tensor, "f"]
    conv3: Float[Tensor, "i 2*f"]
    bias3: Float[Tensor, "i"]
    norm2: Float[Tensor, "i"]
    shift2: Float[Tensor, "i"]
    conv4: Float[Tensor, "c i"]
    bias4: Float[Tensor, "c"]


class Running(NamedTuple):
    """Running mean and variance of both batch norms."""

    mean1: Float[Tensor, "h"]
    var1: Float[Tensor, "h"]
    mean2: Float[Tensor, "i"]
    var2: Float[Tensor, "i"]


def patch_embed(
    points: Float[Tensor, "b g k 3"],
    weights: PatchWeights,
    running: Running,
    training: bool,
    visible: Bool[Tensor, "b g"] | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Float[Tensor, "b v c"]:
    """A token of each visible patch (all without `visible`), in order; equally many are visible in every cloud.

    running, momentum, eps: as in torch.nn.functional.batch_norm, the running statistics updated in place when training.
    The statistics run over the points of all patches of every process, hidden ones too. Under autocast the large
    products are of bfloat16 with sums of float32; the result is of the points' type.

    Raises DataError for weights that do not fit, and for clouds with different numbers of visible patches.
    """
    check_sizes(points, weights, running)
    b, g, k, _ = points.shape
    if training and (b * g * k == 1 and world_size() == 1):
        raise DataError("points", "one point in all", "more than one to train batch norm on", "a larger batch")
    chosen = None if visible is None else _chosen(visible, b, g)
    shown = g if chosen is None else len(chosen) // max(b, 1)
    low = points.dtype == torch.float32 and torch.is_autocast_enabled(points.device.type)
    if not has_kernels(points) or (low and not has_bfloat16()) or points.dtype.itemsize < 4 or not b * shown:
        tokens, stats = plain(points.flatten(0, 1), weights, running, training, chosen, eps)
    else:
        with torch.autocast(points.device.type, enabled=False):
            width = panel_width(points.element_size())
            whole = Running(*(F.pad(t, (0, -len(t) % width), value=i % 2) for i, t in enumerate(running)))
            rows = torch.arange(b * g) if chosen is None else chosen
            tokens, *stats = _PatchEmbed.apply(points.flatten(0, 1), rows, whole, training, eps, low,
                                               *padded(weights, width))
        tokens = tokens[:, : len(weights.bias4)]
    if training:
        mean1, var1, mean2, var2, count = stats
        h, i = len(running.mean1), len(running.mean2)
        update_running(running.mean1, running.var1, mean1[:h], var1[:h], count, momentum)
        update_running(running.mean2, running.var2, mean2[:i], var2[:i], count, momentum)
    return tokens.reshape(b, shown, len(weights.bias4))


def check_sizes(points: Tensor, weights: PatchWeights, running: Running) -> None:
    """A DataError unless each weight has the widths of its neighbours; the kernels check no bounds."""
    h, f, i, c = (len(weights[name]) for name in (0, 4, 6, 10))
    wanted = [(h, 3), *[(h,)] * 3, (f, h), (f,), (i, 2 * f), *[(i,)] * 3, (c, i), (c,), (h,), (h,), (i,), (i,)]
    for name, tensor, shape in zip(PatchWeights._fields + Running._fields, (*weights, *running), wanted):
        if tensor.shape != shape:
            raise DataError(name, f"shape {tuple(tensor.shape)}", f"{shape}")
        if tensor.dtype != weights.conv1.dtype:
            raise DataError(name, f"{tensor.dtype}", f"{weights.conv1.dtype}, as conv1")
    if points.ndim != 4 or points.shape[3] != 3 or not points.shape[2]:
        raise DataError("points", f"shape {tuple(points.shape)}", "(clouds, patches, points in each, 3)")
    if points.dtype != weights.conv1.dtype:
        raise DataError("points", f"{points.dtype}", f"{weights.conv1.dtype}, as the weights are")


def _chosen(visible: Tensor, b: int, g: int) -> Tensor:
    """Rows of the visible patches among the B G of all."""
    if visible.shape != (b, g):
        raise DataError("visible", f"shape {tuple(visible.shape)}", f"({b}, {g})")
    if may_look(visible) and b and len(set(visible.sum(1).tolist())) > 1:
        raise DataError("visible", f"{sorted(set(visible.sum(1).tolist()))} patches of a cloud", "equally many of each")
    return visible.reshape(-1).nonzero()[:, 0]


def padded(weights: PatchWeights, width: int) -> list[Tensor]:
    """Weights with zeros up to whole panels in every width; autograd cuts the gradients."""
    if not any(len(weights[name]) % width for name in (0, 4, 6, 10)):
        return list(weights)
    w = weights
    half = w.conv3.unflatten(1, (2, -1))
    halves = F.pad(half, (0, -half.shape[2] % width, 0, 0, 0, -len(half) % width)).flatten(1)

    def fit(t: Tensor, columns: bool = False) -> Tensor:
        rows = -len(t) % width
        return F.pad(t, (0, rows) if t.ndim == 1 else (0, -t.shape[1] % width if columns else 0, 0, rows))

    return [fit(w.conv1), fit(w.bias1), fit(w.norm1), fit(w.shift1), fit(w.conv2, True), fit(w.bias2), halves,
            fit(w.bias3), fit(w.norm2), fit(w.shift2), fit(w.conv4, True), fit(w.bias4)]


def plain(points: Float[Tensor, "p k 3"], weights: PatchWeights, running: Running, training: bool,
          chosen: Tensor | None, eps: float) -> tuple[Tensor, tuple]:
    """-> tokens (V, C) and the statistics of both norms, in plain torch that autograd follows; W3 is split."""
    w = weights
    x = points if training or chosen is None else points[chosen]
    h, *first = _normalised(F.linear(x, w.conv1, w.bias1), w.norm1, w.shift1, running[:2], training, eps)
    f = F.linear(h.relu(), w.conv2, w.bias2)
    of_max, of_point = w.conv3.chunk(2, 1)
    y = F.linear(f.amax(1, keepdim=True), of_max, w.bias3) + F.linear(f, of_point)
    y, *second, count = _normalised(y, w.norm2, w.shift2, running[2:], training, eps)
    y = y[chosen] if training and chosen is not None else y
    return F.linear(y.relu(), w.conv4, w.bias4).amax(1), (*first[:2], *second, count)


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, running: tuple, training: bool, eps: float) -> tuple:
    """Batch norm over all but the last axis -> result, mean, variance, count, of every process."""
    mean, var = running
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    count = float(x[..., 0].numel()) if training else 0.0  # a traced batch has no number
    if training:
        flat = x.flatten(0, 1)
        if world_size() > 1:
            count = float(world_sum(x.new_tensor(count)))
        mean = world_sum(flat.sum(0)) / count
        var = world_sum((flat - mean).square().sum(0)) / count
    return (x - mean) * (var + eps).rsqrt() * weight + bias, mean.detach(), var.detach(), count


class _PatchEmbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, chosen, running, training, eps, low, *weights):
        w = PatchWeights(*weights)
        points = points.contiguous()
        ctx.inputs = running, training, eps, low
        ctx.save_for_backward(points, chosen, *weights)
        run = Pass(points.detach(), chosen, PatchWeights(*(t.detach() for t in w)), running, training, eps, low)
        tokens, stats = run.forward()
        ctx.run = run
        ctx.mark_non_differentiable(*stats[:4])
        return tokens, *stats

    @staticmethod
    def backward(ctx, grad, *_):
        points, chosen, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the gradient is wanted
            running, training, eps, _low = ctx.inputs
            tokens, _ = plain(points, PatchWeights(*weights), running, training, chosen, eps)
            needed = [t for t in (points, *weights) if t.requires_grad]
            found = iter(torch.autograd.grad(tokens, needed, grad, create_graph=True, allow_unused=True))
            grads = [next(found) if t.requires_grad else None for t in (points, *weights)]
        else:
            grads = ctx.run.backward(grad.contiguous(), ctx.needs_input_grad[0])
        return grads[0], None, None, None, None, None, *grads[1:]
