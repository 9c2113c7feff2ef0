"""Evaluate a run on scenes: registration of partial views, and segmentation with shares of the labelled scenes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from contrast3d.data.fragment_files import with_gt_pairs
from contrast3d.data.rooms import Rooms
from contrast3d.data.s3dis import S3DIS
from contrast3d.data.scannet import ScanNet
from contrast3d.data.scenes import SceneSet
from contrast3d.data.three_d_match import list_scenes
from contrast3d.downstream.matching import Protocol
from contrast3d.downstream.registration import Registration, registration
from contrast3d.downstream.results import provenance
from contrast3d.downstream.segmentation_table import SegmentationTable
from contrast3d.downstream.segmenter import Segmenter, predict_scene
from contrast3d.downstream.semantic_segmentation import PUBLISHED, Tuning, segmentation
from contrast3d.downstream.table import Budget
from contrast3d.engine.distributed import pick_device
from contrast3d.errors import ConfigError
from contrast3d.ops.voxels import voxelize
from contrast3d.recipes import scene_sources as sources
from contrast3d.recipes.evaluate_flags import MIN_OVERLAP
from contrast3d.recipes.runs import Run
from contrast3d.recipes.scene_contrast import CHANNELS, SceneRecipe

SHARES: tuple[Budget, ...] = ("1%", "10%", None)
STEPS = 300
TEST_ROOMS, SHOWN_ROOMS = 40, 2
LABELLED = {"Rooms": "rooms", "S3DIS": "s3dis", "ScanNet": "scannet"}  # data set: its augmentation
SAVED = ("mean_iou", "mean_iou_points", "mean_iou_best", "mean_iou_points_best", "mean_accuracy", "overall_accuracy")
SEGMENTATION_MOMENTUM = 0.02  # of batch norm, as released


def evaluate_registration(
    run: Run, *, data_root: Path, dataset: str | None = None, scenes: Sequence[str] = (), consecutive: bool = False,
    min_overlap: float = MIN_OVERLAP, pairs: Literal["overlap", "gt"] = "overlap", draws: int = 3, seed: int = 0,
    device: str = "auto", on_progress: Callable[[str], None] | None = None,
) -> Registration:
    """Register the views of scenes that the run did not train on; saves one result per metric.

    dataset: other than the recipe's: Rooms, 3DMatch, ScanNet or a folder of scenes. scenes: which of them, by name;
    default the recipe's `test_scenes`, of another data set all. Rooms are those of the test split. Of an upright recipe
    the views are levelled first, for all contestants. consecutive, min_overlap: which pairs, see
    `fragments.overlapping`; pairs: "gt" takes those of the gt.log beside the scenes instead. Results and their files
    are called by these where they are not as by default.
    """
    recipe, target = run.recipe, pick_device(device)
    if not 0 < min_overlap <= 1:
        raise ConfigError(f"--min-overlap {min_overlap:g}; expected a share above 0 and up to 1")
    which = {"consecutive": consecutive, "overlap": min_overlap, "pairs": pairs}
    Protocol(**which)  # what contradicts itself is told before any scene is read
    if recipe.upright and dataset not in (None, sources.ROOMS, recipe.dataset):
        warnings.warn(f"{run.title} reads upright views: those of {dataset} are levelled by their poses, whose z axis "
                      "must point up", stacklevel=2)
    folder = _folder_of(dataset or recipe.dataset, data_root) if pairs == "gt" else None
    chosen = _registered(recipe, data_root, dataset, tuple(scenes))
    if folder is not None:  # before they are levelled: the list has poses of the fragments as they are
        chosen = [with_gt_pairs(scene, folder) for scene in chosen]
    chosen = sources.as_trained(chosen, recipe.upright)
    trained = run.trained()
    encoder = run.encoder().to(target)
    found = registration(
        encoder, chosen, name=run.title, dataset=dataset or recipe.dataset, draws=draws, seed=seed,
        make_untrained=lambda s: recipe.make_encoder(s).to(target), on_progress=on_progress, **which,
    )
    called = "-".join(["registration", *map(_plain, found.protocol.departures), _plain(found.dataset)])
    for result in found.to_results(run.name, seed=recipe.seed, **provenance(target)):
        run.folder.save_result(f"{called}-{result['metric']}", {
            **result, "scenes": [s.name for s in chosen], "leveled": recipe.upright, "overrides": run.overrides(),
            **trained})
    return found


def _registered(recipe: SceneRecipe, data_root: Path, dataset: str | None, names: tuple[str, ...]):
    if (dataset or recipe.dataset) == sources.ROOMS:
        if names:
            raise ConfigError("--scenes names scenes of a folder: leave it out, the rooms are those of the test split")
        return sources.scenes_of(
            sources.ROOMS, data_root, rooms=max(recipe.validation_scenes, 4), frames=recipe.frames, split="test")
    names = names or (recipe.test_scenes if dataset in (None, recipe.dataset) else ())
    found = sources.scenes_of(dataset or recipe.dataset, data_root, rooms=0, frames=0)
    if dataset in (None, recipe.dataset) and not names:
        raise ConfigError("the run was trained on all scenes of its data set. Try: --dataset another, or --scenes NAME "
                          "of one that you know it was not trained on")
    return sources.named(found, names) if names else found


def _folder_of(dataset: str, data_root: Path) -> Path:
    """Where the files of the scenes are, and so their lists of pairs."""
    if dataset == sources.ROOMS:
        raise ConfigError("--pairs gt takes the gt.log of fragments, and generated rooms have none: leave it out")
    if dataset == "3DMatch":
        return list_scenes(data_root)[0].parent
    place = data_root if dataset == "ScanNet" else Path(dataset)
    return place.parent if place.is_file() else place


def evaluate_segmentation(
    run: Run, *, data_root: Path, dataset: str | None = None, labels: Sequence[Budget] | None = None, draws: int = 3,
    seed: int = 0, steps: int = 0, published: bool = False, device: str = "auto",
    on_progress: Callable[[str], None] | None = None, **tuning,
) -> SegmentationTable:
    """Fine-tune the run's network on shares of the labelled scenes, beside the same network from scratch.

    dataset: Rooms (default, by geometry alone), S3DIS or ScanNet (with colours, as published). labels: shares of the
    training scenes, None for all. steps: of each training; 0 takes STEPS. published: train and choose as the released
    scripts do, for S3DIS and ScanNet (`semantic_segmentation.PUBLISHED`; the best weights are those best on test).
    tuning: further fields of `semantic_segmentation.Tuning`.
    """
    recipe, target, dataset = run.recipe, pick_device(device), dataset or "Rooms"
    shares = [_share(budget) for budget in (labels or SHARES)]
    how = replace(_tuning(recipe, dataset, published), **({"steps": steps} if steps else {}), **tuning)
    train, test = _labelled(dataset, data_root)
    trained = run.trained()

    def keep_rooms(contestant: str, share: float, s: int, segmenter: Segmenter) -> None:
        if contestant == run.title and (share, s) == (max(shares), seed):
            run.folder.save_result(f"segmented-{_plain(dataset)}", _segmented(segmenter, test, how.voxel_size))

    table = segmentation(
        partial(_segmenting, recipe, how.voxel_size), run.encoder().state_dict(), train, test, name=run.title,
        shares=shares, draws=draws, seed=seed, best_on_test=published, device=target, on_progress=on_progress,
        on_trained=keep_rooms, tuning=how,
    )
    for result in table.to_results(run.name, seed=recipe.seed, **provenance(target)):
        if result["metric"] in SAVED:
            share = _plain(result["condition"].split()[0])
            run.folder.save_result(f"segmentation-{_plain(dataset)}-{share}-{result['metric']}", {
                **result, "overrides": run.overrides(), **trained})
    return table


def _tuning(recipe: SceneRecipe, dataset: str, published: bool) -> Tuning:
    if dataset not in LABELLED:
        raise ConfigError(f"no labelled scenes {dataset!r}; there are {', '.join(LABELLED)}")
    augmentation = LABELLED[dataset]
    if not published:
        own = {"batch_size": 2, "lr": 2e-3, "colors": False} if dataset == sources.ROOMS else {}
        return Tuning(STEPS, voxel_size=recipe.voxel_size, transform=augmentation, **own)
    if augmentation not in PUBLISHED:
        raise ConfigError(f"--published belongs to --dataset S3DIS or ScanNet, and nothing is published on {dataset}")
    return PUBLISHED[augmentation]


def _segmented(segmenter: Segmenter, scenes: SceneSet, voxel_size: float) -> dict:
    """A few test scenes with their predictions, for the report: a point of each voxel."""
    rooms = []
    for scene in scenes.scenes[:SHOWN_ROOMS]:
        rows = voxelize(scene.clouds(), voxel_size).first.numpy()
        predicted = predict_scene(segmenter, scene, voxel_size).cpu().numpy()
        rooms.append({
            "name": scene.name, "points_mm": (scene.points[rows] * 1000).round().astype(int).tolist(),
            "predicted": predicted[rows].tolist(), "labels": scene.labels[rows].tolist(),
            "colors": None if scene.colors is None else scene.colors[rows].tolist(),
        })
    return {"classes": list(scenes.classes), "rooms": rooms}


def _segmenting(recipe: SceneRecipe, voxel_size: float, seed: int):
    """The network of the recipe without its last layer, for a head on classes, on voxels of this size."""
    import torch

    from contrast3d.nn.sparse_unet import SparseUNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SparseUNet(CHANNELS, None, recipe.depth, width=recipe.width, voxel_size=voxel_size,
                          norm_momentum=SEGMENTATION_MOMENTUM)


def _labelled(dataset: str, data_root: Path) -> tuple[SceneSet, SceneSet]:
    if dataset == "Rooms":
        return Rooms("train"), Rooms("test", TEST_ROOMS)
    if dataset == "S3DIS":
        return S3DIS("train", data_root), S3DIS("test", data_root)
    return ScanNet("train", data_root), ScanNet("val", data_root)


def _share(budget: Budget) -> float:
    if budget is None:
        return 1.0
    if isinstance(budget, str) and budget.endswith("%"):
        return float(budget[:-1]) / 100
    raise ConfigError(f"--labels {budget}: segmentation takes shares of the training scenes. Try: --labels 1% 10% all")


def _plain(text: str) -> str:
    name = Path(text).name.lower().replace("%", "percent").replace(".", "_")
    return "".join(c for c in name if c.isalnum() or c == "_")
