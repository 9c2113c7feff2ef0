"""PointContrast: which matches count, what it does where there are none, and that it learns on views of a room."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from contrast3d.data.pair_loader import PairLoader
from contrast3d.data.pairs import with_pairs
from contrast3d.data.room_camera import room_views
from contrast3d.data.rooms import make_room
from contrast3d.data.shapes import ShapeSet
from contrast3d.engine.loop import train
from contrast3d.engine.means import RunningMeans
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError
from contrast3d.losses.hardest_contrastive import hardest_contrastive
from contrast3d.losses.point_info_nce import point_info_nce
from contrast3d.methods.point_contrast import PointContrast, one_match_each
from contrast3d.nn.pointnet import PointNet
from contrast3d.nn.sparse_unet import SparseUNet
from contrast3d.recipes.fit import fit
from contrast3d.types import Clouds, ViewPairs

LOSSES = ("info-nce", "hardest")
HEALTH = {"feature_std", "positive_distance", "negative_distance", "alignment", "pair_accuracy"}
NO_MATCHES = torch.zeros(0, 2, dtype=torch.int64)


def method(**options):
    torch.manual_seed(0)
    return PointContrast(PointNet(16, widths=(8,)), **options)


def sparse(**options):
    torch.manual_seed(0)
    return PointContrast(SparseUNet(3, 16, 14, width=0.25, voxel_size=0.1), **options)


def pair(n=20, clouds=2, matches=None):
    """Two noisy views of random points; each point matches itself."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(clouds, n, 3, generator=generator)
    views = [Clouds.from_dense(base + 0.05 * torch.randn(base.shape, generator=generator)) for _ in range(2)]
    return ViewPairs(*views, torch.arange(clouds * n)[:, None].expand(-1, 2) if matches is None else matches)


# Which matches count.


def test_every_first_point_has_one_of_its_matches():
    matches = torch.tensor([[0, 5], [0, 6], [3, 5], [7, 1], [7, 2], [7, 3]])
    listed = set(map(tuple, matches.tolist()))
    for _ in range(20):
        drawn = one_match_each(matches, 100)
        assert sorted(drawn[:, 0].tolist()) == [0, 3, 7]
        assert set(map(tuple, drawn.tolist())) <= listed


def test_its_matches_are_equally_likely():
    """Chi-squared over 4,000 draws, far below what a fixed order of preference would give."""
    torch.manual_seed(0)
    matches = torch.tensor([[4, j] for j in range(5)] + [[9, 0]])
    counts = torch.zeros(5)
    for _ in range(4000):
        drawn = one_match_each(matches, 2)
        counts[drawn[drawn[:, 0] == 4, 1]] += 1
    assert ((counts - 800).square() / 800).sum() < 18.5  # one in a thousand


def test_at_most_so_many_pairs_and_all_points_equally_likely():
    torch.manual_seed(0)
    matches = torch.stack([torch.arange(40) // 2, torch.arange(40)], 1)
    counts = torch.zeros(20)
    for _ in range(1000):
        drawn = one_match_each(matches, 5)
        assert len(drawn) == len(drawn[:, 0].unique()) == 5
        counts[drawn[:, 0]] += 1
    assert ((counts - 250).square() / 250).sum() < 43.8  # one in a thousand
    assert one_match_each(NO_MATCHES, 5).shape == (0, 2)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("most", "counted"), [(7, 7), (4096, 20)])
def test_num_pairs_are_drawn(loss, most, counted, monkeypatch):
    seen = []
    module = "contrast3d.methods.point_contrast"
    monkeypatch.setattr(f"{module}.point_info_nce", lambda q, *rest: seen.append(len(q)) or q.sum())
    monkeypatch.setattr(f"{module}.hardest_contrastive", lambda f, g, drawn, *rest: seen.append(len(drawn)) or f.sum())
    matches = torch.stack([torch.arange(20), torch.arange(20)], 1)
    method(loss=loss, num_pairs=most)(pair(matches=matches))
    assert seen == [counted]


def test_candidates_are_so_many_rows_of_each_view(monkeypatch):
    seen = []

    def watched(first, second, drawn, candidates, *rest):
        seen.extend((len(c), len(c.unique()), int(c.max()) < 40) for c in candidates)
        return first.sum()

    monkeypatch.setattr("contrast3d.methods.point_contrast.hardest_contrastive", watched)
    method(loss="hardest", num_candidates=9)(pair())
    method(loss="hardest")(pair())
    assert seen == [(9, 9, True)] * 2 + [(40, 40, True)] * 2


# The loss.


def test_forward_is_the_loss_of_the_paper():
    """Where every point has one match, and all are candidates, nothing is left to chance."""
    batch = pair()
    plain = method()
    q, k = (F.normalize(copy.deepcopy(plain).encoder(view).points, dim=1) for view in (batch.first, batch.second))
    torch.testing.assert_close(plain(batch)["loss"], point_info_nce(q, k, 0.4))
    for squared in (True, False):
        hardest = method(loss="hardest", squared_positive=squared, positive_margin=0.05, negative_margin=1.2)
        expected = hardest_contrastive(
            q, k, batch.matches, (torch.arange(40),) * 2, None, 0.05, 1.2, squared)
        torch.testing.assert_close(hardest(batch)["loss"], expected)


def test_views_have_batch_statistics_of_their_own():
    batch = pair()
    further = batch.first.replace(points=batch.first.points * 3 + 1)
    alone = method().features(batch)[1]
    torch.testing.assert_close(method().features(dataclasses.replace(batch, first=further))[1], alone)


@pytest.mark.parametrize("loss", LOSSES)
def test_numbers_that_show_a_collapse(loss):
    found = method(loss=loss)(pair())
    assert found.keys() == {"loss"} | HEALTH
    assert all(v.ndim == 0 and torch.isfinite(v) for v in found.values())
    assert found["positive_distance"] < found["negative_distance"]
    collapsed = method()
    with torch.no_grad():
        collapsed.encoder.mlp[-2].weight.zero_()
        collapsed.encoder.mlp[-2].bias.fill_(1.0)
    found = collapsed(pair())
    assert found["feature_std"] < 1e-6
    assert found["negative_distance"] < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_matches_is_a_zero_that_touches_all_parameters(loss):
    """Ranks stay in step: DistributedDataParallel waits for every parameter."""
    idle = sparse(loss=loss)
    found = idle(pair(matches=NO_MATCHES))
    assert found.keys() == {"loss"}
    found["loss"].backward()
    assert found["loss"].item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in idle.parameters())


def test_ranks_without_matches_log_fewer_numbers(monkeypatch):
    """A mean is over the ranks that logged it: none waits for a number that another one does not have."""
    means, other = RunningMeans(), RunningMeans()
    for numbers in ({"loss": 1.0, "alignment": 0.5}, {"loss": 2.0, "alignment": 0.1}):
        for name, value in numbers.items():
            means.add(name, value)
    other.add("loss", 0.0)
    for order in ([means, other], [other, means]):
        states = [one.state() for one in order]
        monkeypatch.setattr("contrast3d.engine.means.distributed.gather", lambda value, states=states: states)
        assert means.compute() == other.compute() == pytest.approx({"loss": 1.0, "alignment": 0.3})


def test_one_match_is_enough_to_log():
    found = method()(pair(matches=torch.tensor([[3, 3]])))
    assert all(torch.isfinite(v) for v in found.values())


# What plugs in.


def test_an_encoder_without_dense_features_is_refused():
    with pytest.raises(ConfigError, match="PointContrast needs an encoder that gives dense; SparseUNet gives pooled"):
        PointContrast(SparseUNet(3, None, 14, width=0.25, decoder=False))


@pytest.mark.parametrize("options", [
    {"loss": "triplet"}, {"temperature": 0.0}, {"temperature": float("nan")}, {"num_pairs": 0}, {"num_candidates": 0},
])
def test_options_that_cannot_be(options):
    with pytest.raises((ConfigError, TypeError), match=next(iter(options))):
        method(**options)


def test_fit_makes_no_views_of_scenes():
    with pytest.raises(ConfigError, match="PointContrast learns from overlapping views of scenes"):
        fit(method(), ShapeSet(torch.randn(8, 16, 3)), epochs=1, quiet=True)


# On views of a room.


@pytest.fixture(scope="module")
def scenes():
    return [with_pairs(room_views(make_room("train", i), 4, width=80, height=60)) for i in range(2)]


def loader(scenes, steps=4):
    return PairLoader(scenes, 0.1, 2, steps)


class Cut:
    """Every batch is `data`'s own, or `always` the same one; none at `until`, where the run is killed."""

    def __init__(self, data, until=None, always=None):
        self.data, self.until, self.always = data, until, always

    def __len__(self):
        return len(self.data)

    def batch(self, epoch, step):
        if (epoch, step) == self.until:
            raise KeyboardInterrupt
        return self.always or self.data.batch(epoch, step)


@pytest.mark.parametrize("loss", LOSSES)
def test_matches_come_nearer_than_strangers(scenes, loss):
    """A few steps on two views: how far matches are, in units of the distance of strangers."""
    learner, data = sparse(loss=loss, temperature=0.1), loader(scenes)
    views = data.batch(0, 0)

    def told():
        with torch.no_grad():
            found = learner(views)
        return (found["positive_distance"] / found["negative_distance"]).item()

    before = told()
    train(learner, Cut(data, always=views), Training(epochs=5, optimizer="adamw", lr=1e-2), quiet=True)
    assert before > 0.9
    assert told() < 0.85 * before


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_that_was_cut_in_two_goes_the_same_way(scenes, loss, tmp_path):
    """What is drawn of matches and candidates follows torch's generator, whose state is kept: bit for bit."""
    settings = Training(epochs=2, optimizer="sgd", lr=0.05)

    def run(name, until=None):
        learner = sparse(loss=loss, num_pairs=64, num_candidates=32)
        try:
            train(learner, Cut(loader(scenes, 2), until), settings, RunDir(tmp_path / name), checkpoint_steps=1,
                  quiet=True)
        except KeyboardInterrupt:
            assert until
        return learner.state_dict()

    whole = run("whole")
    run("cut", until=(1, 1))
    torch.manual_seed(99)
    again = run("cut")
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    untrained = sparse().state_dict()
    assert not torch.equal(whole["encoder.final.weight"], untrained["encoder.final.weight"])
