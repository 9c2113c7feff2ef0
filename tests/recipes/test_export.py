"""`export`: the files of a run, checked and described."""

from __future__ import annotations

import io
import json

import pytest
import tiny
import torch

from contrast3d import cli
from contrast3d.checkpoints import exporters
from contrast3d.errors import ConfigError
from contrast3d.recipes import table
from contrast3d.recipes.export import export_run
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.runs import load_run

NAME = "simclr-ldraw40"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    recipe = tiny.shrunk(table.find(NAME), dataset=str(tiny.write_npz(folder / "own.npz")), encoder="pointnet")
    return pretrain(NAME, recipe, Machine(out=folder / "run", quiet=True))[0]


def test_all_formats(run, tmp_path, capsys):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: export)")
    assert cli.main(["export", str(run.path), "-o", str(tmp_path / "deep" / "out")]) == 0
    said = capsys.readouterr().out
    out = tmp_path / "deep" / "out"
    assert {p.name for p in out.iterdir()} == {
        "encoder.safetensors", "encoder.onnx", "encoder.pt2", "export.json"}
    assert said.count("ms per shape") == 2
    written = json.loads((out / "export.json").read_text())
    assert written["recipe"]["recipe"] == NAME
    assert written["input"]["shape"] == ["batch", 48, 3]
    assert written["checks"]["onnx"]["difference"] < 1e-5
    points = exporters.sample_clouds(4, 48)
    expected = exporters.eager(load_run(run.path).reader())(points)
    found = exporters.onnx_runner((out / "encoder.onnx").read_bytes())(points)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    extra = {"contrast3d.json": ""}
    program = torch.export.load(io.BytesIO((out / "encoder.pt2").read_bytes()), extra_files=extra)
    torch.testing.assert_close(program.module()(points), expected, atol=1e-5, rtol=1e-5)
    assert json.loads(extra["contrast3d.json"])["encoder"] == written["encoder"]


def test_safetensors_alone(run, tmp_path):
    from safetensors import safe_open

    lines = export_run(run.path, tmp_path / "out", "safetensors")
    assert len(lines) == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"encoder.safetensors", "export.json"}
    with safe_open(tmp_path / "out" / "encoder.safetensors", "pt") as file:
        assert json.loads(file.metadata()["contrast3d"])["recipe"]["fields"]["encoder"] == "pointnet"


def test_a_wrong_file_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporters, "TOLERANCE", -1.0)
    with pytest.raises(Exception, match=r"encoder.pt2: features that are"):
        export_run(run.path, tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()


def test_unknown_format(run, tmp_path):
    with pytest.raises(ConfigError, match="format = 'onyx'; expected one of safetensors, onnx, torch, all"):
        export_run(run.path, tmp_path / "out", "onyx")
