"""`evaluate zero-shot` and `evaluate part-segmentation` on small runs, with toy teachers and toy parts."""

from __future__ import annotations

import dataclasses
import zlib

import pytest
import tiny
import torch

from contrast3d import cli
from contrast3d.data.parts import PartScheme
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.part_table import METRICS
from contrast3d.errors import ConfigError
from contrast3d.recipes import parts, table, teachers, zero_shot
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.reporting import report

pytestmark = pytest.mark.filterwarnings("ignore:Features have")
FIELDS = {"shape_points": 48, "num_points": 32, "width": 32, "depth": 3, "num_patches": 8, "patch_size": 8,
          "decoder_depth": 1, "epochs": 1, "warmup_epochs": 0.0, "batch_size": 16, "probe_every": 1}


class Eyes:
    """An image teacher: 1,280 numbers of a picture, of which the first 1,000 are its classes."""

    name, dim, size, weights = "efficientnet-lite0", 1280, 16, "w1"

    def encode(self, images):
        return images.flatten(1)[:, :640].repeat(1, 2)

    def classify(self, features):
        return features[:, :1000].softmax(1)


class Reader:
    """A text teacher: a random direction for each word, summed."""

    name, dim, weights = "minilm", 384, "w2"

    def encode(self, texts):
        return torch.stack([sum(self.word(w) for w in text.lower().replace(".", " ").split()) for text in texts])

    @staticmethod
    def word(word):
        return torch.randn(384, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    patch, threads = pytest.MonkeyPatch(), torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("protocols")
    patch.setattr(teachers, "image_teacher", lambda name, device="cpu": Eyes())
    patch.setattr(teachers, "text_teacher", lambda name, device="cpu": Reader())
    patch.setattr(teachers, "weights_hash", lambda kind, name: {"img": "w1", "text": "w2"}[kind])
    patch.setenv("CONTRAST3D_CACHE", str(folder / "cache"))
    recipe = dataclasses.replace(
        table.find("recon-ldraw40"), dataset=str(tiny.write_npz(folder / "own.npz")), text_teacher="minilm",
        image_teacher="efficientnet-lite0", captions="class-prompts", teacher_views=2, **FIELDS,
    )
    yield pretrain("recon-ldraw40", recipe, Machine(out=folder / "run", quiet=True))[0]
    torch.set_num_threads(threads)
    patch.undo()


def described(shapes=12):
    """Shapes whose captions are their classes' names."""
    names = ("red_cup", "box", "lamp")
    labels = torch.arange(shapes) % 3
    texts = tuple(f"A nice {names[i].replace('_', ' ')}" for i in labels.tolist())
    points = torch.randn(shapes, 48, 3, generator=torch.Generator().manual_seed(0))
    return ShapeSet(points, labels, names, tuple(map(str, range(shapes))), descriptions=texts, title="Things test")


def test_zero_shot_of_each_query_beside_its_baselines(run, capsys):
    assert cli.main(["evaluate", "zero-shot", str(run.path), "--draws", "2"]) == 0
    capsys.readouterr()
    saved = {name: r for name, r in run.folder.results().items() if name.startswith("zero-shot")}
    columns = [f"{query}_{prompts}" for query in ("text", "image") for prompts in ("ensemble", "single")]
    assert sorted({r["condition"] for r in saved.values()}) == sorted(columns)
    result = saved["zero-shot-ownheldoutpart-text_ensemble"]
    assert result["baselines"]["chance"]["mean"] == pytest.approx(1 / 3)
    assert set(result["baselines"]) == {"chance", "majority class", "untrained encoder"}  # prompts are labels
    assert result["classes"] == ["class0", "class1", "class2"]
    assert sum(map(sum, result["confusion"])) == 12
    assert result["mean"] == sum(result["confusion"][i][i] for i in range(3)) / 12
    image = saved["zero-shot-ownheldoutpart-image_ensemble"]
    assert "the teacher itself" in image["baselines"]
    picture = (run.path / "results" / "zero-shot-ownheldoutpart-text_ensemble.svg").read_text()
    assert picture.startswith("<svg")
    assert "class1" in picture
    page = report(run).read_text()
    assert "Named without labels" in page
    assert page.count("_ensemble: ") == 2  # a picture of each query


def test_a_student_that_says_what_its_teacher_says_is_right(run, tmp_path):
    """Captions name the classes, so the text teacher's own words are judged right, in whatever space."""
    test = described()
    recipe = dataclasses.replace(run.recipe, captions="description")
    speech = zero_shot.Speech(recipe, test.classes, tmp_path, "cpu", quiet=True)
    speech.__dict__["statistics"] = {"text": (torch.full((384,), 0.3), torch.full((384,), 2.0)),
                                     "img": (torch.zeros(1280), torch.ones(1280))}
    said = speech.of_teachers(test)
    for prompts in ("ensemble", "single"):
        found = zero_shot.zero_shot(*speech.compared(said, "text", prompts), test.labels, test.classes)
        assert found.accuracy == 1
    wrong = {"text": said["text"].roll(1, 0)}
    assert zero_shot.zero_shot(*speech.compared(wrong, "text", "single"), test.labels, test.classes).accuracy == 0


def test_images_without_text_go_by_way_of_their_classes(run, tmp_path):
    speech = zero_shot.Speech(run.recipe, ("rocking chair", "table lamp"), tmp_path, "cpu", quiet=True)
    mean, spread = torch.randn(1280), torch.rand(1280) + 0.5
    speech.__dict__["statistics"] = {"img": (mean, spread), "text": (torch.zeros(384), torch.ones(384))}
    seen = torch.zeros(2, 1280)
    seen[0, 846], seen[1, 765] = 50.0, 50.0  # ImageNet's table lamp and rocking chair
    features, vectors = speech.compared({"img": (seen - mean) / spread}, "image", "single")
    found = zero_shot.zero_shot(features, vectors, torch.tensor([1, 0]), speech.classes)
    assert found.accuracy == 1
    assert speech.queries == ("text", "image")


def test_zero_shot_needs_teachers(run):
    alone = dataclasses.replace(run, recipe=dataclasses.replace(
        run.recipe, method="point-mae", image_teacher="none", text_teacher="none"))
    with pytest.raises(ConfigError, match=r"what teachers taught, and .* had none.*--text-teacher"):
        evaluate("zero-shot", alone)
    with pytest.raises(ConfigError, match="zero-shot knows no --epochs"):
        evaluate("zero-shot", run, epochs=3)


def halves(shapes, title, seed):
    points = torch.rand(shapes, 48, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    labels = torch.arange(shapes) % 2
    return ShapeSet(points, labels, ("a", "b"), tuple(map(str, range(shapes))), title=title,
                    point_labels=(points[..., 2] > 0).long())


@pytest.fixture
def toy_parts(monkeypatch):
    scheme = PartScheme(("low", "high"), torch.ones(2, 2, dtype=torch.bool), (0, 1))
    sets = halves(16, "Halves train", 0), halves(6, "Halves test", 1), scheme
    monkeypatch.setattr(parts, "_labelled", lambda *given: sets)


def test_part_segmentation_saves_each_column(run, toy_parts, capsys):
    arguments = ["--labels", "50%", "all", "--draws", "2", "--epochs", "1"]
    assert cli.main(["evaluate", "part-segmentation", str(run.path), *arguments]) == 0
    assert "instance mIoU" in capsys.readouterr().out
    saved = {name: r for name, r in run.folder.results().items() if name.startswith("part-segmentation")}
    assert set(saved) == {f"part-segmentation-halves-{c}-{m}" for c in ("50percent", "all") for m in METRICS}
    result = saved["part-segmentation-halves-50percent-instance_miou"]
    assert set(result["baselines"]) == {"majority part of each class", "from scratch"}
    assert len(result["values"]) == 2
    assert result["paper"] is None


def test_part_segmentation_as_released(run, toy_parts):
    found = evaluate("part-segmentation", run, published=True, epochs=1)
    assert found.budgets == (None,)
    assert found.protocol.startswith("part segmentation as released (")
    assert "part-segmentation-published-halves-all-class_miou" in run.folder.results()


def test_patches_grow_with_the_points(run):
    encoder = parts._sized(run.encoder(), 32, 128)
    assert encoder.num_patches == 32
    assert parts._sized(run.encoder(), 32, 32).num_patches == 8


def test_parts_need_tokens_and_labels(run):
    with pytest.raises(ConfigError, match="in 'ModelNet40'; there are LDraw40Parts, ShapeNetPart"):
        evaluate("part-segmentation", run, dataset="ModelNet40")
    other = dataclasses.replace(run, recipe=table.find("simclr-ldraw40"))
    with pytest.raises(ConfigError, match="reads tokens of patches"):
        evaluate("part-segmentation", other)
