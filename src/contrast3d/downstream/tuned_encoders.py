"""Encoders made ready for a protocol: what they read out, which patches they see, what of them is trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from contrast3d.errors import ConfigError
from contrast3d.nn.partwise import Partwise

TUNED_READOUT, CLASS_READOUT = ("queries", "max"), ("cls", "max")  # of ReCon (4C), of Point-MAE (2C)


def inner(encoder: nn.Module) -> nn.Module:
    """The network within a reader, or the network itself."""
    return encoder.encoder if isinstance(encoder, Partwise) else encoder


def class_parameters(encoder: nn.Module) -> list[nn.Parameter]:
    """The learned token and position of the query "cls"; none where the encoder has no such query."""
    places = ("tokens.cls", "token_positions.cls")
    return [p for name, p in encoder.named_parameters() if ".".join(name.split(".")[-2:]) in places]


def read_as(encoder: nn.Module, readout: Sequence[str]) -> nn.Module:
    """A copy that reads these parts of a patch transformer out; a ConfigError for other networks."""
    if not hasattr(inner(encoder), "readout"):
        raise ConfigError(f"{type(inner(encoder)).__name__} has no readout to choose: only patch transformers have. "
                          "Try: without --readout")
    network = copy.deepcopy(inner(encoder))
    network.readout = tuple(readout)
    return _read_alike(encoder, network)


def tunable(
    encoder: nn.Module, seed: int = 0, num_points: int = 0, drop_path: float | None = None
) -> nn.Module:
    """A trainable copy with the feature that is fine-tuned.

    Of patch transformers that is all queries beside the maximum over the tokens, as in ReCon (Qi et al., ICML 2023);
    one without queries gets a fresh "cls", drawn under `seed`, as in Point-MAE (Pang et al., ECCV 2022). Others stay
    as they are. num_points: read so many at a time, in patches as dense as before. drop_path: rate of the last block.
    """
    network = copy.deepcopy(inner(encoder)).requires_grad_()
    if getattr(network, "queries", ()):
        network.readout = TUNED_READOUT
    elif hasattr(network, "with_queries"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = network.with_queries("cls", readout=CLASS_READOUT)
    if drop_path is not None:
        _set_drop_path(network, drop_path)
    reader = _read_alike(encoder, network)
    return resized(reader, num_points) if num_points else reader


def resized(encoder: nn.Module, num_points: int) -> nn.Module:
    """The reader with parts of so many points, and as many more patches: 128 of 2,048 points after 64 of 1,024."""
    if not isinstance(encoder, Partwise):
        raise ConfigError("only a reader knows how many points it reads at a time. Try: nn.Partwise(encoder, n)")
    for module in encoder.encoder.modules():
        if hasattr(module, "num_patches"):
            module.num_patches = max(1, round(module.num_patches * num_points / encoder.num_points))
            if getattr(module, "kwargs", None):  # what is rebuilt from it has as many
                module.kwargs = {**module.kwargs, "num_patches": module.num_patches}
    encoder.num_points = num_points
    return encoder


def _read_alike(encoder: nn.Module, network: nn.Module) -> nn.Module:
    if not isinstance(encoder, Partwise):
        return network
    reader = Partwise(network, encoder.num_points)
    reader.training = encoder.training  # what is within has the mode that it had
    return reader


def _set_drop_path(network: nn.Module, rate: float) -> None:
    """A rate that grows over the blocks of each tower, from none to this one."""
    for stack in network.modules():
        blocks = [block for block in getattr(stack, "blocks", ()) if hasattr(block, "drop_path")]
        for i, block in enumerate(blocks):
            block.drop_path.rate = rate * i / max(1, len(blocks) - 1)
