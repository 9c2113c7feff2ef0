"""Evaluate a run by part segmentation: its patch transformer trained on labelled points, and the same from scratch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from contrast3d.data.ldraw40_parts import LDraw40Parts, ldraw40_scheme
from contrast3d.data.parts import PartScheme, shapenetpart_scheme
from contrast3d.data.shapenetpart import ShapeNetPart
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.part_segmentation import PartTuning, part_segmentation
from contrast3d.downstream.part_segmentation import published as as_released
from contrast3d.downstream.part_table import PartTable
from contrast3d.downstream.results import provenance
from contrast3d.downstream.table import Budget
from contrast3d.downstream.tuned_encoders import resized
from contrast3d.engine.distributed import pick_device
from contrast3d.errors import ConfigError
from contrast3d.nn.partwise import Partwise
from contrast3d.recipes.masked import MaskedRecipe
from contrast3d.recipes.runs import Run

SHARES: tuple[Budget, ...] = ("1%", "10%", None)
LDRAW, SHAPENET = "LDraw40Parts", "ShapeNetPart"
SHAPENET_POINTS, SHAPENET_STORED = 2048, 2500  # points that networks see; about as many as a shape of the release has
PAPER = {"ReCon": 0.864, "Point-MAE": 0.861}  # instance mIoU on ShapeNetPart


def evaluate_parts(
    run: Run, *, data_root: Path = Path("data"), dataset: str | None = None, labels: Sequence[Budget] | None = None,
    draws: int = 3, seed: int = 0, epochs: int = 0, published: bool = False, device: str = "auto",
    on_progress: Callable[[str], None] | None = None, **tuning,
) -> PartTable:
    """`part_segmentation` of the run's encoder; every finished column is saved at once, one result per metric.

    dataset: LDraw40Parts (default, unless the run is about ShapeNetPart) or ShapeNetPart. labels: shares of the
    labelled shapes of each class, numbers of them, None for all; default SHARES, as released all. epochs: 0 takes the
    protocol's. published: train as the released scripts do. tuning: further fields of `PartTuning`.
    """
    recipe, target = run.recipe, pick_device(device)
    if not isinstance(recipe, MaskedRecipe):
        raise ConfigError(f"part-segmentation reads tokens of patches, and {run.path} was trained without. Try: a run "
                          "of point-mae or recon")
    name = _dataset(dataset or (SHAPENET if recipe.dataset == SHAPENET else LDRAW))
    train, test, scheme = _labelled(name, data_root, published)
    trained = run.trained()
    read = 2048 if published else train.num_points
    sized = lambda encoder: _sized(encoder, recipe.num_points, min(read, train.num_points)).to(target)  # noqa: E731
    encoder = sized(run.encoder())
    how = as_released(encoder) if published else PartTuning()
    if published and train.num_points < read:
        how = replace(how, num_points=train.num_points)
    how = replace(how, **({"epochs": epochs, "min_steps": 0} if epochs else {}), **tuning)
    usual = (None,) if published else SHARES

    def keep(table: PartTable) -> None:
        paper = PAPER["Point-MAE" if recipe.method == "point-mae" else "ReCon"] if name == SHAPENET else None
        for result in table.to_results(run.name, seed=recipe.seed, paper=paper, **provenance(target)):
            called = f"part-segmentation{'-published' * published}-{_plain(table.dataset)}"
            column = _plain(str(result["labels_per_class"]))
            run.folder.save_result(f"{called}-{column}-{result['metric']}", {
                **result, "overrides": run.overrides(), **trained})

    return part_segmentation(
        encoder, (train, test), scheme, name=run.title, labels_per_class=labels or usual, draws=draws, seed=seed,
        make_untrained=lambda s: sized(run.make_encoder(s)), tuning=how, on_progress=on_progress, on_column=keep,
    )


def _dataset(name: str) -> str:
    plain = "".join(c for c in name.lower() if c.isalnum())
    known = {"ldraw40parts": LDRAW, "ldraw40": LDRAW, "shapenetpart": SHAPENET}
    if plain not in known:
        raise ConfigError(f"no parts are labelled in {name!r}; there are {LDRAW}, {SHAPENET}")
    return known[plain]


def _labelled(name: str, data_root: Path, published: bool) -> tuple[ShapeSet, ShapeSet, PartScheme]:
    if name == LDRAW:
        return LDraw40Parts("train"), LDraw40Parts("test"), ldraw40_scheme()
    points = SHAPENET_STORED if published else SHAPENET_POINTS  # as released, drawn anew of them in each epoch
    train, test = (
        ShapeNetPart(split, data_root, points) for split in ("trainval" if published else "train", "test")
    )
    return train, test, shapenetpart_scheme()


def _sized(encoder: nn.Module, trained_on: int, read: int) -> nn.Module:
    """The encoder with as many more patches as the clouds have more points than those of its training."""
    return resized(Partwise(encoder, trained_on), read).encoder


def _plain(text: str) -> str:
    return "".join(c for c in text.lower().replace("%", "percent") if c.isalnum() or c == "_")
