"""The table of a protocol: what it says about gains."""

import io

import pytest
import torch
from rich.console import Console

from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.table import BASELINES, UNTRAINED, Table
from contrast3d.errors import ConfigError


def table_of(**scores):
    table = Table("linear probe", "Boxes", "mine", (5, None), (0, 1, 2), "hash", torch.zeros(2, dtype=torch.long))
    for name, cells in scores.items():
        for budget, values in cells.items():
            for value in values:
                prediction = Prediction(torch.zeros(2, dtype=torch.long), value, value, {})
                table.add({"untrained": UNTRAINED}.get(name, name), budget, prediction)
    return table


def test_gains_are_paired_by_draw():
    table = table_of(untrained={5: (0.1, 0.2, 0.3)}, mine={5: (0.2, 0.3, 0.4)})
    assert table.gain(UNTRAINED, 5).values == pytest.approx((0.1, 0.1, 0.1))
    assert table.gain(UNTRAINED, None) is None


def test_a_single_value_counts_for_every_draw():
    table = table_of(untrained={None: (0.1, 0.2, 0.3)}, mine={None: (0.4,)})
    assert table.gain(UNTRAINED, None).values == pytest.approx((0.3, 0.2, 0.1))


@pytest.mark.parametrize("name", [*BASELINES, ""])
def test_the_encoder_is_not_called_as_a_baseline_is(name):
    with pytest.raises(ConfigError, match=f"the encoder is called '{name}'.*rename the run folder"):
        Table("linear probe", "Boxes", name, (5,), (0,), "hash", torch.zeros(2, dtype=torch.long))


def test_render_shows_the_gains():
    table = table_of(untrained={5: (0.1, 0.2), None: (0.5, 0.6)}, mine={5: (0.2, 0.31), None: (0.3,)})
    out = io.StringIO()
    Console(file=out, width=120).print(table.render())
    line = next(line for line in out.getvalue().splitlines() if "mine over" in line)
    assert "+10.5 ± 0.7" in line
    assert "-25.0 ± 7.1" in line
