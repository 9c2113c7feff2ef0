"""The command line: every verb explains itself, and every mistake is one clear line and the right exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from contrast3d import cli
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.options import DataOptions, EvaluateOptions, ReportOptions
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.recipes.table import PROTOCOLS, RECIPES

RECIPE = "simclr-ldraw40"
TINY = [
    "--num-points", "16", "--shape-points", "24", "--layers", "8", "--strides", "--k", "4", "--embed-dim", "8",
    "--hidden-dim", "8", "--projection-dim", "4", "--extra-datasets", "--batch-size", "8", "--epochs", "1",
    "--lr", "0.01", "--quiet", "--out", "run",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder of files that are as they should be, and of others that are not."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    points, label = rng.normal(size=(24, 24, 3)).astype(np.float32), np.arange(24) % 3
    np.savez(folder / "good.npz", points=points, label=label)
    np.savez(folder / "unlabelled.npz", points=points)
    np.savez(folder / "nan.npz", points=np.where(np.arange(24)[:, None, None] == 5, np.nan, points), label=label)
    np.savez(folder / "one-point.npz", points=points[:, :1], label=label)
    np.savez(folder / "one-shape.npz", points=points[:1])
    np.savez(folder / "no-points.npz", clouds=points)
    (folder / "broken.npz").write_bytes((folder / "good.npz").read_bytes()[:3000])
    with h5py.File(folder / "good.h5", "w") as file:
        file["data"], file["label"] = points, label
    (folder / "broken.h5").write_bytes((folder / "good.h5").read_bytes()[:700])
    (folder / "empty.npz").touch()
    (folder / "empty").mkdir()
    (folder / "file").write_text("not a folder")
    return folder


@pytest.fixture(autouse=True)
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    yield
    shutil.rmtree(files / "run", ignore_errors=True)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory) -> Path:
    """A finished tiny run."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["pretrain", RECIPE, "--dataset", str(files / "good.npz"), *TINY[:-1], str(run)]
    assert cli.main(arguments) == 0
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


# Every verb explains itself.


def test_the_page_of_verbs(capsys):
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(arguments) == 0
        page = capsys.readouterr().out
        assert all(f"\n  {verb} " in page for verb in cli.VERBS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("contrast3d 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("demo", ["embedded data", "--out"]),
        ("pretrain", ["RECIPE", *RECIPES]),
        ("evaluate", ["PROTOCOL", "RUN", *PROTOCOLS, "--labels", "0 means all"]),
        ("evaluate linear", [*PROTOCOLS, "--labels", "--supervised-seconds"]),
        ("demo", ["runs/demo"]),
        ("evaluate svm RUN", ["--draws", "What the encoder of a run knows"]),
        ("report", ["RUN", "--views", "--out", "RECIPE --views"]),
        ("report RUN", ["--views"]),
        ("data", ["list", "check NAME"]),
        ("data list", ["data sets"]),
        ("data check", ["NAME"]),
        ("data check LDraw40", ["--data-root"]),
        ("doctor", ["This machine"]),
        *((f"pretrain {name}", [f"contrast3d pretrain {name}", "--epochs", "--out"]) for name in RECIPES),
    ],
)
def test_help(capsys, arguments, words):
    for flag in ("--help", "-h"):
        assert cli.main([*arguments.split(), flag]) == 0
        page = capsys.readouterr()
        assert not [word for word in words if word not in page.out]
        assert not page.err


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (f"pretrain {RECIPE}", (ContrastRecipe, Machine)),
        ("pretrain point-contrast-rooms", (SceneRecipe, Machine)),
        ("demo", (Machine,)),
        ("evaluate", (EvaluateOptions,)),
        ("report", (ReportOptions,)),
        ("data check LDraw40", (DataOptions,)),
    ],
)
def test_help_says_what_every_flag_means(capsys, arguments, options):
    assert cli.main([*arguments.split(), "--help"]) == 0
    page = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for cls in options:
        for field in dataclasses.fields(cls):
            meaning = cls.__doc__.split(f"{field.name}: ")[1].split("\n")[0]
            assert f"--{field.name.replace('_', '-')}" in page
            assert " ".join(meaning.split()) in page, field.name


def test_help_loads_nothing_heavy():
    code = "import sys; from contrast3d.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split("Begin with")[1].split()
    assert "contrast3d.recipes.table" in loaded
    assert not set(loaded) & {"torch", "numpy", "numba", "sklearn", "scipy", "h5py", "rich", "tyro", "matplotlib"}


@pytest.mark.parametrize("module", ["contrast3d", "contrast3d.cli"])
def test_the_module_runs(module):
    done = subprocess.run([sys.executable, "-m", module, "nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("contrast3d: no verb 'nonsense'; there are: demo, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["data", "list"]])
def test_a_closed_pipe_is_no_error(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "contrast3d.cli", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_other_ranks_leave_the_talking_to_the_first(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["pretrain", RECIPE, "--epohcs", "3"]) == 1
    assert capsys.readouterr() == ("", "")


# Arguments that cannot work: exit code 2.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("pretrian", "did you mean pretrain?"),
        ("pretrain", "an argument is missing. usage: contrast3d pretrain RECIPE"),
        ("pretrain --epochs 3", "an argument is missing"),
        ("pretrain simclr-ldrw40", "no recipe 'simclr-ldrw40' (did you mean simclr-ldraw40?"),
        ("evaluate", "an argument is missing"),
        ("evaluate liner", "no protocol 'liner' (did you mean linear?"),
        ("evaluate linear", "an argument is missing"),
        ("evaluate linear RUN --drawz 3", "no option --drawz (did you mean --draws?); see contrast3d evaluate --help"),
        ("report RUN --page", "see contrast3d report --help"),
        ("data check LDraw40 --page", "see contrast3d data check --help"),
        ("demo --resume", "runs resume by themselves"),
        ("evaluate linear RUN --labels many", "--labels"),
        ("evaluate linear RUN --labels 10% 0%", "--labels 0%; expected a share of each class above 0% and up to 100%"),
        ("evaluate linear RUN --labels 150%", "--labels 150%; expected a share"),
        ("report", "an argument is missing"),
        ("report RUN --view", "did you mean --views?"),
        ("data", "an argument is missing"),
        ("data chek", "did you mean check?"),
        ("data check", "an argument is missing"),
        ("data check ModelNet4O", "did you mean ModelNet40?"),
        ("data list --all", "no option --all"),
        ("doctor --verbose", "no option --verbose"),
        ("demo --devise cpu", "no option --devise (did you mean --device?"),
        ("demo --threads -1", "threads = -1"),
        ("demo --device tpu", "device 'tpu' is not available here"),
        ("demo --device cpu:zz", "device 'cpu:zz' is none"),
    ],
)
def test_mistaken_arguments(fails, arguments, words):
    assert words in fails(2, *arguments.split())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--epohcs 3", "no option --epohcs (did you mean --epochs?"),
        ("--epohcs=3", "no option --epohcs (did you mean --epochs?"),
        ("stray", "no option stray"),
        ("--resume", "no option --resume: runs resume by themselves"),
        ("--epochs three", "invalid literal for int() with base 10: 'three'; expected --epochs INT"),
        ("--epochs", "Missing value for argument '--epochs'"),
        ("--epochs -1", "epochs = -1; expected a whole number of at least 1"),
        ("--epochs 0", "epochs = 0"),
        ("--encoder dgcn", "invalid choice 'dgcn'"),
        ("--optimizer lion", "invalid choice 'lion'"),
        ("--dataset ModelNet4", "no data set 'ModelNet4' (did you mean ModelNet40?"),
        ("--extra-datasets LDraw4", "no data set 'LDraw4' (did you mean LDraw40?"),
        ("--augmentation objcts", "no augmentation preset 'objcts'"),
        ("--k 600 --num-points 512 --shape-points 1024", "k = 600 neighbours, but num_points = 512"),
        ("--k 5 --strides 4 1 --layers 8 8", "strides = (4, 1) leave clouds of 4 points"),
        ("--k 0", "k = 0; expected at least 1"),
        ("--layers", "expected at least one width"),
        ("--layers 0", "layers = (0,)"),
        ("--strides 0", "strides = (0,)"),
        ("--strides 2 2", "one stride per layer"),
        ("--embed-dim 17", "embed_dim=17 cannot be shared by the 2 poolings"),
        ("--projection-dim -1", "projection_dim = -1"),
        ("--batch-size 1", "batch_size = 1; expected at least 2"),
        ("--batch-size 0", "batch_size = 0"),
        ("--accumulate 50", "too few for training.accumulate = 50"),
        ("--num-points 1", "num_points = 1"),
        ("--temperature 0", "temperature = 0"),
        ("--temperature nan", "temperature = nan"),
        ("--lr -1", "lr = -1"),
        ("--seed -1", "seed = -1"),
        ("--probe-every 0", "probe_every = 0"),
        ("--holdout 1", "holdout = 1; expected 0, or at least 2"),
        ("--device gpu", "device 'gpu' is not available"),
        ("--threads -2", "threads = -2"),
    ],
)
def test_mistaken_fields_leave_no_folder_behind(fails, flags, words):
    assert words in fails(2, "pretrain", RECIPE, "--dataset", "good.npz", *TINY, *flags.split())
    assert not Path("run").exists()


# Data and files that are not as they should be: exit code 1.


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("nowhere.npz", "nowhere.npz: no such file"),
        ("empty.npz", "empty.npz: an empty file"),
        ("empty", "empty: an empty folder; expected files ending in .obj"),
        ("broken.npz", "broken.npz: a .npz cut short"),
        ("broken.h5", "broken.h5: an HDF5 file that cannot be read"),
        ("no-points.npz", "keys clouds; expected a key 'points'"),
        ("nan.npz", "NaN or infinite points in 1 of 24 shapes (rows 5)"),
        ("one-point.npz", "clouds of 1 point(s); expected at least two"),
        ("one-shape.npz", "1 shapes; expected at least 2"),
    ],
)
def test_broken_data(fails, dataset, words):
    assert words in fails(1, "pretrain", RECIPE, "--dataset", dataset, *TINY)
    assert not Path("run").exists()


def test_too_few_points_in_a_file_names_the_field(fails):
    said = fails(1, "pretrain", RECIPE, "--dataset", "good.npz", *TINY, "--shape-points", "1024")
    assert "good.npz: 24 points a shape; expected at least 1024. Try: a smaller shape_points" in said


@pytest.mark.parametrize("root", ["empty", "nowhere", "file"])
@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("simclr-modelnet40", ["modelnet40_ply_hdf5_2048/", "modelnet40_normal_resampled/", "ModelNet40/", ".npz"]),
        ("simclr-shapenetpart-faithful", ["shapenetcore_partanno_segmentation_benchmark_v0_normal/", "hdf5_data/"]),
    ],
)
def test_missing_data_names_what_was_looked_for(fails, recipe, names, root):
    said = fails(1, "pretrain", recipe, "--data-root", root, "--out", "run")
    assert said.startswith(f"contrast3d: {root}: no ")
    assert not [name for name in names if name not in said]
    assert "Try: contrast3d data check " in said
    assert not Path("run").exists()


@pytest.mark.parametrize("out", ["file", "file/run", "/proc/nowhere/run"])
def test_a_run_folder_that_cannot_be_made(fails, out):
    assert f"cannot use {out.removesuffix('/run')}" in fails(
        1, "pretrain", RECIPE, "--dataset", "good.npz", *TINY, "--out", out
    )


def test_data_check(capsys):
    assert cli.main(["data", "check", "ModelNet40", "--data-root", "empty"]) == 1
    assert "modelnet40_ply_hdf5_2048" in capsys.readouterr().out
    assert cli.main(["data", "check", "arrays", "--data-root", "broken.npz"]) == 1
    said = capsys.readouterr().out
    assert "a .npz cut short" in said
    assert said.endswith("\n1 problem\n")
    assert cli.main(["data", "check", "arrays", "--data-root", "good.npz"]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    assert cli.main(["data", "list"]) == 0
    assert "ShapeNetPart" in capsys.readouterr().out


# Runs.


def test_pretrain_makes_parents_expands_home_and_takes_a_batch_larger_than_the_set(capsys, tmp_path):
    arguments = ["pretrain", RECIPE, "--dataset", "good.npz", *TINY, "--batch-size", "1000"]
    assert cli.main([*arguments, "--out=~/deep/er/run"]) == 0
    said = capsys.readouterr()
    assert "finished: 1 epochs" in said.out
    assert f"next: contrast3d evaluate linear {tmp_path}/deep/er/run" in said.out
    assert not said.err
    assert (tmp_path / "deep/er/run/encoder.safetensors").is_file()


def test_pretrain_again_finds_the_run_finished(capsys, trained, files):
    before = (trained / "encoder.safetensors").stat().st_mtime_ns
    arguments = ["pretrain", RECIPE, "--dataset", str(files / "good.npz"), *TINY[:-1], str(trained)]
    assert cli.main(arguments) == 0
    assert "finished: 1 epochs" in capsys.readouterr().out
    assert (trained / "encoder.safetensors").stat().st_mtime_ns == before


def test_resume_with_other_values_names_them(fails, run, files):
    arguments = ["pretrain", RECIPE, "--dataset", str(files / "good.npz"), *TINY[:-1], str(run)]
    said = fails(2, *arguments, "--lr", "0.5", "--k", "3")
    assert "fields.k is 4 there, 3 here; fields.lr is 0.01 there, 0.5 here" in said


def test_restart_takes_other_values(run, files):
    arguments = ["pretrain", RECIPE, "--dataset", str(files / "good.npz"), *TINY[:-1], str(run)]
    (run / "results").mkdir()
    (run / "results" / "stale.json").write_text("{}")
    assert cli.main([*arguments, "--epochs", "2", "--restart"]) == 0
    assert json.loads((run / "recipe.json").read_text())["fields"]["epochs"] == 2
    assert not list(run.glob("results/*"))


def test_resume_of_a_broken_state(fails, run, files):
    (run / "state.pt").write_bytes(b"broken")
    said = fails(1, "pretrain", RECIPE, "--dataset", str(files / "good.npz"), *TINY[:-1], run)
    assert "state.pt: unreadable" in said


@pytest.mark.parametrize("verb", ["evaluate linear", "report"])
class TestRunsThatAreNone:
    def test_no_folder(self, fails, verb):
        assert "nowhere: no such folder" in fails(1, *verb.split(), "nowhere")

    def test_a_folder_without_a_run(self, fails, verb):
        assert "empty/recipe.json: no such file" in fails(1, *verb.split(), "empty")

    def test_a_file(self, fails, verb):
        assert "file: no such folder; expected a run" in fails(1, *verb.split(), "file")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", "recipe.json: not JSON"),
            ("[1]", "recipe.json: the JSON of a list"),
            ('{"recipe": "simclr-ldraw40"}', "no recipe and fields"),
            ('{"recipe": "simclr-ldraw40", "fields": "abc"}', "no recipe and fields"),
            ('{"recipe": "simclr-ldraw40", "fields": {"epochs": "three"}}', "epochs is 'three'; expected of type int"),
            ('{"recipe": "simclr-ldraw40", "fields": {"lr": null}}', "lr is None; expected of type float"),
        ],
    )
    def test_a_broken_recipe(self, fails, verb, run, content, words):
        (run / "recipe.json").write_text(content)
        assert words in fails(1, *verb.split(), run)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ('{"recipe": "simclr-moon", "fields": {}}', "no recipe 'simclr-moon'"),
            ('{"recipe": "simclr-ldraw40", "fields": {"gravity": 3}}', "unknown fields (gravity)"),
            ('{"recipe": "simclr-ldraw40", "fields": {"k": 0}}', "k = 0"),
        ],
    )
    def test_a_recipe_of_another_version(self, fails, verb, run, content, words):
        (run / "recipe.json").write_text(content)
        assert words in fails(2, *verb.split(), run)

    def test_a_broken_encoder(self, fails, verb, run):
        path = run / "encoder.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        assert "encoder.safetensors: unreadable" in fails(1, *verb.split(), run)

    def test_an_encoder_of_another_recipe(self, fails, verb, run):
        written = json.loads((run / "recipe.json").read_text())
        written["fields"]["embed_dim"] = 12
        (run / "recipe.json").write_text(json.dumps(written))
        assert "weights of another encoder" in fails(1, *verb.split(), run)

    def test_no_encoder_yet(self, fails, verb, run):
        (run / "encoder.safetensors").unlink()
        assert "it has no checkpoint yet" in fails(1, *verb.split(), run)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--labels -1", "labels per class (-1,); expected numbers of at least 1, or all"),
        ("--labels", "labels per class ()"),
        ("--draws 0", "draws = 0"),
        ("--draws two", "expected --draws INT"),
        ("--seed -1", "seed = -1"),
        ("--supervised-seconds -5", "supervised_seconds = -5"),
        ("--threads -1", "threads = -1"),
        ("--device gpu", "device 'gpu' is not available"),
    ],
)
@pytest.mark.parametrize("protocol", ["linear", "linear-report"])
def test_mistaken_evaluations(fails, trained, protocol, flags, words):
    assert words in fails(2, "evaluate", protocol, trained, *flags.split())
    assert not list(trained.glob("results/*"))


def test_zero_labels_are_all_of_them(capsys, run):
    assert cli.main(["evaluate", "knn", str(run), "--labels", "2", "0", "all", "--draws", "1"]) == 0
    said = capsys.readouterr()
    heads = next(line for line in said.out.splitlines() if "labels per class" in line)
    assert re.findall(r"\w+", heads) == ["labels", "per", "class", "2", "all"]
    results = [json.loads(p.read_text()) for p in run.glob("results/knn-*.json")]
    assert {result["labels_per_class"] for result in results} == {2, "all"}
    assert all(len(result["values"]) == 1 for result in results)


def test_evaluation_without_labels(fails, capsys, tmp_path):
    out = tmp_path / "unlabelled"
    assert cli.main(["pretrain", RECIPE, "--dataset", "unlabelled.npz", *TINY, "--out", str(out)]) == 0
    assert f"next: contrast3d report {out}\n" in capsys.readouterr().out
    assert "unlabelled: no labels; expected a labelled set" in fails(1, "evaluate", "knn", out)


def test_views_of_a_recipe_and_of_a_run(capsys, run, tmp_path):
    assert cli.main(["report", RECIPE, "--views", "--out", str(tmp_path / "views.html")]) == 0
    assert (tmp_path / "views.html").stat().st_size > 10_000
    assert cli.main(["report", str(run), "--views"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "views.html"), str(run / "views.html")]


def test_ctrl_c_outside_of_training(fails, monkeypatch, run):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("contrast3d.recipes.evaluate.evaluate", interrupted)
    assert "interrupted; the same command begins again or goes on" in fails(130, "evaluate", "linear", run)


def test_doctor(capsys):
    assert cli.main(["doctor"]) == 0
    assert "torch" in capsys.readouterr().out
