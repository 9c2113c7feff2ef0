"""`fit`: the library's parts without a recipe, in a run folder that it has for itself."""

from __future__ import annotations

import pytest
import torch

from contrast3d.data.shapes import ShapeSet
from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import CollapseWarning, ConfigError
from contrast3d.methods.simclr import SimCLR
from contrast3d.nn.pointnet import PointNet
from contrast3d.recipes.fit import fit

OPTIONS = {"batch_size": 4, "epochs": 1, "quiet": True, "device": "cpu"}


def shapes(seed: int = 0) -> ShapeSet:
    return ShapeSet(torch.randn(8, 16, 3, generator=torch.Generator().manual_seed(seed)), title="my shapes")


def method() -> SimCLR:
    return SimCLR(PointNet(8, widths=(8,)), projection_dim=4, hidden_dim=8)


def test_a_finished_run_is_found_finished_and_changed_data_are_told(tmp_path):
    first = fit(method(), shapes(), out=tmp_path / "run", **OPTIONS)
    assert (first.outcome.status, first.outcome.steps) == ("finished", 2)
    assert fit(method(), shapes(), out=tmp_path / "run", **OPTIONS).outcome.metrics == first.outcome.metrics
    with pytest.raises(ConfigError, match="other data: my shapes has changed since"):
        fit(method(), shapes(1), out=tmp_path / "run", **OPTIONS)


def test_a_folder_in_use_is_refused(tmp_path):
    with RunDir(tmp_path).locked(), pytest.raises(ConfigError, match="another process trains in this folder"):
        fit(method(), shapes(), out=tmp_path, **OPTIONS)


def test_identical_views_are_told_loudly(capsys):
    with pytest.warns(CollapseWarning, match="4 of 4 samples have identical views"):
        fit(method(), shapes(), transform="none", num_points=16, **{**OPTIONS, "quiet": False})
    assert "IDENTICAL VIEWS" in capsys.readouterr().err
