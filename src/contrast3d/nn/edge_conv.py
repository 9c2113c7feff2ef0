"""Edge convolution layers on a given neighbour graph; `ops.edge_conv` and `ops.edge_mlp` do the work."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.ops.edge_conv import channel_signs, edge_conv
from contrast3d.ops.edge_mlp import edge_mlp
from contrast3d.ops.gather import gather
from contrast3d.ops.neighbor_reduce import neighbor_max


class EdgeConv(nn.Module):
    """max over neighbours j of an MLP on [x_i, x_j - x_i] (Wang et al. 2019, eq. 7-8).

    widths: of the MLP's layers, one or two.
    plain_last: the last layer is linear, without batch norm and activation (as in PyTorch Geometric's `MLP`).
        With one width: True or False; with two widths it must be True, since a second batch norm would need
        every edge's value twice.
    negative_slope: of the leaky ReLU; 0 is ReLU.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], plain_last: bool = False,
                 negative_slope: float = 0.2):
        super().__init__()
        if len(widths) not in (1, 2) or (len(widths) == 2 and not plain_last):
            raise ConfigError(f"EdgeConv widths {widths} with plain_last={plain_last}: expected one width, or two "
                              "with plain_last=True")
        self.out_channels = widths[-1]
        self.negative_slope = negative_slope
        self.first = nn.Linear(2 * in_channels, widths[0], bias=plain_last)
        self.norm = None if plain_last and len(widths) == 1 else nn.BatchNorm1d(widths[0])
        self.last = nn.Linear(widths[0], widths[1]) if len(widths) == 2 else None

    def forward(
        self, x: Float[Tensor, "b n c"], index: Int[Tensor, "b m k"], rows: Int[Tensor, "b m"] | None = None
    ) -> Float[Tensor, "b m d"]:
        """Features of the points `rows` (all N when None) out of their neighbours `index`."""
        signs = None if self.norm is None or self.last is not None else channel_signs(self.norm.weight)
        center, neighbor = self._split(x, x if rows is None else gather(x, rows), signs)
        if self.norm is None:
            return center + neighbor_max(neighbor, index)
        norm = self.norm
        statistics = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        options = {"momentum": norm.momentum, "eps": norm.eps, "negative_slope": self.negative_slope}
        if self.training:
            norm.num_batches_tracked += 1
        with torch.autocast(x.device.type, enabled=False):
            if self.last is None:
                return edge_conv(center, neighbor, index, *statistics, self.training, **options, signs=signs)
            return edge_mlp(center, neighbor, index, *statistics, self.last.weight, self.last.bias,
                            self.training, **options)

    def _split(self, x: Tensor, x_center: Tensor, signs: Tensor | None) -> tuple[Tensor, Tensor]:
        """W [x_i, x_j - x_i] + b = ((W1 - W2) x_i + b) + (W2 x_j), each channel times its sign."""
        weight, bias = self.first.weight, self.first.bias
        dtype = weight.dtype  # under autocast the products are bfloat16, the reductions are not
        if signs is not None:
            weight, bias = weight * signs[:, None], None if bias is None else bias * signs
        on_center, on_difference = weight.chunk(2, dim=1)
        center = nn.functional.linear(x_center, on_center - on_difference, bias).to(dtype)
        return center, nn.functional.linear(x, on_difference).to(dtype)
