"""`contrast3d data prepare teachers` and `load_teacher`: made once, resumed, refused, listed; with toy networks."""

import dataclasses

import pytest
import torch

from contrast3d import cli
from contrast3d.data.ldraw40 import LDraw40
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.recipes import prepare_teachers as module
from contrast3d.recipes import teachers
from contrast3d.recipes.caption_words import class_words
from contrast3d.recipes.prepare_teachers import Plan, captions_of, prepare_teachers
from contrast3d.recipes.teachers import dims_of, load_teacher
from contrast3d.teachers.feature_files import load_features
from contrast3d.types import Clouds


class Eyes:
    """An image teacher that remembers how many pictures it saw."""

    name, dim, size, weights, seen = "eyes", 3, 16, "w1", 0

    def encode(self, images):
        Eyes.seen += len(images)
        return images.mean((2, 3))


class Reader:
    """A text teacher: lengths."""

    name, dim, weights, read = "reader", 2, "w2", ()

    def encode(self, texts):
        Reader.read += tuple(texts)
        return torch.tensor([[len(text), 1.0] for text in texts])


@pytest.fixture(autouse=True)
def toys(monkeypatch, tmp_path):
    """Toy networks in place of the real ones, and a cache of this test's own."""
    monkeypatch.setattr(teachers, "image_teacher", lambda name, device="cpu": Eyes())
    monkeypatch.setattr(teachers, "text_teacher", lambda name, device="cpu": Reader())
    monkeypatch.setattr(teachers, "weights_hash", lambda kind, name: {"img": "w1", "text": "w2"}[kind])
    monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Eyes, "seen", 0)
    monkeypatch.setattr(Reader, "read", ())


def shapes(n=6, **changes) -> ShapeSet:
    points = torch.randn(n, 30, 3, generator=torch.Generator().manual_seed(0))
    whole = ShapeSet(
        points, torch.tensor([0, 1] * (n // 2)), ("red_cup", "box"), tuple(f"part{i}" for i in range(n)),
        descriptions=("Box 1 x 2", "cup with ear", "Box 1 x 2", "", "box", "ring")[:n], title="Toys train",
    )
    return dataclasses.replace(whole, **changes)


def load(data, tmp_path, **options):
    return load_teacher(data, "efficientnet-lite0", "minilm", data_root=tmp_path, views=2, **options)


def test_files_are_made_once_and_read_by_rows(tmp_path, capsys):
    data = shapes()
    teacher = load(data, tmp_path, pick="mean", standardize=False)
    said = capsys.readouterr().err
    assert "efficientnet-lite0 has not seen Toys train yet: 6 x 2 shaded renders" in said
    assert "1 of 6 shapes have no caption and are trained without that term: part3" in said
    assert teacher.dims == {"img": 3, "text": 2}
    assert Eyes.seen == 12
    assert len(Reader.read) == 8  # four different captions, two prompts each
    targets = teacher(data.clouds(torch.tensor([3, 2, 0])))
    assert targets["text"].isnan().all(1).tolist() == [True, False, False]
    assert torch.equal(targets["text"][1], targets["text"][2])
    assert not targets["img"].isnan().any()
    load(data, tmp_path)
    assert "not seen" not in capsys.readouterr().err
    assert (Eyes.seen, len(Reader.read)) == (12, 8)
    assert len(list((tmp_path / "cache" / "teachers" / data.hash).iterdir())) == 2


def test_other_settings_make_a_file_of_our_cache_again_and_are_refused_in_yours(tmp_path):
    data = shapes()
    load_teacher(data, views=2, data_root=tmp_path, quiet=True)
    load_teacher(data, views=3, data_root=tmp_path, quiet=True)
    assert Eyes.seen == 12 + 18
    (tmp_path / "teachers").mkdir()
    load_teacher(data, views=2, data_root=tmp_path, quiet=True)  # DATA_ROOT/teachers, where it is, comes first
    assert [p.name for p in (tmp_path / "teachers").iterdir()] == ["toys-train.img.efficientnet-lite0.safetensors"]
    with pytest.raises(DataError, match="made with views = 2; expected views = 3"):
        load_teacher(data, views=3, data_root=tmp_path, quiet=True)


def test_features_of_other_shapes_are_refused_naming_both(tmp_path):
    data, moved = shapes(), shapes(points=shapes().points + 1)
    prepare_teachers(data, tmp_path / "mine", text="none", views=2, quiet=True)
    with pytest.raises(DataError) as told:
        load_teacher(moved, views=2, folder=tmp_path / "mine", quiet=True)
    assert data.hash in str(told.value)
    assert moved.hash in str(told.value)
    assert "contrast3d data prepare teachers" in str(told.value)


def test_features_of_other_weights_are_refused_where_the_weights_are_known(tmp_path, monkeypatch):
    data = shapes()
    prepare_teachers(data, tmp_path, text="none", views=2, quiet=True)
    monkeypatch.setattr(teachers, "weights_hash", lambda kind, name: None)
    load_teacher(data, views=2, folder=tmp_path, quiet=True)  # the file is all that is needed
    monkeypatch.setattr(teachers, "weights_hash", lambda kind, name: "other")
    with pytest.raises(DataError, match="made with weights = w1; expected weights = other"):
        load_teacher(data, views=2, folder=tmp_path, quiet=True)


def test_interrupted_it_goes_on_where_it_was(tmp_path, monkeypatch):
    data, calls = shapes(), []
    see = Plan._see

    def interrupted(plan, teacher, start, stop):
        calls.append(start)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return see(plan, teacher, start, stop)

    monkeypatch.setattr(Plan, "_see", interrupted)
    arguments = {"text": "none", "views": 2, "quiet": True}
    with pytest.raises(KeyboardInterrupt):
        prepare_teachers(data, tmp_path, **arguments)
    assert [p.name for p in tmp_path.iterdir()] == [".toys-train.img.efficientnet-lite0.safetensors.part"]
    done = prepare_teachers(data, tmp_path, **arguments)
    assert calls == [0, 2, 4, 4]
    assert done.written == ["img"]
    whole = prepare_teachers(data, tmp_path / "whole", **arguments)
    assert torch.equal(load_features(done.files["img"]).features, load_features(whole.files["img"]).features)
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.is_file()) == [".safetensors"]


def test_what_another_attempt_left_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", -1.0)
    plan = Plan.of_images(shapes(), "efficientnet-lite0", 2)
    features = torch.zeros(6, 2, 3).half()
    part = tmp_path / f".{plan.file}.part"
    plan._save(part, plan.header | {"weights": "older"}, features, 4)
    assert plan._resumed(part, plan.header | {"weights": "w1"}, features) == 0
    assert plan._resumed(part, plan.header | {"weights": "older"}, features) == 4


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("description", ["Box 1 x 2", "cup with ear", "Box 1 x 2", "", "box", "ring"]),
        ("masked", ["1 x 2", "with ear", "1 x 2", "", "", "ring"]),
        ("class-prompts", ["red cup", "box", "red cup", "box", "red cup", ""]),
    ],
)
def test_captions(kind, expected):
    labels = torch.tensor([0, 1, 0, 1, 0, -1])
    assert captions_of(shapes(labels=labels), kind) == expected


def test_masked_descriptions_of_ldraw40_hold_no_word_of_a_class():
    data = LDraw40("train").subset(torch.arange(0, 1756, 7))
    words = set(class_words(data))
    assert {"minifig", "tyre", "liftarm", "brick"} <= words
    said = captions_of(data, "masked")
    assert not [text for text in said if words & {w.strip("().,").lower() for w in text.split()}]
    assert sum(bool(text) for text in said) > 0.9 * len(data)


def test_nothing_to_read_is_one_error(tmp_path):
    with pytest.raises(DataError, match="no shape has a caption"):
        load_teacher(shapes(descriptions=()), "none", "minilm", data_root=tmp_path)
    with pytest.raises(ConfigError, match="nothing to load"):
        load_teacher(shapes(), "none", "none")
    with pytest.raises(ConfigError, match="nothing to prepare"):
        prepare_teachers(shapes(), tmp_path, "none", "none")
    with pytest.raises(ConfigError, match="captions = 'tales'"):
        captions_of(shapes(), "tales")


def test_names_of_teachers(tmp_path):
    assert dims_of("efficientnet-lite0", "minilm") == {"img": 1280, "text": 384}
    assert dims_of("none", "none") == {}
    (tmp_path / "config.json").write_text('{"model_type": "clip", "projection_dim": 512}')
    assert dims_of(str(tmp_path), str(tmp_path)) == {"img": 512, "text": 512}
    with pytest.raises(ConfigError, match="did you mean efficientnet-lite0"):
        dims_of("efficientnet-lite", "none")
    with pytest.raises(MissingDataError, match="no such folder"):
        dims_of("none", str(tmp_path / "clip"))


def test_the_command(tmp_path, capsys, fails):
    import numpy as np

    np.savez(tmp_path / "mine.npz", points=shapes().points.numpy(), labels=shapes().labels.numpy())
    command = ["data", "prepare", "teachers", str(tmp_path / "mine.npz"), "-o", str(tmp_path / "out"), "--views", "2",
               "--shape-points", "30", "--split", "all", "--text", "none"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert f"img: {tmp_path / 'out'}" in said
    assert "6 shapes of" in said
    assert cli.main(command) == 0
    assert "there already" in capsys.readouterr().out
    assert Eyes.seen == 12
    assert cli.main([*command, "--restart"]) == 0
    assert Eyes.seen == 24
    capsys.readouterr()
    assert "no shape has a caption" in fails(1, *command[:-2])
    assert "--views 0" in fails(2, *command, "--views", "0")
    assert "--holdout 1; expected" in fails(2, *command, "--holdout", "1")
    assert "did you mean --views?" in fails(2, *command, "--vews", "3")
    assert "nothing to prepare" in fails(2, *command, "--image", "none")
    assert "did you mean teachers?" in fails(2, "data", "prepare", "teacher")
    assert "no data set 'LDraw4'" in fails(2, "data", "prepare", "teachers", "LDraw4")
    (tmp_path / "file").write_text("")
    assert "is a file; expected a folder" in fails(2, *command[:4], "-o", tmp_path / "file", "--shape-points", "30")


def test_help_names_it(capsys):
    assert cli.main(["--help"]) == 0
    assert "data prepare teachers DATASET" in capsys.readouterr().out
    assert cli.main(["data", "prepare", "--help"]) == 0
    assert "teachers" in capsys.readouterr().out
    assert cli.main(["data", "prepare", "teachers", "--help"]) == 0
    assert "--captions" in capsys.readouterr().out


def test_of_several_processes_only_the_first_computes(tmp_path, monkeypatch):
    from contrast3d.engine import distributed

    data = shapes()
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    with pytest.raises(MissingDataError, match="no such file"):  # the first one would have made it by now
        load_teacher(data, views=2, data_root=tmp_path, quiet=True)
    monkeypatch.setattr(distributed, "is_main", lambda: True)
    load_teacher(data, views=2, data_root=tmp_path, quiet=True)
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    assert load_teacher(data, views=2, data_root=tmp_path, quiet=True).dims == {"img": 3}
    assert Eyes.seen == 12


def test_recon_learns_from_a_cached_teacher(tmp_path):
    from contrast3d.methods.recon import ReCon
    from contrast3d.nn.patch_transformer import PatchTransformer

    data = shapes()
    teacher = load(data, tmp_path, quiet=True)
    torch.manual_seed(0)
    encoder = PatchTransformer(16, 1, 2, num_patches=6, patch_size=5, projections=teacher.dims)
    method = ReCon(encoder, teacher, decoder_depth=1, decoder_heads=2)
    numbers = method([data.clouds()])  # part3 has no caption: its term is left out
    assert {"loss", "img", "text"} <= set(numbers)
    assert all(torch.isfinite(value) for value in numbers.values())
    numbers["loss"].backward()
    assert encoder.projections["text"].weight.grad.abs().sum() > 0


def test_sets_are_told_apart_and_read_as_one(tmp_path, capsys):
    """Each set has a file of its own, so that joined sets can be prepared before; captions are of its own classes."""
    first = shapes()
    second = shapes(4, points=shapes(4).points + 1, classes=("jug", "ring"), title="More train")
    silent = shapes(4, points=shapes(4).points + 2, descriptions=(), title="Silent train")
    for data in (first, second):
        prepare_teachers(data, tmp_path / "teachers", "none", views=2, captions=("masked",), quiet=True)
    read = len(Reader.read)
    teacher = load_teacher([first, second, silent], "none", "minilm", captions="masked", views=2, data_root=tmp_path,
                           pick="mean", standardize=False)
    assert len(Reader.read) == read  # nothing was left to compute, and nothing is kept of the silent set
    assert "7 of 14 shapes have no caption" in capsys.readouterr().err
    assert len(list((tmp_path / "teachers").iterdir())) == 2
    alone = [load_teacher(data, "none", "minilm", captions="masked", views=2, data_root=tmp_path, pick="mean",
                          standardize=False) for data in (first, second)]
    found = teacher(Clouds.from_dense(torch.zeros(14, 30, 3), ids=torch.arange(14)))["text"]
    wanted = torch.cat([one(data.clouds())["text"] for one, data in zip(alone, (first, second))])
    assert torch.equal(found[:10].nan_to_num(-1), wanted.nan_to_num(-1))
    assert found[10:].isnan().all()
    with pytest.raises(DataError, match=r"Silent train \+ Silent train: no shape has a caption"):
        load_teacher([silent, silent], "none", "minilm", data_root=tmp_path)


def test_a_file_of_yours_about_other_shapes_is_not_overwritten(tmp_path):
    data, arguments = shapes(), {"text": "none", "quiet": True}
    path = prepare_teachers(data, tmp_path, views=2, **arguments).files["img"]
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"features of other shapes.*--restart"):
        prepare_teachers(shapes(points=data.points + 1), tmp_path, views=2, **arguments)
    with pytest.raises(DataError, match=r"made with views = 2; expected views = 3.*--restart"):
        prepare_teachers(data, tmp_path, views=3, **arguments)
    assert path.read_bytes() == before
    assert prepare_teachers(data, tmp_path, views=3, restart=True, **arguments).written == ["img"]


@pytest.mark.parametrize(("dataset", "split", "fields"), [
    ("LDraw40", "train", {"holdout": 4}), ("LDraw40", "test", {"holdout": 4}), ("SweetHome3D", "train", {}),
    ("own.npz", "train", {"up": "y"}), ("own.npz", "test", {}),
])
def test_parts_are_those_of_recipes(tmp_path, monkeypatch, dataset, split, fields):
    """What is prepared under the fields of a recipe is what the recipe looks for."""
    import tiny

    from contrast3d.recipes import table

    if dataset == "own.npz":
        dataset = str(tiny.write_npz(tmp_path / dataset))
    recipe = dataclasses.replace(table.find("point-mae-ldraw40"), dataset=dataset, shape_points=32, num_points=32,
                                 **fields)
    wanted = recipe.shapes(split, tmp_path)
    flags = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    assert cli.main(["data", "prepare", "teachers", dataset, *flags, "--split", split, "--text", "none", "--views", "1",
                     "--shape-points", "32", "-o", str(tmp_path / "teachers")]) == 0
    seen = Eyes.seen
    load_teacher(wanted, views=1, data_root=tmp_path, quiet=True)
    assert Eyes.seen == seen == len(wanted)


def test_what_extra_datasets_read_can_be_prepared(tmp_path):
    from contrast3d.recipes import table

    recipe = dataclasses.replace(table.find("point-mae-ldraw40"), extra_datasets=("SweetHome3D",))
    assert cli.main(["data", "prepare", "teachers", "SweetHome3D", "--split", "all", "--image", "none", "--views", "1",
                     "-o", str(tmp_path / "teachers")]) == 0
    read = len(Reader.read)
    load_teacher(recipe.pretraining_sets(tmp_path)[1], "none", "minilm", views=1, data_root=tmp_path, quiet=True)
    assert len(Reader.read) == read


def test_splits_that_are_none(tmp_path, fails):
    command = ["data", "prepare", "teachers", "SweetHome3D", "-o", tmp_path / "out", "--views", "1"]
    assert "has no trian split" in fails(2, *command, "--split", "trian")
    assert "--split all; here are train and test" in fails(2, *command, "--split", "all", "--holdout", "4")
    assert not (tmp_path / "out").exists()


def test_all_files_are_looked_at_before_any_is_made(tmp_path):
    data = shapes()
    text = prepare_teachers(data, tmp_path, "none", views=2, quiet=True).files["description"]
    text.write_bytes(b"no features")
    with pytest.raises(DataError, match=r"not readable.*--restart"):
        prepare_teachers(data, tmp_path, views=2, quiet=True)
    assert Eyes.seen == 0
    prepare_teachers(data, tmp_path, views=2, quiet=True, is_ours=True)  # of the cache it is made again
    assert len(load_features(text)) == 6


def test_features_of_different_weights_are_not_joined(tmp_path):
    from contrast3d.teachers.feature_files import joined

    parts = [Plan.of_images(shapes(title=title), "efficientnet-lite0", 2).make(tmp_path, quiet=True) for title in "ab"]
    other = dataclasses.replace(parts[1], header={**parts[1].header, "weights": "w9"})
    assert len(joined(parts)) == 12
    with pytest.raises(DataError, match="features of b: made by weights w9"):
        joined([parts[0], other])
