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
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.runs import Run

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
    assert reporting.report(run).stat().st_size > 10_000


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


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 3, "lr": 3e-5, "temperature": 1.0},
        {"dynamic": False, "shared_draws": True, "head_norm": False},
        {"layers": (8, 16), "strides": (4, 1), "k": 2, "categories": ("Chair", "Mug")},
        {"dataset": "my shapes.npz", "extra_datasets": ()},
    ],
)
@pytest.mark.parametrize("name", table.RECIPES)
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
    assert reporting.predictions(results, 3).tolist() == [0, 1, 2]
    assert reporting.predictions(results, 4) is None
    assert reporting.predictions({}, 3) is None


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
    (shown,) = reporting.result_tables(results)
    assert shown.title == "own: svm probe"
    assert tuple(shown.columns) == ("", "5", "20", "all")
    rows = dict(shown.rows)
    assert rows["supervised"] == [None, None, (0.5, None)]
    assert rows[NAME] == [(0.5, None)] * 3
