"""What a frozen encoder must beat: the majority class, plain geometry, and its own untrained self.

The fourth, the supervised network at the same wall time, is `classification.fit_classifier`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.descriptors import geometric
from contrast3d.downstream.features import device_of, extract
from contrast3d.downstream.probes import Prediction
from contrast3d.errors import ConfigError

# seed -> the same architecture with fresh weights; False for no untrained baseline, None for `redrawn`
MakeUntrained = Callable[[int], nn.Module] | Literal[False] | None
FeaturePair = tuple[Float[Tensor, "s d"], Float[Tensor, "t d"]]


def majority(train_y: Int[Tensor, " s"], test_y: Int[Tensor, " t"]) -> Prediction:
    """Always the most frequent class of the labelled rows, the first of them where several tie."""
    return Prediction.score(train_y.bincount().argmax().expand(len(test_y)), test_y)


def training_free(train: ShapeSet, test: ShapeSet) -> FeaturePair:
    """D2 histogram and 12^3 voxels of both sets."""
    return geometric(train), geometric(test)


def untrained(
    make_encoder: Callable[[int], nn.Module], seed: int, train: ShapeSet, test: ShapeSet, batch_size: int = 64
) -> FeaturePair:
    """Features of both sets by the encoder as `make_encoder(seed)` initialises it."""
    encoder = make_encoder(seed)
    return extract(encoder, train, batch_size), extract(encoder, test, batch_size)


def untrained_maker(encoder: nn.Module, make_untrained: MakeUntrained) -> Callable[[int], nn.Module]:
    """seed -> the untrained encoder of that seed, where `encoder` lives."""
    make = make_untrained or partial(redrawn, encoder)
    return lambda seed: make(seed).to(device_of(encoder))


def redrawn(encoder: nn.Module, seed: int) -> nn.Module:
    """A copy of the encoder with every parameter as its module's `reset_parameters` draws it under `seed`.

    Parts come before what they are part of, which may draw them in its own way, and draws what it keeps in a
    ParameterDict or ParameterList. A ConfigError where a module holds parameters and nothing draws them.
    """
    encoder = copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in reversed(list(encoder.named_modules())):
            reset = getattr(module, "reset_parameters", None)
            owner = encoder.get_submodule(name.rpartition(".")[0])
            if reset is not None:
                reset()
            elif isinstance(module, nn.ParameterDict | nn.ParameterList) and hasattr(owner, "reset_parameters"):
                continue
            elif next(module.parameters(recurse=False), None) is not None:
                raise ConfigError(
                    f"{name or 'the encoder'} ({type(module).__name__}) has no reset_parameters to draw its weights "
                    "anew with; pass make_untrained, or make_untrained=False for no untrained baseline"
                )
    return encoder
