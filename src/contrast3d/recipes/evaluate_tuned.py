"""Evaluate a run by fine-tuning: of whole data sets and of few-shot trials, ours and as released."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.few_shot_tuned import few_shot_finetune
from contrast3d.downstream.finetune import Voting, finetune
from contrast3d.downstream.table import LABELS, Budget, Table, budget_name
from contrast3d.downstream.tuning import Mode, Tuning, is_scanned, released
from contrast3d.recipes.shape_recipe import ShapeRecipe

FEW = "few-shot-finetune"
SCANNED_POINTS = 2048  # of ScanObjectNN, as released


@dataclass(frozen=True)
class TunedOptions:
    """The flags of fine-tuning. epochs: 0 takes the protocol's own. augmentation: "" takes the recipe's."""

    mode: Mode = "full"
    epochs: int = 0
    augmentation: str = ""
    published: bool = False

    def called(self, protocol: str) -> str:
        """How files call the results: modes and what is released stand beside each other."""
        return protocol + (f"-{self.mode}" if self.mode != "full" else "") + ("-published" if self.published else "")

    def arguments(self, encoder: nn.Module, recipe: ShapeRecipe, few_shot: bool) -> dict[str, Any]:
        """Of `finetune` and `few_shot_finetune`."""
        given: dict[str, Any] = {"transform": recipe.augmentation}
        if self.augmentation:
            given["augmentation"] = self.augmentation
        if self.epochs:
            given |= {"epochs": self.epochs, "min_steps": 0}
        if self.published:
            how: Tuning = released(encoder, recipe.dataset, self.mode, few_shot)
            return given | {"how": how, "best_on_test": True}
        return given | {"mode": self.mode}


def splits_for(protocol: str, recipe: ShapeRecipe, data_root: Path, published: bool) -> tuple[ShapeSet, ShapeSet]:
    """Train and test, of as many points as the released scripts read where these are followed."""
    if published and protocol != FEW and is_scanned(recipe.dataset):
        recipe = dataclasses.replace(recipe, shape_points=max(recipe.shape_points, SCANNED_POINTS))
    return recipe.splits(data_root)


def tuned(
    protocol: str, encoder: nn.Module, data: tuple[ShapeSet, ShapeSet], recipe: ShapeRecipe,
    keep: Callable[[Table], object], options: TunedOptions, *, labels: Sequence[Budget], draws: int, voting: Voting,
    **shared,
) -> Table:
    """`finetune` under the recipe's own augmentation, or another; every finished column is kept at once."""
    finished: list[str] = []

    def column(table: Table) -> None:
        keep(table)
        finished[:] = [budget_name(b) for b in table.budgets if table.cell(table.ours, b)]

    arguments = {"best_on_test": protocol == "finetune-best-on-test", **options.arguments(encoder, recipe, False)}
    try:
        return finetune(encoder, data, labels_per_class=labels, draws=draws, voting=voting, on_column=column,
                        **arguments, **shared)
    except KeyboardInterrupt:
        saved = f"saved: {', '.join(finished)} {LABELS}" if finished else "no column was finished"
        raise KeyboardInterrupt(f"interrupted; {saved}; the same command begins again") from None


def tuned_on_trials(
    encoder: nn.Module, data: tuple[ShapeSet, ShapeSet], recipe: ShapeRecipe, options: TunedOptions, **shared
) -> Table:
    """`few_shot_finetune` under the recipe's own augmentation, or another."""
    return few_shot_finetune(encoder, data, **options.arguments(encoder, recipe, True), **shared)
