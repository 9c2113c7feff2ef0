"""Modules that remember how they were made, whatever way their constructors take arguments."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from torch import nn

from contrast3d.errors import ConfigError
from contrast3d.nn.rebuild import Rebuildable, describe, rebuild


class Options(Rebuildable):
    """Takes what it does not name."""

    def __init__(self, width: int = 4, *layers: int, bias: bool = True, **options):
        super().__init__()
        self.made_of = (width, layers, bias, options)
        self.linear = nn.Linear(width, 1)


def again(module: nn.Module) -> nn.Module:
    return rebuild(json.loads(json.dumps(describe(module))))


@pytest.mark.parametrize(("args", "kwargs"), [
    ((), {}), ((3,), {}), ((), {"bias": False}), ((3,), {"depth": 2, "name": "x"}), ((), {"width": 5, "options": {}}),
])
def test_options_come_back(args, kwargs):
    original = Options(*args, **kwargs)
    assert again(original).made_of == original.made_of
    assert again(copy.deepcopy(original)).made_of == original.made_of
    assert "layers" not in original.kwargs


def test_values_without_names_are_not_guessed():
    assert Options(3, 4, 5).kwargs is None
    with pytest.raises(ConfigError, match="arguments were not recorded"):
        again(Options(3, 4, 5))


def test_numbers_out_of_arrays():
    made = again(Options(np.int64(3), bias=np.bool_(False), rate=np.float32(0.5))).made_of
    assert made == (3, (), False, {"rate": 0.5})
    assert [type(made[0]), type(made[2]), type(made[3]["rate"])] == [int, bool, float]
    assert describe(Options(rates=np.ones(2)))["kwargs"] is None
