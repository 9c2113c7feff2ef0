import pytest
import torch

from contrast3d.engine import distributed
from contrast3d.errors import ConfigError


def test_alone_there_is_one_main_rank(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    ranks = distributed.setup("cpu")
    assert (ranks.rank, ranks.world, ranks.local_rank, ranks.device) == (0, 1, 0, torch.device("cpu"))
    assert distributed.is_main()
    assert distributed.maximum(1, 2.5) == [1.0, 2.5]
    assert distributed.total(1, 2.5) == [1.0, 2.5]
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
