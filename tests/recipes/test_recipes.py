"""What holds for every recipe of the table, and each of them end to end on data in the layout of its release."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import re

import pytest
import tiny
import torch

from contrast3d import cli
from contrast3d.engine.distributed import Ranks
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError, DataError
from contrast3d.recipes import datasets, table
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.runs import load_run, record
from contrast3d.types import Clouds

# Published weights are read by these names: a change here breaks every file out there. `#` stands for a number.
CONV_NORM = {f"convs.#.norm.{x}" for x in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
NORM = {f"norm.{x}" for x in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
PARAMETER_NAMES = {
    "dgcnn": {"convs.#.first.weight", *CONV_NORM, "embed.weight", *NORM},
    "dgcnn-report": {
        "convs.#.first.weight", "convs.#.first.bias", "convs.#.last.weight", "convs.#.last.bias", *CONV_NORM,
        "embed.weight", "embed.bias",
    },
    "pointnet": {f"mlp.#.{x}" for x in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")},
}


SHAPES = [name for name in table.RECIPES if isinstance(table.find(name), ContrastRecipe)]
of_shapes = pytest.mark.parametrize("name", SHAPES, indirect=True)


@pytest.fixture(params=table.RECIPES)
def name(request):
    return request.param


@pytest.fixture
def recipe(name):
    return table.find(name)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_names_and_files_agree(name, recipe):
    module = importlib.import_module(f"contrast3d.recipes.{table.RECIPES[name]}")
    assert module.RECIPE is recipe
    assert table.RECIPES[name] == name.replace("-", "_")
    assert hash(recipe) == hash(dataclasses.replace(recipe))


def test_builds_an_encoder_and_a_method(recipe):
    recipe = tiny.shrunk(recipe)
    encoder, method = recipe.make_encoder(), recipe.make_method(8)
    assert [(k, v.shape) for k, v in method.encoder.state_dict().items()] == [
        (k, v.shape) for k, v in encoder.state_dict().items()
    ]
    pooled = encoder.eval()(Clouds.from_dense(torch.randn(2, 48, 3))).pooled
    assert pooled.shape == (2, encoder.embed_dim)


@of_shapes
def test_full_size(recipe):
    assert recipe.make_encoder().embed_dim == recipe.embed_dim


def test_every_field_has_a_meaning_to_state(recipe):
    doc = type(recipe).__doc__
    assert not [f.name for f in dataclasses.fields(recipe) if f"\n        {f.name}: " not in doc]


def test_seeds(recipe):
    recipe = tiny.shrunk(recipe)
    before = torch.random.get_rng_state()
    first, again, other = (recipe.make_encoder(s).state_dict() for s in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)
    assert same(recipe.make_encoder().state_dict(), recipe.make_encoder(recipe.seed).state_dict())
    assert same(recipe.make_method(8).state_dict(), recipe.make_method(8).state_dict())
    assert torch.equal(before, torch.random.get_rng_state())


@of_shapes
def test_training(recipe):
    training = recipe.training()
    shared = {f.name for f in dataclasses.fields(Training)} & {f.name for f in dataclasses.fields(recipe)}
    for field in shared - {"clip_norm", "warmup_epochs", "micro_batch", "momentum"}:
        assert getattr(training, field) == getattr(recipe, field)
    assert dataclasses.replace(recipe, epochs=1, warmup_epochs=10.0).training().warmup_epochs == 0.5
    assert dataclasses.replace(recipe, clip_norm=0.0).training().clip_norm is None
    assert dataclasses.replace(recipe, clip_norm=2.0).training().clip_norm == 2.0
    assert dataclasses.replace(recipe, micro_batch=0).training().micro_batch is None
    assert dataclasses.replace(recipe, micro_batch=8).training().micro_batch == 8
    assert dataclasses.replace(recipe, momentum=0.5).training().momentum == Training().momentum  # that one is SGD's


def test_zero_takes_what_suits_the_method():
    recipe = tiny.shrunk(table.find("byol-ldraw40"), projection_dim=0, hidden_dim=0, momentum=0.0)
    assert recipe.make_method(8).start_momentum == 0.99
    assert dataclasses.replace(recipe, momentum=0.9).make_method(8).start_momentum == 0.9
    widths = {name: dataclasses.replace(recipe, method=name).make_method(8).projector[-1].out_features
              for name in ("simclr", "vicreg")}
    assert widths == {"simclr": 128, "vicreg": 1024}


@pytest.mark.parametrize("micro_batch", [0, 3])
@of_shapes
def test_every_method_trains(name, recipe, micro_batch, tmp_path):
    recipe = tiny.shrunk(recipe, dataset=str(tiny.write_npz(tmp_path / "own.npz")), micro_batch=micro_batch)
    _, outcome = pretrain(name, recipe, Machine(out=tmp_path / "run", quiet=True))
    assert outcome.status == "finished"
    assert math.isfinite(outcome.metrics["loss"])
    assert "alignment" in outcome.metrics


@of_shapes
def test_round_trip(name, recipe, tmp_path):
    changed = tiny.shrunk(recipe, layers=(8, 12), categories=("Chair", "Mug"), lr=1e-3, dynamic=not recipe.dynamic)
    for kept in (recipe, changed):
        (tmp_path / "recipe.json").write_text(json.dumps(record(name, kept)))
        run = load_run(tmp_path)
        assert (run.name, run.recipe, run.title) == (name, kept, tmp_path.name)
        assert hash(run.recipe) == hash(kept)


def test_documentation(name):
    documentation = table.documentation(name)
    assert re.search(rf"^    (torchrun .*-m )?contrast3d pretrain {name}( |$)", documentation, re.M)
    assert re.search(rf"^    contrast3d evaluate [\w-]+ runs/{name}( |$)", documentation, re.M)
    assert 20 < len(table.summary(name)) < 110
    assert table.summary(name) == documentation.splitlines()[0].rstrip(".")


def test_the_faithful_recipe_has_the_defects_and_the_corrected_one_has_none():
    faithful, corrected = (table.find(f"simclr-shapenetpart-{x}") for x in ("faithful", "corrected"))
    assert (faithful.identical_views, faithful.shared_draws) == (True, True)
    assert (corrected.identical_views, corrected.shared_draws) == (False, False)
    assert (faithful.epochs, faithful.batch_size) == (corrected.epochs, corrected.batch_size) == (50, 32)
    assert faithful.make_encoder().state_dict().keys() == corrected.make_encoder().state_dict().keys()
    assert sum(p.numel() for p in faithful.make_encoder().parameters()) == 45_952


@pytest.mark.parametrize("kind", PARAMETER_NAMES)
def test_parameter_names_stay(kind):
    encoder = tiny.shrunk(table.find("simclr-ldraw40"), encoder=kind, layers=(8, 8)).make_encoder()
    assert {re.sub(r"\.\d+\.", ".#.", key) for key in encoder.state_dict()} == PARAMETER_NAMES[kind]


def test_an_unknown_recipe_is_met_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean simclr-modelnet40"):
        table.find("simclr-modelnet")


@of_shapes
def test_a_loader_shares_the_batch_among_processes(recipe, tmp_path):
    recipe = tiny.shrunk(recipe, dataset=str(tiny.write_npz(tmp_path / "own.npz")))
    shapes = recipe.pretraining_shapes(tmp_path)
    loader = recipe.make_loader(shapes, Ranks(1, 2, 1, torch.device("cpu")))
    views = loader.batch(0, 0)
    assert [len(view) for view in views] == [8] * recipe.views
    assert bool(views[0].points.equal(views[-1].points)) is (recipe.identical_views or recipe.views == 1)


# Data.


def test_a_file_of_your_own_is_split_by_label(tmp_path):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"), dataset=str(tiny.write_npz(tmp_path / "own.npz")))
    train, test = (recipe.shapes(split, tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (48, 12)
    assert not set(train.names) & set(test.names)
    assert test.labels.bincount().tolist() == [4, 4, 4]


def test_holdout_leaves_the_official_test_split_alone(tmp_path):
    tiny.write_modelnet40(tmp_path, counts=(("train", 32),))  # reading the test split would fail
    recipe = tiny.shrunk(table.find("simclr-modelnet40"), holdout=4)
    train, test = (recipe.shapes(split, tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (24, 8)
    assert not set(train.names) & set(test.names)


def test_extra_sets_and_files_join_without_labels(tmp_path):
    own, more = tiny.write_npz(tmp_path / "own.npz"), tiny.write_npz(tmp_path / "more.npz", shapes=7)
    tiny.write_modelnet40(tmp_path)
    recipe = tiny.shrunk(
        table.find("simclr-ldraw40"), dataset=str(own), extra_datasets=(str(more), "SweetHome3D", "ModelNet40")
    )
    shapes = recipe.pretraining_shapes(tmp_path)
    assert len(shapes) == 48 + 7 + 747 + 32
    assert shapes.labels is None


@pytest.mark.parametrize(("dataset", "split"), [("LDraw40", "all"), ("ShapeNetPart", "train"), ("x.npz", "all")])
def test_widest_split(dataset, split):
    assert datasets.widest_split(dataset) == split


def test_a_set_in_one_piece_is_split_by_label(tmp_path):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"), dataset="SweetHome3D")
    train, test = (recipe.shapes(split, tmp_path) for split in ("train", "test"))
    assert len(train) + len(test) == 481
    assert 90 <= len(test) <= 100
    assert not set(train.names) & set(test.names)
    assert train.labels.min() >= 0


def test_a_set_in_one_piece_without_labels_is_trained_on_whole():
    assert datasets.is_whole("LDrawPool")
    assert datasets.whole_split("LDrawPool") == "all"
    assert datasets.whole_split("own.npz") == "all"
    assert not datasets.is_whole("ModelNet40")


def test_a_missing_split_is_told(tmp_path):
    with pytest.raises(ConfigError, match="SweetHome3D has no test split, only all, labelled"):
        datasets.read("SweetHome3D", "test", tmp_path, 48)


def test_a_file_goes_by_its_path(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset = 'arrays'; expected the path of your file, ending in \.npz"):
        tiny.shrunk(table.find("simclr-ldraw40"), dataset="arrays").shapes("train", tmp_path)
    with pytest.raises(ConfigError, match="no data set 'nonsense'") as error:
        datasets.find("nonsense")
    assert "arrays" not in str(error.value)


def test_labels_too_few_to_part_a_file(tmp_path):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"), dataset=str(tiny.write_npz(tmp_path / "own.npz", shapes=3)))
    assert len(recipe.shapes("train", tmp_path)) == 3
    with pytest.raises(DataError, match="3 samples in 3 groups"):
        recipe.shapes("test", tmp_path)


# End to end.

STORIES = {
    "own file": ("simclr-modelnet40", lambda root: tiny.write_npz(root / "own.npz"), "own"),
    "hdf5 release of ModelNet40": ("simclr-modelnet40", tiny.write_modelnet40, "modelnet40"),
    "txt release of ShapeNetPart": (
        "simclr-shapenetpart-faithful", lambda root: tiny.write_shapenetpart(root, "txt"), "shapenetpart",
    ),
    "hdf5 release of ShapeNetPart": (
        "simclr-shapenetpart-corrected", lambda root: tiny.write_shapenetpart(root, "hdf5"), "shapenetpart",
    ),
}


@pytest.mark.filterwarnings("ignore:the best C")  # so few shapes leave little to choose
@pytest.mark.parametrize("story", STORIES)
def test_pretrain_evaluate_report(story, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))
    name, write, dataset = STORIES[story]
    place, out = write(tmp_path), str(tmp_path / "run")
    recipe, root = tiny.shrunk(table.find(name)), ["--data-root", str(tmp_path)]
    if place.is_file():
        recipe = dataclasses.replace(recipe, dataset=str(place))

    assert cli.main(["pretrain", name, *tiny.flags(name, recipe), *root, "--out", out, "--quiet"]) == 0
    run = load_run(out)
    assert (run.name, run.recipe) == (name, recipe)
    assert math.isfinite(run.folder.metrics()[0]["loss"])

    assert cli.main(["evaluate", "svm", out, *root, "--labels", "2", "0", "--draws", "2"]) == 0
    assert cli.main(["evaluate", "linear-report", out, *root, "--draws", "1"]) == 0
    assert "untrained encoder" in capsys.readouterr().out
    results = run.folder.results()
    svm = next(r for key, r in results.items() if key.startswith("svm-" + dataset) and key.endswith("-2"))
    assert (svm["recipe"], svm["metric"], svm["seeds"], len(svm["values"])) == (name, "accuracy", [0, 1], 2)
    assert set(svm["baselines"]) == {"majority class", "training-free", "untrained encoder"}
    reported = next(r for key, r in results.items() if key.startswith("linear-report-") and key.endswith("all"))
    assert 0 <= reported["mean"] <= 1

    assert cli.main(["report", out, *root]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"contrast3d pretrain {name}" in page
    assert "svm probe" in page
    assert "linear-report probe" in page


@pytest.mark.parametrize(("fields", "told"), [
    ({"method": "byol", "temperature": 0.3}, "--temperature changes nothing with --method byol: leave it out"),
    ({"method": "instance-discrimination", "identical_views": True}, "--identical-views changes nothing with --method"),
    ({"encoder": "pointnet", "layers": (8, 8)}, "--layers changes nothing with --encoder pointnet"),
    ({"step_epochs": 3}, "--step-epochs changes nothing with --schedule cosine"),
    ({"categories": ("Mug",)}, "--categories changes nothing with --dataset"),
    ({"labels_from": "folders"}, "--labels-from changes nothing with --dataset"),
])
def test_a_field_that_changes_nothing_is_refused(fields, told, tmp_path):
    recipe = dataclasses.replace(table.find("simclr-ldraw40"), dataset=str(tmp_path / "own.npz"), **fields)
    with pytest.raises(ConfigError, match=told):
        pretrain("simclr-ldraw40", recipe, Machine(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_fields_of_extra_sets_have_an_effect(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for extra, fields in (((str(folder),), {"up": "y"}), (("ShapeNetPart",), {"categories": ("Mug",), "up": "y"})):
        recipe = dataclasses.replace(table.find("simclr-ldraw40"), extra_datasets=extra, **fields)
        assert not set(recipe.idle_fields()) & set(fields)


@pytest.mark.filterwarnings("ignore:Features have collapsed")
def test_a_batch_of_all_shapes_is_told(tmp_path):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"), dataset=str(tiny.write_npz(tmp_path / "own.npz")), batch_size=99)
    with pytest.warns(UserWarning, match="batch_size = 99, but there are 48 shapes"):
        pretrain("simclr-ldraw40", recipe, Machine(out=tmp_path / "run", quiet=True))
