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


def test_a_list_that_stops_above_what_is_asked_for_is_not_enough():
    scene = seen(ground(), [(-1, 0.2), (-0.9, 0.3), (-0.2, 1), (0.6, 1)])
    few = replace(scene, pairs=np.array([[1, 3]]), overlaps=np.array([0.9], np.float32))
    assert fragments.overlapping(few).tolist() == [[1, 3]], "files that do not say list all from 30 % on"
    assert fragments.overlapping(few, 0.01).tolist() == fragments.overlapping(scene, 0.01).tolist() != [[1, 3]]
    assert fragments.overlapping(replace(few, min_overlap=0.01), 0.01).tolist() == [[1, 3]]
    assert fragments.overlapping(replace(few, min_overlap=0.5)).tolist() == [[0, 2]]


def test_a_pair_without_overlap_is_never_right():
    scene = seen(ground(), [(-1, -0.5), (-1, -0.5), (0.5, 1)])
    listed = replace(scene, pairs=np.array([[0, 2]]), overlaps=np.array([0.5], np.float32))
    found = evaluate_registration(fpfh_of(0.05), [listed])
    assert (found["pairs"], found[RECALL], found[RATIO]) == (1, 0, 0)
    with pytest.raises(DataError, match="of hills overlaps by 30%, those that follow each other aside") as error:
        evaluate_registration(fpfh_of(0.05), [scene])
    for way in ("--consecutive", "consecutive=True", "--min-overlap 0.15", "overlap=0.15"):  # the shell's, and Python's
        assert way in error.value.fix, way
    with pytest.raises(DataError, match="overlaps by 100%; expected") as error:
        Protocol(consecutive=True, overlap=1.0).prepare([seen(ground(), [(-1, 0), (-0.5, 1)])])
    assert "consecutive" not in error.value.fix, "it is already so"
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
    steps = [message for message in told if " left" not in message and "features" not in message]
    assert steps == ["pairs", "training-free", "untrained encoder", "ours"]
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


def test_progress_names_scene_pair_and_time_left(copies, monkeypatch):
    """A clock that goes ten seconds at each look: every fragment and pair is told, the time by the pairs to come."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(matching.time, "perf_counter", lambda: float(next(clock)))
    told = []
    registration(Noise(), [copies], name="ours", draws=2, make_untrained=Noise, on_progress=told.append, register=False)
    lines = [message for message in told if message.startswith("ours, ")]
    assert lines[0].startswith("ours, hills: features of fragment 1 of 4, ")
    pairs = [line for line in lines if "pair" in line]
    assert [line.split(", ")[1] for line in pairs] == [f"hills: pair {k} of 3" for k in (1, 2, 3)]
    assert pairs[-1].endswith(", 0:00 left")
    minutes, seconds = pairs[0].removesuffix(" left").split(", ")[-1].split(":")
    assert 20 <= 60 * int(minutes) + int(seconds) <= 120, "two of twelve pairs, at some 20 seconds each"
    assert told[1] == "training-free"
    assert told[2] == "training-free, hills: features of fragment 1 of 4", "nothing tells yet how long it takes"


def test_progress_is_told_once_a_second_at_most(copies, monkeypatch):
    clock = iter(np.arange(0, 1000, 0.3))
    monkeypatch.setattr(matching.time, "perf_counter", lambda: float(next(clock)))
    told = []
    evaluate_registration(Noise(), [copies], Protocol(register=False), on_progress=told.append)
    assert len(told) == 1  # seven fragments and pairs, in 2.1 seconds
    assert told[0].startswith("hills: ")


def test_protocols_are_called_by_their_pairs(copies):
    names = {
        "registration": {}, "registration (consecutive)": {"consecutive": True},
        "registration (overlap 0.2)": {"overlap": 0.2}, "registration (pairs gt)": {"pairs": "gt"},
        "registration (num_keypoints 100, overlap 0.5, consecutive)": {
            "num_keypoints": 100, "overlap": 0.5, "consecutive": True},
    }
    assert {name: Protocol(**changes).name for name, changes in names.items()} == {name: name for name in names}
    assert Protocol(voxel_size=0.1, seed=3, register=False).name == "registration"
    found = registration(Noise(), [copies], make_untrained=False, consecutive=True, register=False, num_keypoints=100)
    assert found.pairs == 6
    assert {r["protocol"] for r in found.to_results("r", commit="c", command="x", device="cpu")} == {
        "registration (num_keypoints 100, consecutive)"}
    assert found.render().title == (
        "3DMatch: registration of 6 pairs of fragments (num_keypoints 100, consecutive)")


def test_the_pairs_of_gt_log(copies):
    """All are matched; those that follow each other are not registered, as in 3DMatch's own evaluation."""
    given = replace(copies, pairs=np.array([[0, 1], [1, 2], [0, 3]]), overlaps=np.zeros(3, np.float32))
    protocol = Protocol(pairs="gt")
    scores = matching.score_pairs(fpfh_of(0.05), protocol.prepare([given])[0], protocol)
    assert [(s.first, s.second, s.registered) for s in scores] == [(0, 1, False), (1, 2, False), (0, 3, True)]
    assert all(s.inlier_ratio > 0.2 for s in scores)
    found = registration(Local(), [given], make_untrained=False, pairs="gt")
    assert (found.pairs, found.cell("pre-trained", RECALL).mean) == (3, 1)
    other = replace(given, pairs=given.pairs[:2], overlaps=given.overlaps[:2])
    fewer = registration(Local(), [other], make_untrained=False, pairs="gt")
    assert fewer.metrics == [FMR, FMR_HARD, RATIO], "none of these is registered"
    assert fewer.data_hash != found.data_hash, "another list is other data"
    by_overlap = registration(Local(), [given], make_untrained=False, register=False)
    assert by_overlap.pairs == 3
    for scene in (copies, replace(given, overlaps=np.ones(3, np.float32))):
        with pytest.raises(ConfigError, match="hills has no pairs of a gt"):
            Protocol(pairs="gt").prepare([scene])


def test_mistakes(copies):
    for changes in ({"consecutive": True}, {"overlap": 0.5}):
        with pytest.raises(ConfigError, match=r"the pairs of gt\.log are taken as they are: leave the overlap"):
            Protocol(pairs="gt", **changes)
    with pytest.raises(ConfigError, match="no field overlapp in Protocol"):
        registration(Noise(), [copies], overlapp=0.2)
    with pytest.raises(ConfigError, match="pairs = 'all'; expected overlap or gt"):
        Protocol(pairs="all")
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
