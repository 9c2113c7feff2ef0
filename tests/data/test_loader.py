import warnings

import pytest
import torch

from contrast3d.data.compose import Compose, RandomApply
from contrast3d.data.loader import ViewLoader, check_views, identical_views
from contrast3d.data.presets import preset
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import RotateSO3, Shear
from contrast3d.errors import CollapseWarning, ConfigError, DataError
from contrast3d.types import Clouds


def shape_set(count=50, points=32) -> ShapeSet:
    generator = torch.Generator().manual_seed(0)
    return ShapeSet(torch.randn(count, points, 3, generator=generator), labels=torch.arange(count) % 4)


def loader(**options) -> ViewLoader:
    defaults = {"transform": preset("objects", 24), "batch_size": 8}
    return ViewLoader(shape_set(), **{**defaults, **options})


def test_an_epoch_sees_every_shape_at_most_once_in_a_new_order():
    data = loader()
    assert len(data) == 6
    epochs = [torch.cat([views[0].ids for views in data.epoch(epoch)]) for epoch in (0, 1)]
    for ids in epochs:
        assert len(ids) == len(ids.unique()) == 48
    assert not torch.equal(*epochs)
    assert sorted(data.order(0).tolist()) == list(range(50))
    assert not torch.equal(data.order(0), loader(seed=1).order(0))


def test_first_places_of_the_order_are_fair():
    data = ViewLoader(shape_set(5), None, batch_size=2)
    first = torch.bincount(torch.stack([data.order(epoch)[0] for epoch in range(1000)]), minlength=5)
    assert (first / 1000 - 0.2).abs().max() < 0.05


def test_views_carry_labels_and_differ():
    first, second = loader().batch(2, 1)
    assert first.dense.shape == (8, 24, 3)
    assert torch.equal(first.ids, second.ids)
    assert torch.equal(first.labels, first.ids % 4)
    assert not identical_views(first, second).any()
    assert len(loader(views=1).batch(0, 0)) == 1
    assert torch.equal(loader(views=1).batch(2, 1)[0].points, first.points)


def test_a_resumed_run_gets_the_batches_it_would_have_had():
    whole = loader()
    uninterrupted = [views for epoch in range(2) for views in whole.epoch(epoch)]
    resumed = loader()
    for epoch, step in ((1, 3), (0, 5), (1, 0)):
        for a, b in zip(resumed.batch(epoch, step), uninterrupted[epoch * 6 + step]):
            assert torch.equal(a.points, b.points)
            assert torch.equal(a.ids, b.ids)


@pytest.mark.parametrize("augmentation", ["objects", "objects-strong", "scale-shift", "rotate-up", "report"])
def test_torchs_generator_is_neither_asked_nor_moved(augmentation):
    """On a GPU the next batch is made beside the training, which draws from that generator."""
    data, state = loader(transform=preset(augmentation, 24)), torch.get_rng_state()
    one = data.batch(0, 0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(torch.initial_seed() + 1)
    assert torch.equal(one[0].points, data.batch(0, 0)[0].points)


@pytest.mark.parametrize("draws", ["per-sample", "per-batch"])
def test_shares_of_the_ranks_join_to_the_batch_of_one_process(draws):
    whole = loader(draws=draws).batch(1, 2)
    shares = [loader(draws=draws, rank=rank, world=4).batch(1, 2) for rank in range(4)]
    for view in range(2):
        assert torch.equal(torch.cat([share[view].ids for share in shares]), whole[view].ids)
        joined = torch.cat([share[view].points for share in shares])
        torch.testing.assert_close(joined, whole[view].points, rtol=1e-5, atol=1e-6)


def test_a_view_does_not_depend_on_the_batch_size():
    by_id = {}
    for size in (8, 16):
        for step in range(3):
            clouds = loader(batch_size=size).batch(0, step)[1]
            for points, i in zip(clouds.dense, clouds.ids.tolist()):
                torch.testing.assert_close(points, by_id.setdefault(i, points), rtol=1e-5, atol=1e-6)
    assert len(by_id) == 48


def test_draws_per_batch_are_one_map_for_all():
    turn = Compose((RotateSO3(), Shear()))
    first, second = loader(transform=turn, draws="per-batch").batch(0, 0)
    assert torch.equal(first.transform, first.transform[:1].expand_as(first.transform))
    assert not torch.equal(first.transform, second.transform)
    own = loader(transform=turn).batch(0, 0)[0].transform
    assert not torch.equal(own[0], own[1])


def test_plain_and_last_batches():
    data = loader(transform=None, views=1, drop_last=False)
    batches = [views[0] for views in data.epoch(0)]
    assert [len(clouds) for clouds in batches] == [8] * 6 + [2]
    assert torch.equal(torch.cat([clouds.ids for clouds in batches]), data.order(0))
    assert torch.equal(batches[0].dense, shape_set().points[batches[0].ids])


def test_a_small_set_is_one_batch():
    data = ViewLoader(shape_set(5), None, batch_size=64)
    assert (len(data), data.batch_size, len(data.batch(0, 0)[0])) == (1, 5, 5)
    data = ViewLoader(shape_set(5), None, batch_size=64, world=2, rank=1)
    assert (len(data), len(data.batch(0, 0)[0])) == (1, 2)


@pytest.mark.parametrize(("options", "match"), [
    ({"batch_size": 9, "world": 2}, "does not divide"), ({"batch_size": 0}, "batch_size 0"),
    ({"rank": 2, "world": 2}, "rank 2"), ({"views": 0}, "views=0"),
    ({"drop_last": False, "world": 2}, "drop_last"),
])
def test_impossible_loaders_are_config_errors(options, match):
    with pytest.raises(ConfigError, match=match):
        loader(**options)


def test_too_few_shapes_and_steps_out_of_range():
    with pytest.raises(DataError, match="1 shapes"):
        ViewLoader(shape_set(1), None)
    with pytest.raises(IndexError):
        loader().batch(0, 6)


def test_identical_views_are_found_and_counted():
    with pytest.warns(CollapseWarning, match="8 of 8 samples"):
        assert check_views(loader(transform=None)) == 8
    with pytest.warns(CollapseWarning):
        some = check_views(loader(transform=RandomApply(RotateSO3(), 0.3)))
    assert 0 < some < 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_views(loader()) == 0
        assert check_views(loader(transform=None, views=1)) == 0


def test_the_warning_of_identical_views_goes_where_it_is_told_to():
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_views(loader(transform=None), "Try: something else", told.append)
    assert told == ["8 of 8 samples have identical views: there is no invariance to learn. Try: something else"]


def test_identical_views_of_ragged_clouds():
    parts = [torch.randn(n, 3) for n in (4, 2, 3)]
    first = Clouds.from_list(parts)
    moved = Clouds.from_list([parts[0], parts[1] + 1, parts[2]])
    assert identical_views(first, moved).tolist() == [True, False, True]
    shorter = Clouds.from_list([parts[0], parts[1], parts[2][:2]])
    assert identical_views(first, shorter).tolist() == [True, True, False]
