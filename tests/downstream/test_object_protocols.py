"""Fine-tuning modes, votes, few-shot by fine-tuning and the released SVM, on a small patch transformer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_classification import Tiny, boxes
from torch import nn

import contrast3d as c3d
from contrast3d.data.draws import Draws
from contrast3d.downstream.classification import Classifier, fit_classifier, make_head
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
from contrast3d.downstream.tuned_encoders import class_parameters, inner, read_as, tunable
from contrast3d.downstream.tuned_views import FarthestSubset, farthest, released_views
from contrast3d.downstream.tuning import Tuning, released
from contrast3d.downstream.voting import mean_logits, mean_vote, published_vote
from contrast3d.engine.optimizers import build_optimizer
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError
from contrast3d.nn.partwise import Partwise
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.types import Clouds

pytestmark = pytest.mark.filterwarnings("ignore:the best C")
DATA = boxes(0), boxes(1)
SHAPE = {"width": 48, "depth": 2, "num_heads": 3, "num_patches": 8, "patch_size": 8}
QUICK = {"transform": "none", "epochs": 2, "min_steps": 0, "batch_size": 20}


def reader(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Partwise(PatchTransformer(**SHAPE, **options), 32).eval()


def point_mae(seed=0):
    return reader(seed, queries=(), block="standard", readout=("max+mean",))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def trained(how: Tuning, encoder):
    """(classifier, its state before) after two epochs."""
    kept = {}

    def remember(seed):
        kept["encoder"] = tunable(encoder, seed, drop_path=how.drop_path)
        kept["before"] = state(kept["encoder"])
        return kept["encoder"]

    fit_classifier(remember, *DATA, None, epochs=2, batch_size=20, lr=1e-2, encoder_lr_scale=0.5, head=how.head(),
                   schedule=how.lr_schedule)
    return kept["encoder"], kept["before"]


# modes


def test_heads_as_the_paper_has_them():
    assert [type(layer) for layer in make_head("mlp-3", 12, 5)] == [
        nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    sizes = {kind: sum(p.numel() for p in make_head(kind, 4 * 384, 15).parameters()) for kind in ("linear", "mlp-3")}
    assert sizes == {"linear": 1536 * 15 + 15, "mlp-3": 1536 * 256 + 256 + 2 * 512 + 256 * 256 + 256 + 256 * 15 + 15}


def test_full_mode_moves_all():
    encoder, before = trained(Tuning(), reader())
    behind_norm = {f"encoder.embed.conv{i}.bias" for i in (1, 2, 3)}  # whose gradient is zero
    assert set(before) - moved(before, encoder) <= behind_norm


def test_a_frozen_mode_trains_the_class_token_alone_and_keeps_statistics():
    encoder, before = trained(Tuning(mode="mlp-3"), reader())
    assert moved(before, encoder) == {"encoder.tokens.cls", "encoder.token_positions.cls"}
    encoder, before = trained(Tuning(mode="mlp-linear", published="ReCon"), reader())
    assert moved(before, encoder) > {"encoder.tokens.cls", "encoder.token_positions.cls"}
    others = moved(before, encoder) - {"encoder.tokens.cls", "encoder.token_positions.cls"}
    assert all("running" in name or "num_batches" in name for name in others), "batch norm goes on, as released"


def test_an_encoder_without_a_class_token_is_frozen_whole():
    kept = {}

    def make(seed):
        kept["encoder"] = Tiny(seed)
        kept["before"] = state(kept["encoder"])
        return kept["encoder"]

    fit_classifier(make, *DATA, None, epochs=1, head=Tuning(mode="mlp-linear").head())
    assert moved(kept["before"], kept["encoder"]) == set()


def test_frozen_encoders_drop_no_paths_unless_as_released():
    for published, training in (("", False), ("ReCon", True)):
        how = Tuning(mode="mlp-3", published=published)
        classifier = Classifier(tunable(reader()), 2, **how.head()).train()
        assert classifier.head.training
        assert classifier.encoder.encoder.embed.norm1.training is training
        assert classifier.encoder.encoder.blocks[1].drop_path.training is training


def groups(how, encoder):
    classifier = Classifier(encoder, 2, encoder_lr=how.lr * how.encoder_lr_scale, **how.head())
    names = {id(p): name for name, p in classifier.named_parameters()}
    found = {}
    for group in build_optimizer(classifier, Training(lr=how.lr, weight_decay=how.weight_decay)).param_groups:
        for p in group["params"]:
            found[names[id(p)]] = (group["lr"], group["weight_decay"])
    return found


def test_parameter_groups():
    how = Tuning(lr=2e-4)
    found = groups(how, tunable(reader()))
    assert found["encoder.encoder.tokens.cls"] == (2e-4, 0.0)
    assert found["encoder.encoder.token_positions.cls"] == (2e-4, 0.05)
    assert found["head.0.weight"] == (2e-4, 0.05)
    assert found["head.1.weight"] == (2e-4, 0.0)
    assert found["encoder.encoder.tokens.img"] == (pytest.approx(2e-5), 0.0)
    assert found["encoder.encoder.token_positions.img"] == (pytest.approx(2e-5), 0.05)


@pytest.mark.shared
def test_parameter_groups_are_those_of_the_released_optimizer(shared):
    oracle = torch.load(shared / "parity" / "recon_finetune_scan_hardest_full_micro.pt", weights_only=True)
    encoder = Partwise(PatchTransformer(48, 3, 3, 128, 32), 2048)
    how = released(encoder, "ScanObjectNN-hardest")
    ours = groups(how, tunable(encoder, num_points=2048))
    theirs = {}
    for group in oracle["optim_groups"]:
        for name in group["names"]:
            theirs[name] = (group["initial_lr"], group["weight_decay"])
    count = lambda rates: sorted((round(lr, 9), decay) for lr, decay in rates.values())  # noqa: E731
    assert count(ours) == count(theirs)
    for name in ("0.weight", "1.bias", "4.weight", "8.bias"):
        assert ours[f"head.{name}"] == pytest.approx(theirs[f"cls_head_finetune.{name}"])


def test_values_of_the_released_scripts():
    recon, mae = reader(), point_mae()
    rates = {
        ("full", "ScanObjectNN", False): 2e-5, ("mlp-3", "ScanObjectNN", False): 1e-4,
        ("full", "ModelNet40", False): 1e-5, ("mlp-linear", "ModelNet40", False): 1e-4,
        ("full", "ModelNet40", True): 5e-4, ("mlp-3", "ModelNet40", True): 1e-3,
    }
    for (mode, dataset, few), rate in rates.items():
        how = released(recon, dataset, mode, few)
        assert how.lr * how.encoder_lr_scale == pytest.approx(rate)
        assert (how.lr, how.clip_norm, how.batch_size, how.weight_decay) == (pytest.approx(10 * rate), 10.0, 32, 0.05)
    scan, model, few = (released(recon, d, few_shot=f) for d, f in
                        (("ScanObjectNN", False), ("ModelNet40", False), ("ModelNet40", True)))
    assert [h.augmentation for h in (scan, model, few)] == ["rotate-up", "scale-shift", "rotate-up"]
    assert [h.num_points for h in (scan, model, few)] == [2048, 0, 0]
    assert [h.drop_path for h in (scan, model, few)] == [0.2, 0.2, 0.1]
    assert [h.epochs for h in (scan, model, few)] == [301, 301, 151]
    theirs = released(mae, "ScanObjectNN")
    assert (theirs.lr, theirs.encoder_lr_scale, theirs.augmentation) == (5e-4, 1.0, "scale-shift")
    assert theirs.head()["fresh_decay"] is None
    assert "as released by Point-MAE" in theirs.title("fine-tuning", usual=theirs)


def test_titles_tell_what_is_not_usual():
    assert Tuning().title("fine-tuning") == "fine-tuning"
    assert Tuning(mode="mlp-3", epochs=3).title("fine-tuning") == "fine-tuning, mlp-3 (epochs 3)"
    how = released(reader(), "ModelNet40")
    title = dataclasses.replace(how, epochs=5, augmentation="none").title("fine-tuning", True, how)
    assert title.startswith("fine-tuning as released by ReCon, best epoch chosen on test")
    assert title.endswith("(epochs 5, augmentation none)")


# encoders


def test_the_feature_that_is_tuned():
    ours, theirs, other = tunable(reader(readout=("max",))), tunable(point_mae(), seed=3), tunable(Tiny())
    assert inner(ours).readout == ("queries", "max")
    assert ours.embed_dim == 4 * 48
    assert inner(theirs).readout == ("cls", "max")
    assert (theirs.embed_dim, len(class_parameters(theirs))) == (2 * 48, 2)
    assert class_parameters(other) == []
    same, differing = (inner(tunable(point_mae(), seed=s)).tokens["cls"] for s in (3, 4))
    assert torch.equal(inner(theirs).tokens["cls"], same)
    assert not torch.equal(same, differing)


def test_a_copy_is_tuned_and_resized():
    encoder = reader()
    before = (inner(encoder).readout, inner(encoder).num_patches, encoder.num_points, state(encoder))
    found = tunable(encoder, num_points=64, drop_path=0.3)
    assert (inner(found).num_patches, found.num_points) == (16, 64)
    assert [block.drop_path.rate for block in inner(found).blocks] == [0.0, 0.3]
    assert (inner(encoder).readout, inner(encoder).num_patches, encoder.num_points) == before[:3]
    assert not moved(before[3], encoder)
    assert found(DATA[0].subset(torch.arange(2)).clouds()).pooled.shape == (2, 192)
    with pytest.raises(ConfigError, match="only a reader"):
        tunable(Tiny(), num_points=64)


def test_readouts_can_be_chosen():
    encoder = reader()
    assert read_as(encoder, ("cls", "max+mean")).embed_dim == 96
    assert encoder.embed_dim == 192
    with pytest.raises(ConfigError, match="readout"):
        read_as(encoder, ("nothing",))
    with pytest.raises(ConfigError, match="has no readout"):
        read_as(Tiny(), ("max",))


# views


def test_farthest_subsets_come_from_the_points_far_apart():
    points = torch.rand(3, 200, 3)
    clouds = Clouds.from_dense(points, ids=torch.arange(3))
    draw = FarthestSubset(64)
    one, other = (draw(clouds, Draws.of(seed, 0, torch.arange(3))) for seed in (0, 1))
    assert one.dense.shape == (3, 64, 3)
    rows = one.indices.view(3, 64)
    assert all(len(set(r.tolist())) == 64 for r in rows)
    assert torch.equal(points.gather(1, rows[..., None].expand(-1, -1, 3)), one.dense)
    assert not torch.equal(rows, other.indices.view(3, 64))
    # some start gives a pool of 75 that holds them all
    starts = torch.arange(200)
    pools = farthest_point_sampling(points[:1].expand(200, -1, -1), 75, starts)
    assert any(set(rows[0].tolist()) <= set(pool.tolist()) for pool in pools)
    same = points[:1].expand(2, -1, -1)
    draws = Draws.of(0, 0, torch.arange(2))
    draws.integers = lambda n: torch.zeros(2, dtype=torch.int64)  # same start: the whole batch takes the same rows
    rows = draw(Clouds.from_dense(same), draws).indices.view(2, 64)
    assert torch.equal(rows[0], rows[1])


def test_clouds_without_points_to_spare_are_shuffled():
    clouds = DATA[0].clouds(torch.arange(4))
    seen = FarthestSubset(32)(clouds, Draws.of(0, 0, torch.arange(4)))
    assert torch.equal(seen.dense.sort(1).values, clouds.dense.sort(1).values)
    assert not torch.equal(seen.dense, clouds.dense)


def test_released_views_are_scaled_or_turned():
    clouds = DATA[0].clouds(torch.arange(4))
    for name in ("scale-shift", "rotate-up"):
        seen = released_views(name, 16)(clouds, Draws.of(0, 0, torch.arange(4)))
        assert seen.dense.shape == (4, 16, 3)
        linear = seen.transform[:, :3, :3]
        if name == "rotate-up":
            torch.testing.assert_close(linear @ linear.mT, torch.eye(3).expand(4, 3, 3))
        else:
            factors = linear.diagonal(dim1=1, dim2=2)
            assert ((factors >= 2 / 3) & (factors <= 3 / 2)).all()
            assert seen.transform[:, :3, 3].abs().max() <= 0.2
    few = farthest(DATA[0], 8)
    assert few.points.shape == (40, 8, 3)
    assert torch.equal(few.points[0, 0], DATA[0].points[0, 0])
    assert farthest(DATA[0], 32) is DATA[0]


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
