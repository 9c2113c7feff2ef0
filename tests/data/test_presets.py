import pytest
import torch

from contrast3d.data.draws import Draws
from contrast3d.data.presets import PRESETS, preset
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds


def batch(count=16, points=200) -> Clouds:
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(count, points, 3, generator=generator), dim=-1)
    return Clouds.from_dense(points, ids=torch.arange(count))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_points", [64, 200, 300])
def test_presets_give_dense_batches_of_the_asked_size(name, num_points):
    clouds = batch()
    out = preset(name, num_points)(clouds, Draws.of(0, 0, clouds.ids))
    assert out.dense.shape == (16, num_points, 3)
    assert torch.isfinite(out.points).all()
    assert out.points.abs().max() < 2.5


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_presets_make_two_different_views(name):
    clouds = batch()
    views = [preset(name, 200)(clouds, Draws.of(0, 0, clouds.ids, view)).dense for view in range(2)]
    assert (views[0] != views[1]).flatten(1).any(1).all()


def test_the_report_keeps_to_its_ranges():
    """Shear 0.2 and 15 degrees about each axis: no map far from the identity or its mirror image in y."""
    clouds = batch(count=500, points=4)
    out = preset("report", 4)(clouds, Draws.of(0, 0, clouds.ids))
    linear = out.transform[:, :3, :3]
    mirrored = linear[:, 1, 1] < 0
    assert abs(mirrored.float().mean() - 0.5) < 0.08
    assert (torch.linalg.det(linear) < 0).equal(mirrored)
    assert linear.diagonal(dim1=1, dim2=2).abs().min() > 0.6
    assert (out.transform[:, :3, 3] == 0).all()


def test_rotations_of_the_object_presets():
    clouds = batch(count=500, points=20)
    up = {}
    for name in ("objects", "objects-rotate-up", "objects-so3"):
        transform = preset(name, 20)(clouds, Draws.of(0, 0, clouds.ids)).transform
        up[name] = (transform[:, 2, 2].min().item(), transform[:, 0, 0].min().item())
    assert min(up["objects"]) > 0.7
    assert up["objects-rotate-up"][0] > 0.7
    assert up["objects-rotate-up"][1] < -0.7
    assert max(up["objects-so3"]) < -0.7


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="objects-rotate-up") as error:
        preset("strong", 64)
    assert "'strong'" in str(error.value)
