import pytest
import torch

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.baselines import majority
from contrast3d.downstream.descriptors import d2_histogram, geometric, unit_sphere, voxel_occupancy


def test_d2_parity_with_a_loop():
    points = unit_sphere(torch.randn(3, 20, 3))
    ours = d2_histogram(points, bins=16)
    for cloud, histogram in zip(points, ours):
        distances = torch.pdist(cloud.double())
        naive = torch.histc(distances, 16, 0, 2) / len(distances)
        torch.testing.assert_close(histogram, naive.float(), atol=0.02, rtol=0)  # ties at the edges of bins
        assert histogram.sum().item() == pytest.approx(1.0)


def test_voxels_parity_with_a_loop():
    points = unit_sphere(torch.randn(2, 50, 3))
    ours = voxel_occupancy(points, 4)
    for cloud, grid in zip(points, ours):
        naive = torch.zeros(4, 4, 4)
        for p in cloud.tolist():
            x, y, z = (min(int((v + 1) * 2), 3) for v in p)
            naive[x, y, z] = 1
        assert torch.equal(grid, naive.flatten())


def test_normalisation_makes_it_blind_to_position_and_size():
    points = torch.randn(5, 40, 3).double()
    a, b = geometric(ShapeSet(points)), geometric(ShapeSet(points * 7 + 3))
    assert a.shape == (5, 64 + 12**3)
    assert (a != b).float().mean() < 1e-3
    assert unit_sphere(points).norm(dim=2).amax(1).tolist() == pytest.approx([1.0] * 5)


def test_one_point_and_duplicates():
    assert torch.isfinite(geometric(ShapeSet(torch.ones(2, 1, 3)))).all()
    assert geometric(ShapeSet(torch.ones(1, 9, 3)))[0, 0] == 1.0


def test_majority():
    found = majority(torch.tensor([2, 1, 1, 0]), torch.tensor([1, 1, 2]))
    assert found.predictions.tolist() == [1, 1, 1]
    assert (found.accuracy, found.balanced_accuracy) == (pytest.approx(2 / 3), 0.5)
