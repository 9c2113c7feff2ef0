"""Small data sets on disk in the layouts of the releases, and settings that train on them in a moment."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import h5py
import numpy as np

from contrast3d.data.modelnet_layouts import CLASSES
from contrast3d.data.shapenetpart import CATEGORIES, PARTS, REPORT_CATEGORIES
from contrast3d.engine.run_dir import RunDir
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.masked import MaskedRecipe
from contrast3d.recipes.reporting import command_of
from contrast3d.recipes.runs import Run
from contrast3d.recipes.scene_contrast import SceneRecipe

FIELDS = {
    "shape_points": 48, "num_points": 32, "layers": (8,), "strides": (), "k": 4, "embed_dim": 16, "hidden_dim": 16,
    "projection_dim": 8, "extra_datasets": (), "batch_size": 16, "epochs": 1, "probe_every": 1,
}


SCENE_FIELDS = {
    "rooms": 2, "frames": 4, "validation_scenes": 1, "num_pairs": 200, "num_candidates": 50, "voxel_size": 0.1,
    "depth": 14, "width": 0.125, "out_channels": 8, "epochs": 1, "steps": 2, "batch_size": 2, "probe_every": 1,
}
MASKED_FIELDS = {
    "shape_points": 48, "num_points": 32, "width": 16, "depth": 2, "num_patches": 8, "patch_size": 8,
    "decoder_depth": 1, "image_teacher": "none", "text_teacher": "none", "extra_datasets": (), "batch_size": 16,
    "epochs": 1, "probe_every": 1,
}
Recipe = ContrastRecipe | MaskedRecipe | SceneRecipe
SIZES = {ContrastRecipe: FIELDS, MaskedRecipe: MASKED_FIELDS, SceneRecipe: SCENE_FIELDS}


def shrunk(recipe: Recipe, **fields) -> Recipe:
    """`recipe` at a size for tests; what it is about (data, augmentation, loss, optimiser) stays."""
    small = next(f for kind, f in SIZES.items() if isinstance(recipe, kind))
    if isinstance(recipe, MaskedRecipe) and recipe.method == "recon":
        small = {**small, "self_contrast": "instance"}  # teachers are an extra
    idle = dataclasses.replace(recipe, **fields).idle_fields()
    return dataclasses.replace(recipe, **{**{k: v for k, v in small.items() if k not in idle}, **fields})


def flags(name: str, recipe: Recipe) -> list[str]:
    """The flags that make `recipe` of the one called `name`."""
    return shlex.split(command_of(Run(RunDir("anywhere"), name, recipe)))[3:]


def clouds(labels: np.ndarray, num_points: int, seed: int = 0) -> np.ndarray:
    """(S, N, 3) float32: ellipsoids whose proportions tell their label."""
    rng = np.random.default_rng(seed)
    axes = 0.2 + np.random.default_rng(7).random((labels.max() + 1, 3))
    directions = rng.normal(size=(len(labels), num_points, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    return (directions * axes[labels, None] + rng.normal(size=directions.shape) * 0.02).astype(np.float32)


def write_npz(path: Path, shapes: int = 60, classes: int = 3, num_points: int = 48) -> Path:
    """Labelled shapes of your own."""
    label = np.arange(shapes) % classes
    names = np.array([f"shape{i}" for i in range(shapes)])
    texts = np.array([f"class{c}" for c in range(classes)])
    np.savez(path, points=clouds(label, num_points), label=label, name=names, classes=texts)
    return path


def write_modelnet40(root: Path, counts=(("train", 32), ("test", 12)), classes: int = 4) -> Path:
    """The HDF5 release: two files per split, as PointNet's archive holds them."""
    folder = root / "modelnet40_ply_hdf5_2048"
    folder.mkdir(parents=True)
    (folder / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    for seed, (split, count) in enumerate(counts):
        label = np.arange(count) % classes
        points = clouds(label, 2048, seed)
        halves = np.array_split(np.arange(count), 2)
        for i, rows in enumerate(halves):
            with h5py.File(folder / f"ply_data_{split}{i}.h5", "w") as file:
                file["data"], file["label"] = points[rows], label[rows, None].astype(np.uint8)
        lines = [f"data/modelnet40_ply_hdf5_2048/ply_data_{split}{i}.h5\n" for i in range(len(halves))]
        (folder / f"{split}_files.txt").write_text("".join(lines))
    return root


def write_shapenetpart(root: Path, layout: str, counts=(("train", 3), ("val", 1), ("test", 2))) -> Path:
    """`counts` shapes of each of the ten categories of the report, and one of a category that it leaves out."""
    writer = {"txt": _write_txt, "hdf5": _write_hdf5}[layout]
    synsets = {name: f"{i:08}" for i, name in enumerate(CATEGORIES)}
    for seed, (split, count) in enumerate(counts):
        label = np.array([CATEGORIES.index(c) for c in REPORT_CATEGORIES * count + ("Cap",)])
        rng = np.random.default_rng(seed)
        points = clouds(label, 2048 if layout == "hdf5" else 60, seed)
        parts = np.stack([rng.choice(list(PARTS[CATEGORIES[c]]), points.shape[1]) for c in label])
        writer(root, split, points, label, parts, synsets)
    return root


def _write_txt(root: Path, split: str, points, label, parts, synsets: dict[str, str]) -> None:
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    (folder / "train_test_split").mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}\t{synset}\n" for name, synset in synsets.items())
    (folder / "synsetoffset2category.txt").write_text(lines)
    entries = []
    for i, c in enumerate(label):
        name = f"{synsets[CATEGORIES[c]]}/{split}{i:03}"
        (folder / name).parent.mkdir(exist_ok=True)
        rows = np.hstack([points[i], np.zeros_like(points[i]), parts[i][:, None]])
        np.savetxt(folder / f"{name}.txt", rows, fmt="%.6f")
        entries.append(f"shape_data/{name}")
    (folder / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(entries))


def _write_hdf5(root: Path, split: str, points, label, parts, synsets: dict[str, str]) -> None:
    folder = root / "hdf5_data"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"ply_data_{split}0.h5", "w") as file:
        file["data"], file["pid"] = points, parts.astype(np.uint8)
        file["label"] = label[:, None].astype(np.uint8)
    lines = "".join(f"{name}\t{synset}\n" for name, synset in synsets.items())
    (folder / "all_object_categories.txt").write_text(lines)
    (folder / f"{split}_hdf5_file_list.txt").write_text(f"./hdf5_data/ply_data_{split}0.h5\n")
