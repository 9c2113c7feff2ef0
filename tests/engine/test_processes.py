import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import Plain, ToyLoader, comparable

from contrast3d.engine.loop import train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.settings import Training


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What process_scripts.py leaves behind; it asserts by itself that all exit codes were right."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, str(Path(__file__).with_name("process_scripts.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def assert_same_run(first, second):
    states = first.load_state(), second.load_state()
    for name, tensor in states[0]["method"].items():
        assert torch.equal(tensor, states[1]["method"][name]), name
    moments = [state["optimizer"]["state"] for state in states]
    assert moments[0].keys() == moments[1].keys()
    for number, slots in moments[0].items():
        assert all(torch.equal(slot, moments[1][number][name]) for name, slot in slots.items())
    words = [state["random"][0]["python"][1] for state in states]  # [version, words, cached gauss]
    assert torch.equal(*words)
    assert comparable(first.metrics()) == comparable(second.metrics())


@pytest.mark.parametrize("name", ["killed", "interrupted"])
def test_killed_and_interrupted_runs_resume_to_the_same_weights(runs, name):
    assert_same_run(RunDir(runs / name), RunDir(runs / "whole"))


def test_two_processes_equal_one_on_the_joined_batch(runs):
    method = Plain()
    alone = train(method, ToyLoader(), Training(epochs=6, lr=1e-2, accumulate=2), quiet=True)
    run = RunDir(runs / "ranks")
    state = run.load_state()
    assert state["step"] == alone.steps == 12
    for name, tensor in method.state_dict().items():
        torch.testing.assert_close(state["method"][name], tensor)
    metrics = run.metrics()
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1]["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-5)
