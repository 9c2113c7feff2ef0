import numpy as np
import pytest
import torch
from scipy import stats

from contrast3d.data.draws import Draws, _fraction, _mix_, _normal, _uniform
from contrast3d.types import Clouds


def splitmix64(state: int) -> int:
    """The reference generator's output for one state, in Python's own integers."""
    mask = 2**64 - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def clouds_of(lengths, ids=None):
    ids = torch.arange(len(lengths)) if ids is None else torch.as_tensor(ids)
    return Clouds.from_list([torch.randn(n, 3) for n in lengths], ids=ids)


def ks(values) -> float:
    """p-value of values against U(0, 1)."""
    return stats.kstest(np.asarray(values, dtype=np.float64).ravel(), "uniform", method="asymp").pvalue


def test_mix_is_splitmix64():
    states = [0, 1, 2**63 - 1, -(2**63), -1, 0x9E3779B97F4A7C15 - 2**64, 123456789]
    mixed = _mix_(torch.tensor(states))
    assert [m % 2**64 for m in mixed.tolist()] == [splitmix64(s) for s in states]
    # The published first output of splitmix64 seeded with 0.
    assert splitmix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_draws_are_pinned():
    """A change of these numbers changes every recorded run."""
    draws = Draws.of(0, 0, torch.tensor([0, 1, 2]))
    assert draws.keys.tolist() == [-630345595315391511, 2840245311953862192, -3530671205913618701]
    assert draws.uniform().tolist() == pytest.approx([0.82297039, 0.21001053, 0.26095271], abs=1e-7)


def test_uniform_moments_and_distribution():
    u = Draws.of(1, 2, torch.arange(2000)).uniform((50,))
    assert u.dtype == torch.float32
    assert u.shape == (2000, 50)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.004
    assert abs(u.var() - 1 / 12) < 0.001
    assert ks(u) > 0.001


def test_normal_moments_and_distribution():
    draws = Draws.of(1, 2, torch.arange(2000))
    z = draws.normal((50,))
    assert torch.isfinite(z).all()
    assert abs(z.mean()) < 0.015
    assert abs(z.var() - 1) < 0.02
    assert stats.kstest(z.flatten().numpy(), "norm", method="asymp").pvalue > 0.001


def test_point_values_are_uniform_normal_and_uncorrelated():
    clouds = clouds_of([3000, 5000, 2000])
    draws = Draws.of(0, 0, clouds.ids)
    u, z = draws.points_uniform(clouds, 3), draws.points_normal(clouds, 3)
    assert u.shape == z.shape == (10000, 3)
    assert ks(u) > 0.001
    assert stats.kstest(z.flatten().numpy(), "norm", method="asymp").pvalue > 0.001
    correlation = torch.corrcoef(torch.cat((u, z), 1).T) - torch.eye(6)
    assert correlation.abs().max() < 0.05


def test_p_values_of_many_epochs_are_uniform():
    """Sharper than any single test: a biased generator bends the distribution of its own p-values."""
    clouds = clouds_of([300, 200])
    values = [Draws.of(0, epoch, clouds.ids).points_uniform(clouds, 3) for epoch in range(60)]
    assert ks([ks(v[:, channel]) for v in values for channel in range(3)]) > 0.001


def test_extreme_words_stay_in_range():
    words = torch.tensor([0, -1, 2**63 - 1, -(2**63)])
    for channels in (1, 2, 3):
        u = _uniform(words, channels)
        assert (u >= 0).all()
        assert (u < 1).all()
        z = _normal(words, channels)
        assert torch.isfinite(z).all()
        assert torch.equal(z[0], -z[1])  # symmetric about 0
    fraction = _fraction(words)
    assert (fraction >= 0).all()
    assert (fraction < 1).all()


@pytest.mark.parametrize("neighbour", ["id", "epoch", "view", "seed", "call", "child", "coordinate"])
def test_neighbouring_draws_are_independent(neighbour):
    ids = torch.arange(20000)
    base = Draws.of(3, 4, ids, 1)
    a = base.uniform((2,))
    b = {
        "id": lambda: Draws.of(3, 4, ids + 1, 1).uniform((2,)),
        "epoch": lambda: Draws.of(3, 5, ids, 1).uniform((2,)),
        "view": lambda: Draws.of(3, 4, ids, 2).uniform((2,)),
        "seed": lambda: Draws.of(4, 4, ids, 1).uniform((2,)),
        "call": lambda: base.uniform((2,)),
        "child": lambda: base.children(1)[0].uniform((2,)),
        "coordinate": lambda: a.flip(1),
    }[neighbour]()
    assert not torch.equal(a, b)
    assert abs(torch.corrcoef(torch.stack((a[:, 0], b[:, 0])))[0, 1]) < 0.03
    assert ks((a[:, 0] - b[:, 0]) % 1) > 0.001  # the difference of independent uniforms is uniform modulo 1


def test_arguments_do_not_run_together():
    """(1, 23) and (12, 3) are different keys, and so is any exchange of seed, epoch and view."""
    ids = torch.arange(4)
    triples = [(1, 23, 0), (12, 3, 0), (0, 1, 2), (2, 1, 0), (1, 0, 2), (-1, 0, 0), (2**70, 0, 0)]
    keys = {tuple(Draws.of(s, e, ids, v).keys.tolist()) for s, e, v in triples}
    assert len(keys) == len(triples)


def test_a_sample_draws_the_same_in_any_batch():
    ids = torch.tensor([7, 3, 11, 5])
    together = Draws.of(0, 1, ids, 1)
    u, z = together.uniform((3,)), together.normal((2, 2))
    for row, own in enumerate(ids):
        alone = Draws.of(0, 1, own[None], 1)
        assert torch.equal(alone.uniform((3,))[0], u[row])
        assert torch.equal(alone.normal((2, 2))[0], z[row])


def test_point_draws_depend_on_the_point_alone():
    clouds = clouds_of([6, 9, 4], ids=[7, 3, 11])
    full = Draws.of(0, 0, clouds.ids).points_normal(clouds, 3)
    kept = clouds.replace(indices=torch.cat([torch.arange(n) for n in (6, 9, 4)]))
    rows = torch.tensor([5, 1, 7, 7, 14, 16])  # some points of each cloud, out of order and one twice
    kept = kept.take_points(rows, torch.tensor([0, 2, 5, 6]))
    assert torch.equal(Draws.of(0, 0, clouds.ids).points_normal(kept, 3), full[rows])


def test_take_continues_the_streams():
    draws = Draws.of(0, 0, torch.arange(5))
    draws.uniform()
    some = draws.take(torch.tensor([4, 1]))
    expected = draws.uniform((2,))[[4, 1]]
    assert torch.equal(some.uniform((2,)), expected)


def test_children_do_not_depend_on_what_the_others_consume():
    def second_child(calls: int):
        first, second = Draws.of(0, 0, torch.arange(5)).children(2)
        for _ in range(calls):
            first.uniform((3,))
        return second.uniform()

    assert torch.equal(second_child(0), second_child(4))


def test_shared_draws_share_parameters_but_not_noise():
    clouds = clouds_of([50, 50, 50])
    draws = Draws.of(0, 0, clouds.ids).shared()
    for own in (draws, draws.children(2)[1], draws.take(torch.tensor([0, 1, 2]))):
        u = own.uniform((4,))
        assert torch.equal(u, u[:1].expand_as(u))
        noise = own.points_uniform(clouds, 3).view(3, 50, 3)
        assert not torch.equal(noise[0], noise[1])
    leader = Draws.of(0, 0, clouds.ids[:1])
    assert torch.equal(Draws.of(0, 0, clouds.ids).shared().uniform()[2], leader.uniform()[0])


def test_integers_and_choice():
    draws = Draws.of(0, 0, torch.arange(30000))
    counts = torch.bincount(draws.integers(7), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 0.001
    high = torch.arange(1, 30001)
    values = draws.integers(high, (3,))
    assert ((values >= 0) & (values < high[:, None])).all()
    assert abs((values / high[:, None]).mean() - 0.5) < 0.01
    chosen = torch.bincount(draws.choice((1.0, 0.0, 3.0)), minlength=3)
    assert chosen[1] == 0
    assert abs(chosen[0] / 30000 - 0.25) < 0.015


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_bits_on_cuda():
    clouds = clouds_of([100, 30])
    cpu, cuda = Draws.of(0, 0, clouds.ids), Draws.of(0, 0, clouds.ids.cuda())
    assert torch.equal(cpu.uniform((5,)), cuda.uniform((5,)).cpu())
    assert torch.equal(cpu.points_uniform(clouds, 3), cuda.points_uniform(clouds.to("cuda"), 3).cpu())
    torch.testing.assert_close(cpu.normal((5,)), cuda.normal((5,)).cpu())
