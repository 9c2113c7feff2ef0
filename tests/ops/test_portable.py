"""The plain torch that is exported computes what the kernels compute."""

from __future__ import annotations

import contextlib

import pytest
import torch

from contrast3d.nn.dgcnn import DGCNN
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.ops.gather import gather
from contrast3d.ops.knn import knn
from contrast3d.ops.neighbor_reduce import neighbor_max
from contrast3d.ops.portable import is_portable, may_look, portable
from contrast3d.types import Clouds


@pytest.mark.parametrize("channels", [1, 3, 4, 17])
@pytest.mark.parametrize("other", [False, True])
def test_knn(channels, other):
    torch.manual_seed(0)
    points = torch.randn(3, 30, channels, dtype=torch.float64)
    queries = torch.randn(3, 7, channels, dtype=torch.float64) if other else None
    expected = knn(points, 6, queries)
    with portable():
        found = knn(points, 6, queries)
    assert torch.equal(found, expected)


def test_knn_of_duplicates_begins_with_the_point_itself():
    with portable():
        found = knn(torch.zeros(1, 5, 3), 2)
    assert found[0, :, 0].tolist() == [0, 1, 2, 3, 4]


def test_sampling_and_maximum():
    torch.manual_seed(0)
    points = torch.randn(3, 40, 3)
    index = knn(points, 5)
    expected = farthest_point_sampling(points, 11), neighbor_max(points, index), gather(points, index)
    with portable():
        found = farthest_point_sampling(points, 11), neighbor_max(points, index), gather(points, index)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


@pytest.mark.parametrize("name", ["plain", "strides", "report"])
def test_networks_in_evaluation_mode(name):
    torch.manual_seed(0)
    network = {"plain": lambda: DGCNN(16, ((8,), (8,)), k=4),
               "strides": lambda: DGCNN(16, ((8,), (8,)), k=4, strides=(1, 2)),
               "report": lambda: DGCNN.report(4)}[name]().double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):  # weights of both signs: a negative one turns max into min
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.running_mean)
    clouds = Clouds.from_dense(torch.randn(3, 24, 3, dtype=torch.float64))
    with torch.no_grad():
        expected = network(clouds).pooled
        with portable():
            found = network(clouds).pooled
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_it_ends():
    points = torch.zeros(1, 2, 3)
    assert may_look(points)
    with contextlib.suppress(ZeroDivisionError), portable():
        assert is_portable()
        assert not may_look(points)
        raise ZeroDivisionError
    assert not is_portable()
