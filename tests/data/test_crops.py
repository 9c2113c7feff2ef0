import pytest
import torch

from contrast3d.data.crops import Crop, Cutout, PartialView, PointDropout, Resample
from contrast3d.data.draws import Draws
from contrast3d.data.segments import cloud_max, cloud_mean, cloud_min, cloud_smallest, keep_points, map_points
from contrast3d.types import Clouds


def clouds_of(*lengths) -> Clouds:
    generator = torch.Generator().manual_seed(0)
    return Clouds.from_list(
        [torch.randn(n, 3, generator=generator) for n in lengths], ids=torch.arange(len(lengths))
    )


def draws_of(clouds: Clouds, epoch: int = 0) -> Draws:
    return Draws.of(0, epoch, clouds.ids)


def sphere(count: int, points: int) -> Clouds:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, points, 3, generator=generator)
    return Clouds.from_dense(torch.nn.functional.normalize(points, dim=-1), ids=torch.arange(count))


def indices_by_cloud(clouds: Clouds) -> list[torch.Tensor]:
    return list(clouds.indices.split(clouds.lengths.tolist()))


@pytest.mark.parametrize("lengths", [(20, 20), (20, 7, 1)])
def test_segment_reductions_equal_loops(lengths):
    clouds = clouds_of(*lengths)
    parts = clouds.points.split(list(lengths))
    x = clouds.points[:, 0].contiguous()
    assert torch.equal(cloud_min(clouds, x), torch.stack([p[:, 0].min() for p in parts]))
    assert torch.equal(cloud_max(clouds, x), torch.stack([p[:, 0].max() for p in parts]))
    torch.testing.assert_close(cloud_mean(clouds, clouds.points), torch.stack([p.mean(0) for p in parts]))
    counts = torch.tensor([(n + 1) // 2 for n in lengths])
    expected = torch.stack([p[:, 0].sort().values[k - 1] for p, k in zip(parts, counts)])
    assert torch.equal(cloud_smallest(clouds, x, counts), expected)
    linear = torch.randn(len(lengths), 3, 3)
    expected = torch.cat([p @ m.T for p, m in zip(parts, linear)])
    torch.testing.assert_close(map_points(clouds, clouds.points, linear), expected)
    keep = x > x.median()
    kept = keep_points(clouds, keep)
    assert torch.equal(kept.points, clouds.points[keep])
    assert kept.lengths.tolist() == [int(k.sum()) for k in keep.split(list(lengths))]


def test_crop_keeps_the_nearest_and_cutout_removes_them():
    clouds = clouds_of(100, 60)
    for transform, keeps_near in ((Crop((0.4, 0.4)), True), (Cutout((0.4, 0.4)), False)):
        out = transform(clouds, draws_of(clouds))
        assert out.lengths.tolist() == ([40, 24] if keeps_near else [60, 36])
        centers = draws_of(clouds).integers(clouds.lengths)
        for points, center, kept in zip(clouds.points.split([100, 60]), centers, indices_by_cloud(out)):
            order = (points - points[center]).norm(dim=1).argsort()
            expected = order[: len(kept)] if keeps_near else order[len(points) - len(kept) :]
            assert torch.equal(kept.sort().values, expected.sort().values)


@pytest.mark.parametrize(("transform", "low", "high"), [
    (Crop((0.3, 0.6)), 0.3, 0.6), (Cutout((0.1, 0.3)), 0.7, 0.9), (PointDropout(0.4), 0.6, 1.0),
])
def test_kept_share_spans_its_range(transform, low, high):
    clouds = sphere(300, 400)
    share = transform(clouds, draws_of(clouds)).lengths / 400
    slack = 0.08 if isinstance(transform, PointDropout) else 0.002
    assert share.min() >= low - slack
    assert share.max() <= high + slack
    assert abs(share.mean() - (low + high) / 2) < 0.02
    assert share.std() > (high - low) / 5


def test_extreme_ratios_leave_a_point():
    clouds = clouds_of(10, 1, 3)
    for transform in (Crop((0.0, 0.0)), Cutout((1.0, 1.0)), PointDropout(1.0)):
        assert (transform(clouds, draws_of(clouds)).lengths >= 1).all()
    assert torch.equal(Crop((1.0, 1.0))(clouds, draws_of(clouds)).points, clouds.points)
    assert torch.equal(Cutout((0.0, 0.0))(clouds, draws_of(clouds)).points, clouds.points)
    assert torch.equal(PointDropout(0.0)(clouds, draws_of(clouds)).points, clouds.points)


def test_partial_view_sees_one_side_of_a_sphere():
    """From three radii a camera sees the cap z > 1/3, a third of the sphere, and nothing beyond."""
    clouds = sphere(32, 2048)
    out = PartialView()(clouds, draws_of(clouds))
    share = out.lengths / 2048
    assert 0.26 < share.mean() < 0.36
    views = out.points.split(out.lengths.tolist())
    towards = torch.stack([torch.nn.functional.normalize(v.mean(0), dim=0) for v in views])
    for view, direction in zip(views, towards):
        height = view @ direction
        assert (height < 0.2).float().mean() < 0.02
        assert height.max() > 0.95
    assert towards.mean(0).norm() < 0.5  # cameras stand all around


def test_partial_view_hides_the_wall_behind():
    line = torch.linspace(-1, 1, 24)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    walls = [torch.cat((grid.reshape(-1, 2), torch.full((576, 1), height)), 1) for height in (0.5, -0.5)]
    clouds = Clouds.from_list([torch.cat(walls)], ids=torch.arange(1))
    kept = PartialView(elevation=(89.9, 89.9))(clouds, draws_of(clouds)).indices
    assert (kept < 576).sum() == 576  # all of the upper wall
    assert (kept >= 576).float().mean() < 0.1  # of the lower one, only what the perspective uncovers


def test_partial_view_keeps_to_its_elevations():
    clouds = sphere(64, 1024)
    out = PartialView(elevation=(20.0, 60.0))(clouds, draws_of(clouds))
    z = torch.stack([v.mean(0) for v in out.points.split(out.lengths.tolist())])
    degrees = torch.asin(torch.nn.functional.normalize(z, dim=1)[:, 2]) * 180 / torch.pi
    assert degrees.min() > 15
    assert degrees.max() < 65


@pytest.mark.parametrize("num_points", [1, 5, 16, 23, 64])
def test_resample_is_balanced(num_points):
    """Nobody twice before everybody once: counts of the points of a cloud differ by at most one."""
    clouds = clouds_of(16, 5, 1, 40)
    out = Resample(num_points)(clouds, draws_of(clouds))
    assert out.dense.shape == (4, num_points, 3)
    for rows, n in zip(indices_by_cloud(out), (16, 5, 1, 40)):
        counts = torch.bincount(rows, minlength=n)
        assert len(counts) == n
        assert counts.max() - counts.min() <= 1
        assert (rows.diff() >= 0).all()


def test_resample_picks_every_point_equally_often():
    clouds = sphere(3000, 10)
    rows = Resample(4)(clouds, draws_of(clouds)).indices
    assert (torch.bincount(rows, minlength=10) / 3000 - 0.4).abs().max() < 0.05


def test_resample_twice_and_of_repeats():
    """Repeated points share their random words; the size is exact all the same."""
    clouds = clouds_of(5, 9)
    twice = Resample(13)(clouds, draws_of(clouds))
    assert Resample(7)(twice, draws_of(clouds, 1)).dense.shape == (2, 7, 3)
    assert Resample(13)(twice, draws_of(clouds)).points is twice.points


def test_resample_with_replacement_repeats():
    clouds = clouds_of(30, 30)
    rows = Resample(30, replacement=True)(clouds, draws_of(clouds)).indices
    assert len(rows[:30].unique()) < 30
