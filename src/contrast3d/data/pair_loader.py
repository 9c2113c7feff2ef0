"""`PairLoader`: batches of overlapping views of scenes with their matches, as a pure function of (epoch, step)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.data.draws import Draws
from contrast3d.data.scene_views import SceneViews
from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.radius_matches import correspondences
from contrast3d.ops.voxels import voxelize
from contrast3d.types import Clouds, ViewPairs

_SHUFFLE = -1  # the view whose draws order the epoch
MATCH_VOXELS = 1.5  # how far apart two matching points may be, in voxels


class PairLoader:
    """Pairs of overlapping views, each view centred and turned by a rotation of its own; random access, no state.

    scenes: with their pairs.
    voxel_size: a view is thinned to the first point of every voxel after it was turned; points of two views match that
        lie within 1.5 voxels under the true motion.
    batch_size: pairs per step over all `world` processes. steps: per epoch; None goes once through all pairs.
    max_angle: views are turned about a random axis by up to so many degrees, 180 as released; fewer are learnt faster,
        and are enough where cameras are held upright.
    upright: the world's z axis is up and stays so: views stand as their poses say, turned about z by any angle, and
        about a random axis by up to max_angle; for what shall read upright scenes later.
    scale: (low, high) of a factor for both views of a pair, applied with probability 0.95; None for none.
    feature_noise: standard deviation of noise on the features, which are ones, with probability 0.95.
    channels: of those features; 0 gives none.
    holistic: both views are the whole scene, all its views together: the ablation of the paper.
    """

    what = "pairs"

    def __init__(
        self, scenes: Sequence[SceneViews], voxel_size: float = 0.025, batch_size: int = 4, steps: int | None = None,
        seed: int = 0, rank: int = 0, world: int = 1, device: torch.device | str = "cpu",
        scale: tuple[float, float] | None = None, feature_noise: float = 0.01, channels: int = 3,
        holistic: bool = False, max_angle: float = 180.0, upright: bool = False,
    ):
        if batch_size < 1 or batch_size % world or not 0 <= rank < world:
            raise ConfigError(f"batch_size {batch_size} (global), rank {rank} of {world} processes; expected a batch "
                              "that divides by them")
        if not voxel_size > 0:
            raise ConfigError(f"voxel_size = {voxel_size}; expected a positive length in metres")
        self.scenes, self.voxel_size, self.seed = list(scenes), voxel_size, seed
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self.scale, self.feature_noise, self.channels, self.holistic = scale, feature_noise, channels, holistic
        self.max_angle, self.upright = max_angle, upright
        if holistic:
            self.pairs = [(s, 0, 0) for s in range(len(self.scenes))]
        else:
            self.pairs = [(s, a, b) for s, scene in enumerate(self.scenes) for a, b in scene.pairs.tolist()]
        if len(self.pairs) < batch_size:
            what = "scenes to see whole" if holistic else "pairs of overlapping views"
            raise DataError(f"{len(self.scenes)} scenes", f"{len(self.pairs)} {what}",
                            f"at least batch_size = {batch_size}", "a smaller batch_size, or more scenes")
        self.batch_size = batch_size
        self.steps = steps or len(self.pairs) // batch_size
        self._ordered: tuple[int, np.ndarray] = (-1, np.empty(0))
        self._whole: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.steps

    def order(self, turn: int) -> np.ndarray:
        """The pairs in the order of one turn through all of them."""
        if self._ordered[0] != turn:
            keys = Draws.of(self.seed, turn, torch.arange(len(self.pairs)), _SHUFFLE).keys
            self._ordered = (turn, keys.argsort(stable=True).numpy())
        return self._ordered[1]

    def batch(self, epoch: int, step: int) -> ViewPairs:
        """This process's share of a batch."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        per_turn = len(self.pairs) // self.batch_size
        turn, place = divmod(epoch * self.steps + step, per_turn)
        share = self.batch_size // self.world
        start = place * self.batch_size + self.rank * share
        rows = self.order(turn)[start : start + share]
        return self._pairs(rows, turn)

    def _pairs(self, rows: np.ndarray, turn: int) -> ViewPairs:
        ids = torch.from_numpy(rows)
        views = [self._view(rows, side, Draws.of(self.seed, turn, ids, side - 1)) for side in (1, 2)]
        scales = self._scales(Draws.of(self.seed, turn, ids, 2))
        batch = self._matched(*(self._thinned(*view, scales) for view in views), rows, scales)
        sides = (
            self._with_features(view, Draws.of(self.seed, turn, ids, 3 + side)).replace(
                ids=ids, transform=view.transform.float())
            for side, view in enumerate((batch.first, batch.second)))
        return ViewPairs(*sides, batch.matches).to(self.device)

    def _view(self, rows: np.ndarray, side: int, draws: Draws) -> tuple[list[Tensor], Float[Tensor, "b 4 4"]]:
        """The points of one side of each pair, and the motion (B, 4, 4) to its place in training."""
        points = [torch.from_numpy(self._points(self.pairs[row][0], self.pairs[row][side])) for row in rows]
        centres = torch.stack([p.mean(0) if len(p) else p.new_zeros(3) for p in points])
        rotation = rotations(draws, self.max_angle)
        if self.upright:
            rotation = rotation @ headings(draws) @ torch.stack([self._level(row, side) for row in rows.tolist()])
        motion = torch.eye(4, dtype=torch.float64).repeat(len(points), 1, 1)
        motion[:, :3, :3] = rotation
        motion[:, :3, 3] = -(rotation @ centres.double()[:, :, None])[:, :, 0]
        return points, motion

    def _level(self, row: int, side: int) -> Float[Tensor, "3 3"]:
        """The rotation of a view into the world's axes."""
        scene, view = self.pairs[row][0], self.pairs[row][side]
        rotation = np.eye(3) if self.holistic else self.scenes[scene].poses[view, :3, :3]
        return torch.from_numpy(np.ascontiguousarray(rotation))

    def _points(self, scene: int, view: int) -> np.ndarray:
        if not self.holistic:
            return self.scenes[scene].points(view)
        if scene not in self._whole:
            self._whole[scene] = whole(self.scenes[scene], self.voxel_size / 2)
        return self._whole[scene]

    def _scales(self, draws: Draws) -> Float[Tensor, "b"]:
        if self.scale is None:
            return torch.ones(len(draws))
        factor = draws.uniform((), *self.scale)
        return torch.where(draws.uniform() < 0.95, factor, torch.ones(()))

    def _thinned(self, points: list[Tensor], motion: Tensor, scales: Tensor) -> Clouds:
        """The first point of each voxel of the moved views."""
        moved = [
            (p @ m[:3, :3].T.float() + m[:3, 3].float()) * s for p, m, s in zip(points, motion, scales)]
        moving = motion.clone()
        moving[:, :3] *= scales.double()[:, None, None]
        clouds = Clouds.from_list(moved, transform=moving)
        voxels = voxelize(clouds, self.voxel_size)
        return clouds.take_points(voxels.first, voxels.offsets)

    def _matched(self, first: Clouds, second: Clouds, rows: np.ndarray, scales: Tensor) -> ViewPairs:
        matches = []
        for b, row in enumerate(rows):
            scene, i, j = self.pairs[row]
            between = np.eye(4) if self.holistic else self.scenes[scene].relative(i, j)
            motion = second.transform[b] @ torch.from_numpy(between) @ torch.linalg.inv(first.transform[b])
            sides = [view.points[view.offsets[b] : view.offsets[b + 1]] for view in (first, second)]
            radius = MATCH_VOXELS * self.voxel_size * float(scales[b])
            found = correspondences(*sides, motion, radius)
            matches.append(found + torch.stack([first.offsets[b], second.offsets[b]]))
        return ViewPairs(first, second, torch.cat(matches))

    def _with_features(self, view: Clouds, draws: Draws) -> Clouds:
        if not self.channels:
            return view
        features = torch.ones(len(view.points), self.channels)
        if self.feature_noise:
            noisy = (draws.uniform() < 0.95).repeat_interleave(view.lengths)
            features += noisy[:, None] * self.feature_noise * draws.points_normal(view, self.channels)
        return view.replace(features=features)


def rotations(draws: Draws, max_angle: float = 180.0) -> Float[Tensor, "b 3 3"]:
    """(B, 3, 3) float64 turns by U(-1, 1) max_angle degrees about an axis of three U(-0.5, 0.5) numbers."""
    axis = draws.uniform((3,), -0.5, 0.5).double()
    axis = axis / axis.norm(dim=1, keepdim=True).clamp_min(1e-12)
    angle = draws.uniform((), -1.0, 1.0).double()[:, None, None] * math.radians(max_angle)
    x, y, z = axis.unbind(1)
    none = torch.zeros_like(x)
    cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], 1).view(-1, 3, 3)
    return torch.eye(3, dtype=torch.float64) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def headings(draws: Draws) -> Float[Tensor, "b 3 3"]:
    """(B, 3, 3) float64 turns about z by U(-180, 180) degrees."""
    angle = draws.uniform((), -math.pi, math.pi).double()
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([cos, -sin, none, sin, cos, none, none, none, none + 1], 1).view(-1, 3, 3)


def whole(scene: SceneViews, voxel_size: float) -> np.ndarray:
    """(N, 3) float32: all views of a scene together, the first point of each voxel."""
    points = [torch.from_numpy(scene.world(v)).float() for v in range(len(scene))]
    merged = Clouds.from_list([torch.cat(points) if points else torch.empty(0, 3)])
    return merged.points[voxelize(merged, voxel_size).first].numpy()
