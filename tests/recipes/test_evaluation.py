"""`evaluate`: protocols on a run, and the result files they leave."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from contrast3d.errors import ConfigError, DataError
from contrast3d.recipes import table
from contrast3d.recipes.evaluate import evaluate, supervised_baseline
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain

NAME = "simclr-ldraw40"
KEYS = {
    "recipe", "protocol", "dataset", "metric", "labels_per_class", "mean", "std", "values", "seeds",
    "pretraining_seed", "baselines", "paper", "chosen", "commit", "data_hash", "command", "wall_s", "device",
    "overrides", "step", "epoch",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    recipe = tiny.shrunk(table.find(NAME), dataset=str(tiny.write_npz(folder / "own.npz")), seed=5)
    run, outcome = pretrain(NAME, recipe, Machine(out=folder / "run", quiet=True))
    assert outcome.status == "finished"
    return run


def weights(run) -> bytes:
    return (run.path / "encoder.safetensors").read_bytes()


@pytest.mark.filterwarnings("ignore:the best C")
def test_protocols_leave_results_and_the_encoder_as_it_was(run):
    before, told = weights(run), []
    outcome = evaluate("linear", run, labels_per_class=(2, None), draws=2, seed=3, on_progress=told.append)
    assert outcome.contestants == ["majority class", "training-free", "untrained encoder", "run"]
    assert told == ["training-free", "untrained encoder", "run"]
    assert weights(run) == before
    results = {name: r for name, r in run.folder.results().items() if name.startswith("linear-own")}
    assert len(results) == 4  # two numbers of labels, two metrics
    for result in results.values():
        assert result.keys() == KEYS
        assert (result["recipe"], result["pretraining_seed"]) == (NAME, 5)
        assert result["overrides"]["embed_dim"] == 16
        assert "temperature" not in result["overrides"]
        assert (result["step"], result["epoch"]) == (run.folder.load_state()["step"], 1)
        assert result["mean"] == pytest.approx(sum(result["values"]) / len(result["values"]))
        assert set(result["baselines"]) == {"majority class", "training-free", "untrained encoder"}
    few = next(r for r in results.values() if r["labels_per_class"] == 2 and r["metric"] == "accuracy")
    assert few["seeds"] == [3, 4]
    assert few["baselines"]["majority class"]["mean"] == pytest.approx(1 / 3)
    predictions = run.folder.results()["predictions-linear"]
    assert len(predictions["classes"]) == 12
    assert (predictions["protocol"], predictions["labels_per_class"]) == ("linear probe", "all")
    assert predictions["step"] == few["step"]


def test_only_all_labels_leave_predictions(run):
    evaluate("svm", run, labels_per_class=(2,), draws=1)
    assert "predictions-svm" not in run.folder.results()


def test_again_gives_the_same_numbers(run):
    first, again = (evaluate("knn", run, labels_per_class=(3,), draws=2) for _ in range(2))
    for contestant in first.contestants:
        assert first.cell(contestant, 3) == again.cell(contestant, 3)


def test_repeated_numbers_of_labels_count_once(run):
    outcome = evaluate("knn", run, labels_per_class=(2, 2, None), draws=1)
    assert outcome.budgets == (2, None)
    assert len(outcome.cell("run", 2).values) == 1


def test_linear_report_stands_beside_its_own_baselines(run):
    before = weights(run)
    outcome = evaluate("linear-report", run, draws=2)
    assert outcome.contestants == ["majority class", "untrained encoder", "run"]
    assert len(outcome.cell("run", None).values) == 2
    assert weights(run) == before
    path = next(run.path.glob("results/linear-report-*-all.json"))
    assert json.loads(path.read_text())["protocol"] == "linear-report probe"


def test_retrieval(run):
    outcome = evaluate("retrieval", run, draws=2)
    assert list(outcome.values) == ["training-free", "untrained encoder", "run"]
    result = run.folder.results()["retrieval-ownheldoutpart-mean_average_precision"]
    assert result.keys() == KEYS
    assert result["mean"] == outcome.values["run"][0]
    assert result["overrides"]["embed_dim"] == 16


def test_the_supervised_contestant(run):
    outcome = evaluate("knn", run, labels_per_class=(2, 10), draws=2, supervised_seconds=0.05, supervised_draws=1)
    assert outcome.cell("supervised", 2) is None
    assert len(outcome.cell("supervised", 10).values) == 1
    contestant = supervised_baseline(run.recipe, 0.05, torch.device("cpu"), draws=1)
    train, test = (run.recipe.shapes(split, run.path) for split in ("train", "test"))
    assert contestant.fit(train, test, 0).predictions.shape == (12,)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"protocol": "svn"}, r"no protocol 'svn' \(did you mean svm"),
        ({"labels_per_class": ()}, "labels per class"),
        ({"labels_per_class": (5, 0)}, "expected numbers of at least 1, or all"),
        ({"draws": 0}, "draws = 0"),
        ({"protocol": "linear-report", "labels_per_class": (5,)}, "linear-report knows no few labels"),
        ({"protocol": "retrieval", "labels_per_class": (5,)}, "retrieval knows no --labels"),
        ({"protocol": "retrieval", "supervised_seconds": 1.0}, "retrieval knows no --supervised-seconds"),
        ({"seed": -1}, "seed = -1"),
        ({"supervised_seconds": -1.0}, "supervised_seconds = -1"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_mistakes(run, options, told):
    protocol = options.pop("protocol", "linear")
    with pytest.raises(ConfigError, match=told):
        evaluate(protocol, run, **options)


@pytest.mark.filterwarnings("ignore:the best C")
def test_other_data_than_the_run_s_own(run, tmp_path):
    other = tiny.write_npz(tmp_path / "other.npz", shapes=40, classes=4)
    before = run.folder.results().get("predictions-linear")
    truth = evaluate("linear", run, labels_per_class=(2, None), draws=1, dataset=str(other)).test_labels
    assert (len(truth), set(truth.tolist())) == (8, {0, 1, 2, 3})  # a fifth of it
    names = {name.rsplit("-", 2)[0]: name for name in run.folder.results()}
    assert "linear-otherrest" in names
    assert run.folder.results().get("predictions-linear") == before  # they are the report's, of the run's own data
    assert evaluate("retrieval", run, draws=1, dataset=str(other)).shapes == 40
    for name in (None, "SweetHome3D"):
        with pytest.raises(ConfigError, match="--up y belongs to a --dataset of your own"):
            evaluate("knn", run, up="y", dataset=name)


def test_other_data_of_the_same_name_replace_no_result(run, tmp_path):
    own = evaluate("retrieval", run, draws=1)
    before = run.folder.results()
    for folder, classes in (("a", 3), ("b", 4)):
        (tmp_path / folder).mkdir()
        other = tiny.write_npz(tmp_path / folder / "own.npz", shapes=30, classes=classes)
        evaluate("retrieval", run, draws=1, dataset=str(other))
    after = run.folder.results()
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    again = evaluate("retrieval", run, draws=1, dataset=run.recipe.dataset)  # its own, by name
    assert again.cell(again.ours) == own.cell(own.ours)
    assert set(run.folder.results()) == set(after)


def test_one_class_is_no_problem_to_solve(run, tmp_path):
    one = tiny.write_npz(tmp_path / "one.npz", classes=1)
    with pytest.raises(DataError, match="one class; expected at least two"):
        evaluate("linear", run, dataset=str(one))


@pytest.mark.filterwarnings("ignore:the best C")
def test_epochs_asked_for_are_those_taken(run):
    told = []
    found = evaluate("finetune", run, labels_per_class=(None,), draws=1, epochs=1, on_progress=told.append)
    assert found.protocol == "fine-tuning (epochs 1, min_steps 0)"  # the floor of steps is the default's alone
    assert not any("epoch" in message for message in told)  # over before it would tell how far it is
