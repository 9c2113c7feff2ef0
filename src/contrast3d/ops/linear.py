"""Dense layers: products at the full rate of the processor, and GELU with its slope in one pass.

torch multiplies float32 matrices with MKL, which uses half of the vector units of processors it does not know; oneDNN,
which torch ships for its compiler, has no such favourites. So here all three products of a layer are oneDNN's: twice as
fast where MKL holds back. Its sums do not depend on the number of threads where they are not too long.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.kernels.gelu import gelu_and_slope
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.portable import is_portable

Activation = str | None  # "gelu"
LEAST_WIDTH = 32  # below, vectors are not full
LEAST_WORK = 2**21  # multiplications; below, the call costs more than it saves
ROWS = 1024  # of one sum in the gradient of the weight: longer ones are parted among threads, by their number


def linear(
    x: Float[Tensor, "*rows i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, "o"] | None = None,
    activation: Activation = None,
) -> Float[Tensor, "*rows o"]:
    """x W^T + b, and its exact GELU where asked for; float32 on the CPU as above, anything else by torch.

    Raises DataError where widths differ.
    """
    if activation not in (None, "gelu"):
        raise ConfigError(f"activation = {activation!r}; expected None or 'gelu'")
    check_width(x, weight)
    if not _is_served(x, weight, bias):
        out = F.linear(x, weight, bias)
        return F.gelu(out) if activation else out
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _Linear.apply(x, weight, bias, activation)
    return _product(_rows(x), weight.contiguous(), bias, activation).view(*x.shape[:-1], len(weight))


def check_width(x: Tensor, weight: Tensor) -> None:
    """A DataError unless the features have the width that the weight is for."""
    if x.shape[-1] != weight.shape[1]:
        raise DataError("linear layer", f"features of width {x.shape[-1]}", f"{weight.shape[1]}, that of its weight")


@cache
def _has_product() -> bool:
    """Whether oneDNN is here, for a processor on which it was measured to gain."""
    return (torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
            and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def _is_served(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if is_portable():  # before all else: a traced batch has no number
        return False
    tensors = [t for t in (x, weight, bias) if t is not None]
    return (
        x.numel() * len(weight) >= LEAST_WORK and min(weight.shape) >= LEAST_WIDTH
        and all(type(t) in (Tensor, torch.nn.Parameter) and t.device.type == "cpu" and t.dtype == torch.float32
                for t in tensors)
        and not torch.is_autocast_enabled("cpu") and _has_product()
    )


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = None) -> Tensor:
    """x W^T + b of matrices that are contiguous or transposes of such; of the bias oneDNN does not look at strides."""
    bias = None if bias is None else bias.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation or "none", [], "none" if activation else "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, activation):
        rows, weight = _rows(x), weight.contiguous()
        out, slope = _product(rows, weight, bias), None
        if activation:
            slope, out = out, torch.empty_like(out)
            flat = slope.view(-1).numpy()
            run(gelu_and_slope, len(flat), flat, out.view(-1).numpy(), flat)
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None,
                              slope)
        ctx.shape = x.shape
        return out.view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        rows, weight, slope = ctx.saved_tensors
        grad = _rows(grad)
        grad = grad if slope is None else grad * slope
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _product(grad, weight.T).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(grad, rows)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum(0)
        return of_x, of_weight, of_bias, None


def _weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """grad^T rows, in sums over so many rows."""
    parts = (_product(g.T, x.T) for g, x in zip(grad.split(ROWS), rows.split(ROWS)))
    total = next(parts)
    for part in parts:
        total += part
    return total
