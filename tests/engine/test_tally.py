"""The tally of a pass over files: quiet, in lines, and as a bar."""

from __future__ import annotations

import io

from contrast3d.engine import tally
from contrast3d.engine.tally import Tally


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
    told = Tally(4)
    told.update(2)
    assert terminal.getvalue() == ""
    told.update(4)
    assert "━" * 24 + "  4 of 4 shapes" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")
    Tally(0).update(0)
