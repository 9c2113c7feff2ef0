"""Robustness: a probe fitted on clean shapes, scored on corrupted ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from contrast3d.data.corruptions import FAMILIES, SEVERITIES, corrupted
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.descriptors import geometric
from contrast3d.downstream.features import extract
from contrast3d.downstream.probes import Prediction, probe
from contrast3d.downstream.splits import Data, labelled_splits
from contrast3d.downstream.table import TRAINING_FREE, UNTRAINED, Table
from contrast3d.errors import ConfigError

CLEAN = "clean"


def robustness(
    encoder: nn.Module, data: Data, *, name: str = "pre-trained", kind: str = "linear", draws: int = 3, seed: int = 0,
    families: Sequence[str] = tuple(FAMILIES), severities: Sequence[int] = SEVERITIES,
    make_untrained: baselines.MakeUntrained = None, batch_size: int = 64,
    on_progress: Callable[[str], None] | None = None,
) -> Table:
    """Accuracy on the clean test set and, by family of corruption, its mean over the severities.

    The probe sees clean training shapes only. draws: of the corruptions; an untrained encoder is drawn for each.
    """
    if draws < 1 or not families or not severities:
        raise ConfigError("robustness: needs at least one draw, one family of corruptions and one severity")
    started = time.perf_counter()
    train, test = labelled_splits(data)
    tell = on_progress or (lambda message: None)
    seeds = tuple(range(seed, seed + draws))
    table = Table(f"{kind} probe under corruption", train.title.removesuffix(" train"), name, (CLEAN, *families), seeds,
                  f"{train.hash}-{test.hash}", test.labels, train.classes, heading="test shapes")
    fresh = baselines.untrained_maker(encoder, make_untrained)
    clean = (train, test)
    plain, ours = _remembering(geometric, clean), _remembering(partial(extract, encoder, batch_size=batch_size), clean)
    readers: dict[str, Callable[[int], Callable[[ShapeSet], Tensor]]] = {
        TRAINING_FREE: lambda s: plain,
        UNTRAINED: lambda s: partial(extract, fresh(s), batch_size=batch_size),
        name: lambda s: ours,
    }
    if make_untrained is False:
        del readers[UNTRAINED]
    for s in seeds:
        tell(f"draw {s - seed + 1} of {draws}")
        sets = {CLEAN: [test]} | {f: [corrupted(test, f, severity, s) for severity in severities] for f in families}
        for contestant, reader_of in readers.items():
            tell(contestant)
            read = reader_of(s)
            for column, prediction in _predictions(kind, read, train, test, sets, s).items():
                table.add(contestant, column, prediction)
    table.wall_s = time.perf_counter() - started
    return table


def _remembering(read: Callable[[ShapeSet], Tensor], kept: Sequence[ShapeSet]) -> Callable[[ShapeSet], Tensor]:
    """`read`, but each set of `kept` only once: draws corrupt the test shapes and leave those as they are."""
    known: dict[int, Tensor] = {}

    def again(shapes: ShapeSet) -> Tensor:
        if not any(shapes is one for one in kept):
            return read(shapes)
        if id(shapes) not in known:
            known[id(shapes)] = read(shapes)
        return known[id(shapes)]

    return again


def _predictions(
    kind: str, read: Callable[[ShapeSet], Tensor], train: ShapeSet, test: ShapeSet, sets: dict[str, list[ShapeSet]],
    seed: int,
) -> dict[str, Prediction]:
    """One fit, all test sets at once; a family's score is that of its severities together."""
    queries = torch.cat([read(shapes) for variants in sets.values() for shapes in variants])
    labels = test.labels.repeat(len(queries) // len(test))
    whole = probe(kind, read(train), train.labels, queries, labels, train.groups, seed)
    sizes = [len(test) * len(variants) for variants in sets.values()]
    parts = zip(sets, whole.predictions.split(sizes), labels.split(sizes))
    return {column: Prediction.score(predicted, truth, **whole.chosen) for column, predicted, truth in parts}
