"""Two towers: side by side and apart, and that patch transformers of every kind can be traced."""

import json
import subprocess
import sys

import torch

from contrast3d.nn.rebuild import describe, rebuild
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.types import Clouds


def clouds():
    return Clouds.from_dense(torch.randn(3, 30, 3, generator=torch.Generator().manual_seed(1)))


def hidden(patches):
    """Two patches of each cloud, never the same ones."""
    b, g, _ = patches.centers.shape
    return torch.stack([torch.arange(g).roll(i) < 2 for i in range(b)])


def towers(**options):
    torch.manual_seed(0)
    return TwoTowers(16, 2, 2, 6, 5, queries=("img", "text"), drop_path=0.0, readout=("img", "text", "max"), **options)


def test_towers_share_nothing():
    """The first sees what is visible, the second all; no gradient crosses."""
    both = towers(projections={"img": 4})
    patches = both.patches(clouds())
    encoded = both.encode(patches, hidden(patches))
    assert encoded.tokens.shape == (3, 4, 16)
    assert both.project(encoded)["img"].shape == (3, 4)
    grads = {"asked": sum(q.square().sum() for q in encoded.queries.values()), "local": encoded.tokens.square().sum()}
    for tower, value in grads.items():
        both.zero_grad()
        value.backward()
        assert {n.split(".")[0] for n, p in both.named_parameters() if p.grad is not None} == {tower}
    unmasked = both.eval().encode(patches).queries, both.encode(patches, hidden(patches)).queries
    torch.testing.assert_close(*unmasked)


def test_towers_side_by_side():
    both = towers().eval()
    patches = both.patches(clouds())
    local, asked = both.local.encode(patches), both.asked.encode(patches)
    expected = torch.cat([*asked.queries.values(), local.tokens.amax(1)], 1)
    torch.testing.assert_close(both(clouds()).pooled, expected)
    assert both.embed_dim == 48
    both.readout = ("queries-max", "mean")
    torch.testing.assert_close(both(clouds()).pooled[:, 16:], local.tokens.mean(1))
    assert rebuild(json.loads(json.dumps(describe(both)))).queries == ("img", "text")


def test_are_traced_for_any_number_of_clouds():
    """In a process of its own: beartype, which checks signatures in these tests, cannot be traced into a scan."""
    code = (
        "import torch\n"
        "from contrast3d import nn\n"
        "from contrast3d.checkpoints import exporters\n"
        "torch.manual_seed(0)\n"
        "shape = {'width': 16, 'depth': 1, 'num_heads': 2, 'num_patches': 6, 'patch_size': 5}\n"
        "for encoder in (nn.PatchTransformer(**shape, skip_origin=True), nn.TwoTowers(**shape)):\n"
        "    run = exporters.torch_runner(exporters.torch_bytes(exporters.traced(encoder.eval(), 20), {}))\n"
        "    print(exporters.compare('', exporters.eager(encoder), run, 20, (1, 2, 5)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert max(map(float, done.stdout.split())) < 1e-5
