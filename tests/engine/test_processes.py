import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import Plain, ToyLoader, comparable

from contrast3d.engine.loop import train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.settings import Training


def run_script(name, folder):
    command = [sys.executable, str(Path(__file__).with_name("process_scripts.py")), name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def assert_same_run(first, second):
    states = first.load_state(), second.load_state()
    for name, tensor in states[0]["method"].items():
        assert torch.equal(tensor, states[1]["method"][name]), name
    assert states[0]["optimizer"]["param_groups"] == states[1]["optimizer"]["param_groups"]
    assert comparable(first.metrics()) == comparable(second.metrics())


def test_kill_at_random_moments_resumes_to_the_same_weights(tmp_path):
    run_script("kill", tmp_path)
    assert_same_run(RunDir(tmp_path / "killed"), RunDir(tmp_path / "whole"))


def test_signals_save_and_the_run_resumes(tmp_path):
    run_script("interrupt", tmp_path)
    assert_same_run(RunDir(tmp_path / "interrupted"), RunDir(tmp_path / "whole"))
    run_script("impatient", tmp_path)


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    run_script("ranks", tmp_path)
    method = Plain()
    alone = train(method, ToyLoader(), Training(epochs=6, lr=1e-2, accumulate=2), quiet=True)
    run = RunDir(tmp_path / "ranks")
    state = run.load_state()
    assert state["step"] == alone.steps == 12
    for name, tensor in method.state_dict().items():
        torch.testing.assert_close(state["method"][name], tensor)
    metrics = run.metrics()
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1]["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-5)
