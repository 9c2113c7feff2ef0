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


def test_the_wish_gets_equal_time_and_a_table(tool, monkeypatch, tmp_path, capsys):
    wish = tool("wish_table")
    own, variants = str(tiny.write_npz(tmp_path / "own.npz")), ("SimCLR, batch 32", "MoCo")
    monkeypatch.setattr(wish, "VARIANTS", {name: wish.VARIANTS[name] for name in variants})
    monkeypatch.setattr(wish, "PACE_SECONDS", 0.2)
    monkeypatch.setattr(wish, "recipe_of", lambda variant, seed, epochs=1: tiny.shrunk(
        table.find(wish.NAME), dataset=own, epochs=epochs, seed=seed, **{
            **wish.VARIANTS.get(variant, {}), "batch_size": 16}))
    words = ["--out", str(tmp_path / "runs"), "--seeds", "0", "1", "--minutes", "0.01"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pace.json").write_text(json.dumps({"SimCLR, batch 32": 0.2, "MoCo": 0.3}))
    assert wish.main([*words, "--only", "MoCo"]) == 0
    assert not Path("results").exists()  # a part of the work makes no table
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("moco*/state.pt")}
    assert len(stamps) == 2
    assert wish.main(words) == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}  # nothing trained twice
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows[1:]] == [  # 0.6 seconds at the paces above
        ["| untrained", "0"], ["| SimCLR, batch 32", "3"], ["| MoCo", "2"]]
    (tmp_path / "runs" / "pace.json").unlink()
    paces = wish.epochs_within(wish._parser().parse_args(words))
    assert set(paces) == set(variants)
    assert {p.stem for p in Path("results/wish").glob("*.json")} == {
        "simclr-batch-32-10", "simclr-batch-32-all", "moco-10", "moco-all"}
    found = json.loads(Path("results/wish/moco-10.json").read_text())
    assert found["overrides"]["method"] == "moco"
    assert len(found["values"]) == len(found["cross_validated"]) == 2
