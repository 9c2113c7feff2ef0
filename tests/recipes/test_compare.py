"""Runs side by side: rows, pairing over seeds, and what cannot be compared."""

from __future__ import annotations

import dataclasses

import pytest
import tiny

from contrast3d import cli
from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import ConfigError
from contrast3d.recipes import table
from contrast3d.recipes.compare import compare, keys_of, plot, tables
from contrast3d.recipes.runs import record

RECIPE = tiny.shrunk(table.find("simclr-ldraw40"))


def run(path, values, column=5, **fields):
    """A run folder with one evaluation: accuracy by draw."""
    folder = RunDir(path).create(record("simclr-ldraw40", dataclasses.replace(RECIPE, **fields)))
    folder.save_result(f"linear-{column}", {
        "protocol": "linear probe", "dataset": "toy", "metric": "accuracy", "labels_per_class": column,
        "mean": sum(values.values()) / len(values), "values": list(values.values()), "seeds": list(values),
        "data_hash": "x",
    })
    return path


def test_differences_are_paired_over_the_draws_that_both_have(tmp_path):
    first = run(tmp_path / "a", {0: 0.4, 1: 0.5, 2: 0.6})
    second = run(tmp_path / "b", {1: 0.52, 2: 0.64, 3: 0.9}, method="moco")
    entries = compare([first, second])
    (key,) = keys_of(entries)
    assert [entry.title for entry in entries] == ["a", "b"]
    assert entries[1].gain(entries[0], key).values == pytest.approx((0.02, 0.04))
    assert entries[0].cell(key).mean == pytest.approx(0.5)


def test_runs_that_differ_by_seed_are_one_row(tmp_path):
    ours = [run(tmp_path / f"s{s}", {0: 0.4 + 0.1 * s, 1: 0.6 + 0.1 * s}, seed=s) for s in (0, 1)]
    other = [run(tmp_path / f"m{s}", {0: 0.7, 1: 0.8}, seed=s, method="moco") for s in (0, 1)]
    entries = compare([*ours, *other])
    (key,) = keys_of(entries)
    assert [entry.title for entry in entries] == ["s0, 2 seeds", "m0, 2 seeds"]
    assert entries[0].scores[key] == pytest.approx({0: 0.5, 1: 0.6})
    assert entries[1].gain(entries[0], key).values == pytest.approx((0.25, 0.15))


def test_tables_and_plot(tmp_path):
    from rich.console import Console

    paths = [run(tmp_path / "a", {0: 0.4, 1: 0.5}), run(tmp_path / "b", {0: 0.45, 1: 0.57}, method="byol")]
    for path, column in zip(paths * 2, ("all", "all", 10, 10)):
        run(path, {0: 0.5}, column, method="simclr" if path == paths[0] else "byol")
    entries = compare(paths)
    console = Console(width=120, record=True)
    console.print(*tables(entries))
    text = console.export_text()
    assert text.index(" 5 ┃") < text.index(" 10 ┃") < text.index(" all ┃")
    assert "b over a" in text
    assert "+6.0 ± 1.4" in text
    picture = plot(entries, tmp_path / "new" / "compare.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_retrieval(tmp_path, monkeypatch):
    from matplotlib.axes import Axes
    from rich.console import Console

    paths = []
    for name, method, value in (("a", "simclr", 0.4), ("b", "byol", 0.45)):
        paths.append(run(tmp_path / name, {0: 0.5}, method=method))
        RunDir(paths[-1]).save_result("retrieval", {
            "protocol": "retrieval", "dataset": "toy", "metric": "mean_average_precision", "labels_per_class": None,
            "mean": value, "std": None, "values": [value], "seeds": [0], "data_hash": "x",
        })
    console = Console(width=120, record=True)
    console.print(*tables(compare(paths)))
    text = " ".join(console.export_text().split())  # titles are as wide as their tables
    assert "toy: linear probe, accuracy in %" in text
    ours = text[text.index("toy: retrieval, mean average precision in %"):]
    assert " mAP ┃" in ours
    assert "45.0" in ours
    assert "+5.0" in ours
    said, real = [], Axes.set
    monkeypatch.setattr(Axes, "set", lambda self, **names: said.append(names["ylabel"]) or real(self, **names))
    plot(compare(paths), tmp_path / "compare.png")
    assert said == ["accuracy in %", "mean average precision in %"]


def test_nothing_to_compare(tmp_path):
    first, again = run(tmp_path / "a", {0: 0.4}), run(tmp_path / "b", {0: 0.5}, seed=1)
    with pytest.raises(ConfigError, match="two runs that differ in more than their seed"):
        compare([first, again])
    with pytest.raises(ConfigError, match="the same recipe and the same seed"):
        compare([first, first])
    other = run(tmp_path / "c", {0: 0.5}, column=10, method="byol")
    with pytest.raises(ConfigError, match="share no evaluation"):
        compare([first, other])


def test_the_verb(tmp_path, capsys):
    paths = [run(tmp_path / "a", {0: 0.4}), run(tmp_path / "b", {0: 0.5}, method="byol")]
    assert cli.main(["compare", *map(str, paths), "--out", str(tmp_path / "x.png")]) == 0
    assert "b over a" in capsys.readouterr().out
    assert (tmp_path / "x.png").exists()
    for words, told in (([], "an argument is missing"), ([paths[0]], "expected two runs"), ([*paths, "nowhere"],
                        "no such folder"), ([*paths, "--out", "x.txt"], "expected a picture")):
        assert cli.main(["compare", *map(str, words)]) in (1, 2)
        assert told in capsys.readouterr().err


def test_seeds_of_different_kinds_are_not_paired(tmp_path):
    """Draws of the labels are not pre-trainings: then the means are compared, without a spread."""
    ours = [run(tmp_path / f"s{s}", {0: 0.4 + 0.1 * s, 1: 0.6 + 0.1 * s}, seed=s) for s in (0, 1)]
    entries = compare([run(tmp_path / "b", {0: 0.1, 1: 0.9}, method="byol"), *ours])
    (key,) = keys_of(entries)
    gain = entries[1].gain(entries[0], key)
    assert gain.values == pytest.approx((0.05,))
    assert gain.std is None


def test_other_test_sets_are_not_compared(tmp_path):
    first, second = run(tmp_path / "a", {0: 0.4}), run(tmp_path / "b", {0: 0.5}, method="byol")
    path = second / "results" / "linear-5.json"
    path.write_text(path.read_text().replace('"data_hash": "x"', '"data_hash": "y"'))
    with pytest.raises(ConfigError, match="share no evaluation"):
        compare([first, second])
