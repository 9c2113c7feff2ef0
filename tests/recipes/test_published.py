"""The rows of published tables: their commands are ones that the command line takes, and the guide shows them all."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from contrast3d.flags import parse
from contrast3d.recipes import datasets, published, table
from contrast3d.recipes.evaluate_flags import KNOWS
from contrast3d.recipes.options import EvaluateOptions

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "recon.md"


@pytest.mark.parametrize("row", published.ROWS, ids=lambda row: f"{row.recipe} {row.what}")
def test_commands_are_understood(row):
    program, verb, protocol, run, *flags = shlex.split(row.command)
    assert (program, verb) == ("contrast3d", "evaluate")
    table.check_protocol(protocol)
    assert run.removeprefix("runs/") in table.RECIPES
    options = parse(EvaluateOptions, flags, "evaluate", "")
    assert datasets.find(options.dataset)
    given = {flag.removeprefix("--") for flag in flags if flag.startswith("--")} - {"dataset", "data-root"}
    assert given <= set(KNOWS[protocol])
    assert 50 < row.expected < 100


def test_no_row_stands_twice():
    assert len({(row.recipe, row.what) for row in published.ROWS}) == len(published.ROWS)


def test_the_guide_shows_them():
    assert published.markdown() in PAGE.read_text(encoding="utf-8")
