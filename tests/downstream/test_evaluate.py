import json
import warnings

import pytest
import torch
from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import evaluate
from contrast3d.downstream.baselines import redrawn
from contrast3d.downstream.evaluate import MAJORITY, SUPERVISED, Supervised
from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.results import provenance, write_json
from contrast3d.downstream.table import TRAINING_FREE, UNTRAINED
from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.types import Features

pytestmark = pytest.mark.filterwarnings("ignore:the best C")


class Spread(nn.Module):
    """Standard deviation per axis times a random matrix: tells boxes apart by their proportions."""

    embed_dim = 4

    def __init__(self, seed=0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)))
        self.calls = 0

    def reset_parameters(self):
        nn.init.normal_(self.weight)

    def forward(self, clouds):
        self.calls += 1
        return Features(clouds.dense.std(1) @ self.weight)


def boxes(split, per_class=16, noise=0.3):
    g = torch.Generator().manual_seed(len(split))
    labels = torch.arange(3 * per_class) % 3
    stretch = 1 + noise * torch.rand(len(labels), 3, generator=g)
    stretch[torch.arange(len(labels)), labels] *= 1.5
    points = (2 * torch.rand(len(labels), 64, 3, generator=g) - 1) * stretch[:, None] / 4
    groups = torch.arange(len(labels)) // 2
    return ShapeSet(points, labels, ("x", "y", "z"), groups=groups, title=f"boxes {split}")


def test_the_whole_table(tmp_path):
    encoder, seen = Spread(), []

    def fit(train, test, seed):
        seen.append((len(train), seed))
        return Prediction.score(torch.zeros_like(test.labels), test.labels)

    table = evaluate.linear(
        encoder, boxes, name="Spread", labels_per_class=(2, 4, None), draws=2, seed=5, make_untrained=Spread,
        supervised=Supervised(fit, (4, None), draws=2),
    )
    assert table.contestants == [MAJORITY, TRAINING_FREE, UNTRAINED, "Spread", SUPERVISED]
    assert encoder.calls == 2  # train and test, once each
    assert seen == [(12, 5), (12, 6), (48, 5)]  # with all labels there is nothing to draw: once
    assert table.cell("Spread", None).mean > 0.9 > 0.5 > table.cell(MAJORITY, None).mean
    assert [len(table.cell("Spread", b).values) for b in table.budgets] == [2, 2, 1]
    assert len(table.cell(UNTRAINED, None).values) == 2  # the weights vary, if not the labels
    assert table.cell(SUPERVISED, 2) is None
    assert torch.equal(table.predictions, table.scores["Spread", None][0].predictions)

    results = table.to_results("simclr-boxes", seed=3, paper={None: 0.5}, **provenance())
    assert len(results) == 3 * 2
    assert json.loads(write_json(tmp_path / "new" / "all.json", results).read_text()) == results
    few, full = results[0], results[-2]
    assert (few["labels_per_class"], few["metric"], few["paper"]) == (2, "accuracy", None)
    assert few["seeds"] == [5, 6]
    assert (full["labels_per_class"], full["std"], full["paper"]) == ("all", None, 0.5)
    assert few["mean"] == pytest.approx(sum(few["values"]) / 2)
    assert set(few["baselines"]) == {MAJORITY, TRAINING_FREE, UNTRAINED}
    required = ("recipe protocol dataset metric mean std values seeds baselines paper commit data_hash command "
                "wall_s device")
    assert set(required.split()) <= set(few)


def test_the_render_names_everything_and_marks_the_best():
    from rich.console import Console

    table = evaluate.knn(Spread(), boxes, name="Spread", labels_per_class=(2, None), draws=2)
    console = Console(width=120, record=True)
    with console.capture() as capture:
        console.print(table.render("balanced_accuracy"))
    text = capture.get()
    for expected in ("boxes", "knn probe", "balanced accuracy in %", "training-free", "Spread", "±", "all"):
        assert expected in text


def test_contestants_see_the_same_labels(monkeypatch):
    rows = {}
    original = evaluate.probe_few

    def spy(kind, features, train, test, rows_, seed):
        rows.setdefault((len(rows_), seed), []).append(rows_.tolist())
        return original(kind, features, train, test, rows_, seed)

    monkeypatch.setattr(evaluate, "probe_few", spy)
    evaluate.knn(Spread(), boxes, labels_per_class=(2, 4), draws=2, make_untrained=Spread)
    assert all(len(draws) == 3 and draws[0] == draws[1] == draws[2] for draws in rows.values())
    assert len(rows) == 4


def test_test_labels_never_steer():
    train, test = boxes("train"), boxes("test")
    shuffled = ShapeSet(test.points, test.labels.flip(0), test.classes, title="shuffled")
    run = lambda t: evaluate.linear(Spread(), (train, t), labels_per_class=(4,), draws=1)  # noqa: E731
    honest, other = run(test), run(shuffled)
    a, b = honest.scores["pre-trained", 4][0], other.scores["pre-trained", 4][0]
    assert a.chosen == b.chosen
    assert torch.equal(a.predictions, b.predictions)


def test_unlabelled_shapes_are_left_out_and_bad_data_is_told():
    train, test = boxes("train"), boxes("test")
    some = ShapeSet(test.points, test.labels.where(torch.arange(48) < 30, -1), test.classes, title="some")
    assert len(evaluate.labelled_splits((train, some))[1]) == 30
    with pytest.raises(DataError, match="no labels"):
        evaluate.labelled_splits((train, ShapeSet(test.points)))
    only = train.subset((train.labels < 2).nonzero().flatten())
    with pytest.raises(DataError, match="lacks: z"):
        evaluate.labelled_splits((only, test))
    with pytest.raises(ConfigError, match="at least one draw"):
        evaluate.linear(Spread(), boxes, draws=0)


def test_svm_holdout_uses_each_shape_once_and_no_group_twice():
    shapes = boxes("train")
    features = shapes.points.std(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            evaluate.svm_holdout(features, shapes.labels, shapes.groups, fold=f, num_folds=4) for f in range(4)
        ]
    assert sum(len(p.predictions) for p in found) == 48
    assert sum(p.accuracy for p in found) / 4 > 0.8
    with pytest.raises(ConfigError, match="fold=4"):
        evaluate.svm_holdout(features, shapes.labels, fold=4, num_folds=4)


def test_the_untrained_encoder_is_a_redrawn_copy_by_default():
    encoder = Spread()
    before = encoder.weight.clone()
    table = evaluate.knn(encoder, boxes, labels_per_class=(4,), draws=2)
    assert UNTRAINED in table.contestants
    assert torch.equal(encoder.weight, before)
    assert UNTRAINED not in evaluate.knn(encoder, boxes, labels_per_class=(4,), make_untrained=False).contestants


def test_redrawn_weights_follow_the_seed():
    first, again, other = (redrawn(DGCNN(8, ((8,),), k=4), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


@pytest.mark.parametrize("make", [PatchTransformer, TwoTowers])
def test_patch_transformers_are_redrawn_as_their_constructor_draws(make):
    encoder = make(64, 2, 1, 8, 8)
    first, again, other = (redrawn(encoder, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    for key, value in encoder.named_parameters():
        torch.testing.assert_close(first[key].std(), value.std(), rtol=0.3, atol=1e-3)
        assert not value.std() or not torch.equal(first[key], other[key])


def test_an_encoder_that_cannot_be_redrawn_says_so():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ConfigError, match=r"Frozen.*reset_parameters.*make_untrained"):
        redrawn(nn.Sequential(Frozen()), 0)
