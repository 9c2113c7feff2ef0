"""Votes, fine-tuning, few-shot by fine-tuning and the released SVM, on a small patch transformer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from patch_readers import DATA, QUICK, moved, point_mae, reader, state
from test_classification import Tiny, boxes

import contrast3d as c3d
from contrast3d.data.draws import Draws
from contrast3d.downstream.classification import Classifier
from contrast3d.downstream.few_shot import few_shot
from contrast3d.downstream.few_shot_tuned import few_shot_finetune
from contrast3d.downstream.finetune import finetune
from contrast3d.downstream.released_svm import full_batches, linear_svc, released_readout, svm_released
from contrast3d.downstream.table import (
    FROZEN,
    MAJORITY,
    SCRATCH,
    TRAINING_FREE,
    TUNED_LAST,
    UNTRAINED,
    UNTRAINED_LAST,
    VOTED,
)
from contrast3d.downstream.tuned_encoders import inner, tunable
from contrast3d.downstream.tuned_views import FarthestSubset
from contrast3d.downstream.tuning import released
from contrast3d.downstream.voting import mean_logits, mean_vote, published_vote
from contrast3d.errors import ConfigError
from contrast3d.nn.partwise import Partwise
from contrast3d.types import Clouds

pytestmark = pytest.mark.filterwarnings("ignore:the best C")


# votes


class ByPoint(Classifier):
    """Logits that depend on which point comes first: votes differ from pass to pass."""

    def __init__(self):
        super().__init__(Tiny(), 2)

    def logits(self, clouds):
        return clouds.dense[:, 0, [0, 2]]


def test_a_vote_is_the_mean_over_passes():
    views = FarthestSubset(32)
    classifier = ByPoint().train()
    found = mean_logits(classifier, DATA[1], views, passes=4, seed=2, batch_size=7)
    ids = torch.arange(40)
    passes = [classifier.logits(views(DATA[1].clouds(), Draws.of(2, 0, ids, p))) for p in range(4)]
    torch.testing.assert_close(found, torch.stack(passes).mean(0))
    assert classifier.training
    assert mean_vote(classifier, DATA[1], views, seed=2).chosen == {"passes": 10}


def test_the_published_vote_takes_the_best_round():
    views, classifier = FarthestSubset(32), ByPoint()
    best = published_vote(classifier, DATA[1], views, passes=2, rounds=12)
    rounds = [(mean_logits(classifier, DATA[1], views, 2, 0, r).argmax(1) == DATA[1].labels).float().mean().item()
              for r in range(12)]
    assert best.accuracy == pytest.approx(max(rounds))
    assert max(rounds) > sum(rounds) / 12
    assert best.chosen == {"passes": 2, "rounds": 12, "round": rounds.index(max(rounds))}
    with pytest.raises(ConfigError, match="rounds = 0"):
        published_vote(classifier, DATA[1], views, rounds=0)


# tables


def test_finetuning_a_patch_transformer_with_votes():
    encoder = reader()
    before = state(encoder)
    table = finetune(encoder, DATA, name="ours", labels_per_class=(None,), draws=1, voting="mean", **QUICK,
                     make_untrained=reader)
    assert table.contestants == [MAJORITY, FROZEN, SCRATCH, "ours", VOTED["mean"]]
    assert not moved(before, encoder)
    assert not encoder.training


def test_a_frozen_mode_stands_beside_the_untrained_encoder():
    table = finetune(point_mae(), DATA, name="ours", labels_per_class=(4,), draws=1, mode="mlp-linear", **QUICK,
                     make_untrained=point_mae)
    assert table.contestants == [MAJORITY, FROZEN, UNTRAINED, "ours"]
    assert table.protocol.startswith("fine-tuning, mlp-linear (")


def test_as_released_with_votes_of_the_best_epoch():
    encoder = reader()
    how = dataclasses.replace(released(encoder, "ModelNet40", "mlp-3"), batch_size=20)
    table = finetune(encoder, DATA, name="ours", labels_per_class=(None,), draws=1, best_on_test=True, how=how,
                     epochs=2, voting="published", rounds=2, make_untrained=reader)
    rows = [MAJORITY, FROZEN, UNTRAINED, UNTRAINED_LAST, "ours", TUNED_LAST, VOTED["published"]]
    assert table.contestants == rows
    assert table.protocol.startswith("fine-tuning as released by ReCon, mlp-3, best epoch chosen on test")
    assert table.cell("ours", None).mean >= table.cell(TUNED_LAST, None).mean
    (voted,) = table.scores[VOTED["published"], None]
    assert voted.chosen["rounds"] == 2


def three_boxes(seed, per_class=14):
    """Cubes, slabs and rods."""
    shapes = boxes(seed, per_class)
    third = shapes.points[shapes.labels == 1].clone()
    third[..., 1] *= 0.3
    return dataclasses.replace(
        shapes, points=torch.cat([shapes.points, third]), classes=("cube", "slab", "rod"),
        labels=torch.cat([shapes.labels, torch.full((len(third),), 2)]))


def test_few_shot_by_finetuning():
    data, told = (three_boxes(0), three_boxes(1)), []
    table = few_shot_finetune(
        Tiny(), data, name="ours", ways=(2,), shots=(8,), queries=6, trials=3, seed=2, transform=None, epochs=25,
        min_steps=0, lr=2e-2, encoder_lr_scale=0.5, make_untrained=Tiny, on_progress=told.append)
    assert table.contestants == [MAJORITY, FROZEN, SCRATCH, "ours"]
    assert table.budgets == ("2-way 8-shot",)
    cell = table.cell("ours", "2-way 8-shot")
    assert len(cell.values) == 3
    assert cell.mean > 0.7
    assert cell.std is not None
    # predictions are labels of the data set, of the trial's own classes
    for found in table.scores["ours", "2-way 8-shot"]:
        assert found.predictions.shape == (12,)
        assert len(found.predictions.unique()) <= 2
    assert any(int(found.predictions.max()) == 2 for found in table.scores["ours", "2-way 8-shot"])
    assert "ours, 2-way 8-shot, trial 1 of 3" in told
    again = few_shot_finetune(
        Tiny(), data, name="ours", ways=(2,), shots=(8,), queries=6, trials=3, seed=2, transform=None, epochs=25,
        min_steps=0, lr=2e-2, encoder_lr_scale=0.5, make_untrained=False)
    assert again.cell("ours", "2-way 8-shot") == cell


def test_few_shot_as_released_keeps_the_whole_head(monkeypatch):
    from contrast3d.downstream import finetune as module

    seen, fit = [], module.fit_classifier
    monkeypatch.setattr(module, "fit_classifier", lambda make, few, *rest, **options: (
        seen.append((few.classes, options["schedule"])), fit(make, few, *rest, **options))[1])
    encoder, data = reader(), (three_boxes(0), three_boxes(1))
    how = released(encoder, "ModelNet40", few_shot=True)
    options = {"ways": (2,), "shots": (4,), "queries": 4, "trials": 2, "epochs": 1, "make_untrained": False}
    table = few_shot_finetune(encoder, data, name="ours", best_on_test=True, how=how, **options)
    assert table.protocol.startswith("few-shot fine-tuning as released by ReCon, best epoch chosen on test")
    few_shot_finetune(encoder, data, mode="mlp-linear", transform="none", min_steps=0, **options)
    assert [len(classes) for classes, _ in seen] == [3, 3, 2, 2]
    assert [schedule for _, schedule in seen] == ["cosine-epochs"] * 2 + ["cosine"] * 2


def test_its_probe_is_that_of_few_shot():
    shuffled = torch.randperm(42, generator=torch.Generator().manual_seed(0))
    data = tuple(dataclasses.replace(b, labels=b.labels[shuffled]) for b in (three_boxes(0), three_boxes(1)))
    options = {"ways": (2, 3), "shots": (4,), "queries": 5, "trials": 3, "seed": 1, "make_untrained": False}
    ours = few_shot_finetune(Tiny(), data, transform=None, epochs=1, min_steps=0, **options)
    theirs = few_shot(Tiny(), data, name="ours", **options)
    for condition in ours.budgets:
        assert ours.cell(FROZEN, condition) == theirs.cell("ours", condition)
    assert ours.cell(FROZEN, "3-way 4-shot").mean < 0.9


def test_few_shot_mistakes():
    with pytest.raises(ConfigError, match="at least 2 ways"):
        few_shot_finetune(Tiny(), DATA, ways=(1,))


# the released SVM


def test_the_released_svm():
    encoder = reader()
    table = svm_released(encoder, DATA, name="ours", draws=2, make_untrained=reader)
    assert table.contestants == [MAJORITY, TRAINING_FREE, UNTRAINED, "ours"]
    assert table.protocol == "SVM as released by ReCon (C = 0.075)"
    (first, _) = table.scores["ours", None]
    assert first.chosen == {"C": 0.075}
    assert inner(encoder).readout == ("queries", "max"), "a copy is read"
    assert inner(released_readout(encoder)).readout == ("queries-max", "max+mean")
    assert inner(released_readout(point_mae())).readout == ("max+mean",)
    assert released_readout(plain := Tiny()) is plain


def test_its_features_are_neither_scaled_nor_are_all_shapes_seen():
    from sklearn.svm import LinearSVC

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=g) * torch.tensor([1, 1, 1, 1, 50.0]), torch.arange(60) % 3
    found = linear_svc(x, y, x, y, seed=1)
    naive = LinearSVC(C=0.075, random_state=1).fit(x.numpy(), y.numpy()).predict(x.numpy())
    assert found.predictions.tolist() == naive.tolist()
    assert len(full_batches(9843, 0)) == 9728
    assert sorted(full_batches(100, 3).tolist()) == list(range(100))


@pytest.mark.shared
def test_parity_of_the_svm_feature_and_of_the_classifier(shared):
    from contrast3d.checkpoints.patch_transformers import load_patch_transformer

    svm = torch.load(shared / "parity" / "recon_svm_micro.pt", weights_only=True)
    encoder, _ = load_patch_transformer(svm["state_dict"], num_patches=64, patch_size=32, num_heads=3, skip_origin=True)
    seen = released_readout(Partwise(encoder.eval(), 1024))(Clouds.from_dense(svm["pts"])).pooled
    torch.testing.assert_close(seen, svm["feature"], atol=1e-5, rtol=0)

    oracle = torch.load(shared / "parity" / "recon_finetune_scan_hardest_full_micro.pt", weights_only=True)
    encoder, _ = load_patch_transformer(
        oracle["state_dict"], num_patches=64, patch_size=32, num_heads=3, skip_origin=True)
    how = released(reader_ := Partwise(encoder, 1024), "ScanObjectNN")
    classifier = Classifier(tunable(reader_, num_points=how.num_points, drop_path=how.drop_path), 15, **how.head())
    prefix = "cls_head_finetune."
    classifier.head.load_state_dict(
        {k.removeprefix(prefix): v for k, v in oracle["state_dict"].items() if k.startswith(prefix)})
    classifier.eval()
    clouds = Clouds.from_dense(oracle["inputs"]["pts"], labels=oracle["inputs"]["label"])
    torch.testing.assert_close(classifier.logits(clouds), oracle["eval"]["logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(classifier([clouds])["loss"], oracle["eval"]["loss"].float(), atol=1e-6, rtol=0)


def test_python_finds_them():
    assert c3d.evaluate.few_shot_finetune is few_shot_finetune
    assert c3d.evaluate.svm_released is svm_released
