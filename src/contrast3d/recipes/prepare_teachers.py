"""What teachers say of a set, into files: what `contrast3d data prepare teachers` does."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.data.shapes import ShapeSet
from contrast3d.engine.distributed import pick_device
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.ops.shaded_views import LOOK, shaded_views
from contrast3d.recipes import datasets, teachers
from contrast3d.recipes.caption_words import class_words
from contrast3d.recipes.shape_recipe import part_of, reader_options, stored_split
from contrast3d.recipes.teacher_options import TeachersOptions
from contrast3d.tally import Tally
from contrast3d.teachers.feature_files import FIX, FeatureFile, check_header, load_features
from contrast3d.teachers.prompts import masked, some_prompts

SAVE_SECONDS = 30.0  # at most so much is lost when it is interrupted
CHUNK = 64  # pictures or sentences in one step


@dataclass(frozen=True)
class Plan:
    """One file to be: what a teacher is shown of each shape.

    header: what the file says of itself, all but the weights. rows: (S,) the thing of each shape, -1 where it has
    none. texts: the prompts of each thing; of pictures none.
    """

    shapes: ShapeSet
    kind: str
    teacher: str
    header: dict
    rows: Tensor
    file: str
    texts: tuple[tuple[str, ...], ...] = field(default=(), repr=False)

    @classmethod
    def of_images(cls, shapes: ShapeSet, teacher: str, views: int) -> Plan:
        """Shaded renders of every shape."""
        teachers.dims_of(teacher, teachers.NONE)  # a name that is none is one error, here
        header = _header(shapes, "img", teacher) | {"views": views, "look": asdict(LOOK)}
        return cls(shapes, "img", teacher, header, torch.arange(len(shapes)), _file(shapes, "img", teacher))

    @classmethod
    def of_texts(cls, shapes: ShapeSet, teacher: str, captions: str, prompts: int) -> Plan:
        """Captions of every shape that has one, each in so many prompts; the same caption is read once.

        There may be none: see `check_captions`.
        """
        teachers.dims_of(teachers.NONE, teacher)
        own = captions_of(shapes, captions)
        things = list(dict.fromkeys(caption for caption in own if caption))
        number = {caption: i for i, caption in enumerate(things)}
        texts = tuple(tuple(some_prompts(caption, prompts)) for caption in things)
        said = hashlib.sha256("\n".join(text for group in texts for text in group).encode()).hexdigest()[:12]
        header = _header(shapes, "text", teacher) | {"captions": captions, "views": prompts, "words": said}
        rows = torch.tensor([number.get(caption, -1) for caption in own])
        return cls(shapes, "text", teacher, header, rows, _file(shapes, "text", teacher, captions), texts)

    @property
    def views(self) -> int:
        return len(self.texts[0]) if self.texts else self.header["views"]

    @property
    def things(self) -> int:
        return len(self.texts) if self.kind == "text" else len(self.shapes)

    def of_nothing(self) -> FeatureFile:
        """What the teacher says of a set without captions."""
        return FeatureFile(torch.empty(0, 0, 0), self.rows, self.header, self.shapes.names)

    def load(self, path: Path) -> FeatureFile:
        """The file at `path`; a DataError where it is about other shapes or made in another way."""
        found = load_features(path)
        weights = teachers.weights_hash(self.kind, self.teacher)  # none here: the file is all that is needed
        wanted = self.header | ({"weights": weights} if weights else {})
        check_header(path, found.header, wanted, FIX)
        return found

    def found(self, folder: Path, is_ours: bool) -> FeatureFile | None:
        """The file in a folder; None where there is none, or one that fits no more in a folder of ours."""
        try:
            return self.load(folder / self.file)
        except MissingDataError:
            return None
        except DataError:
            if is_ours:
                return None
            raise

    def load_or_make(
        self, folder: Path, is_ours: bool, device: str, quiet: bool, tell: Callable[[str], None]
    ) -> FeatureFile:
        """The file in a folder, made first where it is not there. is_ours: one that fits no more is made again."""
        made = self.found(folder, is_ours)
        if made is not None:
            return made
        what = "shaded renders" if self.kind == "img" else f"captions ({self.header['captions']})"
        tell(f"{self.teacher} has not seen {self.shapes.title} yet: {self.things:,} x {self.views} {what}, once, "
             f"into {folder / self.file}")
        return self.make(folder, device, quiet)

    def make(self, folder: Path, device: str = "cpu", quiet: bool = False) -> FeatureFile:
        """Compute all features and write the file. What an interrupted attempt had done is kept."""
        kinds = {"img": teachers.image_teacher, "text": teachers.text_teacher}
        teacher = kinds[self.kind](self.teacher, device)
        header = self.header | {"weights": teacher.weights}
        features = torch.full((self.things, self.views, teacher.dim), torch.nan, dtype=torch.float16)
        path, part = folder / self.file, folder / f".{self.file}.part"
        first = self._resumed(part, header, features)
        step = max(1, CHUNK // self.views)
        saved = time.monotonic()
        try:
            with Tally(self.things, "shapes seen" if self.kind == "img" else "captions read", quiet) as tally:
                for start in range(first, self.things, step):
                    stop = min(start + step, self.things)
                    features[start:stop] = self._see(teacher, start, stop).half().cpu()
                    first = stop
                    tally.update(stop)
                    if time.monotonic() - saved > SAVE_SECONDS:
                        self._save(part, header, features, first)
                        saved = time.monotonic()
        except KeyboardInterrupt:
            self._save(part, header, features, first)
            raise
        made = FeatureFile(features, self.rows, header, self.shapes.names)
        made.save(path)
        part.unlink(missing_ok=True)
        return made

    def _see(self, teacher, start: int, stop: int) -> Float[Tensor, "b v d"]:
        if self.kind == "text":
            texts = [text for group in self.texts[start:stop] for text in group]
            return teacher.encode(texts).unflatten(0, (stop - start, self.views))
        pictures = shaded_views(self.shapes.points[start:stop], self.views, teacher.size)
        return teacher.encode(pictures.flatten(0, 1)).unflatten(0, (stop - start, self.views))

    def _save(self, part: Path, header: dict, features: Tensor, done: int) -> None:
        if done:
            FeatureFile(features[:done], torch.arange(done), header | {"done": done}).save(part)

    def _resumed(self, part: Path, header: dict, features: Tensor) -> int:
        """How many things an interrupted attempt at the same has done; their features are filled in."""
        try:
            former = load_features(part)
        except DataError:
            return 0
        done = len(former.features)
        if former.header != header | {"done": done} or former.features.shape[1:] != features.shape[1:]:
            return 0
        features[:done] = former.features
        return done


@dataclass(frozen=True)
class PreparedTeachers:
    """How `prepare_teachers` ended. files: paths by kind; written: those made now."""

    files: dict[str, Path]
    written: list[str]
    missing: dict[str, list[str]]
    seconds: float


def prepare_teachers(
    shapes: ShapeSet, folder: Path | str, image: str = teachers.EFFICIENTNET, text: str = teachers.MINILM,
    views: int = 8, captions: Sequence[str] = ("description",), device: str = "cpu", restart: bool = False,
    quiet: bool = False, is_ours: bool = False,
) -> PreparedTeachers:
    """Files of what the teachers say of `shapes` into FOLDER; one that is there, made so, is not made again.

    Interrupted, at most half a minute of work is lost. Raises DataError where a teacher has nothing to read, and where
    a file of that name is about other shapes, made in another way or damaged, unless it is to `restart` or the folder
    `is_ours`, of the cache; MissingDataError where weights are not there.
    """
    began, folder = time.monotonic(), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"-o {folder} is a file; expected a folder")
    plans: dict[str, Plan] = {} if image == teachers.NONE else {"img": Plan.of_images(shapes, image, views)}
    for kind in captions if text != teachers.NONE else ():
        plans[kind] = Plan.of_texts(shapes, text, kind, views)
        check_captions([plans[kind]])
    if not plans:
        raise ConfigError("--image none and --text none: nothing to prepare")
    found = {} if restart else {name: plan.found(folder, is_ours) for name, plan in plans.items()}  # before any work
    written = [name for name in plans if found.get(name) is None]
    for name in written:
        if restart:
            (folder / f".{plans[name].file}.part").unlink(missing_ok=True)
        found[name] = plans[name].make(folder, device, quiet)
    files = {name: folder / plan.file for name, plan in plans.items()}
    missing = {name: found[name].missing for name in plans if found[name].missing}
    return PreparedTeachers(files, written, missing, time.monotonic() - began)


def prepare_dataset(dataset: str, options: TeachersOptions) -> list[str]:
    """`prepare_teachers` of a set named on the command line; the lines to print."""
    shapes = _shapes(dataset, options)
    folder, is_ours = teachers.teacher_folder(shapes, options.out, options.data_root)
    done = prepare_teachers(shapes, folder, options.image, options.text, options.views, options.captions,
                            str(pick_device(options.device)), options.restart, options.quiet, is_ours)
    before = {what: "" if what in done.written else ", there already" for what in done.files}
    lines = [f"{what}: {path}{before[what]}" for what, path in done.files.items()]
    lines += [teachers.listed(what, names, len(shapes)) for what, names in done.missing.items()]
    return [*lines, f"{len(shapes):,} shapes of {shapes.title}, {done.seconds:.0f} s"]


def _shapes(dataset: str, options: TeachersOptions) -> ShapeSet:
    """Train and test as recipes have them; another split as the data set has it."""
    readers = reader_options(dataset, options.up, options.labels_from, options.categories, options.quiet)
    read = partial(datasets.read, dataset, data_root=options.data_root, num_points=options.shape_points,
                   options=readers)
    if options.split in ("train", "test"):
        whole = read(stored_split(dataset, options.split, options.holdout))
        return part_of(whole, dataset, options.split, options.holdout)
    if options.holdout or (datasets.is_yours(dataset) and options.split != "all"):
        known = "train and test" if options.holdout else "train, test and all"
        raise ConfigError(f"--split {options.split}; here are {known}")
    return read(options.split)


def check_captions(plans: Sequence[Plan]) -> None:
    """DataError where no shape of any of these sets has a caption."""
    if not any(plan.texts for plan in plans):
        titles, kind = " + ".join(plan.shapes.title for plan in plans), plans[0].header["captions"]
        raise DataError(titles, f"no shape has a caption ({kind})", "at least one",
                        "another kind of captions, or no text teacher")


def captions_of(shapes: ShapeSet, kind: str) -> list[str]:
    """(S,) the caption of each shape, "" where it has none. "class-prompts" are the names of classes: labels."""
    if kind not in teachers.CAPTIONS:
        raise ConfigError(f"captions = {kind!r}; expected one of {', '.join(teachers.CAPTIONS)}")
    if kind == "class-prompts":
        labels = [-1] * len(shapes) if shapes.labels is None else shapes.labels.tolist()
        return [shapes.classes[label].replace("_", " ") if label >= 0 else "" for label in labels]
    own = [" ".join(text.split()) for text in shapes.descriptions] or [""] * len(shapes)
    if kind == "description":
        return own
    words = class_words(shapes)
    return [masked(text, words) for text in own]


def _header(shapes: ShapeSet, kind: str, teacher: str) -> dict:
    name = teacher if teacher in (*teachers.IMAGES, *teachers.TEXTS) else Path(teacher).resolve().name
    return {"kind": kind, "teacher": name, "data_hash": shapes.hash, "dataset": shapes.title}


def _file(shapes: ShapeSet, kind: str, teacher: str, *more: str) -> str:
    parts = (shapes.title, kind, Path(teacher).name, *more)
    return ".".join(re.sub(r"[^a-z0-9_-]+", "-", part.lower()).strip("-") for part in parts) + ".safetensors"
