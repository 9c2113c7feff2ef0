"""Pre-training on views of whole shapes: one recipe class for all methods, its values in files of their own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from contrast3d.errors import ConfigError
from contrast3d.recipes.shape_recipe import ShapeRecipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from contrast3d.data.loader import ViewLoader
    from contrast3d.data.shapes import ShapeSet
    from contrast3d.engine.distributed import Ranks
    from contrast3d.engine.settings import Training
    from contrast3d.recipes.machine import Machine
    from contrast3d.recipes.task import Task

LEAST = {  # what each field has to be at least; of tuples, each number
    "shape_points": 2, "num_points": 2, "embed_dim": 1, "layers": 1, "strides": 1, "k": 1, "projection_dim": 0,
    "hidden_dim": 0, "batch_size": 2, "probe_every": 1, "holdout": 0, "queue_size": 1, "micro_batch": 0, "momentum": 0,
}
OWN_DEFAULT = ("projection_dim", "hidden_dim", "momentum")  # 0: as the constructor of the method has it
OF_SOME_METHODS = {"temperature", "momentum", "queue_size", "projection_dim", "hidden_dim", "head_norm"}
IDLE_OF_ENCODER = {
    "dgcnn": (), "dgcnn-report": ("embed_dim", "layers", "strides", "dynamic"),
    "pointnet": ("layers", "strides", "k", "dynamic"),
}
METHODS = {  # the classes of contrast3d.methods; each takes the fields that its constructor names
    "simclr": "SimCLR", "moco": "MoCo", "instance-discrimination": "InstanceDiscrimination", "byol": "BYOL",
    "barlow-twins": "BarlowTwins", "vicreg": "VICReg",
}


@dataclass(frozen=True)
class ContrastRecipe(ShapeRecipe):
    """Augmented views of a shape get alike features, and features that tell shapes apart.

    Attributes:
        method: simclr, moco, instance-discrimination (a memory bank), byol, barlow-twins or vicreg.
        dataset: a name that `contrast3d data list` knows, or the path of your own folder, .npz or .h5 file.
        extra_datasets: further sets or files; all shapes they have join the pre-training, without labels.
        categories: of ShapeNetPart, the classes to keep; none keeps all.
        up: of ShapeNetPart, stored with y up: z turns it as all other sets are, y leaves it as the report had it.
            Of your own folders and files: the axis that points up in them; they are turned as all other sets are.
        labels_from: of your own folder: folders makes classes of its sub-folders.
        holdout: 0 tests on the official test split; n holds every n-th part of the training split out as the test.
        shape_points: points per shape, as the probes see it.
        num_points: points per view, drawn anew each time.
        augmentation: a preset: objects, objects-strong, objects-rotate-up, objects-so3, partial, report,
            report-replacement, none.
        shared_draws: one draw per batch instead of per sample (defect 2 of the report).
        identical_views: both views are the same cloud (defect 1 of the report).
        encoder: dgcnn, dgcnn-report (the report's own), or pointnet.
        embed_dim: width of the feature that the probes read.
        layers: width of each edge convolution.
        strides: of each edge convolution; 4 keeps every fourth point from there on.
        k: neighbours.
        dynamic: neighbours in feature space after the first layer, instead of in 3-D.
        projection_dim: width of the projection that the loss compares; 0 takes what suits the method.
        hidden_dim: width of the projection head's hidden layers; 0 takes what suits the method.
        head_norm: batch norm in the projection head.
        temperature: of simclr, moco and instance-discrimination; lower pushes hard negatives apart more.
        momentum: of moco's key encoder, byol's target, instance-discrimination's memory; nearer to 1 is slower, 0
            takes what suits the method.
        queue_size: keys that moco keeps as negatives; fewer than there are shapes, or old keys of a shape repel it.
        epochs: passes over the training shapes.
        batch_size: shapes per step, over all processes.
        micro_batch: shapes in the network at a time, with the gradient of the whole batch all the same; 0 for all.
        optimizer: adamw, adam or sgd.
        lr: peak learning rate.
        weight_decay: on weights, not on biases and norms.
        schedule: cosine, step (halves every step_epochs) or constant.
        step_epochs: epochs between two halvings of the step schedule.
        warmup_epochs: epochs of linear warm-up.
        accumulate: batches per optimiser step.
        clip_norm: largest gradient norm; 0 for none.
        precision: bfloat16 is faster where the machine has it.
        probe_every: epochs between two looks of the online kNN probe and the health numbers.
        checkpoint_seconds: at most this much work is lost by a kill.
        seed: of weights, batches and views.
    """

    ends_in_report: ClassVar[bool] = False  # without an evaluation there is little to see

    method: Literal["simclr", "moco", "instance-discrimination", "byol", "barlow-twins", "vicreg"] = "simclr"
    dataset: str = "LDraw40"
    extra_datasets: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    up: Literal["z", "y", "x"] = "z"
    labels_from: Literal["none", "folders"] = "none"
    holdout: int = 0
    shape_points: int = 1024
    num_points: int = 512
    augmentation: str = "objects"
    shared_draws: bool = False
    identical_views: bool = False
    encoder: Literal["dgcnn", "dgcnn-report", "pointnet"] = "dgcnn"
    embed_dim: int = 512
    layers: tuple[int, ...] = (64, 64, 128, 256)
    strides: tuple[int, ...] = ()
    k: int = 20
    dynamic: bool = True
    projection_dim: int = 0
    hidden_dim: int = 0
    head_norm: bool = True
    temperature: float = 0.2
    momentum: float = 0.0
    queue_size: int = 4096
    epochs: int = 100
    batch_size: int = 64
    micro_batch: int = 0
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_epochs: int = 20
    warmup_epochs: float = 5.0
    accumulate: int = 1
    clip_norm: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    probe_every: int = 5
    checkpoint_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self):
        for field, least in LEAST.items():
            value = getattr(self, field)
            if min(value if isinstance(value, tuple) else (value,), default=least) < least:
                raise ConfigError(f"{field} = {value!r}; expected at least {least}")
        if not self.layers:
            raise ConfigError("layers = (); expected at least one width")
        if self.holdout == 1:
            raise ConfigError("holdout = 1; expected 0, or at least 2 parts of which one is held out")
        pieces = -(-self.batch_size // self.micro_batch) if self.micro_batch else 1
        if self.head_norm and self.batch_size // pieces < 2:
            raise ConfigError(f"micro_batch = {self.micro_batch} leaves pieces of one shape of batch_size = "
                              f"{self.batch_size}; batch norm needs two. Try: --micro-batch 4 or more")
        if not self.temperature > 0:
            raise ConfigError(f"temperature = {self.temperature}; expected a positive number")
        self._check_neighbors()
        self.training()  # checks its own fields

    def _check_neighbors(self) -> None:
        fewest, strides = min(self.num_points, self.shape_points), self.strides if self.encoder == "dgcnn" else ()
        for stride in strides[:-1]:
            fewest = max(1, fewest // stride)
        if self.encoder != "pointnet" and self.k > fewest:
            raise ConfigError(
                f"k = {self.k} neighbours, but num_points = {self.num_points}, shape_points = {self.shape_points} "
                f"and strides = {strides} leave clouds of {fewest} points"
            )

    def idle_fields(self) -> dict[str, str]:
        """Fields that change nothing here, each with the field and value that makes it so."""
        import inspect

        from contrast3d import methods

        def because(field: str, idle: Iterable[str]) -> dict[str, str]:
            return dict.fromkeys(idle, f"--{field.replace('_', '-')} {getattr(self, field)}")

        method = getattr(methods, METHODS[self.method])
        found = because("method", OF_SOME_METHODS - set(inspect.signature(method).parameters))
        if method.views == 1:
            found |= because("method", ["identical_views"])
        found |= because("encoder", IDLE_OF_ENCODER[self.encoder])
        if self.schedule != "step":
            found |= because("schedule", ["step_epochs"])
        return found | self.idle_of_data()

    @property
    def method_title(self) -> str:
        return METHODS[self.method]

    @property
    def network(self) -> str:
        return self.encoder

    def knobs(self) -> str:
        """Those of temperature, momentum and queue size that the method has: "temperature 0.1, "."""
        import inspect

        from contrast3d import methods

        taken = inspect.signature(getattr(methods, METHODS[self.method])).parameters
        names = [name for name in ("temperature", "momentum", "queue_size") if name in taken]
        return "".join(f"{n.replace('_', ' ')} {getattr(self, n):g}, " for n in names if getattr(self, n))

    @property
    def how_views_differ(self) -> dict:
        return {"draws": "per-batch" if self.shared_draws else "per-sample", "identical": self.identical_views}

    def make_encoder(self, seed: int | None = None) -> nn.Module:
        """The encoder with fresh weights; the same seed gives the same weights."""
        import torch

        from contrast3d.nn.dgcnn import DGCNN
        from contrast3d.nn.pointnet import PointNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed if seed is None else seed)
            if self.encoder == "pointnet":
                return PointNet(self.embed_dim, readout=("max", "mean"))
            if self.encoder == "dgcnn-report":
                return DGCNN.report(self.k)
            layers = tuple((width,) for width in self.layers)
            return DGCNN(self.embed_dim, layers, self.k, self.dynamic, strides=self.strides or None)

    def make_method(self, num_shapes: int) -> nn.Module:
        """The method around a fresh encoder. num_shapes: of the training set, for a memory bank."""
        import inspect

        import torch

        from contrast3d import methods

        method = getattr(methods, METHODS[self.method])
        fields = {**dataclasses.asdict(self), "num_shapes": num_shapes}
        taken = set(inspect.signature(method).parameters) & set(fields) - {"encoder"}
        taken -= {name for name in OWN_DEFAULT if not fields[name]}
        encoder = self.make_encoder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1)
            return method(encoder, **{name: fields[name] for name in taken})

    @property
    def views(self) -> int:
        """Views of each shape that the method takes."""
        from contrast3d import methods

        return getattr(methods, METHODS[self.method]).views

    def make_loader(self, shapes: ShapeSet, ranks: Ranks) -> ViewLoader:
        """Views of `shapes`, as many as the method compares, for this process."""
        from contrast3d.data.loader import ViewLoader
        from contrast3d.data.presets import preset

        return ViewLoader(
            shapes, preset(self.augmentation, self.num_points), self.views, self.batch_size, self.seed, ranks.rank,
            ranks.world, ranks.device, **self.how_views_differ,
        )

    def task(self, machine: Machine, ranks: Ranks) -> Task:
        """What this process trains, and what the first one looks at meanwhile."""
        from contrast3d.recipes import shape_tasks

        return shape_tasks.contrast(self, machine, ranks)

    def next_verbs(self, numbers: dict[str, float]) -> list[list[str]]:
        """What to do with a finished run; evaluations are for labelled shapes. numbers: of its last epoch."""
        return [["evaluate", "linear"], ["report"]] if "knn_accuracy" in numbers else [["report"]]

    def training(self) -> Training:
        from contrast3d.engine.settings import Training

        names = {field.name for field in dataclasses.fields(Training)} & {f.name for f in dataclasses.fields(self)}
        values = {name: getattr(self, name) for name in names}
        del values["momentum"]  # there it is SGD's, here the method's
        values["clip_norm"], values["micro_batch"] = self.clip_norm or None, self.micro_batch or None
        values["warmup_epochs"] = min(self.warmup_epochs, self.epochs / 2)
        return Training(**values)
