"""The verbs of an index and of export: every mistake is one clear line and the right exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from contrast3d import cli
from contrast3d.recipes.options import DedupeOptions, EmbedOptions, ExportOptions, GalleryOptions, SearchOptions

TINY = [
    "--num-points", "16", "--shape-points", "24", "--layers", "8", "--strides", "--k", "4", "--embed-dim", "8",
    "--hidden-dim", "8", "--projection-dim", "4", "--extra-datasets", "--batch-size", "8", "--epochs", "1",
    "--lr", "0.01", "--quiet",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two tiny runs, an index by the first of six clouds in files/, and an empty folder."""
    folder = tmp_path_factory.mktemp("verbs")
    rng = np.random.default_rng(0)
    np.savez(folder / "own.npz", points=rng.normal(size=(24, 24, 3)).astype(np.float32), label=np.arange(24) % 3)
    for name, seed in (("run", "0"), ("other", "1")):
        arguments = ["pretrain", "simclr-ldraw40", "--dataset", str(folder / "own.npz"), *TINY, "--seed", seed]
        assert cli.main([*arguments, "--out", str(folder / name)]) == 0
    (folder / "files").mkdir()
    (folder / "empty").mkdir()
    (folder / "bad").mkdir()
    (folder / "bad" / "a.stl").write_text("no mesh")
    for number in range(6):
        np.savetxt(folder / "files" / f"cloud{number}.xyz", rng.normal(size=(40, 3)))
    return folder


@pytest.fixture(autouse=True)
def here(place, tmp_path, monkeypatch) -> Path:
    """A working folder of links to all that, and an index that may be damaged."""
    for path in place.iterdir():
        os.symlink(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture
def index(here, capsys) -> Path:
    assert cli.main(["embed", "run", "files", "-o", "index", "--quiet"]) == 0
    capsys.readouterr()
    return here / "index"


def test_from_embed_to_gallery(capsys):
    assert cli.main(["embed", "run", "files", "bad", "-o", "index", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "embedded 6 shapes" in said
    assert "skipped 1 that cannot be used; why: index/skipped.csv" in said
    assert "next: contrast3d search index QUERY" in said
    assert cli.main(["search", "index", "cloud2", "-k", "3", "-o", "strip.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all(line.split()[2].startswith("files/cloud") for line in lines)
    assert Path("strip.png").is_file()
    assert cli.main(["dedupe", "index", "--threshold", "2"]) == 0
    assert "\n1 group; without duplicates 1 of 6 shapes remain" in capsys.readouterr().out
    assert Path("index/duplicates.csv").is_file()
    assert cli.main(["gallery", "index", "--most", "5"]) == 0
    assert capsys.readouterr().out == "index/gallery.html\n"


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ("embed", EmbedOptions, ["RUN PATHS...", "-o INDEX"]),
        ("search", SearchOptions, ["INDEX QUERY"]),
        ("dedupe", DedupeOptions, ["INDEX"]),
        ("gallery", GalleryOptions, ["INDEX"]),
        ("export", ExportOptions, ["RUN", "-o FOLDER"]),
        ("embed run files", EmbedOptions, []),
        ("export run", ExportOptions, []),
        ("search index query", SearchOptions, []),
    ],
)
def test_help_says_what_every_flag_means(capsys, arguments, options, words):
    for flag in ("--help", "-h"):
        assert cli.main([*arguments.split(), flag]) == 0
        page = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert not [word for word in words if word not in page]
        for name in options.__dataclass_fields__:
            meaning = options.__doc__.split(f"{name}: ")[1].split("\n")[0]
            assert f"--{name.replace('_', '-')}" in page
            assert " ".join(meaning.split()) in page, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("embed", "an argument is missing. usage: contrast3d embed RUN PATHS..."),
        ("embed run", "an argument is missing"),
        ("embed run files", "-o FOLDER is missing"),
        ("embed run files --out", "Missing value for argument '--out'"),
        ("embed run files -o new --bach-size 3", "no option --bach-size (did you mean --batch-size?"),
        ("embed run files -o new --batch-size 0", "batch_size = 0"),
        ("embed run files -o new --up w", "invalid choice 'w'"),
        ("embed run files -o new --device tpu", "device 'tpu' is not available"),
        ("embed run files -o new --threads -1", "threads = -1"),
        ("embed run files -o files", "a folder of other things"),
        ("search", "an argument is missing"),
        ("search index", "an argument is missing"),
        ("search index cloud1 -k many", "expected --k INT"),
        ("search index cloud1 -k 0", "k = 0; expected at least 1"),
        ("search index cloud1 --engine magic", "invalid choice 'magic'"),
        ("search index cloud1 -k 2 --engine ivf-pq", "ivf-pq needs at least 9984 shapes"),
        ("search index cloud1 --out strip.txt", "expected a picture ending in .png"),
        ("search index cloud1 --run other", "other has another encoder than the one that made index"),
        ("dedupe", "an argument is missing"),
        ("dedupe index --threshold -1", "expected a cosine distance from 0 to 2"),
        ("dedupe index --treshold 1", "did you mean --threshold?"),
        ("gallery index --most 0", "most = 0"),
        ("export", "an argument is missing"),
        ("export run", "-o FOLDER is missing"),
        ("export run -o new --format onyx", "invalid choice 'onyx'"),
    ],
)
def test_mistaken_arguments(fails, index, arguments, words):
    if "ivf-pq" in arguments:
        pytest.importorskip("faiss", reason="faiss is not installed (extra: search)")
    assert words in fails(2, *arguments.split())
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("embed nowhere files -o new", "nowhere: no such folder; expected a run"),
        ("embed empty files -o new", "recipe.json: no such file"),
        ("embed run nowhere -o new", "nowhere: no such file or folder"),
        ("embed run LDraw4O -o new", "did you mean LDraw40?"),
        ("embed run empty -o new", "an empty folder"),
        ("embed run ModelNet40 --data-root empty -o new", "empty: no "),
        ("embed run files -o own.npz", "cannot use own.npz"),
        ("search nowhere cloud1", "nowhere: no such folder; expected an index. Try: contrast3d embed RUN"),
        ("search empty cloud1", "index.json: no such file; expected an index"),
        ("search own.npz cloud1", "own.npz: no such folder; expected an index"),
        ("search index cloud7", "cloud7: neither a file nor the name of a shape in the index"),
        ("search index files", "files: a folder"),
        ("search index bad/a.stl -k 1", "bad/a.stl: "),
        ("dedupe empty", "index.json: no such file"),
        ("gallery nowhere", "nowhere: no such folder"),
        ("export nowhere -o new", "nowhere: no such folder; expected a run"),
    ],
)
def test_files_that_are_not_as_they_should_be(fails, index, arguments, words):
    assert words in fails(1, *arguments.split())
    assert not Path("new").exists()


@pytest.mark.parametrize("mistake", ["--bach-size 3", "--batch-size 0", "--up w", "--threads -1", ""])
def test_of_many_processes_the_first_tells_a_mistake(capsys, monkeypatch, mistake):
    monkeypatch.setattr(cli, "_LAST_WORDS_S", 0)
    monkeypatch.setenv("RANK", "1")
    arguments = ["embed", "run", *(["files", "-o", "new", *mistake.split()] if mistake else [])]
    if mistake != "--batch-size 0":  # which the processes find out together: see test_embed.py
        assert cli.main(arguments) == 1
        assert capsys.readouterr().err == ""
    monkeypatch.delenv("RANK")
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("contrast3d: ")


def test_warnings_are_lines_of_the_first_process(capsys, monkeypatch):
    def warned(arguments):
        for message, file, line in (("something is odd", cli.__file__, 1), ("not ours", "elsewhere.py", 7)):
            sys.stderr.write(warnings.formatwarning(message, UserWarning, file, line))
        return 0

    monkeypatch.setitem(cli.VERBS, "doctor", warned)
    for rank, said in (("0", "contrast3d: something is odd\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert cli.main(["doctor"]) == 0
        assert capsys.readouterr().err == said + "elsewhere.py:7: UserWarning: not ours\n"


def test_another_encoder(fails, index):
    assert "index holds vectors of another encoder" in fails(2, "embed", "other", "files", "-o", "index")


def test_a_damaged_index(fails, index):
    (index / "vectors-00000.npy").write_bytes(b"")
    assert "vectors-00000.npy: unreadable" in fails(1, "search", "index", "cloud1")
    (index / "index.json").write_text("{")
    assert "index.json: unreadable" in fails(1, "dedupe", "index")


def test_nothing_but_broken_files(capsys, here):
    assert cli.main(["embed", "run", "bad", "-o", "new", "--quiet"]) == 1
    assert "skipped 1 that cannot be used" in capsys.readouterr().out


def test_killed_and_gone_on_with(here):
    """kill -9 in the middle of an embed: the next one takes in what was written."""
    script = (
        "import os, sys\n"
        "from contrast3d.index import embedding\n"
        "from contrast3d.recipes import embed\n"
        "embedding.FLUSH_SECONDS = -1.0\n"
        "real = embed._Sink.__call__\n"
        "def sink(self, shard):\n"
        "    if self._next == 1:\n"
        "        self.store.write(1, shard)\n"
        "        os.kill(os.getpid(), 9)\n"
        "    real(self, shard)\n"
        "embed._Sink.__call__ = sink\n"
        "embed.embed_paths('run', ['files'], 'index', batch_size=2, quiet=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    assert json.loads(Path("index/index.json").read_text())["count"] == 2
    assert len(list(Path("index").glob("entries-*"))) == 2
    assert cli.main(["embed", "run", "files", "-o", "index", "--quiet"]) == 0
    assert json.loads(Path("index/index.json").read_text())["count"] == 6


def test_an_interrupted_embed_tells_the_command(capsys, monkeypatch):
    import signal

    from contrast3d.data import folder

    def read(*args, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return np.ones((24, 3), np.float32)

    monkeypatch.setattr(folder, "read_shape", read)
    assert cli.main(["embed", "run", "files/cloud0.xyz", "-o", "new folder", "--quiet"]) == 130
    said = capsys.readouterr().err
    assert "To go on: contrast3d embed run files/cloud0.xyz -o 'new folder' --quiet" in said
    shutil.rmtree("new folder")
