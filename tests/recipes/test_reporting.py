"""The report page as the recipes put it together."""

from __future__ import annotations

import dataclasses
import shlex

import numpy as np
import pytest
import tiny

from contrast3d import cli
from contrast3d.engine.run_dir import RunDir
from contrast3d.recipes import reporting, table
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.masked import MaskedRecipe
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.runs import Run
from contrast3d.recipes.scene_contrast import SceneRecipe

NAME = "simclr-ldraw40"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reporting")
    recipe = tiny.shrunk(table.find(NAME), dataset=str(tiny.write_npz(folder / "own.npz")), epochs=2)
    run, _ = pretrain(NAME, recipe, Machine(out=folder / "run", quiet=True))
    return run


def test_a_run_without_results_has_a_page(run):
    page = reporting.report(run, path=run.path / "early.html").read_text()
    assert "own.npz" in page
    assert "class2" in page  # of the map's legend
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_page_shows_results(run):
    evaluate("knn", run, labels_per_class=(2, None), draws=2)
    path = reporting.report(run)
    assert path == run.path / "report.html"
    page = path.read_text()
    for words in ("knn probe", "majority class", "untrained encoder", reporting.command_of(run).split(" --")[0]):
        assert words in page
    assert path.read_bytes() == reporting.report(run, path=run.path / "again.html").read_bytes()


def test_a_page_of_shapes_without_labels(tmp_path):
    file = tmp_path / "bare.npy"
    np.save(file, tiny.clouds(np.arange(20) % 3, 48))
    recipe = tiny.shrunk(table.find(NAME), dataset=str(file))
    run, outcome = pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True))
    assert "knn" not in "".join(outcome.metrics)
    page = reporting.report(run).read_text()
    assert "features of 20 training shapes" in page
    assert "test shapes" not in page


def test_views_are_those_of_training(run):
    shapes = run.recipe.shapes("train", run.path)
    pairs = reporting.view_pairs(run.recipe, shapes, count=5)
    assert len(pairs) == 5
    for pair in pairs:
        assert pair.first.shape == pair.second.shape == (run.recipe.num_points, 3)
        assert not np.array_equal(pair.first, pair.second)
        assert any(np.array_equal(pair.original, cloud) for cloud in shapes.points.numpy())
    same = reporting.view_pairs(dataclasses.replace(run.recipe, identical_views=True), shapes, count=5)
    assert all(np.array_equal(pair.first, pair.second) for pair in same)


def test_views_page_makes_its_folder(run, tmp_path):
    assert reporting.views_page(run.recipe, tmp_path / "new" / "views.html", run.path).is_file()


OF_ALL = [{}, {"epochs": 3, "lr": 3e-5, "temperature": 1.0}]
OF_SHAPES = [
    {"dynamic": False, "shared_draws": True, "head_norm": False},
    {"layers": (8, 16), "strides": (4, 1), "k": 2, "categories": ("Chair", "Mug")},
    {"dataset": "my shapes.npz", "extra_datasets": ()},
]
OF_PATCHES = [
    {"stop_gradient": False, "with_test_shapes": True, "num_patches": 8, "mask": "block"},
    {"queries": ("cls", "img", "text", "my own"), "readout": ("max",), "dataset": "my shapes.npz"},
]
OF_SCENES = [
    {"squared_positive": False, "upright": True, "width": 0.25}, {"dataset": "my scenes", "test_scenes": ("a b", "c")},
]


OF_KINDS = {SceneRecipe: OF_SCENES, MaskedRecipe: OF_PATCHES}


@pytest.mark.parametrize(("name", "changes"), [
    (name, changes) for name in table.RECIPES
    for changes in OF_ALL + OF_KINDS.get(type(table.find(name)), OF_SHAPES)
    if not (name == "supervised-rooms" and "dataset" in changes)  # no labels there
])
def test_the_command_of_a_run_repeats_it(name, changes, monkeypatch):
    run = Run(RunDir("anywhere"), name, dataclasses.replace(table.find(name), **changes))
    parsed = []

    def fake(name, recipe, machine):
        parsed.append((name, recipe))
        raise KeyboardInterrupt

    monkeypatch.setattr("contrast3d.recipes.pretrain.pretrain", fake)
    words = shlex.split(reporting.command_of(run))
    assert words[:3] == ["contrast3d", "pretrain", name]
    assert cli.main(words[1:]) == 130
    assert parsed == [(name, run.recipe)]


def test_predictions_that_do_not_fit_are_left_out():
    results = {"predictions-linear": {"classes": [0, 1, 2]}, "linear-own-all": {"metric": "accuracy"}}
    found, whose = reporting.predictions(results, 3)
    assert (found.tolist(), whose) == ([0, 1, 2], "the linear probe (number of labels not recorded)")
    assert reporting.predictions(results, 4)[0] is None
    assert reporting.predictions({}, 3)[0] is None


def test_linear_predictions_go_before_those_of_knn():
    names = enumerate(("knn", "linear"))
    results = {f"predictions-{p}": {"classes": [i], "protocol": f"{p} probe", "step": 8} for i, p in names}
    found, whose = reporting.predictions(results, 1, step=8)
    assert (found.tolist(), whose) == ([1], "the linear probe (all labels)")
    assert "stale: of step 8" in reporting.predictions(results, 1, step=12)[1]


def test_the_head_tells_where_the_run_comes_from_and_whether_it_is_over(run, monkeypatch):
    monkeypatch.setattr("contrast3d.recipes.runs.commit", lambda: "of this process")
    test = run.recipe.shapes("test", run.path)
    told = reporting.summary(run, test, "test shapes")
    assert (told["commit"], told["machine"]) == (run.origin()["commit"], run.origin()["device"])
    assert "unfinished" not in told["trained"]
    longer = Run(run.folder, run.name, dataclasses.replace(run.recipe, epochs=7))
    assert reporting.summary(longer, test, "test shapes")["trained"].endswith("unfinished, 7 epochs planned")


def test_labels_without_classes_have_a_page(tmp_path):
    labels = np.arange(30) % 3
    np.savez(tmp_path / "numbered.npz", points=tiny.clouds(labels, 48), label=labels)
    recipe = tiny.shrunk(table.find(NAME), dataset=str(tmp_path / "numbered.npz"))
    run, _ = pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True))
    evaluate("knn", run, labels_per_class=(None,), draws=1)
    page = reporting.report(run).read_text()
    assert "columns what the knn probe (all labels) said" in page
    assert "test shapes" in page


def test_an_epoch_that_is_not_probed_leaves_no_gap(tmp_path):
    recipe = tiny.shrunk(
        table.find(NAME), dataset=str(tiny.write_npz(tmp_path / "own.npz")), epochs=5, probe_every=2
    )
    run, outcome = pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True))
    assert [line["epoch"] for line in run.folder.metrics() if line["kind"] == "epoch"] == [2, 4, 5]
    assert "knn_accuracy" in outcome.metrics
    page = reporting.report(run).read_text()
    assert "not finite" not in page
    assert "<h3>Alignment</h3>" in page


def test_result_tables_put_columns_in_order_and_gaps_where_nothing_was_run():
    cell = {"mean": 0.5, "std": None}

    def result(labels, **baselines):
        return {
            "metric": "accuracy", "dataset": "own", "protocol": "svm probe", "recipe": NAME, "values": [0.5],
            "labels_per_class": labels, "mean": 0.5, "std": None, "baselines": baselines,
        }

    results = {
        "c": result("all", supervised=cell, majority=cell), "b": result(20, majority=cell),
        "a": result(5, majority=cell),
        "x": {**result(5), "metric": "balanced_accuracy"}, "predictions-svm": {"classes": []},
    }
    (shown,) = reporting.result_tables(results, step=8)  # results of older versions do not tell their step
    assert "Stale" not in shown.note
    results["a"]["step"], results["b"]["step"] = 4, 8
    (shown,) = reporting.result_tables(results, step=8)
    assert "Stale: '5' is of step 4. The run has gone on to step 8; evaluate it again." in shown.note
    assert "'20'" not in shown.note
    assert shown.title == "own: svm probe"
    assert tuple(shown.columns) == ("", "5", "20", "all")
    rows = dict(shown.rows)
    assert rows["supervised"] == [None, None, (0.5, None)]
    assert rows[NAME] == [(0.5, None)] * 3
