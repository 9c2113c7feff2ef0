"""Modes, votes, few-shot by fine-tuning, the released SVM and readouts in `evaluate`, on runs of patch transformers."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from contrast3d import cli
from contrast3d.errors import ConfigError
from contrast3d.recipes import table
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.evaluate_tuned import TunedOptions, splits_for
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain

pytestmark = [pytest.mark.filterwarnings("ignore:the best C"), pytest.mark.filterwarnings("ignore:Features have")]
NAME = "point-mae-ldraw40"
FIELDS = {"shape_points": 48, "num_points": 32, "width": 48, "depth": 2, "num_patches": 8, "patch_size": 8,
          "block": "two-stream", "queries": ("cls", "img", "text"), "readout": ("queries-max", "max+mean"),
          "decoder_depth": 1, "epochs": 1, "warmup_epochs": 0.0, "batch_size": 16, "probe_every": 1}
FROZEN, MAJORITY, UNTRAINED = "linear probe, frozen", "majority class", "untrained encoder"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("objects")
    recipe = dataclasses.replace(table.find(NAME), dataset=str(tiny.write_npz(folder / "own.npz")), **FIELDS)
    yield pretrain(NAME, recipe, Machine(out=folder / "run", quiet=True))[0]
    torch.set_num_threads(threads)


def results(run, start):
    return {name: r for name, r in run.folder.results().items() if name.startswith(start)}


def test_modes_and_votes_stand_beside_each_other(run):
    found = evaluate("finetune", run, labels_per_class=(None,), epochs=1, mode="mlp-linear", voting="mean",
                     augmentation="rotate-up")
    assert found.contestants == [MAJORITY, FROZEN, UNTRAINED, "run", "fine-tuned, mean of 10 passes"]
    assert found.protocol == "fine-tuning, mlp-linear (epochs 1, min_steps 0, augmentation rotate-up)"
    (name,) = [n for n in results(run, "finetune") if "balanced" not in n]
    assert name == "finetune-mlp-linear-ownrest-all"
    assert "predictions-finetune-mlp-linear" not in run.folder.results()


def test_as_released(run):
    found = evaluate("finetune", run, epochs=1, mode="mlp-3", published=True)
    assert found.budgets == (None,)
    title = "fine-tuning as released by ReCon, mlp-3, best epoch chosen on test"
    assert found.protocol.startswith(title)
    assert len(results(run, "finetune-mlp-3-published")) == 2


def test_few_shot_by_finetuning(run):
    options = {"ways": (2,), "shots": (4,), "trials": 2, "epochs": 1}
    found = evaluate("few-shot-finetune", run, mode="mlp-3", **options)
    assert found.contestants == [MAJORITY, FROZEN, UNTRAINED, "run"]
    (result,) = [r for n, r in results(run, "few-shot-finetune-mlp-3").items() if "balanced" not in n]
    assert (result["condition"], len(result["values"])) == ("2-way 4-shot", 2)
    assert result["std"] is not None
    published = evaluate("few-shot-finetune", run, published=True, **options)
    assert published.protocol.startswith("few-shot fine-tuning as released by ReCon, best epoch chosen on test")


def test_the_released_svm_and_readouts(run):
    found = evaluate("svm-released", run, draws=2)
    assert len(found.cell("run", None).values) == 2
    assert len(results(run, "svm-released-own")) == 2
    read = evaluate("svm", run, labels_per_class=(None,), draws=1, readout=("cls", "max"))
    assert read.protocol == "svm probe, read from cls, max"
    assert "svm-cls-max-ownrest-all" in results(run, "svm-cls-max")
    with pytest.raises(ConfigError, match="readout"):
        evaluate("svm", run, readout=("nothing",))


def test_readouts_of_retrieval_and_robustness(run):
    plain, read = evaluate("retrieval", run, draws=1), evaluate("retrieval", run, draws=1, readout=("cls",))
    assert plain.values["run"] != read.values["run"]
    assert plain.values[UNTRAINED] != read.values[UNTRAINED]
    assert read.protocol == "retrieval, read from cls"
    saved = run.folder.results()["retrieval-cls-ownheldoutpart-mean_average_precision"]
    assert saved["protocol"] == "retrieval, read from cls"
    table = evaluate("robustness", run, draws=1, readout=("cls",))
    assert table.protocol == "linear probe under corruption, read from cls"


def test_the_command_line_knows_them(run, capsys):
    words = ["evaluate", "finetune", str(run.path), "--labels", "4", "--draws", "1", "--epochs", "1", "--mode", "mlp-3"]
    assert cli.main(words) == 0
    assert "fine-tuning, mlp-3" in capsys.readouterr().out.replace("\n", " ")
    for flag, value in (("--mode", "linear"), ("--voting", "yes")):
        assert cli.main(["evaluate", "finetune", str(run.path), flag, value]) == 2
        assert flag.strip("-") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("protocol", "options", "told"),
    [
        ("linear", {"mode": "mlp-3"}, "linear knows no --mode"),
        ("few-shot", {"published": True}, "few-shot knows no --published"),
        ("few-shot-finetune", {"voting": "mean"}, "knows no --voting"),
        ("svm-released", {"readout": ("max",)}, "svm-released knows no --readout"),
        ("retrieval", {"augmentation": "none"}, "retrieval knows no --augmentation"),
        ("finetune", {"augmentation": "objcts"}, "no augmentation preset"),
    ],
)
def test_flags_of_other_protocols(run, protocol, options, told):
    with pytest.raises(ConfigError, match=told):
        evaluate(protocol, run, **options)


def test_scans_are_read_with_as_many_points_as_released(run, monkeypatch):
    seen, splits = [], run.recipe.splits(run.path)
    recipe = dataclasses.replace(run.recipe, dataset="ScanObjectNN")
    monkeypatch.setattr(type(recipe), "splits", lambda self, root: seen.append(self.shape_points) or splits)
    for protocol, published in (("finetune", True), ("finetune", False), ("few-shot-finetune", True)):
        splits_for(protocol, recipe, run.path, published)
    assert seen == [2048, 48, 48]
    given = TunedOptions("full", published=True).arguments(recipe.make_reader(), recipe, few_shot=False)
    assert (given["how"].num_points, given["how"].augmentation, given["best_on_test"]) == (2048, "rotate-up", True)
