"""The probe of Bernini (2022) as its notebook ran it, so that its 45 % can be explained. Not a protocol to use."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import device_of, extract
from contrast3d.downstream.probes import Prediction


def report_probe(
    encoder: nn.Module, train: ShapeSet, test: ShapeSet, *, sigmoid: bool = True, train_mode: bool = True,
    epochs: int = 50, encodings: int = 50, batch_size: int = 32, seed: int = 0,
) -> Prediction:
    """A linear layer under SGD (lr 0.01, halved every 20 epochs) on the encoder's features.

    sigmoid: squash the logits before the cross-entropy (defect 4: the loss is confined and gradients vanish).
    train_mode: batch norm uses the statistics of each batch, in training and test (as the notebook left it).
    encodings: how often the training set is encoded anew; the notebook did so every epoch, fewer are reused in
        turn. One is enough in evaluation mode.
    """
    encoder = copy.deepcopy(encoder)  # train mode moves its running statistics
    generator = torch.Generator().manual_seed(seed)
    encode = _encode_in_batches if train_mode else lambda e, shapes, *_: extract(e, shapes)
    passes = min(epochs, encodings) if train_mode else 1
    banks = [encode(encoder, train, batch_size, generator) for _ in range(passes)]
    test_x = encode(encoder, test, batch_size, generator)
    squash = torch.sigmoid if sigmoid else lambda logits: logits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(test_x.shape[1], int(train.labels.max()) + 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 20, 0.5)
    for epoch in range(epochs):
        bank = banks[epoch % passes]
        for rows in torch.randperm(len(train), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(squash(layer(bank[rows])), train.labels[rows]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        return Prediction.score(layer(test_x).argmax(1), test.labels)


@torch.no_grad()
def _encode_in_batches(
    encoder: nn.Module, shapes: ShapeSet, batch_size: int, generator: torch.Generator
) -> Float[Tensor, "s d"]:
    """Features under each batch's own statistics, in random batches of at least two shapes."""
    encoder.train()
    order: Int[Tensor, " s"] = torch.randperm(len(shapes), generator=generator)
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    out = torch.empty(len(shapes), encoder.embed_dim)
    for rows in batches:
        out[rows] = encoder(shapes.clouds(rows, device=device_of(encoder))).pooled.float().cpu()
    return out
