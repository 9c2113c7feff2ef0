"""Fine-tuning modes, the encoders they tune, and the views they see, on a small patch transformer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from patch_readers import DATA, moved, point_mae, reader, state, trained
from test_classification import Tiny
from torch import nn

from contrast3d.data.draws import Draws
from contrast3d.downstream.classification import Classifier, fit_classifier, make_head
from contrast3d.downstream.tuned_encoders import class_parameters, inner, read_as, tunable
from contrast3d.downstream.tuned_views import FarthestSubset, farthest, released_views
from contrast3d.downstream.tuning import Tuning, released
from contrast3d.engine.optimizers import build_optimizer
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError
from contrast3d.nn.partwise import Partwise
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.types import Clouds

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
    assert inner(found).with_queries("cls", readout=("max",)).num_patches == 16
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
