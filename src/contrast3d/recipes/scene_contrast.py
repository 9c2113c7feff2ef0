"""Pre-training on partial views of scenes: point-level contrast, and the supervised pre-training it is held against."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from contrast3d.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from contrast3d.data.scene_views import SceneViews
    from contrast3d.engine.distributed import Ranks
    from contrast3d.engine.settings import Training
    from contrast3d.recipes.machine import Machine
    from contrast3d.recipes.task import Task

LEAST = {"rooms": 1, "frames": 2, "out_channels": 1, "steps": 1, "batch_size": 1, "num_pairs": 1, "num_candidates": 1,
         "probe_every": 1, "validation_scenes": 0}
OF_LOSS = {"info-nce": {"temperature"}, "hardest": {"num_candidates", "squared_positive"}}
OF_CONTRAST = {"loss", "holistic", "num_pairs", "feature_noise", "frames", "min_overlap", "test_scenes", "scale_views",
               "max_angle", "upright", "temperature", "num_candidates", "squared_positive", "validation_scenes",
               "probe_every"}
CHANNELS = 3  # of the input: ones in pre-training, ones or colours in segmentation


@dataclass(frozen=True)
class SceneRecipe:
    """The same place in two partial views of a scene gets the same feature, other places others (PointContrast).

    Attributes:
        method: point-contrast; or supervised, which learns the labels of the rooms instead, for comparison.
        dataset: Rooms, generated and embedded; 3DMatch or ScanNet below --data-root; or the path of a folder of scenes
            that `contrast3d data prepare pairs` wrote.
        rooms: generated rooms to train on.
        frames: depth images of each generated room.
        test_scenes: scenes that are kept from training, by name or a part of it; `evaluate registration` takes them.
        validation_scenes: rooms (of a folder: test scenes) looked at while training, and nothing is chosen by them.
        min_overlap: the share of a view that the other one of a pair must see.
        holistic: both views are the whole scene: the ablation of the paper.
        loss: info-nce or hardest (hardest-contrastive).
        temperature: of info-nce.
        num_pairs: matches that count per process and step.
        num_candidates: of hardest, points of a view to look for the nearest stranger among.
        squared_positive: of hardest, as released; --no-squared-positive is the formula as printed.
        voxel_size: metres.
        depth: of the sparse residual U-Net: 14, 18, 34 or 50.
        width: factor on the widths of its layers; 1 is the paper's, 37.8 million parameters.
        out_channels: width of the features of points.
        norm_momentum: of batch norm outside of the residual blocks.
        sync_norm: statistics of batch norm over all processes; --no-sync-norm is each by itself, as released.
        feature_noise: standard deviation of noise on the input features, which are ones.
        max_angle: views are turned about a random axis by up to so many degrees; 180 as released.
        upright: views keep the vertical of the world's z axis, and are turned about it by any angle; for what reads
            upright rooms later. Needs poses whose z axis is up.
        scale_views: also scale both views of a pair by a factor in 0.8 to 1.2.
        epochs: how often so many steps are made; a line of the log each.
        steps: optimiser steps of an epoch.
        batch_size: pairs of views (supervised: rooms) per step, over all processes.
        optimizer: sgd, adamw or adam.
        lr: peak learning rate.
        momentum: of sgd.
        weight_decay: on weights, not on biases and norms.
        decay_all: on those too, as released.
        schedule: cosine, poly (0.9), step (a factor every step_epochs) or constant.
        step_epochs: epochs between two drops of the step schedule.
        step_gamma: factor of each drop.
        warmup_epochs: epochs of linear warm-up.
        clip_norm: largest gradient norm; 0 for none.
        precision: bfloat16 is faster where the machine has it.
        probe_every: epochs between two looks at held-out pairs.
        checkpoint_seconds: at most this much work is lost by a kill.
        seed: of weights, batches and views.
    """

    ends_in_report: ClassVar[bool] = True  # there is much to see, and making it is quick

    method: Literal["point-contrast", "supervised"] = "point-contrast"
    dataset: str = "Rooms"
    rooms: int = 60
    frames: int = 16
    test_scenes: tuple[str, ...] = ()
    validation_scenes: int = 4
    min_overlap: float = 0.3
    holistic: bool = False
    loss: Literal["info-nce", "hardest"] = "info-nce"
    temperature: float = 0.4
    num_pairs: int = 4096
    num_candidates: int = 1024
    squared_positive: bool = True
    voxel_size: float = 0.025
    depth: int = 34
    width: float = 1.0
    out_channels: int = 32
    norm_momentum: float = 0.05
    sync_norm: bool = True
    feature_noise: float = 0.01
    max_angle: float = 180.0
    upright: bool = False
    scale_views: bool = False
    epochs: int = 20
    steps: int = 50
    batch_size: int = 4
    optimizer: Literal["sgd", "adamw", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.8
    weight_decay: float = 1e-4
    decay_all: bool = False
    schedule: Literal["cosine", "poly", "step", "constant"] = "cosine"
    step_epochs: int = 1
    step_gamma: float = 0.99
    warmup_epochs: float = 0.0
    clip_norm: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    probe_every: int = 5
    checkpoint_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self):
        for field, least in LEAST.items():
            if getattr(self, field) < least:
                raise ConfigError(f"{field} = {getattr(self, field)!r}; expected at least {least}")
        for field in ("temperature", "voxel_size", "width"):
            if not getattr(self, field) > 0:
                raise ConfigError(f"{field} = {getattr(self, field)}; expected a positive number")
        if self.depth not in (14, 18, 34, 50):
            raise ConfigError(f"depth = {self.depth}; expected 14, 18, 34 or 50")
        if not 0 <= self.max_angle <= 180:
            raise ConfigError(f"max_angle = {self.max_angle}; expected degrees from 0 to 180")
        if not self.feature_noise >= 0:
            raise ConfigError(f"feature_noise = {self.feature_noise}; expected at least 0")
        if not 0 < self.norm_momentum <= 1:
            raise ConfigError(f"norm_momentum = {self.norm_momentum}; expected a share above 0, at most 1")
        if not 0 < self.min_overlap <= 1:
            raise ConfigError(f"min_overlap = {self.min_overlap}; expected a share above 0, at most 1")
        if self.method == "supervised" and self.dataset != "Rooms":
            raise ConfigError(f"supervised pre-training needs labelled scenes, and {self.dataset} has none. Try: "
                              "--dataset Rooms")
        self.training()  # checks its own fields

    def idle_fields(self) -> dict[str, str]:
        """Fields that change nothing here, each with the field and value that makes it so."""
        found = {}
        if self.schedule != "step":
            found |= dict.fromkeys(("step_epochs", "step_gamma"), f"--schedule {self.schedule}")
        if self.optimizer != "sgd":
            found["momentum"] = f"--optimizer {self.optimizer}"
        for loss, fields in OF_LOSS.items():
            if loss != self.loss:
                found |= dict.fromkeys(fields, f"--loss {self.loss}")
        if self.dataset == "Rooms":
            found["test_scenes"] = "--dataset Rooms, whose test rooms are others"
        else:
            found |= dict.fromkeys(("rooms", "frames"), f"--dataset {self.dataset}")
        if self.holistic:
            found["min_overlap"] = "--holistic"
        if not self.validation_scenes:
            found["probe_every"] = "--validation-scenes 0"
        if self.method == "supervised":
            found |= dict.fromkeys(OF_CONTRAST | {"out_channels"}, "--method supervised")
        return found

    def make_encoder(self, seed: int | None = None) -> nn.Module:
        """The network with fresh weights; the same seed gives the same weights."""
        import torch

        from contrast3d.nn.batch_norm import BatchNorm
        from contrast3d.nn.sparse_unet import SparseUNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed if seed is None else seed)
            out = self.out_channels if self.method == "point-contrast" else None
            encoder = SparseUNet(CHANNELS, out, self.depth, width=self.width, voxel_size=self.voxel_size,
                                 norm_momentum=self.norm_momentum)
        for norm in (m for m in encoder.modules() if isinstance(m, BatchNorm)):
            norm.alone = not self.sync_norm
        return encoder

    def make_method(self, num_classes: int = 0) -> nn.Module:
        """The method around a fresh network. num_classes: of supervised pre-training."""
        import torch

        from contrast3d.downstream.segmenter import Segmenter
        from contrast3d.methods.point_contrast import PointContrast

        encoder = self.make_encoder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1)
            if self.method == "supervised":
                return Segmenter(encoder, num_classes, colors=False)
            return PointContrast(encoder, self.loss, self.temperature, self.num_pairs, self.num_candidates,
                                 squared_positive=self.squared_positive)

    def scenes(self, split: Literal["train", "val", "test"], data_root: Path, quiet: bool = False) -> list[SceneViews]:
        """The scenes of a split, with pairs for training; of a folder, val and test are `test_scenes`.

        Of an upright recipe the views that are not for training are levelled, as its network is to see them.
        """
        from contrast3d.recipes import scene_sources as sources

        count = self.rooms if split == "train" else max(self.validation_scenes, 1)
        found = sources.scenes_of(
            self.dataset, data_root, rooms=count, frames=self.frames, split=split, quiet=quiet)
        if self.dataset != sources.ROOMS:
            found = sources.split_scenes(found, self.test_scenes)[split != "train"]
        if split != "train":
            return sources.as_trained(found, self.upright)
        return found if self.holistic else sources.paired(found, self.min_overlap, quiet)

    def task(self, machine: Machine, ranks: Ranks) -> Task:
        """What this process trains, and what the first one looks at meanwhile."""
        from contrast3d.recipes import scene_tasks

        make = scene_tasks.supervised if self.method == "supervised" else scene_tasks.contrast
        return make(self, machine, ranks)

    @property
    def is_embedded(self) -> bool:
        """Whether the scenes need no folder of files below --data-root."""
        return self.dataset not in ("3DMatch", "ScanNet")

    def next_verbs(self, numbers: dict[str, float]) -> list[list[str]]:
        """What to do with a finished run; numbers: of its last epoch."""
        registers = self.method == "point-contrast" and (self.dataset == "Rooms" or self.test_scenes)
        return [*([["evaluate", "registration"]] if registers else []), ["evaluate", "segmentation"], ["report"]]

    def training(self) -> Training:
        from contrast3d.engine.settings import Training

        names = {field.name for field in dataclasses.fields(Training)} & {f.name for f in dataclasses.fields(self)}
        return Training(**{name: getattr(self, name) for name in names} | {"clip_norm": self.clip_norm or None})
