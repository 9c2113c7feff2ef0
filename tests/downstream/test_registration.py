"""Registration: matches, RANSAC and the protocol on views whose poses are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from contrast3d.data.scene_views import SceneViews
from contrast3d.data.three_d_match import ThreeDMatch
from contrast3d.downstream import fragments, matching
from contrast3d.downstream.matching import FMR, FMR_HARD, RATIO, RECALL, Protocol, nearest
from contrast3d.downstream.ransac import inlier_counts, kabsch, plausible, ransac
from contrast3d.downstream.registration import evaluate_registration, fpfh_of, registration
from contrast3d.errors import ConfigError, DataError
from contrast3d.types import Features


def pose(seed: int, reach: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    transform = kabsch(rng.normal(size=(5, 3)), rng.normal(size=(5, 3)))
    transform[:3, 3] = rng.uniform(-reach, reach, 3)
    return transform


def moved(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    return points @ transform[:3, :3].T + transform[:3, 3]


def ground(seed: int = 0, n: int = 12000) -> np.ndarray:
    """(n, 3) two by two metres of hills."""
    rng = np.random.default_rng(seed)
    xy, z = rng.uniform(-1, 1, (n, 2)), np.zeros(n)
    for _ in range(60):
        centre, width, height = rng.uniform(-1, 1, 2), rng.uniform(0.06, 0.15), rng.uniform(-0.2, 0.2)
        z += height * np.exp(-((xy - centre) ** 2).sum(1) / (2 * width**2))
    return np.column_stack([xy, z])


def seen(world: np.ndarray, boxes, name: str = "hills") -> SceneViews:
    """The points with x within each box, seen from two metres above by cameras that are turned at random."""
    poses = np.stack([pose(v, 0.2) for v in range(len(boxes))])
    poses[:, 2, 3] += 2
    views = [world[(world[:, 0] >= a) & (world[:, 0] <= b)] for a, b in boxes]
    return SceneViews.of([moved(v, np.linalg.inv(p)) for v, p in zip(views, poses)], poses, name)


@pytest.fixture(scope="module")
def copies() -> SceneViews:
    """Four times the same points, under four poses."""
    return seen(ground(), [(-1, 1)] * 4)


class Noise(torch.nn.Module):
    """Features that say nothing."""

    def __init__(self, seed: int = 0, width: int = 8):
        super().__init__()
        self.generator, self.width, self.calls = torch.Generator().manual_seed(seed), width, 0

    def forward(self, clouds):
        self.calls += 1
        assert len(clouds) == 1
        assert not self.training
        assert not torch.is_grad_enabled()
        points = torch.randn(len(clouds.points), self.width, generator=self.generator)
        return Features(points.mean(0, keepdim=True), points)


class Pooled(torch.nn.Module):
    """An encoder of whole shapes."""

    def forward(self, clouds):
        return Features(clouds.points.mean(0, keepdim=True))


class Local(Noise):
    """FPFH as a network would give it, of any length."""

    voxel_size = 0.05

    def forward(self, clouds):
        self.calls += 1
        points = 7 * fpfh_of(0.05)(clouds.points.numpy())
        return Features(points.mean(0, keepdim=True), points)


def test_identical_fragments_are_registered(copies):
    found = evaluate_registration(fpfh_of(0.05), [copies])
    assert (found[FMR], found[RECALL], found["pairs"]) == (1, 1, 3)
    assert found[RATIO] > 0.2
    assert found["rotation_error_deg"] < 2
    assert found["translation_error_m"] < 0.05
    assert set(found["scenes"]) == {"hills"}
    assert evaluate_registration(fpfh_of(0.05), [copies]) == found, "a function of its arguments"


def test_noise_registers_nothing(copies):
    encoder = Noise().train()
    found = evaluate_registration(encoder, [copies])
    assert (found[FMR], found[FMR_HARD], found[RECALL]) == (0, 0, 0)
    assert found[RATIO] < 0.02
    assert found["rotation_error_deg"] is None
    assert encoder.training
    assert encoder.calls == 4, "each fragment once"


def test_pairs_by_overlap():
    scene = seen(ground(), [(-1, 0.2), (-0.9, 0.3), (-0.2, 1), (0.6, 1)])
    assert fragments.overlapping(scene).tolist() == [[0, 2]]
    assert fragments.overlapping(scene, consecutive=True).tolist() == [[0, 1], [0, 2], [1, 2], [2, 3]]
    assert fragments.overlapping(scene, 0.6, consecutive=True).tolist() == [[0, 1], [2, 3]]
    listed = replace(scene, pairs=np.array([[0, 1], [0, 3], [1, 3]]), overlaps=np.array([0.9, 0.5, 0.1], np.float32))
    assert fragments.overlapping(listed).tolist() == [[0, 3]], "what the scene lists is not searched for again"
    unmeasured = replace(listed, overlaps=np.zeros_like(listed.overlaps))
    assert fragments.overlapping(unmeasured).tolist() == [[0, 2]], "a list without overlaps tells nothing"


def test_a_pair_without_overlap_is_never_right():
    scene = seen(ground(), [(-1, -0.5), (-1, -0.5), (0.5, 1)])
    listed = replace(scene, pairs=np.array([[0, 2]]), overlaps=np.array([0.5], np.float32))
    found = evaluate_registration(fpfh_of(0.05), [listed])
    assert (found["pairs"], found[RECALL], found[RATIO]) == (1, 0, 0)
    with pytest.raises(DataError, match="of hills overlaps by 30%, those that follow each other aside"):
        evaluate_registration(fpfh_of(0.05), [scene])
    assert evaluate_registration(fpfh_of(0.05), [scene], Protocol(consecutive=True, register=False))[RECALL] is None


def test_views_without_points(copies):
    empty = SceneViews.of([np.zeros((0, 3))] * 3, np.stack([np.eye(4)] * 3), "void")
    listed = replace(empty, pairs=np.array([[0, 2]]), overlaps=np.ones(1, np.float32))
    found = evaluate_registration(fpfh_of(0.05), [listed, copies])
    assert found["scenes"]["void"][RATIO] == 0
    assert found[FMR] == 0.5, "the mean over scenes, not over pairs"
    assert found["pairs"] == 4


def test_the_true_matches(copies):
    scene = Protocol(num_keypoints=100).prepare([copies])[0]
    pair = scene.pairs[0]
    assert (pair.first, pair.second) == (0, 2)
    first, second = scene.points[0][pair.matches[:, 0]], scene.points[2][pair.matches[:, 1]]
    distances = np.linalg.norm(moved(first, pair.truth) - second, axis=1)
    assert distances.max() < 0.075
    assert len(pair.matches) > 0.95 * len(scene.points[0])
    assert [len(k) for k in scene.keypoints] == [100] * 4
    other = Protocol(num_keypoints=100, seed=1).prepare([copies])[0]
    assert not np.array_equal(other.keypoints[0], scene.keypoints[0])
    thin = fragments.thinned(copies.points(0), 0.05)
    assert len(np.unique(np.floor(thin / 0.05), axis=0)) == len(thin)


def test_nearest_features():
    torch.manual_seed(0)
    first, second = torch.randn(40, 5), torch.randn(30, 5)
    distances = torch.cdist(first, second)
    assert nearest(first, second).tolist() == [[i, int(d.argmin())] for i, d in enumerate(distances)]
    expected = [[i, int(d.argmin())] for i, d in enumerate(distances) if distances[:, d.argmin()].argmin() == i]
    assert nearest(first, second, mutual=True).tolist() == expected
    assert nearest(first[:0], second).shape == nearest(first, second[:0]).shape == (0, 2)


@pytest.mark.parametrize("outliers", [0.0, 0.7, 0.93])
def test_ransac_recovers_a_pose(outliers):
    rng, truth = np.random.default_rng(0), pose(4)
    first = rng.uniform(-1.5, 1.5, (2000, 3)).astype(np.float32)
    second = (moved(first, truth) + 0.01 * rng.normal(size=first.shape)).astype(np.float32)
    wrong = rng.random(2000) < outliers
    second[wrong] = rng.uniform(-1.5, 1.5, (wrong.sum(), 3))
    found = ransac(first, second, seed=3)
    np.testing.assert_allclose(found.transform, truth, atol=0.01)
    assert found.inliers[~wrong].all()
    assert found.inliers[wrong].sum() <= 0.01 * wrong.sum()
    again = ransac(first, second, seed=3)
    assert np.array_equal(again.transform, found.transform)


def test_ransac_finds_nothing_in_nothing():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3))
    assert ransac(points[:0], points[:0]) is None
    assert ransac(points[:2], points[:2]) is None
    line = np.outer(rng.uniform(-1, 1, 50), [1.0, 2.0, 3.0])
    assert ransac(line, line) is None, "the rotation about the line is open"
    assert ransac(np.ones((50, 3)), np.ones((50, 3))) is None
    with pytest.raises(DataError, match=r"shapes \(50, 3\) and \(49, 3\)"):
        ransac(points, points[1:])
    with pytest.raises(ConfigError, match=r"distance=0\.0"):
        ransac(points, points, distance=0.0)


def test_plausible_triangles():
    right = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]])
    flat = np.array([[0, 0, 0], [1, 0, 0], [2, 0.01, 0]])
    twice = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 0.0]])
    first = np.stack([right, right, right, flat, twice, right])
    second = np.stack([moved(right, pose(1)), 1.05 * right, 1.3 * right, flat, twice, flat])
    assert plausible(first, second, 0.05).tolist() == [True, True, False, False, False, False]


def test_counts_are_those_of_the_residuals():
    rng = np.random.default_rng(0)
    first, second = (rng.uniform(-3, 3, (500, 3)) + [5, 0, -4] for _ in range(2))
    poses = np.stack([pose(s, 3) for s in range(300)])
    expected = [(np.linalg.norm(moved(first, p) - second, axis=1) < 2).sum() for p in poses]
    assert np.abs(inlier_counts(first, second, poses, 2.0) - expected).max() <= 1, "but for rounding at the limit"
    assert max(expected) > 10


def test_kabsch():
    rng = np.random.default_rng(0)
    first, truth = rng.normal(size=(7, 6, 3)), np.stack([pose(s) for s in range(7)])
    second = np.stack([moved(p, t) for p, t in zip(first, truth)])
    np.testing.assert_allclose(kabsch(first, second), truth, atol=1e-12)
    mirrored = kabsch(first[0], second[0] * [1, 1, -1])
    assert np.linalg.det(mirrored[:3, :3]) == pytest.approx(1), "never a reflection"
    plane = first[0] * [1, 1, 0]
    np.testing.assert_allclose(kabsch(plane, moved(plane, truth[0])), truth[0], atol=1e-9)
    assert np.linalg.det(kabsch(np.ones((3, 3)), np.ones((3, 3)))[:3, :3]) == pytest.approx(1)


def test_contestants_and_results(copies):
    told, encoder = [], Local()
    found = registration(encoder, [copies], name="ours", draws=2, seed=3, make_untrained=Noise, on_progress=told.append)
    assert told == ["pairs", "training-free", "untrained encoder", "ours"]
    assert [len(v) for v in found.values.values()] == [1, 2, 1]
    assert found.protocol.voxel_size == 0.05
    assert found.cell("ours").mean == found.cell("ours", RECALL).mean == 1
    assert found.cell("ours", RATIO).mean < found.cell("training-free", RATIO).mean + 0.1, "lengths do not matter"
    assert found.cell("untrained encoder").mean == 0
    results = found.to_results("recipe", commit="c", command="x", device="cpu", seed=7)
    assert [r["metric"] for r in results] == [FMR, FMR_HARD, RATIO, RECALL]
    assert results[0]["baselines"]["untrained encoder"] == {"mean": 0, "std": 0}
    assert (results[0]["mean"], results[0]["pairs"], results[0]["pretraining_seed"]) == (1, 3, 7)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert found.render().row_count == 3
    without = registration(encoder, [copies], name="ours", make_untrained=False, protocol=Protocol(register=False))
    assert list(without.values) == ["training-free", "ours"]
    assert without.metrics == [FMR, FMR_HARD, RATIO]
    assert len(without.to_results("r", commit="c", command="x", device="cpu")) == 3
    assert without.render().row_count == 2


def test_mistakes(copies):
    with pytest.raises(ConfigError, match="draws = 0"):
        registration(Noise(), [copies], draws=0)
    with pytest.raises(DataError, match="0 scenes, none of two views"):
        evaluate_registration(Noise(), [])
    with pytest.raises(ConfigError, match="voxel_size=0"):
        evaluate_registration(Noise(), [copies], Protocol(voxel_size=0.0))
    with pytest.raises(ConfigError, match="an overlap of 30"):
        evaluate_registration(Noise(), [copies], Protocol(overlap=30.0))
    with pytest.raises(ConfigError, match="Pooled gives no features of points; it needs a dense encoder"):
        evaluate_registration(Pooled(), [copies])
    with pytest.raises(DataError, match="NaN or infinity in 4 of 4 fragments of hills"):
        evaluate_registration(lambda points: torch.full((len(points), 2), torch.nan), [copies])


@pytest.mark.shared
def test_fpfh_on_real_fragments(shared):
    scene = ThreeDMatch(shared / "data", ["mit_lab"])[0]
    rows = slice(0, scene.offsets[8])
    some = SceneViews(scene.xyz_mm[rows], scene.offsets[:9], scene.poses[:8], "lab")
    found = evaluate_registration(fpfh_of(0.05), [some], Protocol(consecutive=True))
    assert found["pairs"] == 21
    assert found[FMR] > 0.2
    assert found[RECALL] > 0.5
    assert found["rotation_error_deg"] < 5
    assert matching.METRICS.keys() <= found.keys()
