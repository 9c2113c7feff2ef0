"""`fit`: the library's parts without a recipe, in a run folder that it has for itself."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import CollapseWarning, ConfigError
from contrast3d.methods.simclr import SimCLR
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.pointnet import PointNet
from contrast3d.nn.rebuild import describe, rebuild
from contrast3d.recipes.fit import fit
from contrast3d.recipes.runs import load_recipe_run, load_run
from contrast3d.types import Features

OPTIONS = {"batch_size": 4, "epochs": 1, "quiet": True, "device": "cpu"}


def shapes(seed: int = 0) -> ShapeSet:
    return ShapeSet(torch.randn(8, 16, 3, generator=torch.Generator().manual_seed(seed)), title="my shapes")


def method(**kwargs) -> SimCLR:
    return SimCLR(PointNet(8, widths=(8,)), projection_dim=4, hidden_dim=8, **kwargs)


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


class Mine(nn.Module):
    """A user's encoder, without the arguments of its constructor."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.embed_dim, self.linear = embed_dim, nn.Linear(3, embed_dim)

    def forward(self, clouds):
        return Features(pooled=self.linear(clouds.dense).amax(1))


def test_the_encoder_comes_back(tmp_path):
    fitted = fit(method(), shapes(), out=tmp_path / "run", num_points=4, **OPTIONS)
    run = load_run(tmp_path / "run")
    clouds = shapes().clouds()
    assert torch.equal(run.encoder()(clouds).pooled, fitted.encoder(clouds).pooled)
    assert run.trained() == {"step": 2, "epoch": 1}
    assert run.reader().num_points == run.num_points == 4


def test_an_encoder_that_cannot_rebuild_itself_is_given(tmp_path):
    fitted = fit(SimCLR(Mine(6), 4, 8), shapes(), out=tmp_path / "run", **OPTIONS)
    with pytest.raises(ConfigError, match=r"test_fit:Mine cannot be rebuilt: .* Try: load_run\(folder, encoder=yours"):
        load_run(tmp_path / "run").encoder()
    clouds = shapes().clouds()
    again = load_run(tmp_path / "run", encoder=Mine(6)).encoder()
    assert torch.equal(again(clouds).pooled, fitted.encoder(clouds).pooled)


def test_verbs_that_need_a_data_set_say_so(tmp_path):
    fit(method(), shapes(), out=tmp_path / "run", **OPTIONS)
    with pytest.raises(ConfigError, match=r"made by contrast3d.fit, which records no data set. .*evaluate.linear"):
        load_recipe_run(tmp_path / "run")


def test_health_is_watched_by_default(tmp_path):
    labelled = dataclasses.replace(shapes(), labels=torch.arange(8) % 2)
    assert {"rankme", "knn_accuracy"} <= set(fit(method(), labelled, **OPTIONS).outcome.metrics)
    assert "knn_accuracy" not in fit(method(), shapes(), **OPTIONS).outcome.metrics
    assert "rankme" not in fit(method(), shapes(), probe_every=0, **OPTIONS).outcome.metrics
    own = fit(method(), shapes(), on_epoch=lambda epoch, method: {"mine": epoch}, **OPTIONS).outcome.metrics
    assert own["mine"] == 1
    assert "rankme" not in own


@pytest.mark.parametrize("encoder", [
    PointNet(8, (4, 4), in_features=2), PointNet(embed_dim=6), DGCNN(), DGCNN(8, ((4,), (6,)), k=3, strides=(1, 2)),
    DGCNN.report(5),
])
def test_the_library_s_networks_rebuild_themselves(encoder):
    for original in (encoder, copy.deepcopy(encoder)):
        again = rebuild(json.loads(json.dumps(describe(original))))
        again.load_state_dict(encoder.state_dict())
        assert again.kwargs == encoder.kwargs


@pytest.mark.parametrize(("name", "kwargs", "told"), [
    ("nowhere.at_all:Net", {}, "No module named 'nowhere'"), ("torch.nn:Nothing", {}, "no attribute 'Nothing'"),
    ("os:system", {"command": "true"}, "is not a network"), ("torch.nn:Linear", {"a": 1}, "unexpected keyword"),
])
def test_descriptions_that_cannot_be_right(name, kwargs, told):
    with pytest.raises(ConfigError, match=told):
        rebuild({"class": name, "kwargs": kwargs})


def test_a_method_is_remembered_with_its_arguments(tmp_path):
    described = json.loads(json.dumps(describe(SimCLR(DGCNN(8, ((4,),), k=3), 4, 8, temperature=0.3))))
    again = rebuild(described)
    assert (again.temperature, again.encoder.kwargs["k"]) == (0.3, 3)
    fit(method(), shapes(), out=tmp_path / "run", **OPTIONS)
    with pytest.raises(ConfigError, match="temperature"):
        fit(method(temperature=0.7), shapes(), out=tmp_path / "run", **OPTIONS)


def test_a_run_of_a_version_that_knew_no_arguments_goes_on(tmp_path):
    fit(method(), shapes(), out=tmp_path / "run", **OPTIONS)
    path = tmp_path / "run" / "recipe.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "method": {**written["method"], "kwargs": None}}))
    assert fit(method(), shapes(), out=tmp_path / "run", **OPTIONS).outcome.status == "finished"
