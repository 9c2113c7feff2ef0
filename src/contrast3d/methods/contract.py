"""What the methods of this package share: what they ask of an encoder, and what they log of pairs of views."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.errors import ConfigError


def check_encoder(method: type, encoder: nn.Module) -> None:
    """A ConfigError unless `encoder` gives what `method.needs` and says how wide its pooled features are."""
    missing = method.needs - getattr(encoder, "gives", method.needs)
    if missing:
        raise ConfigError(f"{method.__name__} needs an encoder that gives {', '.join(missing)}; "
                          f"{type(encoder).__name__} gives {', '.join(encoder.gives)}")
    if not isinstance(getattr(encoder, "embed_dim", None), int):
        raise ConfigError(f"{method.__name__}: {type(encoder).__name__} has no embed_dim; expected an encoder with the "
                          "width of its pooled features as `embed_dim`")


@torch.no_grad()
def pair_numbers(first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> dict[str, Tensor]:
    """alignment: mean squared distance of the unit vectors of two views. pair_accuracy: how often the other view of
    a shape is the nearest of all of this process."""
    a, b = (nn.functional.normalize(z.detach().float(), dim=-1) for z in (first, second))
    hits = (a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
    return {"alignment": (a - b).square().sum(1).mean(), "pair_accuracy": hits.float().mean()}
