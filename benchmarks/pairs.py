"""From depth images to pairs of views that overlap, against numpy and SciPy's KD-trees.

The frames are those of 7-Scenes RedKitchen in $CONTRAST3D_SHARED (default ../shared); 300 frames are the same 40 again
and again. Asked for: the 40 frames in under 8 s on two cores, 300 in under 90 s, memory under 2 GB.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import harness  # before torch: sets how OpenMP threads wait
import numpy as np
import torch
from harness import Case

from contrast3d.data.pairs import find_pairs
from contrast3d.data.rgbd import find_scans, read_scan
from contrast3d.ops.overlap import ViewOverlaps
from contrast3d.ops.radius_matches import correspondences

VOXEL, RADIUS, LEAST = 0.05, 0.075, 0.3
MATCH_VOXEL, MATCH_RADIUS = 0.025, 0.0375
FRAMES, LONG = 40, 300
SUBSET = 100  # pairs that the reference compares one by one
POINT_FLOPS, POINT_BYTES = 30, 26  # a pixel: 2 bytes in, 24 of a point; projected, moved, two voxels found
PAIR_FLOPS, PAIR_BYTES = 8, 12  # one distance per point and direction, where the first one looked at is a hit


def cases(quick: bool) -> dict[tuple[str, str], Callable[[], Case]]:
    """Every row's name and variant, and what builds its case."""
    few, many = (3, 6) if quick else (FRAMES, LONG)
    return {
        ("rgbd_to_pairs", f"{few} frames"): partial(files_case, quick, few, True),
        ("rgbd_to_pairs", f"{many} frames"): partial(files_case, quick, many, False),
        ("overlap", f"{min(SUBSET, few * (few - 1) // 2)} pairs"): partial(overlap_case, quick),
        ("correspondences", "one pair"): partial(correspondences_case, quick),
    }


def files_case(quick: bool, count: int, compared: bool) -> Case:
    """Read, back-project, thin, compare all with all; the time that `data prepare pairs` takes before it writes."""
    folder = folder_of(quick, count)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        (source,) = find_scans(folder)
        with tempfile.TemporaryDirectory() as spool:
            scan = read_scan(source, every=1, voxel=VOXEL, spool=Path(spool))
            return find_pairs(scan.views, LEAST, VOXEL, RADIUS, scan.means)

    def difference(dtype: torch.dtype) -> float:
        """Of the overlaps, all of which both must have found."""
        (pairs, overlaps), (their_pairs, theirs) = ours(), reference(folder)
        return float(np.abs(overlaps - theirs.astype(np.float32)).max()) if np.array_equal(pairs, their_pairs) else 1.0

    means = means_of(folder)
    points, rows = count * (64 * 48 if quick else 640 * 480), sum(map(len, means)) / len(means)
    pairs = count * (count - 1) // 2
    flops = POINT_FLOPS * points + PAIR_FLOPS * 2 * rows * pairs
    moved = POINT_BYTES * points + PAIR_BYTES * 2 * rows * pairs
    asked = "Asked for: under 8 s on two cores." if compared else "Asked for: under 90 s on two cores, under 2 GB."
    note = f"PNGs are inflated and voxels looked up on top. {asked}"
    return Case(ours, flops, moved, note, partial(reference, folder) if compared else None,
                difference if compared else None, wanted_peak_mb=2048, max_rounds=5 if compared else 1)


def overlap_case(quick: bool) -> Case:
    """Some pairs of views, their voxel means known; the reference builds two trees per pair."""
    means = means_of(folder_of(quick, 3 if quick else FRAMES))
    pairs = np.array(list(itertools.combinations(range(len(means)), 2)))
    pairs = pairs[:: max(1, len(pairs) // SUBSET)][:SUBSET]

    def ours() -> np.ndarray:
        return ViewOverlaps(means, RADIUS).of(pairs)

    def theirs() -> np.ndarray:
        return np.array([tree_overlap(means[i], means[j]) for i, j in pairs])

    rows = sum(map(len, means)) / len(means)
    note = "Points are sorted into columns first, and several are looked at before a hit."
    return Case(ours, PAIR_FLOPS * 2 * rows * len(pairs), PAIR_BYTES * 2 * rows * len(pairs), note, theirs,
                lambda dtype: float(np.abs(ours() - theirs()).max()))


def correspondences_case(quick: bool) -> Case:
    """The matches of two views at 2.5 cm, as the loader of a training finds them for every pair."""
    from scipy.spatial import cKDTree

    first, second = (torch.from_numpy(mean) for mean in means_of(folder_of(quick, 2), MATCH_VOXEL)[:2])
    transform = torch.eye(4, dtype=torch.float64)

    def ours() -> torch.Tensor:
        return correspondences(first, second, transform, MATCH_RADIUS)

    def theirs() -> list[list[int]]:
        return cKDTree(first.numpy()).query_ball_tree(cKDTree(second.numpy()), MATCH_RADIUS)

    def difference(dtype: torch.dtype) -> float:
        listed = [[i, j] for i, row in enumerate(theirs()) for j in sorted(row)]
        return float(ours().tolist() != listed)

    found = len(ours())
    note = f"{len(first):,} and {len(second):,} points, {found:,} matches; each is found twice: counted, then written."
    return Case(ours, 8 * found, 24 * (len(first) + len(second)) + 16 * found, note, theirs, difference)


def reference(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, overlaps) by numpy and SciPy, frame after frame and pair after pair; a tree per frame."""
    from scipy.spatial import cKDTree

    means = [voxel_means_plain(points, VOXEL) for points in clouds_plain(folder)]
    trees = [cKDTree(mean.astype(np.float32)) for mean in means]
    pairs, overlaps = [], []
    for i, j in itertools.combinations(range(len(trees)), 2):
        overlap = max(share(trees[i], trees[j].data), share(trees[j], trees[i].data))
        if overlap >= LEAST:
            pairs.append((i, j))
            overlaps.append(overlap)
    return np.array(pairs).reshape(-1, 2), np.array(overlaps)


def share(tree, points: np.ndarray) -> float:
    """The share of the points that the tree has one near to."""
    return float((tree.query(points, distance_upper_bound=RADIUS * (1 + 1e-12))[0] <= RADIUS).mean())


def tree_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The larger share of two clouds that the other has a point near to."""
    from scipy.spatial import cKDTree

    return max(share(cKDTree(first), second), share(cKDTree(second), first))


def clouds_plain(folder: Path) -> list[np.ndarray]:
    """All frames of a folder of 7-Scenes in the frame of the scene."""
    from PIL import Image

    matrix, clouds = np.loadtxt(folder / "camera-intrinsics.txt"), []
    for path in sorted(folder.glob("*.depth.png")):
        depth = np.asarray(Image.open(path))
        v, u = np.nonzero((depth > 0) & (depth < 65535))
        z = depth[v, u] / 1000.0
        points = np.stack([(u - matrix[0, 2]) * z / matrix[0, 0], (v - matrix[1, 2]) * z / matrix[1, 1], z], 1)
        pose = np.loadtxt(str(path).replace("depth.png", "pose.txt"))
        clouds.append(points @ pose[:3, :3].T + pose[:3, 3])
    return clouds


def voxel_means_plain(points: np.ndarray, voxel: float) -> np.ndarray:
    """The mean of the points in each voxel."""
    cells = np.floor(points / voxel).astype(np.int64)
    cells -= cells.min(0)
    keys = (cells[:, 0] << 40) + (cells[:, 1] << 20) + cells[:, 2]
    _, numbers = np.unique(keys, return_inverse=True)
    counts = np.bincount(numbers)
    return np.stack([np.bincount(numbers, points[:, axis]) / counts for axis in range(3)], 1)


@cache
def means_of(folder: Path, voxel: float = VOXEL) -> list[np.ndarray]:
    """Of every view the voxel means, float32."""
    (source,) = find_scans(folder)
    return read_scan(source, every=1, voxel=voxel).means


@cache
def folder_of(quick: bool, count: int) -> Path:
    """A folder of `count` frames as 7-Scenes lays them out: links to RedKitchen's, or a tilted plane drawn small."""
    folder = Path(_room().name) / f"{'quick' if quick else 'kitchen'}-{count}"
    folder.mkdir()
    if quick:
        _draw(folder, count)
        return folder
    shared = Path(os.environ.get("CONTRAST3D_SHARED", Path(__file__).parents[2] / "shared")).absolute()
    kitchen = shared / "data" / "rgbd" / "redkitchen"
    depths = sorted(kitchen.glob("*.depth.png"))
    if len(depths) < FRAMES:
        sys.exit(f"pairs.py: {FRAMES} frames of 7-Scenes RedKitchen are not in $CONTRAST3D_SHARED; --quick needs none")
    (folder / "camera-intrinsics.txt").symlink_to(kitchen / "camera-intrinsics.txt")
    for number in range(count):
        depth = depths[number % FRAMES]
        (folder / f"frame-{number:06d}.depth.png").symlink_to(depth)
        pose = depth.with_name(depth.name.replace("depth.png", "pose.txt"))
        (folder / f"frame-{number:06d}.pose.txt").symlink_to(pose)
    return folder


@cache
def _room() -> tempfile.TemporaryDirectory:
    """Kept until the process ends."""
    return tempfile.TemporaryDirectory(prefix="contrast3d-pairs-")


def _draw(folder: Path, count: int) -> None:
    from PIL import Image

    (folder / "camera-intrinsics.txt").write_text("60 0 32\n0 60 24\n0 0 1\n")
    v, u = np.mgrid[:48, :64]
    for number in range(count):
        Image.fromarray((1500 + 9 * u + 4 * v).astype(np.uint16)).save(folder / f"frame-{number:06d}.depth.png")
        pose = np.eye(4)  # turned, so that no pixel lies on the border of a voxel, where rounding would decide
        pose[:3, :3] = [[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]
        pose[:3, 3] = 0.0173 * number + 0.0123
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, cases))
