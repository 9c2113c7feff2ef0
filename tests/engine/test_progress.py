"""The progress of a training: what it tells of the rate and of the time left."""

from __future__ import annotations

import pytest

from contrast3d.engine import progress
from contrast3d.engine.progress import Progress
from contrast3d.engine.schedule import Plan
from contrast3d.engine.settings import Training


def lines(monkeypatch, capsys, times, **settings) -> list[str]:
    """What is shown after steps 1, 2, 3, ... that end at these times, of 2 epochs of 10 steps of 8 shapes."""
    clock = iter(times)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress(Plan(Training(epochs=2, **settings), 10), 8) as shown:
        for step, seconds in enumerate(times, 1):
            shown.update(step, seconds, lambda: 0.5)
    return capsys.readouterr().err.splitlines()


def test_the_first_step_does_not_tell_the_rate(monkeypatch, capsys):
    first, second, third = lines(monkeypatch, capsys, [120.0, 121.0, 122.0])  # two minutes for compiling kernels
    assert first == "  5 %  epoch 1/2  loss 0.5  2:00 elapsed"
    assert second.endswith("8 shapes/s  2:01 elapsed, 0:18 left")
    assert third.endswith("8 shapes/s  2:02 elapsed, 0:17 left")


@pytest.mark.parametrize(("budget", "left"), [(130.0, ("0:10", "0:09")), (1000.0, ("14:40", "0:18"))])
def test_a_budget_of_time_may_end_it_sooner(monkeypatch, capsys, budget, left):
    shown = lines(monkeypatch, capsys, [120.0, 121.0], max_seconds=budget)
    assert tuple(line.split("elapsed, ")[1] for line in shown) == tuple(f"{time} left" for time in left)
