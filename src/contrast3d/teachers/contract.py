"""What a teacher is: clouds in, one target for each query out; and the networks behind it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import MissingDataError
from contrast3d.types import Clouds

INSTALL = "pip install 'contrast3d[teachers]'"


@runtime_checkable
class Teacher(Protocol):
    """dims: the width of each target, by the name of the query that learns it ("img", "text").

    Called with B clouds it gives (B, D) float32 for each name, on their device; a row of NaN where a shape has no such
    target. What is cached is found by `clouds.ids`.
    """

    dims: dict[str, int]

    def __call__(self, clouds: Clouds) -> dict[str, Tensor]: ...


@runtime_checkable
class ImageTeacher(Protocol):
    """A network of pictures. size: pixels it wants; weights: digits of the hash of its file."""

    name: str
    dim: int
    size: int
    weights: str

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Pictures in 0 to 1 -> features, no gradient."""


@runtime_checkable
class TextTeacher(Protocol):
    """A network of sentences."""

    name: str
    dim: int
    weights: str

    def encode(self, texts: list[str]) -> Float[Tensor, "b d"]:
        """Sentences -> features, no gradient."""


def packaged(module: str, package: str, *parts: str) -> Path:
    """The path of a file inside an installed package, which is not imported; MissingDataError where it is not there."""
    found = util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise MissingDataError(package, "not installed", "the package that holds the teacher's weights", INSTALL)
    path = Path(next(iter(found.submodule_search_locations))).joinpath(*parts)
    if not path.exists():
        raise MissingDataError(str(path), "no such file", f"the weights in the package {package}", f"{INSTALL} again")
    return path


@lru_cache
def digest(path: Path) -> str:
    """Twelve hex digits over the content of a file of weights."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def has_bf16(device: torch.device) -> bool:
    """Whether products in bfloat16 are made by hardware there, and so are worth their rounding."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
