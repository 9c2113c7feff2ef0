"""Released PointContrast weights (Xie et al., ECCV 2020) and others of MinkowskiEngine's Res16UNet, in and out.

Their names are those of the released files; their kernels come in one of two orders of the 27 offsets:
`cube` (x fastest, as here; MinkowskiEngine 0.5 and ports to it) or `hybrid` (0.3 and 0.4, so the released ones).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from contrast3d.checkpoints.importers import Loaded, State, assign, read_checkpoint
from contrast3d.errors import ConfigError, DataError

CUBE, HYBRID = "cube", "hybrid"
CENTRE = {CUBE: 13, HYBRID: 0}
# W_cube[HYBRID_SLOTS[j]] = W_hybrid[j]: from the centre on, each axis adds the copies at -1 and +1 of all so far.
HYBRID_SLOTS = (13, 12, 14, 10, 16, 9, 15, 11, 17, 4, 22, 3, 21, 5, 23, 1, 19, 7, 25, 0, 18, 6, 24, 2, 20, 8, 26)

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_DOWN = {k: f"conv{k}p{2 ** (k - 1)}s2" for k in range(1, 5)}
_UP = {k: f"convtr{k}p{2 ** (8 - k)}s2" for k in range(4, 8)}
_BLOCK_KERNEL = re.compile(r"(downs|ups)\.\d\.blocks\.\d+\.conv\d\.weight")


def from_released(name: str) -> str | None:
    """Our name of a tensor of the released network, its prefix stripped; None where there is none."""
    head, _, rest = name.partition(".")
    fixed = {"conv0p1s1.kernel": "stem.weight", "final.kernel": "final.weight", "final.bias": "final.bias"}
    if name in fixed:
        return fixed[name]
    for stages, convs, norm, first in (("downs", _DOWN, "bn", 1), ("ups", _UP, "bntr", 4)):
        for number, conv in convs.items():
            if name == f"{conv}.kernel":
                return f"{stages}.{number - first}.conv.weight"
            if head == f"{norm}{number}" and re.fullmatch(rf"bn\.{_NORM}", rest):
                return f"{stages}.{number - first}.norm.{rest[3:]}"
    if head == "bn0" and re.fullmatch(rf"bn\.{_NORM}", rest):
        return f"stem_norm.{rest[3:]}"
    block = re.fullmatch(r"block([1-8])\.(\d+)\.(.+)", name)
    inner = block and _inner_from_released(block[3])
    if not inner:
        return None
    number = int(block[1])
    stage = f"downs.{number - 1}" if number < 5 else f"ups.{number - 5}"
    return f"{stage}.blocks.{block[2]}.{inner}"


def _inner_from_released(name: str) -> str | None:
    if match := re.fullmatch(r"(conv[123])\.kernel", name):
        return f"{match[1]}.weight"
    if match := re.fullmatch(rf"(norm[123])\.bn\.{_NORM}", name):
        return f"{match[1]}.{match[2]}"
    if match := re.fullmatch(rf"downsample\.1\.bn\.{_NORM}", name):
        return f"shortcut.norm.{match[1]}"
    return "shortcut.conv.weight" if name == "downsample.0.kernel" else None


def to_released(name: str) -> str | None:
    """The name that the released files have for one of our tensors; None where there is none."""
    fixed = {"stem.weight": "conv0p1s1.kernel", "final.weight": "final.kernel", "final.bias": "final.bias"}
    if name in fixed:
        return fixed[name]
    if match := re.fullmatch(rf"stem_norm\.{_NORM}", name):
        return f"bn0.bn.{match[1]}"
    match = re.fullmatch(r"(downs|ups)\.([0-3])\.(.+)", name)
    if not match:
        return None
    down, stage, inner = match[1] == "downs", int(match[2]), match[3]
    number = stage + (1 if down else 4)
    if inner == "conv.weight":
        return f"{(_DOWN if down else _UP)[number]}.kernel"
    if match := re.fullmatch(rf"norm\.{_NORM}", inner):
        return f"{'bn' if down else 'bntr'}{number}.bn.{match[1]}"
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", inner)
    theirs = match and _inner_to_released(match[2])
    return f"block{number + (not down)}.{match[1]}.{theirs}" if theirs else None


def _inner_to_released(name: str) -> str | None:
    if match := re.fullmatch(r"(conv[123])\.weight", name):
        return f"{match[1]}.kernel"
    if match := re.fullmatch(rf"(norm[123])\.{_NORM}", name):
        return f"{match[1]}.bn.{match[2]}"
    if match := re.fullmatch(rf"shortcut\.norm\.{_NORM}", name):
        return f"downsample.1.bn.{match[1]}"
    return "downsample.0.kernel" if name == "shortcut.conv.weight" else None


def find_kernel_order(kernels: State, where: str = "state") -> str:
    """Which order the 3x3x3 kernels (27, Cin, Cout) of the blocks are in: "cube" or "hybrid".

    A trained kernel is strongest at its centre, slot 13 or 0. A DataError where no majority of them says so, as with
    an untrained network: a wrong order would load without a word.
    """
    peaks = [int(k.flatten(1).double().norm(dim=1).argmax()) for k in kernels.values() if _is_3x3x3(k)]
    votes = {order: peaks.count(slot) for order, slot in CENTRE.items()}
    for order, count in votes.items():
        if 2 * count > len(peaks):
            return order
    raise DataError(
        where, f"of {len(peaks)} kernels {votes[CUBE]} are strongest in slot 13 and {votes[HYBRID]} in slot 0",
        "most of them in one of the two, the centre of the kernel",
        "kernel_order='cube' (MinkowskiEngine 0.5 and later) or 'hybrid' (0.3 and 0.4: PointContrast's own files)")


def _is_3x3x3(kernel: Tensor) -> bool:
    return kernel.ndim == 3 and len(kernel) == 27


def hybrid_to_cube(kernel: Tensor) -> Tensor:
    """(27, Cin, Cout) from the order of MinkowskiEngine 0.3 and 0.4 to the one with x fastest."""
    cube = torch.empty_like(kernel)
    cube[list(HYBRID_SLOTS)] = kernel
    return cube


def load_pointcontrast(
    model: nn.Module, source: Path | str | State, *, kernel_order: str | None = None, prefix: str | None = None,
    partial: bool = False,
) -> Loaded:
    """Fill a `nn.SparseUNet` with weights under the released names: all that fit, or none.

    source: a checkpoint file, or its tensors by name. Whatever stands before the released names ("module.",
    "backbone_net.") is stripped; prefix: which one to take where the file holds several networks.
    kernel_order: of the blocks' kernels, "cube" or "hybrid"; None: found by where they are strongest.
    A `final` of another width is skipped: each task has its own. Another width elsewhere is a DataError, unless
    `partial`; so is a file with nothing for this network.
    """
    if kernel_order not in (None, CUBE, HYBRID):
        raise ConfigError(f"kernel_order is 'cube', 'hybrid' or None, not {kernel_order!r}")
    where = "state" if isinstance(source, Mapping) else str(source)
    state = source if isinstance(source, Mapping) else read_checkpoint(source)[0]
    found, skipped = _named(state, prefix, where)
    blocks = {name: tensor for name, (_, tensor) in found.items() if _BLOCK_KERNEL.fullmatch(name)}
    notes = ()
    if any(map(_is_3x3x3, blocks.values())):
        order = kernel_order or find_kernel_order(blocks, where)
        notes = (f"kernels in {order} order",)
        if order == HYBRID:
            found |= {n: (found[n][0], hybrid_to_cube(k)) for n, k in blocks.items() if _is_3x3x3(k)}
    return assign(model, found, where=where, head="final.", partial=partial, skipped=skipped, notes=notes)


def _named(state: State, prefix: str | None, where: str) -> tuple[dict[str, tuple[str, Tensor]], dict[str, str]]:
    """Tensors by our names, each with its released one and in our layout; and what has no place, with the reason."""
    found: dict[str, tuple[str, Tensor]] = {}
    skipped = {}
    for theirs, tensor in state.items():
        before, name = _stripped(theirs)
        if name is None:
            skipped[theirs] = "no part of this network"
        elif prefix is not None and before != prefix:
            skipped[theirs] = f"not under {prefix!r}"
        elif name in found:
            other = found[name][0]
            raise DataError(where, f"two networks: {other} and {theirs}", "one of them",
                            f"prefix={_stripped(other)[0]!r} or prefix={before!r}")
        else:
            found[name] = (theirs, _our_layout(name, tensor))
    return found, skipped


def _stripped(name: str) -> tuple[str, str | None]:
    """A name in a file -> what stands before the released name, and our name."""
    parts = name.split(".")
    for start in range(len(parts)):
        ours = from_released(".".join(parts[start:]))
        if ours is not None:
            return "".join(f"{p}." for p in parts[:start]), ours
    return "", None


def _our_layout(name: str, tensor: Tensor) -> Tensor:
    """Kernels of one offset come as (Cin, Cout) or (1, Cin, Cout), the bias as (1, Cout)."""
    if name == "final.bias":
        return tensor.reshape(-1)
    if name == "final.weight":
        tensor = tensor[0] if tensor.ndim == 3 and len(tensor) == 1 else tensor
        return tensor.T if tensor.ndim == 2 else tensor
    return tensor[None] if tensor.ndim == 2 else tensor


def export_pointcontrast(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a `nn.SparseUNet` under the released names, kernels in cube order as in MinkowskiEngine 0.5."""
    exported = {}
    for name, tensor in model.state_dict().items():
        theirs = to_released(name)
        if theirs is None:
            raise DataError(name, "no part of the released network", "the tensors of a nn.SparseUNet")
        tensor = tensor.detach().cpu()
        if name.startswith("final."):
            tensor = tensor.T if name == "final.weight" else tensor[None]
        elif tensor.ndim == 3 and len(tensor) == 1:  # of one offset
            tensor = tensor[0]
        exported[theirs] = tensor.contiguous().clone()
    return exported
