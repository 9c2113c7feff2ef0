"""Published weights into our networks: read a checkpoint of any age inertly, check every tensor, then copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from contrast3d.errors import DataError
from contrast3d.inert_pickle import Stub, read_pickled

STATE_KEYS = (
    "state_dict", "model_state_dict", "model_state", "base_model", "model", "network", "net", "encoder", "weights",
)
EXPECTED = "a checkpoint with the tensors of a network by name"
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """What came out of an import.

    loaded: names of the network's tensors that were filled. skipped: names in the checkpoint, and why each was left.
    missing: names of the network's tensors that the checkpoint did not have; they keep the values they had.
    notes: what was found out about the file: the order of its kernels, say.
    """

    loaded: tuple[str, ...]
    skipped: dict[str, str]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded", *self.notes]
        for reason in dict.fromkeys(self.skipped.values()):
            names = [name for name, why in self.skipped.items() if why == reason]
            parts.append(f"{len(names)} skipped, {reason}: {_some(names)}")
        if self.missing:
            parts.append(f"{len(self.missing)} not in the file: {_some(self.missing)}")
        return "; ".join(parts)


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_checkpoint(path: Path | str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """(tensors of the network by name, everything else in the file); nothing in it is run.

    Reads what torch.save wrote, with or without epoch, optimiser and configuration around it, whole pickled modules,
    and .safetensors. A DataError where no network is found.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path), {}
    content = read_pickled(path)
    fields = content.fields if isinstance(content, Stub) else content
    if not isinstance(fields, dict):
        raise DataError(str(path), f"{type(content).__name__}, not a network", EXPECTED)
    for key in STATE_KEYS:
        state = state_of(fields.get(key))
        if state:
            return state, {str(k): v for k, v in fields.items() if k != key}
    state = state_of(content)
    if not state:
        found = ", ".join(sorted(str(k)[:40] for k in fields)[:8]) or "nothing"
        raise DataError(str(path), f"no tensors of a network among {found}", EXPECTED)
    return state, {str(k): v for k, v in fields.items() if k not in state and not _is_inside_module(k)}


def state_of(value: object) -> dict[str, Tensor]:
    """The tensors in a state_dict, or in a pickled module, by name; empty where `value` is neither."""
    if isinstance(value, Stub):
        return _state_of_module(value, "", 0)
    if not isinstance(value, Mapping):
        return {}
    tensors = {k: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) and v.dtype.kind in "fiub" else v
               for k, v in value.items() if isinstance(k, str)}
    return {k: v for k, v in tensors.items() if isinstance(v, Tensor)}


def _is_inside_module(key: object) -> bool:
    return key in ("_parameters", "_buffers", "_modules")


def _state_of_module(module: Stub, prefix: str, depth: int) -> dict[str, Tensor]:
    """What `state_dict()` of a pickled nn.Module would have held, had it been asked."""
    parts = [module.fields.get(k) for k in ("_parameters", "_buffers", "_modules")]
    if not all(isinstance(p, dict) for p in parts) or depth > 32:
        return {}
    state = {f"{prefix}{k}": v for part in parts[:2] for k, v in part.items() if isinstance(v, Tensor)}
    for name, child in parts[2].items():
        state |= _state_of_module(child, f"{prefix}{name}.", depth + 1) if isinstance(child, Stub) else {}
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(str(path), f"cannot be read ({str(error)[:120]})", "a .safetensors file") from None


def assign(
    model: nn.Module, found: Mapping[str, tuple[str, Tensor]], *, where: str, head: str = "", partial: bool = False,
    skipped: Mapping[str, str] | None = None, notes: tuple[str, ...] = (),
) -> Loaded:
    """Copy tensors into a network: all that fit, or none.

    found: of each of the network's names, the name and the tensor in the checkpoint, in the network's layout.
    head: beginning of the names whose shapes may differ, since each task has its own; with `partial` all may.
    A DataError names the first tensor of another shape, and any that is not finite.
    """
    own, fits, skipped = model.state_dict(), {}, dict(skipped or {})
    for name, (theirs, tensor) in found.items():
        if name not in own:
            skipped[theirs] = "no such part in the network"
        elif tensor.shape != own[name].shape:
            told = f"shape {tuple(tensor.shape)}, the network's {name} has {tuple(own[name].shape)}"
            if not partial and not (head and name.startswith(head)):
                raise DataError(f"{where}: {theirs}", told, "a network of the same width and depth",
                                "build the network with the checkpoint's planes, or partial=True to load what fits")
            skipped[theirs] = told
        elif tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DataError(f"{where}: {theirs}", "values that are not finite", "weights")
        else:
            fits[name] = tensor
    if not fits:
        raise DataError(where, "not one tensor that fits the network", f"names such as {', '.join(list(own)[:3])}")
    with torch.no_grad():
        for name, tensor in fits.items():
            own[name].copy_(tensor)
    return Loaded(tuple(fits), skipped, tuple(name for name in own if name not in fits), notes)
