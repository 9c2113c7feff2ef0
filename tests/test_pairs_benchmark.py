"""The benchmark of pairs runs on frames of its own, and compares before it times."""

import importlib
import json
from pathlib import Path

import torch


def test_pairs_runs_and_agrees_with_trees(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    threads = torch.get_num_threads()
    try:
        harness, pairs = importlib.import_module("harness"), importlib.import_module("pairs")
        arguments = ["--quick", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "out.json")]
        assert harness.main("A test.", pairs.cases, arguments) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["rgbd_to_pairs", "rgbd_to_pairs", "overlap", "correspondences"]
    assert [row["difference"] is not None and row["difference"] < 1e-6 for row in rows] == [True, False, True, True]
    assert "asked for: under 8 s" in capsys.readouterr().out.lower()
