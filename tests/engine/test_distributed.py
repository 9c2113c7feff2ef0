import pytest
import torch

from contrast3d.engine import distributed
from contrast3d.errors import ConfigError, FailedElsewhere


def test_alone_there_is_one_main_rank(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    ranks = distributed.setup("cpu")
    assert (ranks.rank, ranks.world, ranks.local_rank, ranks.device) == (0, 1, 0, torch.device("cpu"))
    assert distributed.is_main()
    assert distributed.maximum(1, 2.5) == [1.0, 2.5]
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    module = torch.nn.Linear(1, 1)
    assert distributed.parallel(module) is module
    distributed.cleanup()


@pytest.mark.parametrize(("cuda", "mps", "expected"), [
    (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"),
])
def test_auto_prefers_the_fastest_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert distributed.pick_device("auto").type == expected


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "tpu", ""])
def test_a_device_that_is_not_there_is_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"'{name}' is not available"):
        distributed.pick_device(name)


@pytest.mark.parametrize("name", ["cpu:zz", "cpu:", "cpu:-1"])
def test_a_device_that_is_none_is_named(name):
    with pytest.raises(ConfigError, match=f"device '{name}' is none"):
        distributed.pick_device(name)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="'cuda:2' is not available here; there are 2 GPUs"):
        distributed.pick_device("cuda:2")


@pytest.mark.parametrize(("rank", "failing", "raised"), [
    (0, set(), None), (0, {0}, OSError), (1, {0}, FailedElsewhere), (1, {0, 1}, FailedElsewhere), (1, {1, 2}, OSError),
    (0, {2}, FailedElsewhere),
])
def test_ranks_fail_together_and_the_first_says_why(monkeypatch, rank, failing, raised):
    seen = []

    def maximum(value):
        seen.append(value)
        return [max((-float(r) for r in failing), default=-float("inf"))]

    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "maximum", maximum)

    def block():
        with distributed.together():
            if rank in failing:
                raise OSError("disk on fire")

    if raised is None:
        block()
    else:
        with pytest.raises(raised):
            block()
    assert seen == [-rank if rank in failing else -float("inf")]


@pytest.mark.parametrize(("rank", "inner"), [(0, True), (1, True), (0, False), (1, False)])
def test_what_ranks_agreed_on_within_is_not_agreed_on_again(monkeypatch, rank, inner):
    """Rank 1 fails, in the inner block or before it: either way each rank comes to agree once."""
    asked = []
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "maximum", lambda value: asked.append(value) or [-1.0])

    def block():
        with distributed.together():
            if rank == 1 and not inner:
                raise OSError("disk on fire")
            with distributed.together():
                if rank == 1:
                    raise OSError("disk on fire")

    with pytest.raises(OSError if rank == 1 else FailedElsewhere):
        block()
    assert len(asked) == 1


@pytest.mark.parametrize(("local_rank", "raised"), [("0", ConfigError), ("1", FailedElsewhere)])
def test_a_mistaken_device_is_told_once_a_machine(monkeypatch, local_rank, raised):
    for key, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": local_rank}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(raised):
        distributed.setup("tpu")
