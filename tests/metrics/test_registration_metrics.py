"""Numbers that judge a registration, against their definitions written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from contrast3d.metrics import registration as metrics


def pose(axis: tuple, degrees: float, translation: tuple = (0.0, 0.0, 0.0)) -> torch.Tensor:
    """Rodrigues' formula."""
    x, y, z = (torch.tensor(axis).double() / torch.tensor(axis).double().norm()).tolist()
    k = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]).double()
    angle = math.radians(degrees)
    transform = torch.eye(4).double()
    transform[:3, :3] += math.sin(angle) * k + (1 - math.cos(angle)) * k @ k
    transform[:3, 3] = torch.tensor(translation)
    return transform


@pytest.fixture
def matched():
    torch.manual_seed(0)
    truth = pose((1, 2, -1), 70, (0.5, -1, 2))
    first = torch.randn(50, 3).double()
    return first, metrics.moved(first, truth) + 0.06 * torch.randn(50, 3).double(), truth


def distances(first, second, transform) -> list[float]:
    found = []
    for p, q in zip(first.tolist(), second.tolist()):
        there = [sum(transform[i, j].item() * p[j] for j in range(3)) + transform[i, 3].item() for i in range(3)]
        found.append(math.dist(there, q))
    return found


def test_rmse_is_the_definition(matched):
    expected = math.sqrt(sum(d * d for d in distances(*matched)) / 50)
    assert metrics.correspondence_rmse(*matched) == pytest.approx(expected, rel=1e-12)
    first, second, truth = matched
    exact = metrics.moved(first, truth)
    assert metrics.correspondence_rmse(first, exact, truth) == pytest.approx(0, abs=1e-12)
    assert metrics.correspondence_rmse(first, exact, pose((1, 2, -1), 70, (0.5, -1, 2.3))) == pytest.approx(0.3)
    assert metrics.correspondence_rmse(first.float(), second.float(), truth) == pytest.approx(expected, rel=1e-5)


def test_inlier_ratio_is_the_definition(matched):
    found = distances(*matched)
    for radius in (0.05, 0.1, 0.2):
        expected = sum(d < radius for d in found) / 50
        assert metrics.inlier_ratio(*matched, radius) == pytest.approx(expected)
    assert 0 < metrics.inlier_ratio(*matched) < 1  # so that the loop above has something to tell apart
    assert metrics.inlier_ratio(matched[1], matched[0], matched[2]) < 0.1, "the pose has a direction"


def test_no_matches():
    empty = torch.zeros(0, 3)
    assert metrics.inlier_ratio(empty, empty, torch.eye(4).double()) == 0
    assert metrics.correspondence_rmse(empty, empty, torch.eye(4).double()) == math.inf
    assert math.isnan(metrics.feature_match_recall(torch.zeros(0)))


def test_recalls():
    ratios = torch.tensor([0.0, 0.05, 0.051, 0.3], dtype=torch.float64)
    assert metrics.feature_match_recall(ratios) == 0.5, "0.05 itself is not above"
    assert metrics.feature_match_recall(ratios, 0.2) == 0.25
    assert metrics.registration_recall(torch.tensor([0.1, 0.2, 0.3, math.inf], dtype=torch.float64)) == 0.25


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 1.0, 90.0, 179.999999])
def test_angles_and_distances(degrees):
    truth = pose((3, 1, 2), 40, (1, 2, 3))
    off = pose((-1, 2, 5), degrees) @ truth
    assert metrics.rotation_error(off, truth) == pytest.approx(degrees, rel=1e-6, abs=1e-9)
    off[:3, 3] = torch.tensor([1, 2 + 0.3, 3 - 0.4])
    assert metrics.translation_error(off, truth) == pytest.approx(0.5)
