"""Run folders read back: what is written is what comes out, and what cannot be right is told."""

from __future__ import annotations

import dataclasses
import json

import pytest
import tiny
import torch

from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.recipes import table
from contrast3d.recipes.runs import Run, load_run, record, record_origin

NAME = "simclr-ldraw40"
RECIPE = tiny.shrunk(table.find(NAME), layers=(8, 12), dataset="own.npz")


@pytest.fixture
def run(tmp_path):
    """A run whose encoder is saved with weights that no seed gives."""
    folder = RunDir(tmp_path / "run").create(record(NAME, RECIPE))
    encoder = RECIPE.make_encoder()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    folder.save_encoder(encoder, {})
    return load_run(folder.path)


def rewrite(run, **changes) -> None:
    path = run.path / "recipe.json"
    written = json.loads(path.read_text())
    written["fields"].update(changes)
    path.write_text(json.dumps(written))


def test_the_encoder_comes_back(run):
    encoder = run.encoder()
    assert not encoder.training
    fresh = RECIPE.make_encoder()
    for key, value in encoder.named_parameters():
        assert torch.equal(value, fresh.get_parameter(key) + 1.0)


def test_record_is_json_and_complete():
    written = record(NAME, RECIPE)
    assert written["recipe"] == NAME
    assert written["fields"].keys() == {f.name for f in dataclasses.fields(RECIPE)}
    assert json.loads(json.dumps(written))["fields"]["layers"] == [8, 12]


def test_the_title_is_the_folders_own_name(run, monkeypatch):
    monkeypatch.chdir(run.path)
    assert Run(RunDir("."), NAME, RECIPE).title == run.title == "run"


def test_overrides_are_the_fields_that_differ(run):
    own = table.find(NAME)
    assert Run(run.folder, NAME, own).overrides() == {}
    assert Run(run.folder, NAME, dataclasses.replace(own, epochs=3, layers=(8,))).overrides() == {
        "epochs": 3, "layers": (8,)}


def test_where_the_weights_stand(run):
    assert run.trained() == {"step": None, "epoch": None}  # an older file
    assert not run.finished()
    for epoch in (1, 2):
        run.folder.log({"kind": "train", "step": 4 * epoch, "epoch": epoch})
        run.folder.log({"kind": "epoch", "step": 4 * epoch, "epoch": epoch})
    run.folder.save_encoder(run.encoder(), {"contrast3d": json.dumps({"step": 6})})
    assert run.trained() == {"step": 6, "epoch": 1}
    for step, epochs, finished in ((8, 2, True), (6, 2, False), (8, 3, False)):
        run.folder.save_encoder(run.encoder(), {"contrast3d": json.dumps({"step": step})})
        rewrite(run, epochs=epochs)
        assert load_run(run.path).finished() == finished


def test_the_origin_is_that_of_the_beginning(run, monkeypatch):
    assert run.origin() == {}  # an older run
    record_origin(run.folder, torch.device("cpu"))
    first = run.origin()
    assert set(first) == {"commit", "device"}
    monkeypatch.setattr("contrast3d.recipes.runs.commit", lambda: "another")
    run.folder.save_state({"step": 3})
    record_origin(run.folder, torch.device("cpu"))
    assert run.origin() == first
    (run.path / "origin.json").write_text("{")
    with pytest.raises(DataError, match=r"origin\.json: unreadable"):
        run.origin()


def test_what_an_older_version_did_not_write_takes_the_recipes_value(run):
    path = run.path / "recipe.json"
    written = json.loads(path.read_text())
    del written["fields"]["clip_norm"]
    path.write_text(json.dumps(written))
    assert load_run(run.path).recipe == dataclasses.replace(RECIPE, clip_norm=table.find(NAME).clip_norm)


def test_whole_numbers_are_welcome_as_floats(run):
    rewrite(run, lr=1)
    assert repr(load_run(run.path).recipe.lr) == "1.0"


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"gravity": 9.81, "age": 3}, ConfigError, r"unknown fields \(age, gravity\)"),
        ({"epochs": 1.5}, DataError, "epochs is 1.5; expected of type int"),
        ({"dynamic": 1}, DataError, "dynamic is 1; expected of type bool"),
        ({"epochs": True}, DataError, "epochs is True; expected of type int"),
        ({"layers": 8}, DataError, "layers is 8; expected of type tuple"),
        ({"embed_dim": 0}, ConfigError, "embed_dim = 0"),
    ],
)
def test_a_recipe_that_cannot_be_right(run, changes, error, told):
    rewrite(run, **changes)
    with pytest.raises(error, match=told):
        load_run(run.path)


def test_weights_that_do_not_fit(run):
    rewrite(run, layers=[8, 16])
    with pytest.raises(DataError, match=r"encoder\.safetensors: weights of another encoder \(size mismatch for convs"):
        load_run(run.path).encoder()
    rewrite(run, layers=[8])
    with pytest.raises(DataError, match="weights of another encoder"):
        load_run(run.path).encoder()


def test_no_run(tmp_path):
    with pytest.raises(MissingDataError, match="no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match=r"recipe\.json: no such file"):
        load_run(tmp_path)
