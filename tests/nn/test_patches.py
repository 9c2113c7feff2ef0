"""Clouds as patches against loops over points, and which patches are hidden."""

import numpy as np
import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.nn.patches import block_mask, group, random_mask, select


def naive(points, num_patches, patch_size, skip_origin):
    """Rows of the centers and of the points nearest to each, of one cloud; as the released kernels go through it."""
    points = points.double().numpy()
    eligible = [i for i, p in enumerate(points) if not skip_origin or (p**2).sum() > 1e-3]
    nearest, chosen = np.full(len(points), np.inf), [0]
    while len(chosen) < num_patches:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
        best, winner = -1.0, 0
        for i in eligible:
            if nearest[i] > best:
                best, winner = nearest[i], i
        chosen.append(winner)
    around = [((points - points[i]) ** 2).sum(1).argsort(kind="stable")[:patch_size] for i in chosen]
    return torch.tensor(chosen), torch.from_numpy(np.stack(around))


def cloud_with_core(seed=0, core=40, shell=30):
    """Points of which many are near the origin, the first one among them."""
    g = torch.Generator().manual_seed(seed)
    inner = 0.01 * torch.rand(2, core, 3, generator=g)
    return torch.cat([inner, torch.randn(2, shell, 3, generator=g)], 1)


@pytest.mark.parametrize("skip_origin", [False, True])
@pytest.mark.parametrize(("num_patches", "patch_size"), [(1, 1), (12, 5), (24, 70)])
def test_group_equals_loops(num_patches, patch_size, skip_origin):
    points = cloud_with_core()
    found = group(points, num_patches, patch_size, skip_origin)
    for b, cloud in enumerate(points):
        chosen, around = naive(cloud, num_patches, patch_size, skip_origin)
        assert torch.equal(found.centers[b], cloud[chosen])
        assert torch.equal(found.index[b], around)
        assert torch.equal(found.points[b], cloud[around] - cloud[chosen][:, None])


def test_points_near_the_origin_are_centers_only_where_they_may_be():
    points = cloud_with_core()
    near = lambda patches: (patches.centers.square().sum(-1) <= 1e-3).sum(1).tolist()  # noqa: E731
    assert near(group(points, 40, 4)) > [1, 1]
    assert near(group(points, 31, 4, skip_origin=True)) == [1, 1]  # the first point and all of the shell
    few = group(points, 40, 4, skip_origin=True)
    assert torch.equal(few.centers[:, 31:], points[:, :1].expand(-1, 9, 3))


def test_all_points_are_centers_and_neighbours():
    points = torch.randn(2, 9, 3)
    patches = group(points, 9, 9)
    assert all(len(rows.unique()) == 9 for rows in patches.index.flatten(0, 1))
    assert len(patches.centers[0].unique(dim=0)) == 9
    torch.testing.assert_close(patches.points + patches.centers[:, :, None], points[:, None].expand(-1, 9, 9, 3).gather(
        2, patches.index[..., None].expand(-1, -1, -1, 3)))


def test_duplicates():
    patches = group(torch.ones(1, 6, 3), 4, 3)
    assert not patches.points.any()
    assert torch.equal(patches.centers, torch.ones(1, 4, 3))


def test_one_cloud_does_not_see_another():
    points = torch.randn(3, 40, 3)
    together, alone = group(points, 5, 6), group(points[1:2], 5, 6)
    assert torch.equal(together.index[1:2], alone.index)
    assert torch.equal(group(points.transpose(1, 2).contiguous().transpose(1, 2), 5, 6).index, together.index)


@pytest.mark.parametrize(("num_patches", "patch_size"), [(8, 16), (16, 8)])
def test_clouds_with_fewer_points_than_a_patch_needs(num_patches, patch_size):
    with pytest.raises(DataError, match=f"15 points each; expected at least 16, for {num_patches} patches of "
                                        f"{patch_size}.*--num-patches, --patch-size"):
        group(torch.randn(2, 15, 3), num_patches, patch_size)
    group(torch.randn(2, 16, 3), num_patches, patch_size)


@pytest.mark.parametrize("kind", ["random", "block"])
@pytest.mark.parametrize(("patches", "ratio", "hidden"), [(64, 0.6, 38), (8, 0.6, 4), (5, 0.99, 4), (4, 0.25, 1)])
def test_the_share_that_is_hidden(kind, patches, ratio, hidden):
    def draw(seed):
        torch.manual_seed(seed)
        return random_mask(6, patches, ratio) if kind == "random" else block_mask(centers, ratio)

    centers = torch.randn(6, patches, 3)
    mask = draw(0)
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [hidden] * 6
    assert torch.equal(mask, draw(0))
    assert not torch.equal(mask, draw(1))
    assert len(mask.unique(dim=0)) > 1  # each cloud has its own


def test_every_patch_is_hidden_as_often():
    torch.manual_seed(0)
    often = random_mask(4000, 10, 0.3).float().mean(0)
    assert (often - 0.3).abs().max() < 0.03


def test_a_block_is_what_is_nearest_to_one_center():
    centers = torch.randn(20, 16, 3)
    for cloud, mask in zip(centers, block_mask(centers, 0.5)):
        distances = torch.cdist(cloud, cloud)
        inside, outside = distances[:, mask].amax(1), distances[:, ~mask].amin(1)
        assert (inside <= outside)[mask].any()


def test_selection_keeps_order():
    values = torch.arange(24.0).view(2, 4, 3)
    chosen = torch.tensor([[True, False, False, True], [False, True, True, False]])
    assert select(values, chosen)[:, :, 0].tolist() == [[0.0, 9.0], [15.0, 18.0]]
    assert select(values, chosen).shape == (2, 2, 3)
