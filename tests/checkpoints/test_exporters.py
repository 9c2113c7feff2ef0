"""Exported encoders: equal to themselves at several batch sizes, and free of this package."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from contrast3d.checkpoints import exporters
from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.partwise import Partwise
from contrast3d.nn.pointnet import PointNet

POINTS = 48
ENCODERS = {
    "pointnet": lambda: PointNet(16, widths=(8,), readout=("max", "mean")),
    "dgcnn": lambda: DGCNN(16, ((8,), (8,)), k=5),
    "report": lambda: DGCNN.report(5),
}


@pytest.fixture(scope="module", params=ENCODERS)
def exported(request):
    """(encoder as probes read it, its graph)."""
    torch.manual_seed(0)
    encoder = Partwise(ENCODERS[request.param](), POINTS // 2).eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):  # as after training; weights of both signs
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return encoder, exporters.traced(encoder, POINTS)


def test_torch_export(exported):
    encoder, program = exported
    content = exporters.torch_bytes(program, {"recipe": "x"})
    runner = exporters.torch_runner(content)
    assert exporters.compare("here", exporters.eager(encoder), runner, POINTS, (1, 2, 5)) < 1e-5


def test_onnx_runs_without_this_package(exported, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: export)")
    encoder, program = exported
    content = exporters.onnx_bytes(program, {"recipe": "mine"})
    runner = exporters.onnx_runner(content)
    assert exporters.compare("here", exporters.eager(encoder), runner, POINTS, (1, 2, 5)) < 1e-5
    points = exporters.sample_clouds(3, POINTS, seed=9)
    (tmp_path / "encoder.onnx").write_bytes(content)
    np.save(tmp_path / "points.npy", points.numpy())
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in ('contrast3d', 'torch'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import json, numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession('encoder.onnx', providers=['CPUExecutionProvider'])\n"
        "np.save('features.npy', session.run(['features'], {'points': np.load('points.npy')})[0])\n"
        "print(session.get_modelmeta().custom_metadata_map['contrast3d'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"recipe": "mine"}
    expected = exporters.eager(encoder)(points)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "features.npy")), expected, rtol=1e-5, atol=1e-5)


def test_a_pyramid():
    """In a process of its own: beartype, which checks signatures in these tests, cannot be traced into a scan."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra: export)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: export)")
    code = (
        "import torch\n"
        "from contrast3d.checkpoints import exporters\n"
        "from contrast3d.nn.dgcnn import DGCNN\n"
        "torch.manual_seed(0)\n"
        "encoder = DGCNN(16, ((8,), (8,)), k=5, strides=(1, 2), dynamic=False).eval()\n"
        "program = exporters.traced(encoder, 48)\n"
        "assert len(program.graph.nodes) < 200, 'the loop is written out'\n"
        "for make, run in ((exporters.torch_bytes, exporters.torch_runner),\n"
        "                  (exporters.onnx_bytes, exporters.onnx_runner)):\n"
        "    exporters.compare('', exporters.eager(encoder), run(make(program, {})), 48, (1, 2, 5))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_safetensors_carry_their_description(tmp_path):
    from safetensors import safe_open

    encoder = PointNet(8, widths=(8,))
    (tmp_path / "a.safetensors").write_bytes(exporters.safetensors_bytes(encoder, {"recipe": {"name": "x"}}))
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["contrast3d"]) == {"recipe": {"name": "x"}}
        assert set(file.keys()) == set(encoder.state_dict())


def test_a_file_that_computes_something_else_is_refused():
    encoder = PointNet(8, widths=(8,)).eval()
    ours = exporters.eager(encoder)
    with pytest.raises(DataError, match=r"here: features that are .* off; expected those of the encoder, to 1e-05"):
        exporters.compare("here", ours, lambda points: ours(points) + 1e-3, POINTS)
    with pytest.raises(DataError, match="here: features of shape"):
        exporters.compare("here", ours, lambda points: ours(points)[:, 1:], POINTS)
    with pytest.raises(DataError, match="nan off"):
        exporters.compare("here", ours, lambda points: ours(points) * torch.nan, POINTS)


class Looking(PointNet):
    """An encoder that looks at values."""

    def forward(self, clouds):
        if float(clouds.points.sum()) > 0:
            return super().forward(clouds)
        raise ValueError


def test_an_encoder_that_cannot_be_traced():
    with pytest.raises(ConfigError, match=r"Looking cannot be exported as a graph: .*Try: --format safetensors"):
        exporters.traced(Looking(8, widths=(8,)), POINTS)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'contrast3d\[export\]'"):
        exporters.onnx_bytes(exporters.traced(PointNet(8, widths=(8,)), POINTS), {})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed.*pip install 'contrast3d\[export\]'"):
        exporters.onnx_runner(b"")
