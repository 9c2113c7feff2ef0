"""Evaluate a run of ReCon without labels: shapes named by what its teachers say of the classes' names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import device_of, evaluating
from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.results import provenance
from contrast3d.downstream.table import MAJORITY, UNTRAINED, Table
from contrast3d.downstream.zero_shot import (
    RATIO,
    TOP,
    ZeroShot,
    class_vectors,
    conse,
    imagenet_names,
    joined_queries,
    zero_shot,
)
from contrast3d.engine.distributed import pick_device
from contrast3d.engine.run_dir import replacing
from contrast3d.errors import ConfigError
from contrast3d.recipes import teachers
from contrast3d.recipes.masked import MaskedRecipe
from contrast3d.recipes.prepare_teachers import captions_of
from contrast3d.recipes.runs import Run
from contrast3d.report.confusion import confusion_picture
from contrast3d.teachers.prompts import prompts_of
from contrast3d.types import Clouds

PROMPTS = {"ensemble": prompts_of, "single": lambda phrase: [phrase]}
NEEDS = {"text": {"text"}, "image": {"img"}, "both": {"img", "text"}}  # of each query, the projections
CHANCE, TEACHER = "chance", "the teacher itself"
Queries = dict[str, Tensor]  # by name, (S, D) as the student was taught: standardised


def evaluate_zero_shot(
    run: Run, test: ShapeSet, place: str, *, data_root: Path = Path("data"), draws: int = 3, seed: int = 0,
    device: str = "auto", quiet: bool = False, on_progress: Callable[[str], None] | None = None,
) -> Table:
    """Each query that teachers taught, with the ensemble of prompts and with names alone; saves results and a picture.

    test: labelled shapes with named classes. place: what files call them. Beside it: chance, the most frequent class,
    the encoder untrained (`draws` of them), and what the teacher itself says of pictures (captions) of the test shapes,
    which a student can hardly surpass.
    """
    recipe, target, tell = run.recipe, pick_device(device), on_progress or (lambda message: None)
    if not isinstance(recipe, MaskedRecipe) or not run.projections():
        raise ConfigError(f"zero-shot asks what teachers taught, and {run.path} had none. Try: a run of recon with "
                          "--text-teacher or --image-teacher")
    trained = run.trained()
    speech = Speech(recipe, test.classes, data_root, str(target), quiet)
    columns = [(query, prompts) for query in speech.queries for prompts in PROMPTS]
    table = Table("zero-shot", test.title.removesuffix(" test"), run.title, tuple(map("_".join, columns)),
                  tuple(range(seed, seed + draws)), test.hash, test.labels, test.classes, heading="query_prompts")
    tell("what the teachers say of the classes")
    most = test.labels.bincount().argmax().expand(len(test))
    for column in table.budgets:
        table.add(CHANCE, column, Prediction(torch.full_like(test.labels, -1), *[1 / len(test.classes)] * 2, {}))
        table.add(MAJORITY, column, Prediction.score(most, test.labels))
    found: dict[str, ZeroShot] = {}

    def score(contestant: str, said: Queries) -> None:
        for query, prompts in columns:
            if NEEDS[query] <= set(said):
                column = f"{query}_{prompts}"
                found[column] = zero_shot(*speech.compared(said, query, prompts), test.labels, test.classes)
                table.add(contestant, column, found[column].prediction)

    for s in table.seeds:
        tell(f"{UNTRAINED}, draw {s - seed + 1} of {draws}")
        score(UNTRAINED, said_by(run.make_encoder(s).to(target), test, recipe.num_points))
    tell(TEACHER)
    score(TEACHER, speech.of_teachers(test))
    tell(run.title)
    score(run.title, said_by(run.encoder().to(target), test, recipe.num_points))
    for result in table.to_results(run.name, seed=recipe.seed, **provenance(target)):
        column, metric = result["condition"], result["metric"]
        ours = found[column]
        more = {"top5": ours.top5, "classes": list(test.classes), "confusion": ours.confusion.tolist()}
        name = f"zero-shot-{place}-{column}" + ("" if metric == "accuracy" else f"-{metric}")
        run.folder.save_result(name, {**result, **more, "overrides": run.overrides(), **trained})
    for column in table.budgets[::2]:
        title = f"{test.title}, {column}: {100 * found[column].accuracy:.1f} % right"
        with replacing(run.path / "results" / f"zero-shot-{place}-{column}.svg") as file:
            file.write(confusion_picture(found[column].confusion.numpy(), test.classes, title).encode())
    return table


def said_by(encoder: nn.Module, shapes: ShapeSet, num_points: int, batch_size: int = 32) -> Queries:
    """What the encoder's projections say of whole shapes, the mean over parts of num_points each (as `nn.Partwise`)."""
    parts = max(1, shapes.num_points // num_points)
    said: dict[str, list[Tensor]] = {}
    with evaluating(encoder):
        for rows in torch.arange(len(shapes)).split(batch_size):
            points = shapes.points[rows, : parts * num_points].reshape(len(rows) * parts, -1, 3)
            clouds = Clouds.from_dense(points.to(device_of(encoder)))
            for name, values in encoder.project(encoder.encode(encoder.patches(clouds))).items():
                said.setdefault(name, []).append(values.float().cpu().unflatten(0, (-1, parts)).mean(1))
    return {name: torch.cat(values) for name, values in said.items()}


@dataclass
class Speech:
    """The teachers of a run as judges of what it learnt: features and class vectors that can be compared.

    The text query is compared in the space it was taught in, captions less their mean, over their spread: a student's
    guesses shrink towards the mean, which would else decide. Image queries are compared as released, in the teacher's
    own space, or by way of its classifier.
    """

    recipe: MaskedRecipe
    classes: Sequence[str]
    data_root: Path
    device: str
    quiet: bool = False
    _vectors: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    @property
    def joint(self) -> bool:
        """Whether pictures and text share a space: the image teacher is a network of both, as CLIP is."""
        return self.recipe.image_teacher not in (teachers.NONE, teachers.EFFICIENTNET)

    @property
    def queries(self) -> tuple[str, ...]:
        """Those that were taught: text, image, and both where they can be added."""
        taught = self.recipe.projections()
        both = self.joint and self.recipe.text_teacher == self.recipe.image_teacher
        known = {"text": "text" in taught, "image": "img" in taught, "both": both}
        return tuple(query for query in NEEDS if known[query])

    def compared(self, said: Queries, query: str, prompts: str) -> tuple[Float[Tensor, "s d"], Float[Tensor, "l d"]]:
        """(features of the shapes, vectors of the classes) in one space."""
        vectors = self._class_vectors(query, prompts)
        if query == "text":
            mean, spread = self.statistics["text"]
            return said["text"], (vectors / len(PROMPTS[prompts]("a name")) - mean) / spread
        image = self._raw(said, "img")
        if query == "both":
            return joined_queries(image, self._raw(said, "text"), RATIO), vectors
        if self.joint:
            return image, vectors
        return conse(self._image.classify(image).cpu().float(), self._names, TOP), vectors

    def of_teachers(self, test: ShapeSet) -> Queries:
        """What the teachers say of the test shapes, as the student was taught; nothing where captions are labels."""
        captioned = self.recipe.captions != "class-prompts" and any(captions_of(test, self.recipe.captions))
        text = self.recipe.text_teacher if captioned else teachers.NONE
        if (self.recipe.image_teacher, text) == (teachers.NONE, teachers.NONE):
            return {}
        said = {}
        for name, file in self._files([test], self.recipe.image_teacher, text).items():
            mean, spread = self.statistics[name]
            features = (file.mean_features() - mean) / spread
            if bool(torch.isfinite(features).all()):
                said[name] = features
        return said

    @cached_property
    def statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and spread of what the student was taught, by query; of the shapes that it was trained on."""
        sets = self.recipe.sets_to_train_on(self.data_root, self.quiet)
        files = self._files(sets, self.recipe.image_teacher, self.recipe.text_teacher)
        return {name: file.statistics for name, file in files.items()}

    def _files(self, sets: Sequence[ShapeSet], image: str, text: str):
        return teachers.load_teacher(
            sets, image, text, captions=self.recipe.captions, views=self.recipe.teacher_views,
            data_root=self.data_root, device=self.device, quiet=self.quiet,
        ).files

    def _raw(self, said: Queries, name: str) -> Float[Tensor, "s d"]:
        """As the teacher says it. What was learnt by InfoNCE is a direction, and gets the length of a usual target."""
        mean, spread = self.statistics[name]
        own = said[name]
        if self.recipe.query_loss == "info-nce":
            own = torch.nn.functional.normalize(own, dim=1) * own.shape[1] ** 0.5
        return own * spread + mean

    def _class_vectors(self, query: str, prompts: str) -> Float[Tensor, "l d"]:
        name = self.recipe.image_teacher if query != "text" and self.joint else self._text_name
        if (name, prompts) not in self._vectors:
            self._vectors[name, prompts] = class_vectors(self._text(name).encode, self.classes, PROMPTS[prompts])
        return self._vectors[name, prompts]

    @property
    def _text_name(self) -> str:
        own = self.recipe.text_teacher
        return teachers.MINILM if own == teachers.NONE else own

    def _text(self, name: str):
        return teachers.text_teacher(name, self.device)

    @cached_property
    def _image(self):
        return teachers.image_teacher(self.recipe.image_teacher, self.device)

    @cached_property
    def _names(self) -> Float[Tensor, "k d"]:
        return self._text(self._text_name).encode(list(imagenet_names())).float().cpu()
