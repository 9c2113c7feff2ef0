"""FPFH against its definition written as loops, and what it must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from contrast3d.downstream.fpfh import fpfh, normals
from contrast3d.downstream.matching import nearest
from contrast3d.downstream.ransac import kabsch
from contrast3d.errors import ConfigError, DataError


def bumpy(n: int, seed: int = 0, shape: int = 0) -> np.ndarray:
    """(n, 3) a surface of hills about two metres below the sensor, seen from the origin."""
    rng, hills = np.random.default_rng(seed), np.random.default_rng(shape)
    xy = rng.uniform(-0.6, 0.6, (n, 2))
    z = np.full(n, -2.0)
    for _ in range(25):
        centre, width, height = hills.uniform(-0.6, 0.6, 2), hills.uniform(0.05, 0.15), hills.uniform(-0.15, 0.15)
        z += height * np.exp(-((xy - centre) ** 2).sum(1) / (2 * width**2))
    return np.column_stack([xy, z])


def turn(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return kabsch(rng.normal(size=(5, 3)), rng.normal(size=(5, 3)))[:3, :3]


def naive_angles(p, n_p, q, n_q) -> tuple[float, float, float]:
    line = (q - p) / np.linalg.norm(q - p)
    if abs(n_p @ line) < abs(n_q @ line):
        n_p, n_q, line = n_q, n_p, -line
    v = np.cross(n_p, line)
    v /= np.linalg.norm(v)
    w = np.cross(n_p, v)
    return (v @ n_q + 1) / 2, (n_p @ line + 1) / 2, (math.atan2(w @ n_q, n_p @ n_q) + math.pi) / (2 * math.pi)


def naive(points: np.ndarray, radius: float, normal: np.ndarray) -> np.ndarray:
    near = [
        [j for j in range(len(points)) if j != i and np.linalg.norm(points[j] - points[i]) <= radius]
        for i in range(len(points))
    ]
    simple = np.zeros((len(points), 33))
    for i, others in enumerate(near):
        for j in others:
            for k, share in enumerate(naive_angles(points[i], normal[i], points[j], normal[j])):
                simple[i, 11 * k + min(int(share * 11), 10)] += 1 / len(others)
    out = np.zeros_like(simple)
    for i, others in enumerate(near):
        weights = [1 / np.linalg.norm(points[j] - points[i]) for j in others]
        for weight, j in zip(weights, others):
            out[i] += weight / sum(weights) * simple[j] / 2
        out[i] += simple[i] / 2
    return out


def test_it_is_the_definition():
    points = bumpy(150)
    found = fpfh(points, normal_radius=0.2, feature_radius=0.25)
    np.testing.assert_allclose(found, naive(points, 0.25, normals(points, 0.2)), atol=1e-6)
    np.testing.assert_allclose(found.reshape(-1, 3, 11).sum(2), 1, atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) > 140, "points differ"


def test_normals_of_a_plane_look_at_the_sensor():
    rng = np.random.default_rng(0)
    plane = np.column_stack([rng.uniform(-1, 1, (400, 2)), np.full(400, 1.5)])
    np.testing.assert_allclose(normals(plane, 0.3), np.tile([0.0, 0.0, -1.0], (400, 1)), atol=1e-6)
    np.testing.assert_allclose(normals(plane - [0, 0, 3], 0.3), np.tile([0.0, 0.0, 1.0], (400, 1)), atol=1e-6)


def test_it_does_not_change_with_the_pose():
    points = bumpy(800)
    expected, rotation = fpfh(points), turn(1)
    np.testing.assert_allclose(fpfh(points @ rotation.T), expected, atol=0.02)  # edges of bins, equal normals
    moved = points @ rotation.T + [3, -4, 5]
    np.testing.assert_allclose(fpfh(moved, sensor=np.array([3, -4, 5])), expected, atol=0.02)
    assert np.abs(fpfh(moved) - expected).max() > 0.1, "the side of the sensor matters"
    order = np.random.default_rng(0).permutation(800)
    np.testing.assert_allclose(fpfh(points[order]), expected[order], atol=0.02)


def test_copies_of_one_surface_match():
    first, second, other = bumpy(3000, seed=0), bumpy(3000, seed=1), bumpy(3000, seed=2, shape=9)
    rotation = turn(3)
    rows = nearest(*(torch.from_numpy(fpfh(p, 0.04)) for p in (first, second @ rotation.T))).numpy()
    close = np.linalg.norm(first[rows[:, 0]] - second[rows[:, 1]], axis=1) < 0.1
    rows = nearest(*(torch.from_numpy(fpfh(p, 0.04)) for p in (first, other))).numpy()
    chance = np.linalg.norm(first[rows[:, 0]] - other[rows[:, 1]], axis=1) < 0.1
    assert close.mean() > 0.5
    assert chance.mean() < 0.1


def test_few_points():
    assert fpfh(np.zeros((0, 3))).shape == (0, 33)
    assert not fpfh(np.ones((1, 3))).any()
    assert not fpfh(np.array([[0, 0, 1.0], [9, 0, 1]])).any(), "neither has a neighbour"
    twice = np.array([[0, 0, 1.0], [0, 0, 1.0], [0.01, 0, 1]])
    assert np.isfinite(fpfh(twice)).all()
    assert np.isfinite(fpfh(np.zeros((3, 3)))).all()
    line = np.column_stack([np.linspace(0, 1, 30), np.zeros(30), np.ones(30)])
    assert np.isfinite(fpfh(line)).all()


def test_mistakes():
    with pytest.raises(DataError, match=r"shape \(4, 2\)"):
        fpfh(np.zeros((4, 2)))
    with pytest.raises(DataError, match="NaN"):
        fpfh(np.full((4, 3), np.nan))
    with pytest.raises(ConfigError, match="feature_radius=0"):
        fpfh(np.zeros((4, 3)), feature_radius=0.0)
