"""`pretrain`: runs that stop, and go on as if they had not, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import killed_runs
import numpy as np
import pytest
import tiny
import torch

from contrast3d.data.ldraw40 import LDraw40
from contrast3d.engine.distributed import is_distributed
from contrast3d.engine.loop import Outcome
from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import CollapseWarning, ConfigError
from contrast3d.recipes import table
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import next_commands, pretrain
from contrast3d.recipes.runs import Run

NAME = killed_runs.NAME
PATIENCE = 400  # seconds, for a very busy machine


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What killed_runs.py leaves behind, and the steps at which the killed run went on."""
    folder = tmp_path_factory.mktemp("pretrain")
    shapes = LDraw40("train")
    rows = (shapes.labels < 8).nonzero().flatten()[:64]
    np.savez(folder / "shapes.npz", points=shapes.points[rows, :64].numpy(), label=shapes.labels[rows].numpy())
    command = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout)


def weights(run: Path) -> bytes:
    return (run / "encoder.safetensors").read_bytes()


def comparable(run: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in RunDir(run).metrics()]


@pytest.mark.slow
def test_kill_at_ten_random_moments(runs):
    """kill -9 while it trains, saves or measures: the weights are those of the run that was left alone."""
    folder, steps = runs
    assert len(steps) == killed_runs.KILLS
    assert steps == sorted(steps)
    assert len(set(steps)) > 4  # it was killed on its way, and not again and again at its start
    assert weights(folder / "killed") == weights(folder / "whole")
    assert comparable(folder / "killed") == comparable(folder / "whole")
    assert {p.name for p in (folder / "killed").iterdir()} == {p.name for p in (folder / "whole").iterdir()}


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(runs):
    folder, _ = runs

    def start(arguments: list[str]) -> subprocess.Popen:
        command = [sys.executable, "-m", "contrast3d.cli", *arguments]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    process, deadline = start([*killed_runs.arguments("stopped"), "--restart"]), time.monotonic() + PATIENCE
    while not RunDir(folder / "stopped").metrics():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, ""), err
    said = re.fullmatch(r"interrupted after (\d+) steps; everything is saved\. To go on: (.+)\n", err)
    assert 0 < int(said[1]) == RunDir(folder / "stopped").load_state()["step"]
    assert weights(folder / "stopped") != weights(folder / "whole")

    words = shlex.split(said[2])
    assert words == ["contrast3d", *killed_runs.arguments("stopped")]  # and without --restart
    process = start(words[1:])
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "finished: 120 epochs" in out
    assert weights(folder / "stopped") == weights(folder / "whole")


# In this process.


@pytest.fixture
def recipe(tmp_path):
    return tiny.shrunk(table.find(NAME), dataset=str(tiny.write_npz(tmp_path / "own.npz")))


def test_what_it_leaves_behind(recipe, tmp_path):
    run, outcome = pretrain(NAME, recipe, Machine(out=tmp_path / "a" / "run", quiet=True))
    assert outcome.status == "finished"
    assert (run.name, run.recipe, run.path) == (NAME, recipe, tmp_path / "a" / "run")
    assert {p.name for p in run.path.iterdir()} == {
        "recipe.json", "metrics.jsonl", "state.pt", "encoder.safetensors", "origin.json", ".lock",
    }
    epoch = next(line for line in run.folder.metrics() if line["kind"] == "epoch")
    assert {"knn_accuracy", "rankme"} <= epoch.keys(), epoch


def test_the_folder_is_named_after_the_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, _ = pretrain(NAME, recipe, Machine(quiet=True))
    assert run.path == Path("runs") / NAME
    assert (tmp_path / "runs" / NAME / "encoder.safetensors").is_file()


def test_the_seed_decides(recipe, tmp_path):
    def trained(name: str, seed: int) -> bytes:
        machine = Machine(out=tmp_path / name, device="cpu", quiet=True)
        run, _ = pretrain(NAME, dataclasses.replace(recipe, seed=seed), machine)
        return weights(run.path)

    assert trained("first", 1) == trained("again", 1)
    assert trained("again", 1) != trained("other", 2)


def test_restart_forgets_everything(recipe, tmp_path):
    machine = Machine(out=tmp_path / "run", quiet=True)
    run, _ = pretrain(NAME, recipe, machine)
    run.folder.save_result("knn-own-all", {"mean": 1.0})
    before = weights(run.path)
    with pytest.raises(ConfigError, match=r"fields\.seed is 0 there, 9 here"):
        pretrain(NAME, dataclasses.replace(recipe, seed=9), machine)
    assert weights(run.path) == before
    again, _ = pretrain(NAME, dataclasses.replace(recipe, seed=9), dataclasses.replace(machine, restart=True))
    assert again.folder.recipe["fields"]["seed"] == 9
    assert not again.folder.results()
    assert weights(run.path) != before


def test_views_that_do_not_differ_are_warned_of_unless_asked_for(recipe, tmp_path):
    flat = np.zeros((20, 48, 3), np.float32)
    np.savez(tmp_path / "flat.npz", points=flat)
    machine = Machine(out=tmp_path / "run", quiet=True)
    points = dataclasses.replace(recipe, dataset=str(tmp_path / "flat.npz"), augmentation="none")
    with pytest.warns(CollapseWarning) as told:
        pretrain(NAME, points, machine)
    assert "identical views" in str(told[0].message)
    assert "Try: --augmentation" in str(told[0].message)
    assert "collapsed" in str(told[1].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alike = dataclasses.replace(recipe, identical_views=True, probe_every=2)
        pretrain(NAME, alike, Machine(out=tmp_path / "alike", quiet=True))


def test_identical_views_are_as_loud_as_a_collapse(recipe, tmp_path, capsys):
    alike = dataclasses.replace(recipe, augmentation="none", num_points=48, probe_every=2)
    with pytest.warns(CollapseWarning, match="identical views"):
        pretrain(NAME, alike, Machine(out=tmp_path / "run"))
    assert "IDENTICAL VIEWS" in capsys.readouterr().err


def test_data_that_changed_are_not_resumed_on(recipe, tmp_path):
    machine = Machine(out=tmp_path / "run", quiet=True)
    run, _ = pretrain(NAME, recipe, machine)
    assert run.folder.recipe["data_hash"] == recipe.pretraining_shapes(tmp_path).hash
    tiny.write_npz(tmp_path / "own.npz", shapes=63)
    with pytest.raises(ConfigError, match=r"trained on other data: .*own.* has changed since"):
        pretrain(NAME, recipe, machine)

    tiny.write_npz(tmp_path / "own.npz")
    path = run.path / "recipe.json"  # as runs before the hash was stored
    path.write_text(json.dumps({k: v for k, v in run.folder.recipe.items() if k != "data_hash"}))
    before = weights(run.path)
    assert pretrain(NAME, recipe, machine)[1].status == "finished"
    assert weights(run.path) == before


def test_a_folder_in_use_is_refused(recipe, tmp_path):
    run, _ = pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True))
    before = weights(run.path)
    with RunDir(run.path).locked(), pytest.raises(ConfigError, match="another process trains in this folder"):
        pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True, restart=True))
    assert weights(run.path) == before  # --restart has not begun to forget


@pytest.mark.parametrize(("shapes", "classes"), [(3, 3), (4, 2)])
def test_labels_too_few_to_probe_do_not_stop_training(recipe, tmp_path, shapes, classes):
    tiny.write_npz(tmp_path / "own.npz", shapes=shapes, classes=classes)
    with pytest.warns(UserWarning, match="without the kNN probe"):
        _, outcome = pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True))
    assert outcome.status == "finished"
    assert "rankme" in outcome.metrics
    assert "knn_accuracy" not in outcome.metrics


@pytest.mark.parametrize(("dataset", "metrics", "commands"), [
    ("own.npz", {"knn_accuracy": 0.5}, ["contrast3d evaluate linear R", "contrast3d report R"]),
    ("own.npz", {}, ["contrast3d report R"]),
    ("LDraw40", {"knn_accuracy": 0.5}, ["contrast3d evaluate linear R", "contrast3d report R"]),
    ("ModelNet40", {"knn_accuracy": 0.5},
     ["contrast3d evaluate linear R --data-root 'my data'", "contrast3d report R --data-root 'my data'"]),
])
def test_what_to_do_next(recipe, dataset, metrics, commands):
    run = Run(RunDir("R"), NAME, dataclasses.replace(recipe, dataset=dataset))
    outcome = Outcome("finished", 1, 1, 1.0, metrics)
    assert next_commands(run, outcome, Machine(data_root=Path("my data"))) == commands


@pytest.mark.slow
def test_two_processes_start_over_together_and_speak_once(recipe, tmp_path):
    """Rank 0 forgets the former run before the other one looks for its state."""
    pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True))

    def start(*more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
                   str(20000 + os.getpid() % 20000), "-m", "contrast3d.cli", "pretrain", NAME,
                   *tiny.flags(NAME, recipe), "--out", str(tmp_path / "run"), "--device", "cpu", "--threads", "1",
                   "--quiet", *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)

    done = start("--restart", "--seed", "9")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("finished: 1 epochs") == 1
    assert RunDir(tmp_path / "run").recipe["fields"]["seed"] == 9
    for mistake, words in ((["--dataset", "nowhere.npz"], "nowhere.npz: no such file"), (["--k", "0"], "k = 0")):
        done = start(*mistake)
        assert done.returncode != 0
        assert done.stderr.count(words) == 1, done.stderr[-3000:]


def test_threads(recipe, tmp_path):
    before = torch.get_num_threads()
    try:
        pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True, threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_process_group_of_one_is_left(recipe, tmp_path, monkeypatch):
    """Under torchrun, be it with one process: the run is the same, and the group is gone afterwards."""
    alone, _ = pretrain(NAME, recipe, Machine(out=tmp_path / "alone", quiet=True))
    for key, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(20000 + os.getpid() % 20000))
    run, outcome = pretrain(NAME, recipe, Machine(out=tmp_path / "grouped", quiet=True))
    assert outcome.status == "finished"
    assert not is_distributed()
    assert comparable(run.path)[0]["loss"] == pytest.approx(comparable(alone.path)[0]["loss"], rel=1e-5)


def test_a_run_of_an_older_version_goes_on(recipe, tmp_path):
    """Fields that recipe.json does not have yet had their defaults."""
    run, first = pretrain(NAME, recipe, Machine(out=tmp_path / "run", quiet=True))
    path = run.path / "recipe.json"
    written = json.loads(path.read_text())
    del written["fields"]["method"], written["fields"]["micro_batch"]
    path.write_text(json.dumps(written))
    _, again = pretrain(NAME, recipe, Machine(out=run.path, quiet=True))
    assert again.steps == first.steps
    with pytest.raises(ConfigError, match=r"fields\.method is 'simclr' there, 'byol' here"):
        pretrain(NAME, dataclasses.replace(recipe, method="byol"), Machine(out=run.path, quiet=True))
