"""The report page of a run on scenes: curves, tables, pairs of views, features as colours, segmented rooms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from contrast3d.data.scene_views import SceneViews
from contrast3d.downstream.fragments import thinned
from contrast3d.downstream.matching import METRICS, describing
from contrast3d.engine.distributed import pick_device
from contrast3d.ops.radius_matches import correspondences
from contrast3d.recipes import scene_sources as sources
from contrast3d.recipes.runs import Run
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.report.page import Section, write_report, write_sections
from contrast3d.report.scenes import CAMERA, ROOM, FeatureScan, ScenePair, SegmentedRoom, scene_sections
from contrast3d.report.tables import ResultTable

PAIRS, SCANS = 3, 4
SEGMENTED = "segmented"  # results of this name hold rooms to show
WEIGHTS = {"mean_iou": "after the last step", "mean_iou_best": "of the weights that were best on {on}"}


def report_scenes(run: Run, data_root: Path, path: Path | None = None, device: str = "auto") -> Path:
    """Write report.html of a run on scenes; what it has not measured yet is left out of the page."""
    recipe, target = run.recipe, pick_device(device)
    shown = _shown(recipe, data_root)
    results = run.folder.results()
    frame = ROOM if recipe.upright else CAMERA
    pairs = scene_pairs(shown, recipe.voxel_size, frame) if recipe.method == "point-contrast" else []
    scans = feature_scans(run.encoder().to(target), shown, recipe.voxel_size, frame)
    segmented = [segmented_rooms(r) for name, r in results.items() if name.startswith(SEGMENTED)]
    rooms, classes = segmented[0] if segmented else ((), ())
    return write_report(
        path or run.path / "report.html", title=f"{run.title}: {recipe.method} on {recipe.dataset}",
        summary=summary(run), metrics=run.folder.metrics(), tables=tables(results, run.trained()["step"]),
        extra=[*scene_sections(pairs, scans, rooms, classes),
               *(section for more in segmented[1:] for section in scene_sections(rooms=more[0], classes=more[1]))],
    )


def pairs_page(recipe: SceneRecipe, path: Path, data_root: Path) -> Path:
    """A page of nothing but pairs of views that the recipe trains on; needs no training."""
    pairs = scene_pairs(_shown(recipe, data_root), recipe.voxel_size, ROOM if recipe.upright else CAMERA)
    sections: list[Section] = scene_sections(pairs)
    return write_sections(path, sections, title=f"Pairs of views of {recipe.dataset}")


def _shown(recipe: SceneRecipe, data_root: Path) -> list[SceneViews]:
    """Scenes that the run did not train on, where there are some, with pairs."""
    if recipe.dataset == sources.ROOMS:
        found = sources.scenes_of(sources.ROOMS, data_root, rooms=2, frames=recipe.frames, split="test", quiet=True)
    else:
        everything = sources.scenes_of(recipe.dataset, data_root, rooms=0, frames=0)
        train, test = sources.split_scenes(everything, recipe.test_scenes)
        found = (test or train)[:2]
    return sources.as_trained(sources.paired(found, recipe.min_overlap, quiet=True), recipe.upright)


def scene_pairs(
    scenes: Sequence[SceneViews], voxel_size: float, frame: str = CAMERA, count: int = PAIRS
) -> list[ScenePair]:
    """Pairs of views spread over the scenes, with their matches, as pictures take them. frame: as in `ScenePair`."""
    listed = [(scene, i, j) for scene in scenes for i, j in scene.pairs[_spread(len(scene.pairs), count)].tolist()]
    found = []
    for scene, i, j in [listed[k] for k in _spread(len(listed), count)]:
        first, second = (thinned(scene.points(v), voxel_size) for v in (i, j))
        motion = scene.relative(i, j)
        matches = correspondences(
            torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy(motion), 1.5 * voxel_size)
        name = f"{scene.name}: views {i} and {j}, {len(matches):,} matches"
        found.append(ScenePair(first, second, matches.numpy(), motion, name, frame))
    return found


def feature_scans(
    encoder, scenes: Sequence[SceneViews], voxel_size: float, frame: str = CAMERA, count: int = SCANS
) -> list[FeatureScan]:
    """Views spread over the scenes, with the features of their points."""
    describe = describing(encoder)
    listed = [(scene, v) for scene in scenes for v in _spread(len(scene), count)]
    found = []
    for scene, v in [listed[k] for k in _spread(len(listed), count)]:
        points = thinned(scene.points(v), voxel_size)
        features = describe(points).cpu().numpy()
        found.append(FeatureScan(points, features, name=f"{scene.name}: view {v}", frame=frame))
    return found


def segmented_rooms(kept: dict) -> tuple[list[SegmentedRoom], tuple[str, ...]]:
    """The rooms of one data set that `evaluate segmentation` kept to be shown, and their classes."""
    rooms = [
        SegmentedRoom(
            np.array(room["points_mm"], np.float32) / 1000, np.array(room["predicted"]), np.array(room["labels"]),
            np.array(room["colors"], np.uint8) if room["colors"] else None, name=room["name"])
        for room in kept["rooms"]
    ]
    return rooms, tuple(kept["classes"])


def tables(results: dict[str, dict], step: int | None = None) -> list[ResultTable]:
    """One table of each registration and each segmentation protocol, for each data set the run was evaluated on.

    step: of the run's weights; a note marks what was measured on others.
    """
    found = []
    registered = [r for r in results.values() if str(r.get("protocol")).partition(" ")[0] == "registration"]
    for dataset, protocol in dict.fromkeys((r["dataset"], r["protocol"]) for r in registered):
        mine = {r["metric"]: r for r in registered if (r["dataset"], r["protocol"]) == (dataset, protocol)}
        metrics = [m for m in METRICS if m in mine]
        note = (f"{mine[metrics[0]]['pairs']} pairs of views, in %. FMR: the share of pairs with more than 5 % (20 %) "
                "of right matches; registration recall: with a pose found by RANSAC within 20 cm.")
        columns, headings = [mine[m] for m in metrics], [METRICS[m] for m in metrics]
        found.append(_table(f"{dataset}: {protocol}", columns, headings, note, step))
    for metric, weights in WEIGHTS.items():
        segmented = [r for r in results.values() if r.get("metric") == metric and "condition" in r]
        # another number of steps is another protocol, whose columns are no like to compare with
        kinds = dict.fromkeys((r["dataset"], r["protocol"], r.get("data_hash")) for r in segmented)
        for kind in kinds:
            mine = [r for r in segmented if (r["dataset"], r["protocol"], r.get("data_hash")) == kind]
            mine.sort(key=lambda r: _leading(r["condition"]))
            on = mine[0]["chosen"][0]["on"] if mine[0].get("chosen") else "validation"
            note = (f"Mean IoU over classes in %, of voxels, {weights.format(on=on)}; mean ± standard deviation over "
                    f"{len(mine[0]['values'])} draws of the training scenes.")
            title = f"{kind[0]}: {kind[1]}" + (", best weights" if metric == "mean_iou_best" else "")
            found.append(_table(title, mine, [r["condition"] for r in mine], note, step))
            if metric == "mean_iou" and mine[-1].get("classes"):
                found.append(_class_table(f"{kind[0]}: {kind[1]}", mine[-1], step))
    return found


def _class_table(title: str, result: dict, step: int | None) -> ResultTable:
    """IoU of each class at one share of the scenes, contestants side by side."""
    from contrast3d.recipes.reporting import stale_note

    columns = {name: b["classes"] for name, b in result["baselines"].items() if b.get("classes")}
    columns[result["recipe"]] = result["classes"]
    cell = lambda iou: None if iou is None else (iou, None)  # noqa: E731
    rows = [(name, [cell(column.get(name)) for column in columns.values()]) for name in result["classes"]]
    note = f"IoU of each class in %, of voxels, after the last step, {result['condition']}; mean over the draws."
    return ResultTable(f"{title}, classes", ("", *columns), rows, mark_best=False,
                       note=note + stale_note([result], ["IoU"], step))


def _table(title: str, columns: list[dict], headings: list[str], note: str, step: int | None) -> ResultTable:
    from contrast3d.recipes.reporting import stale_note

    cell = lambda c: None if c is None else (c["mean"], c["std"])  # noqa: E731
    names = list(dict.fromkeys(name for c in columns for name in c["baselines"]))
    rows = [(name, [cell(c["baselines"].get(name)) for c in columns]) for name in names]
    ours = columns[0]["recipe"]
    note += stale_note(columns, headings, step)
    return ResultTable(title, ("", *headings), [*rows, (ours, [cell(c) for c in columns])], note=note, ours=(ours,))


def summary(run: Run) -> dict[str, str]:
    """What was run, in words, for the head of the page."""
    from contrast3d.recipes.reporting import command_of

    recipe, lines, origin = run.recipe, run.lines(), run.origin()
    encoder = recipe.make_encoder()
    size = sum(p.numel() for p in encoder.parameters())
    loss = f"{recipe.loss}, temperature {recipe.temperature:g}" if recipe.loss == "info-nce" else recipe.loss
    text = {
        "recipe": run.name,
        "data": _data(recipe),
        "encoder": f"SR-UNet{recipe.depth}, width {recipe.width:g}, {size:,} parameters, voxels of "
                   f"{100 * recipe.voxel_size:g} cm",
        "training": f"{recipe.epochs} x {recipe.steps} steps, batch {recipe.batch_size}, {recipe.optimizer}, lr "
                    f"{recipe.lr:g}, {loss if recipe.method == 'point-contrast' else 'labels'}, {recipe.precision}, "
                    f"seed {recipe.seed}",
    }
    if lines:
        text["trained"] = f"{lines[-1]['step']} steps in {lines[-1]['seconds'] / 60:.1f} minutes"
    if not run.finished():
        text["trained"] = f"{text.get('trained', '0 steps')}: unfinished, {recipe.epochs * recipe.steps} steps planned"
    text |= {name: origin[key] for name, key in (("machine", "device"), ("commit", "commit")) if key in origin}
    return {**text, "command": command_of(run)}


def _data(recipe: SceneRecipe) -> str:
    if recipe.dataset != sources.ROOMS:
        kept = f", without {', '.join(recipe.test_scenes)}" if recipe.test_scenes else ""
        return f"{recipe.dataset}{kept}"
    views = "" if recipe.method == "supervised" else f", {recipe.frames} views each"
    return f"{recipe.rooms} generated rooms{views}"


def _spread(total: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist() if total else []


def _leading(text: str) -> float:
    return float(text.partition("%")[0])
