"""PLY files of vertices and faces, in the layouts that scans are handed around in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int"}


def write_ply(path: Path, vertices: dict[str, np.ndarray], faces: np.ndarray | None = None, kind: str = "little"):
    """kind: "little" or "big" endian, or "ascii"."""
    order = ">" if kind == "big" else "<"
    rows = np.empty(len(next(iter(vertices.values()))), [(n, order + v.dtype.str[1:]) for n, v in vertices.items()])
    for name, values in vertices.items():
        rows[name] = values
    header = ["ply", f"format {'ascii' if kind == 'ascii' else f'binary_{kind}_endian'} 1.0", "comment by hand"]
    header += [f"element vertex {len(rows)}", *(f"property {NAMES[v.dtype.str[1:]]} {n}" for n, v in vertices.items())]
    body = rows.tobytes()
    if kind == "ascii":
        body = "".join(" ".join(str(v.item()) for v in row) + "\n" for row in rows).encode()
    if faces is not None:
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        table = np.empty(len(faces), [("n", "u1"), ("v", order + "i4", 3)])
        table["n"], table["v"] = 3, faces
        body += table.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join([*header, "end_header"]) + "\n").encode() + body)


def colored(count: int, seed: int = 0, alpha: bool = False) -> dict[str, np.ndarray]:
    """x y z red green blue (alpha) of `count` points of a room of 3 x 2 x 2 m."""
    random = np.random.default_rng(seed)
    found = {axis: (random.random(count) * size).astype("f4") for axis, size in zip("xyz", (3, 2, 2))}
    channels = ("red", "green", "blue", "alpha")[: 3 + alpha]
    return found | {c: random.integers(0, 256, count).astype("u1") for c in channels}
