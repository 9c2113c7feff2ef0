"""`Clouds.chunks`: what moves with the points moves with the pieces."""

from __future__ import annotations

import pytest
import torch

from contrast3d.types import Clouds


def packed() -> Clouds:
    lengths = [3, 1, 4, 2, 5]
    total = sum(lengths)
    return Clouds.from_list(
        [torch.randn(n, 3) for n in lengths], features=torch.randn(total, 2), labels=torch.arange(5),
        point_labels=torch.arange(total), ids=torch.arange(5) + 10, indices=torch.arange(total),
        transform=torch.randn(5, 4, 4),
    )


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 5), (2, [1, 2, 2]), (3, [2, 3]), (5, [5]), (9, [5])])
def test_pieces_are_even_and_complete(most, sizes):
    clouds = packed()
    pieces = clouds.chunks(most)
    assert [len(piece) for piece in pieces] == sizes
    for field in ("points", "features", "labels", "point_labels", "ids", "indices", "transform"):
        assert torch.equal(torch.cat([getattr(piece, field) for piece in pieces]), getattr(clouds, field))
    assert torch.equal(torch.cat([piece.lengths for piece in pieces]), clouds.lengths)
    assert all(piece.offsets[0] == 0 and piece.offsets[-1] == len(piece.points) for piece in pieces)


def test_what_is_absent_stays_absent():
    assert Clouds.from_dense(torch.randn(4, 2, 3)).chunks(2)[0].labels is None
