"""The benchmark of ReCon's step runs, compares before it times, and counts multiplications as torch does."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


def test_recon_step_runs_and_agrees_with_plain_torch(load, capsys, tmp_path):
    harness, step = load("harness"), load("recon_step")
    arguments = ["--quick", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "out.json")]
    assert harness.main("A test.", step.cases, arguments) == 0
    rows = {(row["name"], row["variant"]): row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert list(rows) == list(step.cases(True))
    for name in step.MODELS:
        assert rows[name, "float32"]["difference"] < 1e-3
        assert rows[name, "float32"]["difference_float64"] < 1e-9
        assert [rows[name, variant]["wanted_ratio"] for variant in ("float32", "bfloat16")] == [1.6, 2.5]
    assert all(row["ratio"] > 0 for row in rows.values())
    printed = capsys.readouterr().out
    assert "Products on paper, GFLOP: mini-PointNet" in printed
    assert "Loss and gradients differ from float32 by" in printed


def test_a_step_that_computes_something_else_is_not_timed(load, monkeypatch):
    harness, step = load("harness"), load("recon_step")
    plain = step.PlainMAE.forward
    monkeypatch.setattr(step.PlainMAE, "forward", lambda *a: plain(*a) * (1 + 1e-4))
    with pytest.raises(harness.DifferentResultsError, match="float32 losses differ by 1e-04, allowed 1e-05"):
        harness.compare(step.step_case(step.QUICK, "point_mae"))
    monkeypatch.setattr(step.PlainMAE, "forward", lambda *a: plain(*a) * 1.1)
    with pytest.raises(harness.DifferentResultsError, match="bfloat16 loss and gradients differ"):
        step.step_case(step.QUICK, "point_mae", low=True)


@pytest.mark.parametrize("name", ["point_mae", "point_mae_recon_block", "recon"])
def test_multiplications_of_the_reference_are_those_that_torch_counts(load, name):
    step = load("recon_step")
    s = step.QUICK
    method = step.method_of(s, name)
    plain = step.PlainMAE(method)
    _, loss = step.losses(s, method, plain)
    with FlopCounterMode(display=False) as counter:
        loss(plain, step.clouds_of(s)).backward()
    assert 2 * sum(step.macs(s, name)[0].values()) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_counts_at_the_papers_sizes(load):
    """The mini-PointNet is half of Point-MAE's step on paper, and the ratio at equal speed of products is 1.7."""
    work = load("recon_work")
    plain, ours = work.macs(work.Sizes(), "point_mae")
    assert plain["mini-PointNet"] == pytest.approx(96.7e9, rel=0.01)
    assert plain["mini-PointNet"] / ours["mini-PointNet"] > 5
    assert sum(plain.values()) / sum(ours.values()) == pytest.approx(1.69, abs=0.05)
    assert {part for part in plain if plain[part] != ours[part]} == {"mini-PointNet"}


def test_memory_is_measured_in_a_process_of_its_own(load):
    step = load("recon_step")
    found = step.fresh_peak_mb("recon", "ours", False, quick=True)
    if found != found:
        pytest.skip("no resettable high-water mark on this system")
    assert 1 < found < 400
