"""Kernels that ran in the parent run again in a forked child, where the parent's threads do not exist."""

import os
import signal

import pytest
import torch

from contrast3d.ops.ball_query import ball_query
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.ops.knn import knn


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_gets_the_same_indices():
    points = torch.randn(4, 200, 3, generator=torch.Generator().manual_seed(0))

    def results():
        return torch.cat([knn(points, 8), ball_query(points, points, 0.5, 8)], -1), farthest_point_sampling(points, 50)

    torch.set_num_threads(2)
    expected = results()
    child = os.fork()
    if child == 0:  # leave without pytest's own teardown, and never hang the suite
        signal.alarm(60)
        same = all(torch.equal(a, b) for a, b in zip(results(), expected))
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
