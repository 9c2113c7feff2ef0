import math
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch
from scipy import stats

from contrast3d.data.compose import Compose, OneOf, RandomApply
from contrast3d.data.crops import Crop, Cutout, PartialView, PointDropout, Resample
from contrast3d.data.draws import Draws
from contrast3d.data.transforms import (
    Flip,
    Jitter,
    Normalize,
    Rotate,
    RotateSmall,
    RotateSO3,
    Scale,
    ScaleAxes,
    Shear,
    Shift,
    UniformJitter,
)
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds

RIGID = [Rotate("up"), Rotate(0, 30.0), RotateSmall(), RotateSO3(), Flip(), Shift()]
AFFINE = [*RIGID, Scale(), Scale(0.5, 2.0, log=False), ScaleAxes(), Shear(), Normalize(), Normalize("bbox")]
NOISE = [Jitter(), UniformJitter()]
DROPPING = [Crop((0.3, 0.6)), Cutout((0.2, 0.5)), PointDropout(0.6), PartialView()]
COMPOSED = [
    Compose((Shear(), Rotate("up"), Crop(), Scale(), Flip(), Jitter(), Shift())),
    OneOf((Crop(), Cutout())),
    OneOf((Crop(), Rotate("up"), None), (1.0, 2.0, 1.0)),
    RandomApply(Compose((PointDropout(), RotateSO3()))),
]
RESAMPLING = [Resample(40), Resample(7), Resample(40, replacement=True)]
ALL = [*AFFINE, *NOISE, *DROPPING, *COMPOSED, *RESAMPLING]
named = pytest.mark.parametrize("transform", ALL, ids=repr)


def batch(lengths=(30,) * 8, dtype=torch.float32, ids=None) -> Clouds:
    """Clouds that depend on their ids alone, with everything that a batch can carry."""
    ids = list(range(len(lengths))) if ids is None else ids
    clouds = []
    for i, n in zip(ids, lengths):
        clouds.append(torch.randn(n, 3, generator=torch.Generator().manual_seed(i)).to(dtype))
    rows = torch.cat([torch.arange(n) for n in lengths])
    return Clouds.from_list(
        clouds, features=torch.cat(clouds) * 10, labels=torch.tensor(ids) % 3, point_labels=rows % 5,
        ids=torch.tensor(ids), indices=rows, transform=torch.eye(4).expand(len(ids), 4, 4),
    )


def draws_of(clouds: Clouds, epoch: int = 0) -> Draws:
    return Draws.of(0, epoch, clouds.ids)


def split(clouds: Clouds, field: str = "points") -> list[torch.Tensor]:
    return list(getattr(clouds, field).split(clouds.lengths.tolist()))


@named
def test_a_sample_does_not_depend_on_its_batch(transform):
    """Alone, in a shuffled batch, and among clouds of other lengths (packed): the same result."""
    clouds = batch()
    out = transform(clouds, draws_of(clouds))
    ids = [5, 2, 7, 0]
    shuffled = batch(ids=ids, lengths=(30,) * 4)
    ragged = batch(ids=[*ids, 8], lengths=(30, 30, 30, 30, 50))
    for other in (shuffled, ragged, *(batch(ids=[i], lengths=(30,)) for i in (0, 3))):
        result = transform(other, draws_of(other))
        for row, i in enumerate(other.ids.tolist()):
            if i < 8:
                torch.testing.assert_close(split(result)[row], split(out)[i], rtol=1e-4, atol=1e-6)
                assert torch.equal(split(result, "indices")[row], split(out, "indices")[i])
                torch.testing.assert_close(result.transform[row], out.transform[i], rtol=1e-4, atol=1e-6)


@named
def test_nothing_is_changed_in_place(transform):
    clouds, reference = batch((30, 20, 10)), batch((30, 20, 10))
    draws = draws_of(clouds)
    keys = draws.keys.clone()
    transform(clouds, draws)
    for field in fields(Clouds):
        assert torch.equal(getattr(clouds, field.name), getattr(reference, field.name)), field.name
    assert torch.equal(draws.keys, keys)


@named
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract(transform, dtype):
    """Well-formed offsets, dtypes, at least a point each; points, features, labels move together."""
    clouds = batch((30, 1, 12, 30), dtype)
    out = transform(clouds, draws_of(clouds))
    assert len(out) == 4
    assert out.points.dtype == out.features.dtype == dtype
    assert out.transform.dtype == torch.float32
    assert out.offsets[0] == 0
    assert out.offsets[-1] == len(out.points)
    assert (out.lengths >= 1).all()
    assert torch.isfinite(out.points).all()
    assert torch.equal(out.labels, clouds.labels)
    assert torch.equal(out.ids, clouds.ids)
    source = clouds.offsets[out.batch_index] + out.indices
    assert torch.equal(out.features, clouds.features[source])
    assert torch.equal(out.point_labels, clouds.point_labels[source])


@named
def test_deterministic_and_different_by_epoch(transform):
    clouds = batch((300, 300))
    once, again = transform(clouds, draws_of(clouds)), transform(clouds, draws_of(clouds))
    assert torch.equal(once.points, again.points)
    assert torch.equal(once.indices, again.indices)
    if isinstance(transform, Normalize):
        return
    other = transform(clouds, draws_of(clouds, epoch=1))
    assert once.points.shape != other.points.shape or not torch.equal(once.points, other.points)


@named
@pytest.mark.parametrize("lengths", [(10, 10), (10, 4)])
def test_works_on_bare_clouds(transform, lengths):
    clouds = Clouds.from_list([torch.randn(n, 3) for n in lengths])
    out = transform(clouds, Draws.of(0, 0, torch.arange(2)))
    assert out.features is None
    assert out.labels is None
    assert out.point_labels is None


@named
def test_one_point_and_coincident_points(transform):
    for cloud in (torch.ones(1, 3), torch.ones(20, 3)):
        clouds = Clouds.from_list([cloud, cloud], ids=torch.arange(2))
        out = transform(clouds, draws_of(clouds))
        assert (out.lengths >= 1).all()
        assert torch.isfinite(out.points).all()


@pytest.mark.parametrize("transform", [*AFFINE, *DROPPING, *RESAMPLING, *COMPOSED[1:]], ids=repr)
@pytest.mark.parametrize("lengths", [(30, 30), (30, 20)])
def test_matrix_and_indices_lead_back_to_the_source(transform, lengths):
    """transform @ source[indices] are the new points, also on top of an earlier map."""
    clouds = batch(lengths)
    moved = Compose((Rotate("x"), Shift(0.5)))(clouds, draws_of(clouds, epoch=9))
    out = transform(moved, draws_of(clouds))
    for b in range(2):
        source = split(clouds)[b][split(out, "indices")[b]]
        expected = source @ out.transform[b, :3, :3].T + out.transform[b, :3, 3]
        torch.testing.assert_close(split(out)[b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transform", RIGID, ids=repr)
def test_rigid_maps_keep_distances(transform):
    clouds = batch((30, 20))
    out = transform(clouds, draws_of(clouds))
    for before, after in zip(split(clouds), split(out)):
        distances = (torch.cdist(cloud, cloud) for cloud in (before, after))
        torch.testing.assert_close(*distances, rtol=1e-3, atol=2e-3)


def matrices(transform, count=4000):
    return transform.matrices(Draws.of(0, 0, torch.arange(count)))[:, :3, :3]


def test_rotation_ranges_and_handedness():
    up = matrices(Rotate("up", 40.0))
    assert (up[:, 2, 2] == 1).all()
    degrees = torch.atan2(up[:, 1, 0], up[:, 0, 0]) * 180 / math.pi
    assert degrees.abs().max() <= 40.001
    assert degrees.min() < -38
    assert degrees.max() > 38
    full = torch.atan2(*matrices(Rotate())[:, [1, 0], 0].T)
    assert full.min() < -3.1
    assert full.max() > 3.1
    for turn in (Rotate("x"), Rotate(1), RotateSmall(), RotateSO3()):
        torch.testing.assert_close(torch.linalg.det(matrices(turn)), torch.ones(4000))


def test_small_rotation_is_about_x_then_y_then_z():
    turn = RotateSmall(90.0)
    angles = Draws.of(0, 0, torch.arange(3)).uniform((3,), -math.pi / 2, math.pi / 2)
    point = torch.tensor([0.3, -0.5, 0.8])
    for b in range(3):
        x, y, z = point.tolist()
        a, c, e = angles[b].tolist()
        y, z = y * math.cos(a) - z * math.sin(a), y * math.sin(a) + z * math.cos(a)
        z, x = z * math.cos(c) - x * math.sin(c), z * math.sin(c) + x * math.cos(c)
        x, y = x * math.cos(e) - y * math.sin(e), x * math.sin(e) + y * math.cos(e)
        torch.testing.assert_close(matrices(turn, 3)[b] @ point, torch.tensor([x, y, z]))


def test_so3_is_uniform():
    """The image of any axis is uniform on the sphere, and the angle has density (1 - cos) / pi."""
    turns = matrices(RotateSO3())
    for column in range(3):
        for row in range(3):
            entry = (turns[:, row, column].numpy() + 1) / 2
            assert stats.kstest(entry, "uniform", method="asymp").pvalue > 1e-4
    angle = ((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos().numpy()
    assert stats.kstest((angle - np.sin(angle)) / math.pi, "uniform", method="asymp").pvalue > 1e-4


def test_scales_flips_shears_and_shifts():
    factors = matrices(Scale(0.5, 2.0)).diagonal(dim1=1, dim2=2)
    assert (factors == factors[:, :1]).all()
    assert 0.5 <= factors.min() < 0.51
    assert 1.98 < factors.max() <= 2.0001
    assert abs(factors.log().mean()) < 0.03  # as often by f as by 1 / f
    assert abs(matrices(Scale(0.5, 2.0, log=False))[:, 0, 0].mean() - 1.25) < 0.03
    axes = matrices(ScaleAxes(0.5, 2.0)).diagonal(dim1=1, dim2=2)
    assert torch.corrcoef(axes.T).fill_diagonal_(0).abs().max() < 0.06

    flips = matrices(Flip(1, 0.3)).diagonal(dim1=1, dim2=2)
    assert (flips[:, [0, 2]] == 1).all()
    assert abs((flips[:, 1] == -1).float().mean() - 0.3) < 0.03
    assert (flips[:, 1].abs() == 1).all()

    shears = matrices(Shear(0.2))
    assert (shears.diagonal(dim1=1, dim2=2) == 1).all()
    off = shears[:, ~torch.eye(3, dtype=torch.bool)]
    assert 0.199 < off.abs().max() <= 0.2
    shift = Shift(0.3).matrices(Draws.of(0, 0, torch.arange(4000)))[:, :3, 3]
    assert 0.29 < shift.abs().max() <= 0.3


def test_noise_has_its_size():
    clouds = batch((4000, 1000))
    moved = (Jitter(0.02, None)(clouds, draws_of(clouds)).points - clouds.points).flatten()
    assert abs(moved.std() - 0.02) < 0.001
    assert (Jitter(0.02, 0.03)(clouds, draws_of(clouds)).points - clouds.points).abs().max() <= 0.03001
    uniform = UniformJitter(0.05)(clouds, draws_of(clouds)).points - clouds.points
    assert 0.0499 < uniform.abs().max() <= 0.05001
    assert abs(uniform.std() - 0.05 / math.sqrt(3)) < 0.001


def test_noise_of_a_point_survives_a_crop():
    clouds = batch((30, 20))
    noise = Jitter()(clouds, draws_of(clouds, 1)).points - clouds.points
    cropped = Crop()(clouds, draws_of(clouds))
    rest = Jitter()(cropped, draws_of(clouds, 1)).points - cropped.points
    source = clouds.offsets[cropped.batch_index] + cropped.indices
    torch.testing.assert_close(rest, noise[source], rtol=0, atol=1e-6)


@pytest.mark.parametrize("center", ["mean", "bbox"])
def test_normalize(center):
    clouds = batch((30, 20, 1))
    far = clouds.replace(points=clouds.points * torch.tensor([3.0, 5.0, 9.0]) + 100)
    for points in split(Normalize(center)(far, draws_of(far)))[:2]:
        assert abs(points.norm(dim=1).max() - 1) < 1e-4
        middle = points.mean(0) if center == "mean" else (points.amin(0) + points.amax(0)) / 2
        assert middle.abs().max() < 1e-4


def test_compose_equals_one_by_one():
    """Joined affine maps give what the parts give in turn, each with its own child of the draws."""
    clouds = batch((30, 20))
    parts = (Shear(), RotateSO3(), Jitter(), Shift(), Scale(), Crop(), Flip())
    out = clouds
    for part, own in zip(parts, draws_of(clouds).children(len(parts))):
        out = part(out, own)
    joined = Compose(parts)(clouds, draws_of(clouds))
    torch.testing.assert_close(joined.points, out.points, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joined.transform, out.transform, rtol=1e-4, atol=1e-5)
    assert torch.equal(joined.indices, out.indices)
    assert Compose(())(clouds, draws_of(clouds)) is clouds


def test_one_of_and_random_apply_choose_per_sample():
    clouds = batch((4,) * 2000)
    doubled, halved = Scale(2.0, 2.0), Scale(0.5, 0.5)
    ratio = OneOf((doubled, halved, None), (1.0, 2.0, 1.0))(clouds, draws_of(clouds)).transform[:, 0, 0]
    for factor, share in ((2, 0.25), (0.5, 0.5), (1, 0.25)):
        assert abs(torch.isclose(ratio, torch.tensor(float(factor))).float().mean() - share) < 0.04
    applied = RandomApply(doubled, 0.3)(clouds, draws_of(clouds)).transform[:, 0, 0] > 1.5
    assert abs(applied.float().mean() - 0.3) < 0.04
    same = RandomApply(doubled, 0.0)(clouds, draws_of(clouds))
    assert torch.equal(same.points, clouds.points)


def test_one_of_masks_equal_taking_the_batch_apart():
    """The short cut for transforms that only drop points gives what the general path gives."""
    clouds = batch((30, 20, 30, 30, 10, 30))
    mask_path = OneOf((Crop(), Cutout()))(clouds, draws_of(clouds))
    general = OneOf((Crop().__call__, Cutout()))(clouds, draws_of(clouds))
    assert torch.equal(mask_path.indices, general.indices)
    assert torch.equal(mask_path.points, general.points)


def test_shared_draws_make_one_map_for_the_batch():
    clouds = batch()
    out = Compose((RotateSO3(), Shear(), UniformJitter()))(clouds, draws_of(clouds).shared())
    assert torch.equal(out.transform, out.transform[:1].expand_as(out.transform))


@pytest.mark.parametrize(
    "make", [lambda: Rotate("w"), lambda: Scale(0.0, 1.0), lambda: ScaleAxes(2.0, 1.0), lambda: Flip(3),
             lambda: Normalize("median"), lambda: OneOf(()), lambda: OneOf((Shear(),), (1.0, 2.0)),
             lambda: OneOf((Shear(),), (0.0,)), lambda: RandomApply(Shear(), 1.5), lambda: Crop((0.9, 0.7)),
             lambda: Cutout((-0.1, 0.7)), lambda: PointDropout(1.1), lambda: PartialView(0.9),
             lambda: PartialView(elevation=(0.0, 100.0)), lambda: Resample(0)],
)
def test_impossible_settings_are_config_errors(make):
    with pytest.raises(ConfigError):
        make()


def test_transforms_are_values():
    assert Shear(0.1) == Shear(0.1)
    with pytest.raises(FrozenInstanceError):
        Shear().limit = 3.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@named
def test_same_result_on_cuda(transform):
    clouds = batch((30, 20, 1))
    cpu = transform(clouds, draws_of(clouds))
    cuda = clouds.to("cuda")
    cuda = transform(cuda, draws_of(cuda)).to("cpu")
    torch.testing.assert_close(cpu.points, cuda.points, rtol=1e-4, atol=1e-5)
    assert torch.equal(cpu.indices, cuda.indices)
