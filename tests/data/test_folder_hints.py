"""What the boxes of a folder's shapes tell of their axes and units."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import shape_folder as made

from contrast3d.data.folder import load_folder
from contrast3d.data.folder_hints import hints


@pytest.mark.parametrize("stands", [[2], [1], [1, 2], []])
def test_hints_at_another_axis_up(stands):
    rng = np.random.default_rng(0)
    low = -rng.random((40, 3)) - 0.1
    for part, axis in enumerate(stands):
        low[part :: len(stands), axis] = 0
    found = hints(np.stack((low, np.ones((40, 3))), 1), [".obj"] * 40, "z")
    expected = {(1,): r"100% of the shapes stand on y = 0: try up = y", (1, 2): "may not all have the same axis up"}
    if tuple(stands) in expected:
        assert len(found) == 1
        assert re.search(expected[tuple(stands)], found[0])
    else:
        assert not found


def test_hints_at_units_and_gltf():
    boxes = np.stack((np.full((40, 3), -1.0), np.full((40, 3), 1.0)), 1)
    assert not hints(boxes, [".glb"] * 40, "y")
    assert "40 of 40 files are glTF" in hints(boxes, [".glb"] * 40, "z")[0]
    boxes[::2] *= 1000
    (hint,) = hints(boxes, [".obj"] * 40, "z")
    assert "units may differ" in hint
    assert not hints(boxes[:4], [".obj"] * 4, "z")  # too few to tell


def test_the_folder_warns_of_hints(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))
    for i in range(12):
        points = made.sphere(50) + [0, 2, 0]
        points[:, 1] -= points[:, 1].min()
        (tmp_path / "set").mkdir(exist_ok=True)
        np.save(tmp_path / "set" / f"{i}.npy", points)
    with pytest.warns(UserWarning, match="stand on y = 0: try up = y"):
        load_folder(tmp_path / "set", 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_folder(tmp_path / "set", 16, up="y")
