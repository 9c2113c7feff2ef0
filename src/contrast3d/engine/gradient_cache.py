"""The exact gradient of a large contrastive batch in the memory of a small one (Gao et al., RepL4NLP 2021).

A contrastive loss sees the batch only through its embeddings. So: (1) embed the batch in pieces without a graph;
(2) differentiate the loss by the embeddings; (3) embed each piece once more, with a graph, and push the gradients
of its embeddings through. What is held at any time is the batch's inputs, its embeddings, and the graph of one
piece. The price is a second forward pass, momentum encoders included.

Batch norm takes its statistics over each piece, as it would with that small a batch: the loss is of the large batch,
the normalisation of the small one. With normalisation per sample the gradient equals the plain batch's. Running
statistics move once per piece, in pass 3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from contrast3d.engine.randomness import random_state, set_random_state
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds


def check_composed(method: nn.Module) -> None:
    """A ConfigError unless the method's forward is `objective(embed(batch))`, of which caching makes use."""
    if not (hasattr(method, "embed") and hasattr(method, "objective")):
        raise ConfigError(f"micro_batch: {type(method).__name__} has no embed and objective to cache gradients "
                          "between. Try: accumulate")


def cached_backward(
    method: nn.Module, batch: Sequence[Clouds], micro_batch: int, autocast: contextlib.AbstractContextManager,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """`(scale * method(batch)["loss"]).backward()` in pieces of at most `micro_batch` clouds -> the method's outputs.

    Gradients are added to the parameters' own, of this process alone.
    """
    pieces = list(zip(*(view.chunks(micro_batch) for view in batch)))
    states, embedded = [], []
    with torch.no_grad(), autocast, _running_statistics_kept(method):
        for piece in pieces:
            states.append(random_state())
            embedded.append(method.embed(piece))
    leaves = [_leaf(torch.cat(parts)) for parts in zip(*embedded)]
    with autocast:
        outputs = method.objective(leaves)
    (scale * outputs["loss"]).backward()
    sizes = [len(piece[0]) for piece in pieces]
    gradients = [[None] * len(pieces) if leaf.grad is None else leaf.grad.split(sizes) for leaf in leaves]
    after = random_state()
    for piece, state, *piece_gradients in zip(pieces, states, *gradients):
        set_random_state(state)  # dropout and the like draw as they did in pass 1
        with autocast:
            embeddings = method.embed(piece)
        wanted = [(e, g) for e, g in zip(embeddings, piece_gradients) if g is not None and e.requires_grad]
        torch.autograd.backward(*zip(*wanted))
    set_random_state(after)
    return outputs


def _leaf(values: Tensor) -> Tensor:
    """The embeddings as a leaf of the graph; whole numbers, row numbers say, as they are."""
    return values.detach().requires_grad_() if values.is_floating_point() else values


@contextlib.contextmanager
def _running_statistics_kept(method: nn.Module) -> Iterator[None]:
    """Batch norm's running statistics are afterwards what they were."""
    norms = [m for m in method.modules() if getattr(m, "running_mean", None) is not None]
    kept = [[buffer.clone() for buffer in norm.buffers(recurse=False)] for norm in norms]
    try:
        yield
    finally:
        _restore(norms, kept)


def _restore(norms: list[nn.Module], kept: list[list[Tensor]]) -> None:
    for norm, values in zip(norms, kept):
        for buffer, value in zip(norm.buffers(recurse=False), values):
            buffer.copy_(value)
