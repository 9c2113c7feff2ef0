"""Points into voxels against a dictionary, the kernels against the torch path, and input that has no voxels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sparse import threads

from contrast3d.errors import DataError
from contrast3d.ops.packing import Packing
from contrast3d.ops.portable import portable
from contrast3d.ops.voxels import LIMIT, distinct, from_coords, voxel_labels, voxelize
from contrast3d.types import Clouds, Voxels


def naive(clouds, voxel_size):
    """-> sorted cells, the first point of each, the cell of each point."""
    cells = [
        (int(b), *(int(v) for v in torch.floor(p / voxel_size)))
        for b, p in zip(clouds.batch_index, clouds.points)
    ]
    rows = sorted(set(cells))
    return rows, [cells.index(r) for r in rows], [rows.index(c) for c in cells]


def batch(*lengths, seed=0, spread=1.0, **fields):
    draw = torch.Generator().manual_seed(seed)
    return Clouds.from_list([torch.randn(n, 3, generator=draw) * spread for n in lengths], **fields)


def same(first, second):
    return all(torch.equal(a, b) for a, b in (
        (first.coords, second.coords), (first.features, second.features), (first.offsets, second.offsets),
        (first.first, second.first), (first.inverse, second.inverse)))


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=4), seed=st.integers(0, 99),
    spread=st.sampled_from([0.01, 1.0, 50.0]), voxel_size=st.sampled_from([0.25, 0.5, 3.0]),
)  # fmt: skip
def test_equals_naive_on_any_clouds(lengths, seed, spread, voxel_size):
    clouds = batch(*lengths, seed=seed, spread=spread)
    clouds = clouds.replace(features=torch.randn(len(clouds.points), 2))
    voxels = voxelize(clouds, voxel_size)
    rows, first, inverse = naive(clouds, voxel_size)
    assert voxels.coords.dtype == torch.int32
    assert voxels.coords.tolist() == [list(r) for r in rows]
    assert voxels.first.tolist() == first
    assert voxels.inverse.tolist() == inverse
    assert torch.equal(voxels.features, clouds.features[first])
    assert voxels.offsets.tolist() == [sum(r[0] < b for r in rows) for b in range(len(lengths) + 1)]
    with portable():
        assert same(voxelize(clouds, voxel_size), voxels)


def test_many_points_of_few_voxels_on_any_threads():
    """Equal keys are sorted in any order; the first point stands for a voxel all the same."""
    clouds = batch(3000, 0, 2000, spread=0.6)
    _, first, inverse = naive(clouds, 0.5)
    for count in (1, 2):
        with threads(count):
            voxels = voxelize(clouds, 0.5)
        assert (voxels.first.tolist(), voxels.inverse.tolist()) == (first, inverse)


def test_cells_are_floored_towards_minus_infinity():
    points = torch.tensor([[-0.1, -1.0, -1.1], [0.0, 0.9, 1.0], [-0.9, -0.01, -1.5]])
    voxels = voxelize(Clouds.from_list([points]), 1.0)
    assert voxels.coords.tolist() == [[0, -1, -1, -2], [0, 0, 0, 1]]
    assert voxels.first.tolist() == [0, 1]
    assert voxels.inverse.tolist() == [0, 1, 0]
    assert voxels.features.tolist() == [[1.0], [1.0]]


def test_one_voxel_and_none():
    together = voxelize(Clouds.from_list([torch.rand(100, 3)]), 1.0)
    assert together.coords.tolist() == [[0, 0, 0, 0]]
    assert (together.first.tolist(), together.inverse.unique().tolist()) == ([0], [0])
    for clouds in (batch(), batch(0), batch(0, 0, 0)):
        nothing = voxelize(clouds, 0.1)
        assert nothing.coords.shape == (0, 4)
        assert nothing.features.shape == (0, 1)
        assert nothing.offsets.tolist() == [0] * (len(clouds) + 1)
        assert len(nothing) == len(clouds)


def test_strided_points():
    points = torch.randn(3, 50).T
    assert not points.is_contiguous()
    plain = Clouds.from_list([points.contiguous()])
    assert same(voxelize(Clouds(points, plain.offsets), 0.5), voxelize(plain, 0.5))


def test_shift_moves_each_cloud_by_whole_cells():
    clouds, shift = batch(40, 0, 30), torch.tensor([[1, -2, 3], [9, 9, 9], [0, 0, 70]])
    moved, still = voxelize(clouds, 0.5, shift), voxelize(clouds, 0.5)
    assert torch.equal(moved.coords[:, 1:].long(), still.coords[:, 1:] + shift[still.coords[:, 0].long()])
    assert torch.equal(moved.inverse, still.inverse)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e9])
def test_points_without_a_cell(value):
    points = torch.zeros(5, 3)
    points[3, 1] = value
    with pytest.raises(DataError, match=r"points: NaN, infinite, or beyond .* voxels of 1"):
        voxelize(Clouds.from_list([points]), 1.0)


@pytest.mark.parametrize("voxel_size", [0.0, -1.0, float("nan")])
def test_impossible_voxels(voxel_size):
    with pytest.raises(DataError, match="voxel_size"):
        voxelize(batch(3), voxel_size)


def test_near_the_end_of_32_bits():
    edge = float(LIMIT - 256)
    points = torch.tensor([[edge, 0, 0], [-edge, 0, 0]], dtype=torch.float64)
    assert voxelize(Clouds.from_list([points]), 1.0).coords[:, 1].tolist() == [-edge, edge]
    for shift in (2**16 + 256, -(2**16) - 257, 2**40):
        with pytest.raises(DataError, match="numbers of 32 bits"):
            voxelize(Clouds.from_list([points]), 1.0, shift=torch.tensor([[shift, 0, 0]]))
    with pytest.raises(DataError, match="numbers of 32 bits"):
        from_coords(torch.tensor([[0, 0, 2**31, 0]]), torch.ones(1, 1))
    low, high = torch.tensor([[0, 0, -(2**31), 0]]), torch.tensor([[0, 2**31 - 1, 0, 0]])
    assert torch.equal(from_coords(torch.cat([high, low]), torch.ones(2, 1))[0].coords.long(), torch.cat([low, high]))


def test_more_cells_than_there_are_numbers():
    far = torch.tensor([[-1e9, -1e9, -1e9], [1e9, 1e9, 1e9]])
    with pytest.raises(DataError, match=r"extend over 2,000,000,001 x .* fewer than 2\^63 cells"):
        voxelize(Clouds.from_list([far]), 1.0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999), count=st.integers(1, 30), step=st.integers(1, 5),
    size=st.sampled_from([2, 1000, 2**18]),
)  # fmt: skip
def test_packing_keeps_order_and_comes_back(seed, count, step, size):
    draw = torch.Generator().manual_seed(seed)
    coords = torch.randint(-size, size, (count, 4), generator=draw)
    coords[:, 0].abs_()
    coords[:, 0].remainder_(5)
    packing = Packing.of(coords, reach=step)
    keys = packing.keys(coords, step)
    floored = [[b, *(v // step * step for v in rest)] for b, *rest in coords.tolist()]
    order = sorted(range(count), key=floored.__getitem__)
    assert torch.equal(keys[torch.tensor(order)], keys.sort().values)
    assert packing.coords(keys).tolist() == floored
    offset = torch.tensor([[step, -step, 0]])
    moved = packing.keys(coords + torch.cat([torch.zeros(1, 1, dtype=torch.long), offset], 1))
    assert torch.equal(moved, packing.keys(coords) + packing.shift(offset))
    with portable():
        assert torch.equal(packing.keys(coords, step), keys)
        assert packing.coords(keys).tolist() == floored


def test_distinct_rows_of_any_integers():
    coords = torch.tensor([[0, 5, 5, 5], [1, 0, 0, 0], [0, 5, 5, 5], [0, -5, 0, 0]], dtype=torch.int32)
    rows, first, inverse = distinct(coords)
    assert (first.tolist(), inverse.tolist()) == ([3, 0, 1], [1, 2, 1, 0])
    assert torch.equal(rows[inverse], coords)
    every_other = distinct(coords.repeat_interleave(2, 1)[:, ::2])
    assert torch.equal(every_other[0], rows)


def test_given_coordinates_are_sorted():
    coords = torch.tensor([[3, 0, 0, 0], [0, 1, -1, 0], [0, -1, 9, 9]])
    voxels, order = from_coords(coords, torch.tensor([[3.0], [1.0], [2.0]]))
    assert order.tolist() == [2, 1, 0]
    assert torch.equal(voxels.coords.long(), coords[order])
    assert voxels.features.flatten().tolist() == [2.0, 1.0, 3.0]
    assert voxels.offsets.tolist() == [0, 2, 2, 2, 3]
    assert len(from_coords(coords, torch.ones(3, 1), clouds=6)[0]) == 6
    assert len(from_coords(coords[:0], torch.ones(0, 1))[0]) == 0
    assert len(from_coords(coords[:0], torch.ones(0, 1), clouds=2)[0]) == 2


@pytest.mark.parametrize(("coords", "clouds", "said"), [
    ([[0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]], None, "1 rows that repeat another"),
    ([[0, 1, 1, 1], [-1, 0, 0, 0]], None, "cloud -1"),
    ([[0, 1, 1, 1], [2, 0, 0, 0]], 2, "cloud 2; expected clouds below 2"),
])
def test_coordinates_that_cannot_be(coords, clouds, said):
    with pytest.raises(DataError, match=said):
        from_coords(torch.tensor(coords), torch.ones(len(coords), 1), clouds)


def test_a_feature_for_each_coordinate():
    with pytest.raises(DataError, match="for 3 features"):
        from_coords(torch.zeros(2, 4, dtype=torch.long), torch.ones(3, 1))


def test_labels_that_disagree_are_ignored():
    points = torch.tensor([[0.1, 0, 0], [0.2, 0, 0], [1.5, 0, 0], [2.5, 0, 0], [2.6, 0, 0], [2.7, 0, 0]])
    voxels = voxelize(Clouds.from_list([points]), 1.0)
    labels = torch.tensor([4, 4, 7, 1, 1, 2])
    assert voxel_labels(labels, voxels).tolist() == [4, 7, 255]
    assert voxel_labels(labels, voxels, ignore=-1).tolist() == [4, 7, -1]
    assert voxel_labels(labels[:0], voxelize(batch(0), 1.0)).shape == (0,)


def test_another_device_makes_its_own_maps():
    voxels = voxelize(batch(20, 10), 0.5)
    voxels.maps["coords", 1] = (voxels.coords, voxels.offsets)
    moved = voxels.to("cpu")
    assert same(moved, voxels)
    assert moved.maps == {}
    assert voxels.replace(features=voxels.features * 2).maps is voxels.maps
    away = voxels.to("meta")
    assert {t.device.type for t in (away.coords, away.features, away.offsets, away.first, away.inverse)} == {"meta"}
    assert away.device.type == "meta"
    without = Voxels(voxels.coords, voxels.features, voxels.offsets).to("cpu")
    assert without.inverse is None
