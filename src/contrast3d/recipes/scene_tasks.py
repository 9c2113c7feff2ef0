"""What the scene recipes train: pairs of overlapping views without labels, or labelled rooms."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from contrast3d.data.pair_loader import PairLoader
from contrast3d.data.rooms import Rooms
from contrast3d.data.scene_loader import SceneLoader
from contrast3d.downstream.online_matching import MatchingProbe
from contrast3d.recipes.scene_sources import hash_of
from contrast3d.recipes.task import Task

if TYPE_CHECKING:
    from contrast3d.engine.distributed import Ranks
    from contrast3d.recipes.machine import Machine
    from contrast3d.recipes.scene_contrast import SceneRecipe

SCALES = (0.8, 1.2)


def contrast(recipe: SceneRecipe, machine: Machine, ranks: Ranks) -> Task:
    """Point-level contrast of overlapping views."""
    scenes = recipe.scenes("train", machine.data_root, machine.quiet)
    loader = PairLoader(
        scenes, recipe.voxel_size, recipe.batch_size, recipe.steps, recipe.seed, ranks.rank, ranks.world, ranks.device,
        SCALES if recipe.scale_views else None, recipe.feature_noise, holistic=recipe.holistic,
        max_angle=recipe.max_angle, upright=recipe.upright,
    )
    probe = None
    watched = recipe.validation_scenes and (recipe.dataset == "Rooms" or recipe.test_scenes)
    if ranks.rank == 0 and watched:
        probe = MatchingProbe.of(
            recipe.scenes("val", machine.data_root, machine.quiet)[: recipe.validation_scenes], recipe.voxel_size,
            recipe.probe_every, recipe.epochs)
        if probe is None:
            warnings.warn("no two views kept from training overlap, neighbours aside: there is no curve of matches",
                          stacklevel=2)
    title = f"{len(scenes)} scenes of {recipe.dataset}, {len(loader.pairs):,} pairs"
    return Task(recipe.make_method(), loader, title, hash_of(scenes), probe)


def supervised(recipe: SceneRecipe, machine: Machine, ranks: Ranks) -> Task:
    """The labels of generated rooms, as augmented for segmentation."""
    scenes = Rooms("train", recipe.rooms)
    loader = SceneLoader(
        scenes, "rooms", recipe.batch_size, recipe.voxel_size, recipe.seed, ranks.rank, ranks.world, ranks.device,
        epoch_steps=recipe.steps,
    )
    return Task(recipe.make_method(len(scenes.classes)), loader, scenes.title, scenes.hash)
