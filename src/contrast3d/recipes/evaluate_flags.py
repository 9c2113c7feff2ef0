"""Which flags the protocols of `evaluate` take, and what their values may be."""

from __future__ import annotations

from collections.abc import Sequence

from contrast3d.downstream.table import Budget
from contrast3d.errors import ConfigError
from contrast3d.recipes.runs import Run
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.recipes.table import PROTOCOLS

LABELS_PER_CLASS = (5, 10, 20, None)  # unless TUNED_LABELS has others
TUNED_LABELS = {"finetune": (10, None), "finetune-best-on-test": (None,)}  # trainings are dear
WAYS, SHOTS, TRIALS, DRAWS = (5, 10), (10, 20), 10, 3
PROBED = ("labels", "draws", "supervised-seconds", "readout")
TRIED = ("ways", "shots", "trials")
TUNED = ("epochs", "mode", "augmentation", "published")
PAIRED = ("consecutive", "min-overlap", "pairs")
MIN_OVERLAP = 0.3
KNOWS = {  # the flags that each protocol takes, of those that not all take
    "linear": PROBED, "svm": PROBED, "knn": PROBED, "few-shot": (*TRIED, "readout"), "robustness": ("draws", "readout"),
    "finetune": ("labels", "draws", "voting", *TUNED), "finetune-best-on-test": ("labels", "draws", "voting", *TUNED),
    "few-shot-finetune": (*TRIED, *TUNED), "svm-released": ("draws",),
    "retrieval": ("draws", "readout"), "linear-report": ("labels", "draws"),
    "registration": ("draws", "scenes", *PAIRED),
    "segmentation": ("labels", "draws", "steps", "published"), "zero-shot": ("draws",),
    "part-segmentation": ("labels", "draws", "epochs", "published"),
}
OF_SCENES = ("registration", "segmentation")


def labels_of(protocol: str, given: Sequence[Budget] | None, published: bool) -> tuple[Budget, ...]:
    """The columns of the table; as released, networks are tuned on all labels."""
    usual = (None,) if published else TUNED_LABELS.get(protocol, LABELS_PER_CLASS)
    return tuple(dict.fromkeys(given or usual))


def check_ranges(
    labels_per_class: Sequence[Budget] | None, draws: int, seed: int, supervised_seconds: float, epochs: int,
    steps: int,
) -> None:
    """A ConfigError for numbers that cannot work."""
    if labels_per_class is not None and (
        not labels_per_class or any(isinstance(n, int) and n < 1 for n in labels_per_class)
    ):
        raise ConfigError(f"labels per class {tuple(labels_per_class)}; expected numbers of at least 1, or all")
    if draws < 1 or min(seed, supervised_seconds, epochs, steps) < 0:
        raise ConfigError(
            f"draws = {draws}, seed = {seed}, supervised_seconds = {supervised_seconds:g}, epochs = {epochs}, steps = "
            f"{steps}; expected at least 1 draw, and none of the others below 0"
        )


def check_kind(protocol: str, run: Run) -> None:
    """A ConfigError where the run was trained on shapes and the protocol is about scenes, or the reverse."""
    of_scenes = isinstance(run.recipe, SceneRecipe)
    if (protocol in OF_SCENES) != of_scenes:
        kinds = ("single shapes", "scenes")
        others = ", ".join(p for p in PROTOCOLS if (p in OF_SCENES) == of_scenes)
        raise ConfigError(f"{protocol} is about {kinds[not of_scenes]}, and {run.path} was trained on "
                          f"{kinds[of_scenes]}. Try: {others}")


def check_known(protocol: str, flags: dict[str, tuple]) -> None:
    """flags: (value, default) by name; a ConfigError where one that the protocol does not take has been set."""
    foreign = [f"--{name}" for name, (value, default) in flags.items() if name not in KNOWS[protocol]
               and value != default]
    if foreign:
        known = ", ".join(f"--{name}" for name in KNOWS[protocol])
        raise ConfigError(f"{protocol} knows no {' and no '.join(foreign)}: leave it out; it knows {known}")
