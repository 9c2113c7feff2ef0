"""The teachers that recipes name: loaded, their features computed where there are none yet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from contrast3d.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from contrast3d.data.shapes import ShapeSet
    from contrast3d.recipes.prepare_teachers import Plan
    from contrast3d.teachers.cached import Cached
    from contrast3d.teachers.contract import ImageTeacher, TextTeacher
    from contrast3d.teachers.feature_files import FeatureFile

NONE = "none"
EFFICIENTNET, MINILM = "efficientnet-lite0", "minilm"
IMAGES, TEXTS = (NONE, EFFICIENTNET), (NONE, MINILM)
CAPTIONS = ("description", "masked", "class-prompts")
Captions = Literal["description", "masked", "class-prompts"]


def dims_of(image: str, text: str) -> dict[str, int]:
    """{"img": D, "text": D} of the teachers named; no weights are read, and none need be there of the packaged ones."""
    from contrast3d.teachers.transformers_models import width_of

    dims = {}
    if image != NONE:
        dims["img"] = 1280 if image == EFFICIENTNET else width_of(_folder(image, "image", IMAGES), "img")
    if text != NONE:
        dims["text"] = 384 if text == MINILM else width_of(_folder(text, "text", TEXTS), "text")
    return dims


def image_teacher(name: str, device: str = "cpu") -> ImageTeacher:
    """The network called `name`, or of transformers in the folder of that name."""
    from contrast3d.teachers.image import EfficientNetTeacher
    from contrast3d.teachers.transformers_models import TransformersImageTeacher

    if name == EFFICIENTNET:
        return EfficientNetTeacher(device=device)
    return TransformersImageTeacher(_folder(name, "image", IMAGES), device)


def text_teacher(name: str, device: str = "cpu") -> TextTeacher:
    """The network called `name`, or of transformers in the folder of that name."""
    from contrast3d.teachers.text import SentenceTeacher
    from contrast3d.teachers.transformers_models import TransformersTextTeacher, read_config

    if name == MINILM:
        return SentenceTeacher(device=device)
    folder = _folder(name, "text", TEXTS)
    kind = SentenceTeacher if read_config(folder)["model_type"] == "bert" else TransformersTextTeacher
    return kind(folder, device)


def weights_hash(kind: str, name: str) -> str | None:
    """Digits of the weights that a teacher would have here, None where it has none here."""
    from contrast3d.teachers import image, text
    from contrast3d.teachers.contract import digest, packaged
    from contrast3d.teachers.transformers_models import weights_of

    try:
        if kind == "img" and name == EFFICIENTNET:
            return digest(packaged(*image.FILE))
        return digest(weights_of(packaged(*text.FOLDER) if name == MINILM else Path(name)))
    except (MissingDataError, OSError):
        return None


def _folder(name: str, kind: str, known: tuple[str, ...]) -> Path:
    folder = Path(name)
    if folder.is_dir():
        return folder
    if len(folder.parts) > 1 or folder.suffix:
        raise MissingDataError(name, "no such folder", f"the weights of a network of transformers, or one of "
                               f"{', '.join(known)}", "save the model there; nothing is downloaded")
    from contrast3d.recipes.table import suggestion

    raise ConfigError(f"no {kind} teacher {name!r}{suggestion(name, known)}; there are: {', '.join(known)}, and "
                      "folders of networks of transformers")


def load_teacher(
    sets: ShapeSet | Sequence[ShapeSet], image: str = EFFICIENTNET, text: str = NONE, *,
    captions: Captions = "description", views: int = 8, folder: Path | None = None, data_root: Path = Path("data"),
    device: str = "auto", pick: Literal["random", "mean"] = "random", standardize: bool = True, quiet: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Cached:
    """What the teachers say of one set or several, by rows of all; computed first, with a word, where it is not there.

    image, text: a name, "none", or the folder of a network of transformers. captions: what the text teacher reads:
    "description", "masked" (without the words of classes), or "class-prompts" (names of classes: labels). views:
    pictures of each shape, and prompts around each caption, one of which is drawn at a time (`pick`).
    folder: where the files are; else DATA_ROOT/teachers where that is a folder, else in the cache.
    tell: takes messages; by default they go to stderr, unless quiet.

    Raises DataError for a file about other shapes, or made otherwise; MissingDataError where weights are missing.
    """
    from contrast3d.data.shapes import ShapeSet
    from contrast3d.engine.distributed import is_main, pick_device
    from contrast3d.recipes.prepare_teachers import Plan, check_captions
    from contrast3d.teachers.cached import Cached
    from contrast3d.teachers.feature_files import joined

    tell = tell or (lambda message: None if quiet else print(f"... {message}", file=sys.stderr, flush=True))
    if (image, text) == (NONE, NONE):
        raise ConfigError("neither an image nor a text teacher: nothing to load")
    sets = [sets] if isinstance(sets, ShapeSet) else list(sets)
    plans: dict[str, list[Plan]] = {}
    if image != NONE:
        plans["img"] = [Plan.of_images(shapes, image, views) for shapes in sets]
    if text != NONE:
        plans["text"] = [Plan.of_texts(shapes, text, captions, views) for shapes in sets]
        check_captions(plans["text"])
    place = partial(teacher_folder, folder=folder, data_root=data_root)
    made = partial(_features, at=str(pick_device(device)), quiet=quiet, tell=tell)
    files = {kind: joined([made(plan, *place(plan.shapes)) for plan in own]) for kind, own in plans.items()}
    teacher = Cached(files, pick, standardize)
    if is_main():
        for kind, names in teacher.missing.items():
            tell(listed(kind, names, len(teacher)))
    return teacher


def _features(
    plan: Plan, folder: Path, is_ours: bool, at: str, quiet: bool, tell: Callable[[str], None]
) -> FeatureFile:
    """The features that a plan is about: the first process makes them where they are not there, the others read."""
    from contrast3d.engine.distributed import is_main, together

    if not plan.things:
        return plan.of_nothing()
    made = None
    with together():
        if is_main():
            made = plan.load_or_make(folder, is_ours, at, quiet, tell)
    with together():
        return plan.load(folder / plan.file) if made is None else made


def teacher_folder(shapes: ShapeSet, folder: Path | None, data_root: Path) -> tuple[Path, bool]:
    """Where files about a set are, and whether that is in our cache, in a folder of this very set."""
    from contrast3d.data.cache import cache_folder

    if folder is not None:
        return Path(folder), False
    if (Path(data_root) / "teachers").is_dir():
        return Path(data_root) / "teachers", False
    return cache_folder() / "teachers" / shapes.hash, True


def listed(kind: str, names: list[str], total: int) -> str:
    """The shapes without a target of a kind ("img", "text", or the captions read), in a line."""
    what = "picture" if kind == "img" else "caption"
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return (f"{len(names):,} of {total:,} shapes have no {what} and are trained without that term: "
            f"{', '.join(names[:5])}{more}")
