"""The benchmarks run, compare before they time, and write the JSON that benchmarks/README.md describes."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NUMBERS = ("median_s", "spread_s", "ceiling_share", "flops", "bytes", "rounds")
NUMBERS_OR_NULL = ("reference_s", "reference_spread_s", "ratio", "peak_mb", "reference_peak_mb", "difference",
                   "difference_float64", "wanted_ratio", "wanted_peak_mb")


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    threads = torch.get_num_threads()
    yield importlib.import_module("harness")
    torch.set_num_threads(threads)


def toy(harness, **changes):
    case = {"ours": lambda: time.sleep(1e-4), "flops": 1e6, "bytes": 1e3, "note": "A nap.",
            "reference": lambda: time.sleep(3e-3), "difference": lambda dtype: 0.0}
    return harness.Case(**case | changes)


def documented(heading: str) -> set[str]:
    """The names in the first column of a table of README.md."""
    text = (BENCHMARKS / "README.md").read_text()
    table = re.split(r"\n\n", text[text.index(f"| in {heading} |") :])[0]
    return {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}


def test_dgcnn_runs_and_writes_its_json(harness, capsys, tmp_path):
    cases = importlib.import_module("dgcnn").cases
    arguments = ["--quick", "--rounds", "2", "--threads", "1", "--json", str(tmp_path / "out.json")]
    assert harness.main("A test.", cases, arguments) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    meta, rows = found["meta"], found["rows"]
    assert set(meta) == documented("`meta`")
    assert (meta["threads"], meta["quick"], meta["torch"]) == ([1], True, torch.__version__)
    assert set(meta["ceilings"]) == {"1"}
    names = [row["name"] for row in rows]
    assert names == ["edge_conv_64_128"] * 4 + ["simclr_step_report"] + ["knn"] * 2 + ["fps"] + ["nt_xent"] * 2
    for row in rows:
        assert set(row) == documented("each row")
        assert all(isinstance(row[key], float | int) for key in NUMBERS)
        assert all(isinstance(row[key], float | int | None) for key in NUMBERS_OR_NULL)
        assert row["median_s"] > 0
        assert row["ceiling_share"] > 0
        assert f"{row['name']} {row['variant']}, threads 1: limit: " in printed
    assert all(row["difference_float64"] < 1e-9 for row in rows[:-1])
    assert rows[0]["ratio"] == pytest.approx(rows[0]["reference_s"] / rows[0]["median_s"])
    assert rows[-1]["reference_s"] is None
    assert rows[-1]["ratio"] is None


@pytest.mark.parametrize(("name", "rows"), [("search", ["search_exact"] * 2), ("embed", ["embed"] * 2)])
def test_search_and_embed_run(harness, tmp_path, name, rows):
    pytest.importorskip("faiss", reason="faiss is not installed (extra: search)")
    arguments = ["--quick", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "out.json")]
    assert harness.main("A test.", importlib.import_module(name).cases, arguments) == 0
    found = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["name"] for row in found][:2] == rows
    assert all(set(row) == documented("each row") for row in found)
    assert all(row["ratio"] > 0 for row in found)
    if name == "search":
        assert [row["name"] for row in found][2:] == ["search_ivf_pq", "search_hnsw"]
        assert "Recall@10 is " in found[-1]["limit"]


def test_sparse_unet_runs(harness, tmp_path):
    arguments = ["--quick", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "out.json")]
    assert harness.main("A test.", importlib.import_module("sparse_unet").cases, arguments) == 0
    rows = {(row["name"], row["variant"]): row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert rows["kernel_maps", "five levels"]["difference"] == 0
    assert rows["k3_96_96", "forward, bfloat16"]["wanted_ratio"] == 2.4
    assert rows["sr_unet34", "forward+backward"]["difference_float64"] < 1e-9
    assert all(set(row) == documented("each row") for row in rows.values())
    assert all(row["ratio"] > 0 for row in rows.values())


def test_unknown_row_is_one_line():
    """In a process of its own, as the file is meant to be run."""
    command = [sys.executable, str(BENCHMARKS / "dgcnn.py"), "--only", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("no row is called 'nothing'; there are edge_conv_64_128 forward, ")
    assert done.stderr.count("\n") == 1


def test_large_batch_runs(harness, capsys, tmp_path):
    cases = importlib.import_module("large_batch").cases
    arguments = ["--quick", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "out.json")]
    assert harness.main("A test.", cases, arguments) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["batch 8", "batch 16"]
    assert all(row["difference_float64"] < 1e-9 for row in rows)


def test_scale_measures_every_stage_and_extrapolates(harness, capsys, tmp_path):
    scale = importlib.import_module("scale")
    assert scale.main(["--quick", "--threads", "1", "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(row["name"], row["processes"]) for row in found["rows"]] == [
        ("cache", 1), ("pretrain", 1), ("embed", 1), ("pretrain", 1), ("pretrain", 2)]
    alone, pair = found["rows"][-2:]
    assert found["efficiency"] == pytest.approx(
        pair["shapes"] / pair["seconds"] / (2 * alone["shapes"] / alone["seconds"]))
    assert (found["rows"][0]["shapes"], found["rows"][2]["shapes"]) == (64, 64)
    assert pair["shapes"] % 64 == 0  # whole batches
    assert "a million shapes" in capsys.readouterr().out


def test_rounds_must_be_positive(harness, capsys):
    with pytest.raises(SystemExit, match="2"):
        harness.main("A test.", lambda quick: {}, ["--rounds", "0"])
    assert "argument --rounds: must be 1 or more" in capsys.readouterr().err


def test_ratio_is_above_one_for_the_faster(harness):
    ceilings = {1: harness.Ceiling(1e9, 1e9), 2: harness.Ceiling(2e9, 1e9)}
    one, two = harness.measure(toy(harness), ceilings, rounds=3)
    assert (one["threads"], two["threads"]) == (1, 2)
    assert one["ratio"] > 1
    assert one["ceiling_share"] == pytest.approx(1e-3 / one["median_s"])
    assert two["ceiling_share"] == pytest.approx(5e-4 / two["median_s"])
    assert one["limit"].startswith("limit: arithmetic; ")
    assert one["limit"].endswith("take 0.001 ms. A nap.")


def test_memory_is_the_limit_where_it_takes_longer(harness):
    ideal_s, sentence = harness.Ceiling(1e12, 1e9).ideal(toy(harness, bytes=1e6))
    assert ideal_s == pytest.approx(1e-3)
    assert sentence.startswith("limit: memory; ")


def test_rounds_take_turns(harness):
    calls = []
    times = harness.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "abbaab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_peak_growth_sees_what_is_freed_again(harness):
    grown = harness.peak_growth_mb(lambda: np.ones(48 << 17))  # 48 MiB of float64
    if grown is None:
        pytest.skip("no resettable high-water mark on this system")
    assert 46 < grown < 60
    assert harness.peak_growth_mb(lambda: None) < 5


def test_different_results_are_not_timed(harness, capsys, tmp_path):
    off = {torch.float32: 1e-4, torch.float64: 1e-6}
    table = {("good", "a"): lambda: toy(harness), ("bad", "b"): lambda: toy(harness, difference=off.get)}
    out = tmp_path / "out.json"
    assert harness.main("A test.", lambda quick: table, ["--quick", "--rounds", "1", "--json", str(out)]) == 1
    assert "bad b: torch.float64 results differ by 1e-06, allowed 1e-09" in capsys.readouterr().err
    assert {row["name"] for row in json.loads(out.read_text())["rows"]} == {"good"}


def test_relative_difference(harness):
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])
    assert harness.relative_difference([a, b], [a, b]) == 0
    assert harness.relative_difference([a, b + 0.5], [a, b]) == pytest.approx(0.1)


def test_memory_is_kept_for_ours_alone(harness, monkeypatch):
    """And each is warmed up in its turn, under its own allocator."""
    state, seen = [None], []
    monkeypatch.setattr(harness, "set_memory_kept", lambda keep: state.__setitem__(0, keep))
    case = toy(harness, ours=lambda: seen.append(("ours", state[0])),
               reference=lambda: seen.append(("reference", state[0])), as_in_training=True)
    harness.measure(case, {1: harness.Ceiling(1e9, 1e9)}, rounds=2)
    assert seen[2:] == [("ours", True)] * 2 + [("reference", False)] * 4 + [("ours", True)] * 2
    assert state == [False]
