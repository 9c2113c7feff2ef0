"""What the boxes of a folder's shapes say against its being of one kind: other axes up, other units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

_FEWEST = 10  # shapes; of less nothing can be said
_LEVEL = 1e-3  # of the longest side: what counts as standing on zero
_SOME, _MOST = 0.1, 0.5  # shares of the shapes
_UNITS = 500  # between the smallest and the largest of the middle nine tenths; mm and m differ by 1,000


def hints(boxes: Float[np.ndarray, "s 2 3"], suffixes: Sequence[str], up: str) -> list[str]:
    """One line for each oddity, empty when there is none. boxes: in the files' own frames. up: what the user said.

    Modelled things often stand on the plane zero of the axis that points up, while the other two are centred or
    anywhere: where many shapes stand on exactly one plane and it is not that of `up`, another axis probably is up.
    """
    found = []
    gltf = sum(suffix in (".glb", ".gltf") for suffix in suffixes)
    if gltf and up != "y":
        found.append(f"{gltf} of {len(suffixes)} files are glTF, where y is up by definition: try up = y, not {up}")
    if len(boxes) < _FEWEST:
        return found
    share = dict(zip("xyz", _stand_on(boxes).mean(0)))
    other = max((axis for axis in "xyz" if axis != up), key=share.get)
    if share[other] >= _MOST and share[up] < _SOME:
        found.append(f"{share[other]:.0%} of the shapes stand on {other} = 0: try up = {other} in place of {up}")
    elif share[other] >= _SOME and share[up] >= _SOME:
        found.append(
            f"{share[up]:.0%} of the shapes stand on {up} = 0 and {share[other]:.0%} on {other} = 0: "
            "they may not all have the same axis up, which can be set for all of a folder only"
        )
    low, high = np.quantile((boxes[:, 1] - boxes[:, 0]).max(1), (0.05, 0.95))
    if high > _UNITS * low:
        found.append(
            f"sizes from {low:.3g} to {high:.3g}: the units may differ; every shape is scaled to the unit sphere"
        )
    return found


def _stand_on(boxes: Float[np.ndarray, "s 2 3"]) -> Bool[np.ndarray, "s 3"]:
    """Whether a shape's lowest point of an axis is at zero, and of no other axis."""
    size = boxes[:, 1] - boxes[:, 0]
    level = np.abs(boxes[:, 0]) <= _LEVEL * size.max(1, keepdims=True)
    return level & (level.sum(1, keepdims=True) == 1)
