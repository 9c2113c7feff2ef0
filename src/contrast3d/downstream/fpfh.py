"""FPFH: fast point feature histograms (Rusu, Blodow and Beetz, ICRA 2009), the classical descriptor of a surface."""

from __future__ import annotations

import numpy as np

from contrast3d.errors import ConfigError, DataError

BINS = 11  # of each of three angles
NORMAL_VOXELS, FEATURE_VOXELS = 2.0, 5.0  # radii in voxels, as they are commonly chosen


def fpfh(
    points: np.ndarray, voxel_size: float = 0.05, *, normal_radius: float | None = None,
    feature_radius: float | None = None, sensor: np.ndarray | None = None,
) -> np.ndarray:
    """(N, 33) float32 descriptors of a cloud (N, 3) that was thinned to `voxel_size`, in metres.

    normal_radius, feature_radius: of the neighbourhoods, by default 2 and 5 voxels. sensor: (3,) where the cloud was
    seen from, to which the normals turn; by default the origin. Each third is a histogram that sums to one, and all
    zeros where a point has no neighbour. Does not change when cloud and sensor move together.
    """
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise DataError("points", f"shape {points.shape}, or a NaN", "finite (N, 3)")
    normal_radius = NORMAL_VOXELS * voxel_size if normal_radius is None else normal_radius
    feature_radius = FEATURE_VOXELS * voxel_size if feature_radius is None else feature_radius
    if not (normal_radius > 0 and feature_radius > 0):
        raise ConfigError(f"fpfh: {normal_radius=}, {feature_radius=}; both must be positive")
    points = points.astype(np.float64)
    points = points - (np.zeros(3) if sensor is None else sensor)  # the sensor is the origin from here on
    if len(points) < 2:
        return np.zeros((len(points), 3 * BINS), np.float32)
    pairs, distances = _neighbours(points, max(normal_radius, feature_radius))
    normals = _normals(points, pairs[distances <= normal_radius])
    near = (distances <= feature_radius) & (distances > 0)  # the direction between duplicates is not defined
    return _weighted(len(points), pairs[near], distances[near], _bins(points, normals, pairs[near], distances[near]))


def normals(points: np.ndarray, radius: float) -> np.ndarray:
    """(N, 3) float64 unit normals of a cloud (N, 3) that a sensor at the origin saw, turned to the sensor.

    The direction in which the neighbours within `radius` spread least. A point with fewer than two neighbours gets
    the direction to the sensor.
    """
    points = points.astype(np.float64)
    return _normals(points, _neighbours(points, radius)[0])


def _neighbours(points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) pairs i < j of points within the radius, and their distances (P,)."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray")
    return pairs, np.linalg.norm(points[pairs[:, 1]] - points[pairs[:, 0]], axis=1)


def _adjacency(count: int, pairs: np.ndarray, values: np.ndarray):
    """Sparse symmetric (N, N) with a value for each pair, in both directions."""
    from scipy.sparse import csr_array

    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    return csr_array((np.concatenate([values, values]), (rows, columns)), shape=(count, count))


def _normals(points: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    near = _adjacency(len(points), pairs, np.ones(len(pairs)))
    count = np.bincount(pairs.ravel(), minlength=len(points))[:, None] + 1.0  # a point is its own neighbour
    products = np.column_stack([points, *(points[:, i] * points[:, j] for i in range(3) for j in range(i, 3))])
    means = (near @ products + products) / count
    covariance = np.empty((len(points), 3, 3))
    for column, (i, j) in enumerate([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], 3):
        covariance[:, i, j] = covariance[:, j, i] = means[:, column] - means[:, i] * means[:, j]
    normals = np.linalg.eigh(covariance)[1][:, :, 0]
    lonely = count[:, 0] < 3
    normals[lonely] = -points[lonely] / np.maximum(np.linalg.norm(points[lonely], axis=1), 1e-12)[:, None]
    away = (normals * points).sum(1) > 0
    normals[away] *= -1
    return normals


def _bins(points: np.ndarray, normals: np.ndarray, pairs: np.ndarray, distances: np.ndarray) -> list[np.ndarray]:
    """Per angle, the bin (P,) of each pair in 0..10.

    The angles of equation 1: with u = n_s, v = u x (p_t - p_s) and w = u x v, they are v.n_t, u.(p_t - p_s)/d and
    atan2(w.n_t, u.n_t). Source s is the one of the two whose normal lies nearer to the line between them, so that
    both points see the same angles and a pair is measured once.
    """
    line = (points[pairs[:, 1]] - points[pairs[:, 0]]) / distances[:, None]
    n = normals[pairs]
    along = np.einsum("pkc,pc->pk", n, line)
    swap = np.abs(along[:, 0]) < np.abs(along[:, 1])
    line[swap] *= -1
    u = np.where(swap[:, None], n[:, 1], n[:, 0])
    target = np.where(swap[:, None], n[:, 0], n[:, 1])
    phi = np.where(swap, -along[:, 1], along[:, 0])
    v = np.cross(u, line)
    v /= np.maximum(np.linalg.norm(v, axis=1), 1e-12)[:, None]
    w = np.cross(u, v)
    alpha, cosine, sine = ((a * target).sum(1) for a in (v, u, w))
    shares = ((alpha + 1) / 2, (phi + 1) / 2, (np.arctan2(sine, cosine) + np.pi) / (2 * np.pi))
    return [np.clip((share * BINS).astype(np.int64), 0, BINS - 1) for share in shares]


def _weighted(count: int, pairs: np.ndarray, distances: np.ndarray, bins: list[np.ndarray]) -> np.ndarray:
    """Equation 2, FPFH(p) = SPFH(p) + sum over neighbours of SPFH / distance, each of the two summing to one half.

    The paper divides by the number of neighbours only, which leaves the balance of the two to the unit of length.
    """
    simple = np.column_stack([
        sum(np.bincount(pairs[:, end] * BINS + angle, minlength=count * BINS) for end in (0, 1)).reshape(count, BINS)
        for angle in bins
    ]).astype(np.float64)
    neighbours = np.maximum(np.bincount(pairs.ravel(), minlength=count), 1)[:, None]
    simple /= neighbours
    weights = _adjacency(count, pairs, 1 / distances)
    total = np.maximum(weights.sum(1), 1e-12).reshape(-1, 1)
    return ((simple + weights @ simple / total) / 2).astype(np.float32)
