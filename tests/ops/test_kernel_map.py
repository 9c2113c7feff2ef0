"""Kernel maps against a dictionary of coordinates, merging against searching, and what is remembered."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sparse import CELLS, cells, coarse, offsets, pairs, threads, voxels_of

from contrast3d.errors import DataError
from contrast3d.ops import neighbor_table
from contrast3d.ops.kernel_map import coarser, finer, kernel_map, offsets_of
from contrast3d.ops.kernels.sparse_conv import BLOCK_ROWS
from contrast3d.ops.portable import portable
from contrast3d.ops.sparse_conv import sparse_conv
from contrast3d.ops.voxels import from_coords


def voxels_at(coords, clouds=4):
    return from_coords(coords, torch.ones(len(coords), 1), clouds)[0]


def listed(found):
    """The pairs (in, out) of each offset, of a map and of a table alike."""
    together = list(zip(found.in_rows.tolist(), found.out_rows.tolist()))
    return [together[a:b] for a, b in pairwise(found.starts)]


def equal(first, second):
    same = torch.equal(first.in_rows, second.in_rows) and torch.equal(first.out_rows, second.out_rows)
    return same and (first.starts, first.num_in, first.num_out) == (second.starts, second.num_in, second.num_out)


@settings(max_examples=80, deadline=None)
@given(coords=CELLS, kernel_size=st.integers(1, 5), stride=st.integers(1, 3), dilation=st.integers(1, 2))
def test_equals_naive_on_any_map(coords, kernel_size, stride, dilation):
    voxels = voxels_at(coords)
    found = kernel_map(voxels, kernel_size, stride, dilation)
    outs, bounds = coarser(voxels, stride)
    assert [tuple(c) for c in outs.tolist()] == coarse(coords, stride)
    assert outs.dtype == found.in_rows.dtype == found.out_rows.dtype == torch.int32
    assert bounds.tolist() == [int((outs[:, 0] < b).sum()) for b in range(5)]
    assert listed(found) == pairs(voxels.coords, outs, kernel_size, dilation)
    assert (found.num_in, found.num_out) == (len(coords), len(outs))
    for count in (1, 2):
        with threads(count):
            assert equal(kernel_map(voxels_at(coords), kernel_size, stride, dilation), found)
    with portable():
        assert equal(kernel_map(voxels_at(coords), kernel_size, stride, dilation), found)


def test_offsets_run_along_x_first():
    assert offsets_of(3)[[0, 1, 3, 9, 13]].tolist() == [[-1, -1, -1], [0, -1, -1], [-1, 0, -1], [-1, -1, 0], [0, 0, 0]]
    assert offsets_of(2, 4)[[0, 1, 2, 4]].tolist() == [[0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 4]]
    for size in range(1, 6):
        assert [tuple(o) for o in offsets_of(size, 2).tolist()] == offsets(size, 2)


def test_searching_in_parts(monkeypatch):
    voxels = voxels_of(count=80)
    whole = kernel_map(voxels, 3)
    monkeypatch.setattr(neighbor_table, "SEARCHED", 2 * len(voxels.coords))
    voxels.maps.clear()
    with portable():
        assert equal(kernel_map(voxels, 3), whole)


def test_coarser_levels_keep_the_units_of_the_finest():
    """Twice by 2 is once by 4, and offsets grow with the level."""
    voxels = voxels_of(count=200, extent=9)
    half = sparse_conv(voxels, torch.ones(8, 5, 1).double(), None, 2, 2)
    assert half.stride == 2
    assert torch.equal(half.coords, coarser(voxels, 2)[0])
    assert listed(kernel_map(half, 3)) == pairs(half.coords, half.coords, 3, 2)
    assert listed(kernel_map(half, 3, dilation=2)) == pairs(half.coords, half.coords, 3, 4)
    quarter, bounds = coarser(half, 2)
    assert [tuple(c) for c in quarter.tolist()] == coarse(voxels.coords, 4)
    assert listed(kernel_map(half, 3, 2)) == pairs(half.coords, quarter, 3, 2)
    fresh = voxels_of(count=200, extent=9)
    assert torch.equal(coarser(fresh, 4)[0], quarter)
    assert torch.equal(coarser(fresh, 4)[1], bounds)


def test_kernels_of_two_by_two_are_a_partition():
    voxels = voxels_of(count=150, extent=6)
    found = kernel_map(voxels, 2, 2)
    assert sorted(found.in_rows.tolist()) == list(range(len(voxels.coords)))
    assert set(found.out_rows.tolist()) == set(range(found.num_out))


def test_rows_rise_within_an_offset_and_the_transposed_map_exchanges_them():
    found = kernel_map(voxels_of(count=150), 3, 2)
    for some in listed(found):
        ins, outs = zip(*some)
        assert all(a < b for side in (ins, outs) for a, b in pairwise(side))
    with portable():
        table = kernel_map(voxels_of(count=150), 3, 2)
    for each in (found, table):
        back = each.transposed
        assert listed(back) == [[(u, m) for m, u in some] for some in listed(found)]
        assert (back.num_in, back.num_out) == (found.num_out, found.num_in)
        assert each.transposed is back


def test_a_table_names_the_row_in_under_each_offset():
    voxels = voxels_of(count=80)
    with portable():
        table = kernel_map(voxels, 3)
    assert isinstance(table, neighbor_table.NeighborTable)
    assert (table.rows.dtype, table.rows.shape) == (torch.int32, (27, len(voxels.coords)))
    of_pairs = torch.full(table.rows.shape, -1)
    for k, some in enumerate(listed(kernel_map(voxels, 3))):
        for i, u in some:
            of_pairs[k, u] = i
    assert table.rows.tolist() == of_pairs.tolist()


def test_blocks_of_rows_cover_every_pair_once():
    voxels = voxels_of(count=3 * BLOCK_ROWS, extent=12)
    found = kernel_map(voxels, 3)
    rows = found.out_rows.numpy()
    assert found.bounds.shape == (27, -(-len(voxels.coords) // BLOCK_ROWS) + 1)
    assert found.bounds.shape[1] > 3
    for i, bounds in enumerate(found.bounds):
        assert (bounds[0], bounds[-1]) == found.starts[i : i + 2]
        for b in range(len(bounds) - 1):
            assert np.all(rows[bounds[b] : bounds[b + 1]] // BLOCK_ROWS == b)


def test_maps_are_made_once_and_shared():
    voxels = voxels_of()
    found = kernel_map(voxels, 3)
    other = voxels.replace(features=torch.zeros(len(voxels.coords), 9))
    assert kernel_map(other, 3) is found
    assert kernel_map(other, 3, dilation=2) is not found
    down = sparse_conv(other, torch.ones(8, 9, 1), None, 2, 2)
    assert kernel_map(voxels, 2, 2) is down.maps[1, 2, 2, 1, True]
    assert kernel_map(down, 3) is voxels.maps[2, 3, 1, 1, True]
    assert finer(down, 2)[0] is voxels.coords


def test_clouds_never_meet():
    """Neighbouring numbers of clouds, and voxels at opposite faces of the box whose keys are neighbours."""
    coords = torch.tensor([[0, 0, 0, 3], [0, 0, 1, -3], [1, 0, 0, -3], [1, 0, 0, 3], [2, 0, 0, -3], [3, 0, 0, -3]])
    found = kernel_map(voxels_at(coords), 5)
    assert [len(p) for p in listed(found)] == [6 if i == 62 else 0 for i in range(125)]


@pytest.mark.parametrize("clouds", [0, 2])
@pytest.mark.parametrize("plain", [False, True])
def test_no_voxels(clouds, plain):
    voxels = voxels_at(torch.zeros(0, 4, dtype=torch.long), clouds)
    if plain:
        with portable():
            found = kernel_map(voxels, 3, 2)
    else:
        found = kernel_map(voxels, 3, 2)
    assert listed(found) == [[]] * 27
    assert plain or found.bounds.shape == (27, 1)
    assert coarser(voxels, 2)[1].tolist() == [0] * (clouds + 1)


@pytest.mark.parametrize("options", [{"kernel_size": 0}, {"stride": 0}, {"dilation": 0}, {"kernel_size": -3}])
def test_impossible_kernels(options):
    with pytest.raises(DataError, match=f"{next(iter(options))}: .*1 or more"):
        kernel_map(voxels_of(), **{"kernel_size": 3} | options)


def test_no_way_back_to_voxels_that_never_were():
    voxels = voxels_of()
    with pytest.raises(DataError, match=r"no coordinates at stride 0\.5.*there are strides \[1\]"):
        finer(voxels, 2)
    with pytest.raises(DataError, match="stride: 0"):
        finer(voxels, 0)
    quarter = sparse_conv(voxels, torch.ones(64, 5, 1).double(), None, 4, 4)
    with pytest.raises(DataError, match=r"no coordinates at stride 2; .*there are strides \[1, 4\]"):
        finer(quarter, 2)
    assert torch.equal(finer(quarter, 4)[0], voxels.coords)


def test_kernels_that_reach_beyond_32_bits():
    edge = torch.tensor([[0, 2**31 - 2, 0, 0], [0, 2**31 - 3, 0, 0]])
    for coords in (edge, -edge - torch.tensor([0, 2, 0, 0])):
        with pytest.raises(DataError, match="numbers of 32 bits"):
            kernel_map(voxels_at(coords), 3)
    inside = edge - torch.tensor([0, 2**16, 0, 0])
    found = kernel_map(voxels_at(inside), 3, dilation=2**10)
    assert listed(found)[13] == [(0, 0), (1, 1)]
    far = torch.cat([inside, -inside])
    assert listed(kernel_map(voxels_at(far), 3)) == pairs(*[voxels_at(far).coords] * 2, 3, 1)
    assert [tuple(c) for c in coarser(voxels_at(far), 16)[0].tolist()] == coarse(far, 16)


def test_a_box_of_more_cells_than_numbers():
    corners = torch.tensor([[0, -(2**20), -(2**20), -(2**20)], [0, 2**20, 2**20, 2**20]])
    with pytest.raises(DataError, match=r"fewer than 2\^63 cells"):
        kernel_map(voxels_at(corners), 3)
    thin = voxels_at(corners // 2)
    assert listed(kernel_map(thin, 3))[13] == [(0, 0), (1, 1)]


def test_cells_of_the_tests_are_distinct():
    coords = cells(0, 40, clouds=(0, 3))
    assert len(coords) == len(coords.unique(dim=0)) > 30
    assert coords[:, 0].unique().tolist() == [0, 3]
