"""`SceneLoader`: batches of augmented scenes, one point per voxel, as a pure function of (epoch, step)."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.data.draws import Draws
from contrast3d.data.scene_transforms import ScenePipeline, scene_pipeline
from contrast3d.data.scenes import IGNORE, Scene, SceneSet
from contrast3d.data.segments import per_point, tracked
from contrast3d.data.transforms import Transform
from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.voxels import voxel_labels, voxelize
from contrast3d.types import Clouds

_SHUFFLE, _SCENE = -1, 0  # views of the draws: those that order a pass, those of the scenes


class SceneLoader:
    """Labelled scenes, augmented and thinned; random access, no state: `loader.batch(epoch, step) -> Clouds`.

    The scenes are shuffled, then shuffled anew, without end, and batches are cut from that stream: each has exactly
    `batch_size` scenes however few there are, and each scene comes equally often. Every draw follows from (seed, pass,
    scene), so a resumed run goes on with the very batches it would have had, and the shares of `world` ranks, joined
    by rank, are the batch of one.

    transform: a pipeline, its name, a transform of the points, or None for the scenes as they are.
    voxel_size: metres; the first point of each voxel is kept, and a voxel whose points disagree gets the label 255.
    batch_size: scenes, over all ranks.
    phase: each scene is moved by up to so many whole voxels along x, y and z, so that the grids of the deeper levels of
        a sparse network fall differently; drawn by scene, where the published code has one for the batch. 0: none.
    epoch_steps: batches that are called an epoch; None: as many as hold all scenes once.
    """

    what = "scenes"

    def __init__(
        self, scenes: SceneSet, transform: Transform | str | None, batch_size: int = 4, voxel_size: float = 0.05,
        seed: int = 0, rank: int = 0, world: int = 1, device: torch.device | str = "cpu", phase: int = 100,
        epoch_steps: int | None = None,
    ):
        if batch_size < 1 or batch_size % world:
            raise ConfigError(f"batch_size {batch_size} (global) does not divide by {world} processes")
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is not in 0 ... {world - 1}")
        if not voxel_size > 0 or phase < 0 or (epoch_steps is not None and epoch_steps < 1):
            raise ConfigError(f"voxel_size={voxel_size}, phase={phase}, epoch_steps={epoch_steps}: expected a length, "
                              "0 or more voxels, and at least 1 step or None")
        self.scenes, self.batch_size, self.voxel_size, self.seed = scenes, batch_size, voxel_size, seed
        self.rank, self.world, self.device, self.phase = rank, world, device, phase
        self.transform = scene_pipeline(transform) if isinstance(transform, str) else transform
        self.epoch_steps = epoch_steps or max(1, len(scenes) // batch_size)
        check_scenes(scenes)
        self._ordered: dict[int, Int[Tensor, "s"]] = {}

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.epoch_steps

    def order(self, number: int) -> Int[Tensor, "s"]:
        """(S,) the scenes in the order of pass `number` over all of them."""
        if number not in self._ordered:
            keys = Draws.of(self.seed, number, torch.arange(len(self.scenes)), _SHUFFLE).keys
            self._ordered = {**dict(list(self._ordered.items())[-3:]), number: keys.argsort(stable=True)}
        return self._ordered[number]

    def rows(self, epoch: int, step: int) -> tuple[Int[Tensor, "b"], Int[Tensor, "b"]]:
        """(scenes, passes) of this rank's share of a batch."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        share = self.batch_size // self.world
        start = (epoch * len(self) + step) * self.batch_size + self.rank * share
        passes = torch.arange(start, start + share) // len(self.scenes)
        places = torch.arange(start, start + share) % len(self.scenes)
        rows = [self.order(number)[place] for number, place in zip(passes.tolist(), places.tolist())]
        return torch.stack(rows), passes

    def batch(self, epoch: int, step: int) -> Clouds:
        """This rank's share of a batch: packed, with features and point_labels where the scenes have them."""
        rows, passes = self.rows(epoch, step)
        clouds = packed([self.scenes[row] for row in rows.tolist()], rows).to(self.device)
        keys = [Draws.of(self.seed, p, row[None], _SCENE).keys for p, row in zip(passes.tolist(), rows)]
        before, after, shift = Draws(torch.cat(keys).to(self.device)).children(3)
        pipeline = self.transform
        if pipeline is not None:
            clouds = (pipeline.points if isinstance(pipeline, ScenePipeline) else pipeline)(clouds, before)
        if self.phase:
            moved = shift.integers(self.phase, (3,)) * self.voxel_size
            clouds = clouds.replace(points=clouds.points + per_point(clouds, moved.to(clouds.points.dtype)))
        clouds, _ = thinned(clouds, self.voxel_size)
        return pipeline.voxels(clouds, after) if isinstance(pipeline, ScenePipeline) else clouds


def check_scenes(scenes: SceneSet) -> None:
    """A DataError unless there are scenes with points, all of them or none with colours, and likewise with labels."""
    if not len(scenes):
        raise DataError(scenes.title, "no scenes", "at least one")
    for scene in scenes.scenes:
        if not len(scene.points):
            raise DataError(f"{scenes.title}: {scene.name}", "no points", "at least one")
    for what in ("colors", "labels"):
        bare = [s.name for s in scenes.scenes if getattr(s, what) is None]
        if bare and len(bare) < len(scenes):
            raise DataError(scenes.title, f"no {what} in {', '.join(bare[:3])}", f"{what} in all scenes or in none")


def packed(scenes: list[Scene], ids: Int[Tensor, "b"]) -> Clouds:
    """Scenes as one batch; `ids` key their draws."""
    parts = [scene.clouds() for scene in scenes]
    joined = lambda values: None if any(v is None for v in values) else torch.cat(values)  # noqa: E731
    return Clouds.from_list(
        [part.points for part in parts], ids=ids, features=joined([part.features for part in parts]),
        point_labels=joined([part.point_labels for part in parts]),
    )


def thinned(clouds: Clouds, voxel_size: float) -> tuple[Clouds, Int[Tensor, "n"]]:
    """(the first point of each voxel of each cloud, the row there that each given point fell to).

    Rows are sorted by cloud and voxel, floor(point / voxel_size). A voxel whose points disagree in label, 255 being
    one, gets the label 255.
    """
    voxels = voxelize(clouds, voxel_size)
    few = tracked(clouds).take_points(voxels.first, voxels.offsets)
    if clouds.point_labels is not None:
        few = few.replace(point_labels=voxel_labels(clouds.point_labels, voxels, IGNORE))
    return few, voxels.inverse
