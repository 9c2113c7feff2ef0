"""`Segmenter`: a dense encoder with a linear head on its points, trained by the engine's loop; and its scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.data.draws import Draws
from contrast3d.data.scene_loader import packed, thinned
from contrast3d.data.scene_transforms import Center
from contrast3d.data.scenes import IGNORE, Scene, SceneSet
from contrast3d.downstream.features import device_of, evaluating
from contrast3d.errors import ConfigError, DataError
from contrast3d.metrics.segmentation import confusion, iou_per_class, mean_accuracy, mean_iou, overall_accuracy
from contrast3d.types import Clouds


class Segmenter(nn.Module):
    """forward(batch) is the cross-entropy of the labelled points, as the training loop wants it; label 255 is left out.

    encoder: dense, `dense_dim` wide. head: one linear layer, the `final` of the published networks.
    encoder_lr: peak learning rate of the encoder, where it is not the head's.
    colors: whether the encoder is shown the features of points; without, it sees what it saw in pre-training.
    """

    def __init__(
        self, encoder: nn.Module, num_classes: int, encoder_lr: float | None = None, colors: bool = True,
    ):
        super().__init__()
        if "dense" not in getattr(encoder, "gives", {"dense"}) or not isinstance(dense_width(encoder), int):
            raise ConfigError(
                f"segmentation needs an encoder that gives dense features and has their width as `dense_dim`; "
                f"{type(encoder).__name__} has not"
            )
        if num_classes < 2:
            raise ConfigError(f"num_classes={num_classes}: a segmentation tells at least 2 apart")
        self.encoder, self.encoder_lr, self.colors = encoder, encoder_lr, colors
        self.head = nn.Linear(dense_width(encoder), num_classes)

    def param_groups(self) -> list[dict]:
        """What the optimiser trains; see engine/optimizers.py."""
        lr = {} if self.encoder_lr is None else {"lr": self.encoder_lr}
        return [{"params": self.encoder.parameters(), **lr}, {"params": self.head.parameters()}]

    def logits(self, clouds: Clouds) -> Float[Tensor, "n l"]:
        """(sum N, L) of every point."""
        points = self.encoder(clouds if self.colors else clouds.replace(features=None)).points
        if points is None:
            raise ConfigError(f"{type(self.encoder).__name__} returned no features of points")
        return self.head(points)

    def forward(self, batch: Clouds) -> dict[str, Tensor]:
        logits, labels = self.logits(batch), batch.point_labels
        if labels is None:
            raise DataError("batch", "no labels of points", "scenes with labels")
        known = (labels != IGNORE).sum()
        # not the mean of torch, which is NaN where nothing is labelled: zero then, and every parameter has a gradient
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / known.clamp(min=1)
        hits = (logits.argmax(1) == labels).sum()
        return {"loss": loss, "accuracy": hits / known.clamp(min=1)}


def dense_width(encoder: nn.Module) -> int | None:
    """Width of the features of points: `dense_dim`, or `embed_dim` where there is no such number."""
    return getattr(encoder, "dense_dim", getattr(encoder, "embed_dim", None))


@dataclass(frozen=True)
class Scores:
    """Confusion matrices (L, L) over the voxels of some scenes, and over their original points."""

    voxels: Int[Tensor, "l l"]
    points: Int[Tensor, "l l"]

    def measure(self, metric: str, on: str = "voxels") -> float:
        """"mean_iou", "mean_accuracy" or "overall_accuracy" on "voxels" or "points", a fraction."""
        measures = {"mean_iou": mean_iou, "mean_accuracy": mean_accuracy, "overall_accuracy": overall_accuracy}
        return measures[metric](getattr(self, on))

    def iou(self, on: str = "voxels") -> list[float | None]:
        """Of each class; None where neither labels nor predictions have it."""
        return [None if value != value else value for value in iou_per_class(getattr(self, on)).tolist()]


def predict_scene(segmenter: Segmenter, scene: Scene, voxel_size: float) -> Int[Tensor, " n"]:
    """(N,) the class of each original point of a scene, that of its voxel; the segmenter is left as it was."""
    clouds, rows = as_voxels(scene, voxel_size)
    with evaluating(segmenter):
        return segmenter.logits(clouds.to(device_of(segmenter))).argmax(1).cpu()[rows]


def score_scenes(segmenter: Segmenter, scenes: SceneSet, voxel_size: float) -> Scores:
    """Of the network, scene by scene, whole, without augmentation or votes, as in the published evaluation."""

    def predict(clouds: Clouds) -> Int[Tensor, " m"]:
        with evaluating(segmenter):
            return segmenter.logits(clouds.to(device_of(segmenter))).argmax(1).cpu()

    return score(predict, scenes, voxel_size)


def score(predict: Callable[[Clouds], Int[Tensor, " m"]], scenes: SceneSet, voxel_size: float) -> Scores:
    """Of whatever tells the class of each voxel of a scene; see `score_all`."""
    return score_all(lambda clouds: [predict(clouds)], scenes, voxel_size)[0]


def score_all(
    predict: Callable[[Clouds], Sequence[Int[Tensor, " m"]]], scenes: SceneSet, voxel_size: float
) -> list[Scores]:
    """Of several that tell the class of each voxel of a scene, which is prepared once.

    A voxel has the label of its points, 255 where they disagree; an original point gets the class of its voxel and is
    judged by its own label. A DataError for a scene without labels.
    """
    classes = len(scenes.classes)
    found: list[list[Scores]] = []
    for scene in scenes.scenes:
        if scene.labels is None:
            raise DataError(f"{scenes.title}: {scene.name}", "no labels", "labelled scenes")
        clouds, rows = as_voxels(scene, voxel_size)
        labels = torch.from_numpy(scene.labels).long()
        found.append([
            Scores(confusion(each, clouds.point_labels, classes), confusion(each[rows], labels, classes))
            for each in predict(clouds)
        ])
    return [Scores(sum(s.voxels for s in column), sum(s.points for s in column)) for column in zip(*found)]


def as_voxels(scene: Scene, voxel_size: float) -> tuple[Clouds, Int[Tensor, " n"]]:
    """(the centred scene with one point per voxel, the row there of each original point)."""
    ids = torch.zeros(1, dtype=torch.int64)
    return thinned(Center()(packed([scene], ids), Draws.of(0, 0, ids)), voxel_size)


def load_matching(module: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Fill `module` with every tensor of `state` whose name and shape match; (names loaded, names of `state` skipped).

    A leading "module.", "encoder." or both are no part of a name. A ConfigError where nothing matches.
    """
    own = module.state_dict()
    names = {name: name if name in own else re.sub(r"^(module\.|encoder\.)+", "", name) for name in state}
    loaded = {
        name: short for name, short in names.items() if short in own and own[short].shape == state[name].shape
    }
    if not loaded:
        found = f"{', '.join(list(state)[:3])} ..., not {', '.join(list(own)[:3])} ..."
        raise ConfigError(f"no tensor of the pre-trained state fits {type(module).__name__}: it has {found}")
    module.load_state_dict({short: state[name] for name, short in loaded.items()}, strict=False)
    return sorted(loaded.values()), sorted(set(state) - set(loaded))
