"""The tools behind the tables of the docs, on data so small that they are over in a moment."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
import tiny

from contrast3d import cli
from contrast3d.errors import ConfigError
from contrast3d.recipes import table

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.filterwarnings("ignore:the best C", "ignore:Features have collapsed")


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module


def test_the_ablation_trains_each_variant_and_writes_a_table(tool, monkeypatch, tmp_path, capsys):
    ablation = tool("report_ablation")
    own = str(tiny.write_npz(tmp_path / "own.npz"))
    base = tiny.shrunk(table.find(ablation.NAME), dataset=own, categories=(), up="z")
    monkeypatch.setattr(ablation, "recipe_of", lambda variant, options, seed: dataclasses.replace(
        base, seed=seed, **ablation.VARIANTS[variant]))
    assert ablation.main(["--seeds", "0", "1", "--out", str(tmp_path / "runs"), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    written = {p.stem: json.loads(p.read_text()) for p in Path("results/report-ablation").glob("*.json")}
    assert len(written) == len(ablation.VARIANTS) * len(ablation.PROBES)
    assert written["all-three-linear"]["overrides"].items() >= {"identical_views": True, "shared_draws": True}.items()
    assert len(written["corrected-linear"]["values"]) == 2
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == ["| untrained", *(f"| {name}" for name in ablation.VARIANTS)]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/state.pt")}
    ablation.main(["--seeds", "0", "1", "--out", str(tmp_path / "runs"), "--threads", "1"])
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/state.pt")}  # nothing trained twice


def test_each_defect_is_one_change(tool):
    faithful, corrected = (table.find(f"simclr-shapenetpart-{x}") for x in ("faithful", "corrected"))
    for change in tool("report_ablation").DEFECTS.values():
        (field,) = change
        assert getattr(faithful, field) == change[field] != getattr(corrected, field)


def test_seeds_become_one_row(tool, tmp_path, capsys):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"), dataset=str(tiny.write_npz(tmp_path / "own.npz")))
    for seed in (0, 1):
        words = tiny.flags("simclr-ldraw40", dataclasses.replace(recipe, seed=seed))
        assert cli.main(["pretrain", "simclr-ldraw40", *words, "--out", f"s{seed}", "--quiet"]) == 0
    assert cli.main(["evaluate", "linear", "s0", "--labels", "2", "all", "--draws", "2"]) == 0
    seeds = tool("evaluate_seeds")
    capsys.readouterr()
    assert seeds.main(["linear", "s0", "s1"]) == 0
    assert "simclr-ldraw40, 2 seeds" in capsys.readouterr().out
    result = json.loads(Path("results/simclr-ldraw40-linear-all.json").read_text())
    assert (result["seeds"], len(result["values"])) == ([0, 1], 2)
    with pytest.raises(ConfigError, match="different seeds"):
        seeds.main(["linear", "s0", "s0"])
