"""`Linear`: torch's dense layer, at the full rate of the processor."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.ops.linear import Activation, linear


class Linear(nn.Linear):
    """nn.Linear by `ops.linear`: the same arguments, weights and state; activation="gelu" follows in the same pass."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, activation: Activation = None, **kwargs):
        super().__init__(in_features, out_features, bias, **kwargs)
        self.activation: Activation = activation

    def forward(self, input: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        return linear(input, self.weight, self.bias, self.activation)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")
