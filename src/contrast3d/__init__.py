"""contrast3d: self-supervised learning on 3D shapes and scenes.

    import contrast3d as c3d

    method = c3d.methods.SimCLR(c3d.nn.DGCNN(embed_dim=512))
    run = c3d.fit(method, c3d.datasets.LDraw40("train"), epochs=20, out="runs/mine")
    table = c3d.evaluate.linear(run.encoder, c3d.datasets.LDraw40)

Importing this package is instant: every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "datasets": "contrast3d.data", "evaluate": "contrast3d.downstream.evaluate", "index": "contrast3d.index",
    "losses": "contrast3d.losses",
    "methods": "contrast3d.methods", "metrics": "contrast3d.metrics", "nn": "contrast3d.nn", "ops": "contrast3d.ops",
}
_NAMES = {
    "Clouds": "contrast3d.types", "Features": "contrast3d.types", "ViewPairs": "contrast3d.types",
    "Voxels": "contrast3d.types", "ShapeSet": "contrast3d.data",
    "embed": "contrast3d.recipes.embed", "open_index": "contrast3d.recipes.shape_index",
    "fit": "contrast3d.recipes.fit", "load": "contrast3d.recipes.fit", "load_run": "contrast3d.recipes.runs",
}

__all__ = [*_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'contrast3d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
