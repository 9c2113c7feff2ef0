"""The options of the command line's smaller verbs; those of `pretrain` are a recipe's fields and `Machine`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contrast3d.errors import ConfigError


@dataclass(frozen=True)
class EvaluateOptions:
    """What the encoder of a run knows, beside the baselines.

    Attributes:
        data_root: folder of the data set's files; embedded sets need none.
        dataset: evaluate on other data than the recipe's: a name of `contrast3d data list`, your own folder (its
            sub-folders are the classes) or file.
        up: the axis that points up in your own --dataset.
        labels: labels per class, one table column each; 0 means all labels, and so does `all`; 10% is a
            share of each class (of segmentation: of the scenes). Default 5 10 20 all; of finetune 10 all, of
            finetune-best-on-test all, of segmentation and part-segmentation 1% 10% all.
        draws: random draws of the labels (robustness: of the corruptions; zero-shot: of untrained encoders), to tell a
            difference from luck.
        seed: of the first draw.
        supervised_seconds: also train the same network on the labels alone for so long, at 10 labels per class and at
            all of them, once per draw; 0 does not.
        ways: of few-shot and few-shot-finetune, classes per problem.
        shots: of the same, labelled shapes per class.
        trials: of the same, problems per number of ways and shots.
        readout: of linear, svm, knn, few-shot, robustness and retrieval on a patch transformer, what they read, side by
            side: queries, cls, img, text, queries-max, max, mean, max+mean (over tokens); default as the recipe has it.
        epochs: of fine-tuning, passes over the labelled shapes (more where the labels are few); 0 takes 15, of
            part-segmentation 10.
        mode: of fine-tuning, full trains all weights; mlp-linear and mlp-3 a head of one or three layers, and the class
            token where there is one, on the frozen encoder.
        voting: of finetune, mean adds a row of the mean over ten passes; published the best of 299 such votes on test:
            only to compare with papers that do so.
        augmentation: of fine-tuning, a preset other than the recipe's: scale-shift, rotate-up, objects ...
        scenes: of registration, which scenes of the data set, by name or a part of it; default those that the recipe
            kept from training.
        consecutive: of registration, also pairs of views that follow each other, as PPFNet and FCGF count them.
        min_overlap: of registration, share of a view that the other one must see too.
        pairs: of registration, overlap takes the pairs that overlap enough; gt exactly those of the gt.log beside each
            scene (NAME-evaluation/gt.log), as 3DMatch publishes them.
        steps: of segmentation, optimiser steps of each training; 0 takes 300.
        published: train as the released scripts do, the best weights being those best on test: only to compare with
            such papers. Of fine-tuning, as ReCon's (of standard blocks: Point-MAE's) do, for 301 epochs; of
            segmentation on S3DIS and ScanNet, 60,000 steps of 48 scenes, SGD, voxels of 5 and 2 cm. Of
            part-segmentation 300 epochs, each batch stepped on twice, points drawn with replacement, the last weights.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: CPU threads; 0 takes all that torch sees.
    """

    data_root: Path = Path("data")
    dataset: str | None = None
    up: Literal["z", "y", "x"] = "z"
    labels: tuple[int | Literal["all"] | str, ...] | None = None
    draws: int = 3
    seed: int = 0
    supervised_seconds: float = 0.0
    ways: tuple[int, ...] = (5, 10)
    shots: tuple[int, ...] = (10, 20)
    trials: int = 10
    readout: tuple[str, ...] = ()
    epochs: int = 0
    mode: Literal["full", "mlp-linear", "mlp-3"] = "full"
    voting: Literal["none", "mean", "published"] = "none"
    augmentation: str = ""
    scenes: tuple[str, ...] = ()
    consecutive: bool = False
    min_overlap: float = 0.3
    pairs: Literal["overlap", "gt"] = "overlap"
    steps: int = 0
    published: bool = False
    device: str = "auto"
    threads: int = 0

    def __post_init__(self):
        if self.labels is None:
            return
        odd = [n for n in self.labels if isinstance(n, str) and n != "all" and not re.fullmatch(r"\d+(\.\d+)?%", n)]
        if odd:
            raise ConfigError(f"--labels {odd[0]}; expected numbers, shares of each class such as 10%, or all")
        for share in (n for n in self.labels if isinstance(n, str) and n != "all"):
            if not 0 < float(share[:-1]) <= 100:
                raise ConfigError(f"--labels {share}; expected a share of each class above 0% and up to 100%")
        shares = {n: f"{float(n[:-1]):g}%" for n in self.labels if isinstance(n, str) and n != "all"}
        object.__setattr__(self, "labels", tuple(shares.get(n, n) for n in self.labels))  # 10.0% is 10%


@dataclass(frozen=True)
class ReportOptions:
    """One self-contained HTML page about a run.

    Attributes:
        data_root: folder of the data set's files; embedded sets need none.
        out: file to write, -o for short; default report.html (or views.html) in the run folder.
        views: only the pairs of views that training compares. Takes the name of a recipe, too.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: CPU threads; 0 takes all that torch sees.
    """

    data_root: Path = Path("data")
    out: Path | None = None
    views: bool = False
    device: str = "auto"
    threads: int = 0


@dataclass(frozen=True)
class CompareOptions:
    """What runs reached, side by side, and by how much they differ from the first, paired over seeds.

    Attributes:
        out: a picture to write, compare.png say; -o for short.
    """

    out: Path | None = None


@dataclass(frozen=True)
class EmbedOptions:
    """Shapes into an index, by the encoder of a run.

    Attributes:
        out: folder of the index, -o for short; what it has already is not encoded again.
        up: the axis that points up in files: z, y or x.
        data_root: folder of data sets; embedded sets need none.
        batch_size: shapes encoded at a time.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: CPU threads; 0 takes all that torch sees.
        quiet: no progress bar.
    """

    out: Path
    up: Literal["z", "y", "x"] = "z"
    data_root: Path = Path("data")
    batch_size: int = 64
    device: str = "auto"
    threads: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class SearchOptions:
    """The shapes nearest to a query.

    Attributes:
        k: how many, -k for short.
        out: picture of the query and what was found, -o for short; .png, .svg or .pdf.
        engine: exact; hnsw or ivf-pq, approximate ones by faiss, built at their first search; auto is exact up to two
            million shapes.
        run: the run that made the index; default the folder that the index remembers.
        device: auto, cpu, cuda, cuda:1 or mps.
        threads: CPU threads; 0 takes all that torch sees.
    """

    k: int = 10
    out: Path | None = None
    engine: Literal["auto", "exact", "hnsw", "ivf-pq"] = "auto"
    run: Path | None = None
    device: str = "auto"
    threads: int = 0


@dataclass(frozen=True)
class DedupeOptions:
    """Groups of shapes that are nearly the same.

    Attributes:
        threshold: cosine distance up to which two shapes count as the same; 0 finds exact copies only.
        out: CSV file to write, -o for short; default duplicates.csv in the index.
        engine: exact compares all with all; hnsw and ivf-pq look at 32 neighbours of each; auto is exact up to two
            million shapes.
        threads: CPU threads; 0 takes all that torch sees.
    """

    threshold: float = 0.01
    out: Path | None = None
    engine: Literal["auto", "exact", "hnsw", "ivf-pq"] = "auto"
    threads: int = 0


@dataclass(frozen=True)
class GalleryOptions:
    """One self-contained HTML page: clusters, neighbours and a map of the shapes in an index.

    Attributes:
        out: file to write, -o for short; default gallery.html in the index.
        most: shapes shown; of more, a random choice that is always the same.
        threads: CPU threads; 0 takes all that torch sees.
    """

    out: Path | None = None
    most: int = 1000
    threads: int = 0


@dataclass(frozen=True)
class ExportOptions:
    """The encoder of a run as files that run without this package.

    Attributes:
        out: folder to write, -o for short.
        format: safetensors, the weights with the recipe inside; torch, a .pt2 of torch.export; onnx; or all.
        threads: CPU threads; 0 takes all that torch sees.
    """

    out: Path
    format: Literal["safetensors", "onnx", "torch", "all"] = "all"
    threads: int = 0


@dataclass(frozen=True)
class DataOptions:
    """What is missing of a data set, and how it must look.

    Attributes:
        data_root: folder of the data set's files, or the file itself for `arrays`.
    """

    data_root: Path = Path("data")


@dataclass(frozen=True)
class DoctorOptions:
    """This machine: devices, versions, speed, and how to mend what is missing.

    Attributes:
        model: also say how large the network of a recipe is, or of the run in a folder: parameters and multiply-adds.
    """

    model: str | None = None


@dataclass(frozen=True)
class NoOptions:
    """This verb takes no options."""
