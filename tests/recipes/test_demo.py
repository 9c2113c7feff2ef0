"""The demo, on shapes so few that it is over in a moment."""

from __future__ import annotations

import dataclasses
import signal

import pytest
import tiny

from contrast3d import cli
from contrast3d.recipes import demo, table
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.machine import Machine


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = tiny.shrunk(demo.RECIPE, dataset=str(tiny.write_npz(tmp_path / "own.npz")))
    monkeypatch.setattr(demo, "RECIPE", recipe)
    return recipe


def test_it_is_a_budget_of_the_recipe_it_names():
    """Only what costs time differs, so that the demo shows what the recipe does."""
    full = table.find(demo.NAME)
    differing = {
        f.name for f in dataclasses.fields(full) if getattr(full, f.name) != getattr(demo.RECIPE, f.name)
    }
    assert differing <= {
        "epochs", "batch_size", "num_points", "probe_every", "lr", "warmup_epochs", "layers", "strides", "k",
        "embed_dim", "extra_datasets", "dynamic", "weight_decay", "hidden_dim", "augmentation",
    }
    assert demo.RECIPE.dataset == full.dataset == "LDraw40"
    assert demo.RECIPE.epochs < full.epochs


@pytest.mark.filterwarnings("ignore:the best C")
def test_the_whole_story(small, tmp_path, capsys, monkeypatch):
    less = {"labels_per_class": (5, None), "draws": 2}
    monkeypatch.setattr(demo, "evaluate", lambda *args, **options: evaluate(*args, **{**options, **less}))
    assert cli.main(["demo", "--quiet"]) == 0
    said = capsys.readouterr()
    for row in ("majority class", "training-free", "untrained encoder", "supervised"):
        assert row in said.out
    page = tmp_path / said.out.split("report: ")[1].strip()
    assert page == tmp_path / "runs" / "demo" / "report.html"
    assert page.stat().st_size > 50_000
    assert "... report" in said.err


def test_a_finished_demo_does_not_train_again(small, tmp_path, monkeypatch):
    told = []
    machine = Machine(out=tmp_path / "run", quiet=True)
    monkeypatch.setattr(demo, "evaluate", lambda *args, **options: told.append(options["supervised_seconds"]))
    monkeypatch.setattr(demo, "report", lambda run, root, **options: run.path)
    first, again = (demo.demo(machine, told.append) for _ in range(2))
    told = [word for word in told if "compiling" not in str(word)]
    assert told == [first[0].seconds, "report", again[0].seconds, "report"]  # the budget of the supervised contestant
    assert again[0].seconds == pytest.approx(first[0].seconds, abs=0.2)
    assert again[0].steps == first[0].steps


def test_an_interrupted_demo_says_how_to_go_on(small, capsys, monkeypatch):
    class Impatient(demo.RECIPE.__class__):
        def make_loader(self, shapes, ranks):
            loader = super().make_loader(shapes, ranks)
            batch = loader.batch

            def interrupted(epoch, step):
                if step == 1:
                    signal.raise_signal(signal.SIGINT)
                return batch(epoch, step)

            loader.batch = interrupted
            return loader

    monkeypatch.setattr(demo, "RECIPE", Impatient(**dataclasses.asdict(small)))
    assert cli.main(["demo", "--quiet", "--out", "my demo"]) == 130
    assert capsys.readouterr().err.endswith("To go on: contrast3d demo --quiet --out 'my demo'\n")


def test_under_torchrun_the_first_process_goes_on_alone(small, tmp_path, monkeypatch):
    machine = Machine(out=tmp_path / "run", quiet=True)
    demo.pretrain(demo.NAME, demo.RECIPE, machine)
    finished = demo.pretrain(demo.NAME, demo.RECIPE, machine)
    monkeypatch.setattr(demo, "pretrain", lambda *arguments: finished)
    monkeypatch.setenv("RANK", "1")
    assert demo.demo(machine, lambda message: None)[1:] == (None, None)
