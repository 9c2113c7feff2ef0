"""`evaluate finetune` and its twin that selects on test, on a run: results, report, comparison, Ctrl-C."""

from __future__ import annotations

import dataclasses
import signal

import pytest
import tiny

from contrast3d import cli
from contrast3d.errors import ConfigError
from contrast3d.recipes import evaluate_flags as module
from contrast3d.recipes import reporting, table
from contrast3d.recipes.compare import compare, tables
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain

NAME = "simclr-ldraw40"
pytestmark = pytest.mark.filterwarnings("ignore:the best C")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetuning")
    recipe = tiny.shrunk(table.find(NAME), dataset=str(tiny.write_npz(folder / "own.npz")))
    recipes = {"run": recipe, "other": dataclasses.replace(recipe, temperature=0.5)}
    return {name: pretrain(NAME, r, Machine(out=folder / name, quiet=True))[0] for name, r in recipes.items()}


def results(run, start):
    return {name: r for name, r in run.folder.results().items() if name.startswith(start)}


def test_results_report_and_comparison(runs):
    told, weights = [], (runs["run"].path / "encoder.safetensors").read_bytes()
    outcome = evaluate(
        "finetune", runs["run"], labels_per_class=(5, "50%", None), draws=2, epochs=2, on_progress=told.append
    )
    assert outcome.contestants == ["majority class", "linear probe, frozen", "from scratch", "run"]
    assert (runs["run"].path / "encoder.safetensors").read_bytes() == weights
    assert "run, 50% labels per class, draw 2 of 2" in told
    found = results(runs["run"], "finetune-own")
    assert len(found) == 6
    result = found["finetune-ownrest-50percent"]
    called = "fine-tuning (epochs 2, min_steps 0)"
    assert (result["protocol"], result["labels_per_class"], len(result["values"])) == (called, "50%", 2)
    assert set(result["baselines"]) == {"majority class", "linear probe, frozen", "from scratch"}
    assert result["overrides"]["embed_dim"] == 16
    page = reporting.report(runs["run"]).read_text()
    for words in ("fine-tuning", "linear probe, frozen", "columns what the fine-tuned network (all labels) said"):
        assert words in page
    evaluate("finetune", runs["other"], labels_per_class=(5,), draws=2, epochs=2)
    (shown,) = tables(compare([r.path for r in runs.values()]))
    assert (shown.title, shown.row_count) == (f"own (rest): {called}, accuracy in %", 3)


def test_best_on_test_is_marked_and_gives_no_confusions(runs):
    outcome = evaluate("finetune-best-on-test", runs["run"], epochs=2)
    assert outcome.budgets == (None,)
    assert "chosen on test" in outcome.render().title
    result = results(runs["run"], "finetune-best-on-test-own")["finetune-best-on-test-ownrest-all"]
    assert "chosen on test" in result["protocol"]
    assert result["mean"] >= result["baselines"]["fine-tuned, last epoch"]["mean"]
    assert result["baselines"]["from scratch"]["mean"] >= result["baselines"]["from scratch, last epoch"]["mean"]
    assert "predictions-finetune-best-on-test" not in runs["run"].folder.results()
    assert "chosen on test" in reporting.report(runs["run"]).read_text()


def test_retrieval_is_on_the_page(runs):
    evaluate("retrieval", runs["run"], draws=2)
    (shown,) = [t for t in reporting.result_tables(runs["run"].folder.results()) if "retrieval" in t.title]
    assert tuple(shown.columns) == ("", "mAP")
    assert [name for name, _ in shown.rows] == ["training-free", "untrained encoder", NAME]
    assert shown.note.startswith("Mean average precision in %")
    assert "draws" not in shown.note
    assert "retrieval" in reporting.report(runs["run"]).read_text()


@pytest.mark.parametrize(
    ("at", "saved"), [("other, 4 ", "no column was finished"), ("from scratch, all ", "saved: 4 labels per class")]
)
def test_ctrl_c_is_one_line_and_keeps_finished_columns(runs, capsys, monkeypatch, at, saved):
    run = runs["other"]
    for path in run.path.glob("results/finetune-*"):
        path.unlink()

    def tell(message):
        if message.startswith(at):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli, "_tell", tell)
    words = ["evaluate", "finetune", str(run.path), "--labels", "4", "all", "--draws", "1", "--epochs", "1"]
    assert cli.main(words) == 130
    assert capsys.readouterr() == ("", f"contrast3d: interrupted; {saved}; the same command begins again\n")
    assert {r["labels_per_class"] for r in results(run, "finetune").values()} == ({4} if "saved" in saved else set())


@pytest.mark.parametrize(
    ("protocol", "options", "told"),
    [
        ("finetune", {"supervised_seconds": 1.0}, "knows no --supervised-seconds: leave it out; it knows --labels"),
        ("finetune", {"ways": (2,), "trials": 3}, "no --ways and no --trials"),
        ("finetune", {"epochs": -1}, "epochs = -1"),
        ("linear", {"epochs": 3}, "linear knows no --epochs"),
        ("knn", {"shots": (3,)}, "knn knows no --shots"),
        ("few-shot", {"draws": 2}, "few-shot knows no --draws"),
        ("finetune-best-on-tset", {}, "did you mean finetune-best-on-test"),
    ],
)
def test_mistakes(runs, protocol, options, told):
    with pytest.raises(ConfigError, match=told):
        evaluate(protocol, runs["run"], **options)


def test_every_protocol_says_which_flags_it_takes():
    assert set(module.KNOWS) == set(table.PROTOCOLS)
