"""The tally of a pass over files: quiet, in lines, and as a bar."""

from __future__ import annotations

import io

import pytest

from contrast3d import tally
from contrast3d.tally import Tally


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_now_and_then(capsys, monkeypatch):
    told = Tally(1000)
    told.update(10)
    assert capsys.readouterr().err == ""  # too soon
    monkeypatch.setattr(tally, "LINE_SECONDS", 0.0)
    told.update(250, "3 skipped")
    line = capsys.readouterr().err
    assert line.startswith("250 of 1,000 shapes  ")
    assert line.endswith(" left  3 skipped\n")


def test_quiet(capsys, monkeypatch):
    monkeypatch.setattr(tally, "LINE_SECONDS", 0.0)
    Tally(10, quiet=True).update(10)
    assert capsys.readouterr().err == ""


def test_a_bar_ends_full(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Tally(4) as told:
        told.update(2)
        told.update(4)
        assert terminal.getvalue() == ""  # over at once
    monkeypatch.setattr(tally, "BAR_SECONDS", 0.0)
    with Tally(4) as told:
        told.update(2)
        monkeypatch.setattr(tally, "BAR_SECONDS", 9.0)
        told.update(3)
        assert "━" * 12 + "╌" * 12 + "  2 of 4 shapes" in terminal.getvalue()
        assert "3 of 4" not in terminal.getvalue()
        told.update(4)
    assert "━" * 24 + "  4 of 4 shapes" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")
    Tally(0).update(0)


def test_what_is_printed_after_a_bar_has_a_line_of_its_own(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(tally, "BAR_SECONDS", 0.0)

    def interrupted() -> None:
        with Tally(4) as told:
            told.update(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().endswith("2 of 4 shapes\n")


def test_the_first_process_speaks(capsys, monkeypatch):
    monkeypatch.setattr(tally, "LINE_SECONDS", 0.0)
    for rank, said in (("0", "3 of 10 shapes\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        Tally(10).update(3)
        assert capsys.readouterr().err == said


def test_a_slow_beginning_does_not_tell_the_rate(capsys, monkeypatch):
    times = iter([0.0, 100.0, 101.0])  # kernels are compiled before the first file is read
    monkeypatch.setattr(tally.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(tally, "LINE_SECONDS", 0.0)
    told = Tally(1001)
    told.update(1)
    told.update(101)
    assert capsys.readouterr().err.splitlines()[1] == "101 of 1,001 shapes  100/s  0:09 left"
