import pytest
import torch
import torch.nn.functional as F

from contrast3d.downstream.zero_shot import (
    class_vectors,
    conse,
    imagenet_names,
    joined_queries,
    plain_words,
    zero_shot,
)
from contrast3d.errors import ConfigError, DataError

CLASSES = ("chair", "wall_plug", "lamp")


def some_prompts(phrase):
    return [f"{start}{phrase}{end}" for start in ("", "A ", "A model of a ") for end in (".", " in black.")]


def letters(texts):
    """A text teacher that counts letters."""
    return torch.tensor([[float(text.lower().count(c)) for c in "abcdefghijklmnopqrstuvwxyz "] for text in texts])


def test_nearest_by_cosine_whatever_the_lengths():
    vectors = torch.eye(3)
    labels = torch.tensor([0, 1, 2, 2])
    features = torch.tensor([[5.0, 1, 1], [0.0, 0.1, 0.0], [9.0, 0, 8], [0, 0.1, 0.2]])
    found = zero_shot(features, vectors * torch.tensor([1.0, 7.0, 3.0])[:, None], labels, CLASSES)
    assert found.prediction.predictions.tolist() == [0, 1, 0, 2]
    assert found.accuracy == 0.75
    assert found.class_mean == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert found.confused() == [("lamp", "chair", 1)]
    assert found.top5 == 1.0


def test_top5_of_many_classes():
    labels = torch.arange(8)
    cosines = torch.eye(8).roll(1, 1) + 0.5 * torch.eye(8)  # the true class comes second
    found = zero_shot(cosines, torch.eye(8), labels, tuple("abcdefgh"))
    assert found.accuracy == 0
    assert found.top5 == 1.0
    assert zero_shot(-torch.eye(8), torch.eye(8), labels, tuple("abcdefgh")).top5 == 0.0


def test_class_vectors_are_sums_over_the_prompts():
    vectors = class_vectors(letters, CLASSES, some_prompts)
    own = letters(some_prompts("wall plug"))
    assert len(own) == 6
    assert torch.allclose(vectors[1], own.sum(0))
    single = class_vectors(letters, CLASSES, lambda phrase: [phrase])
    assert torch.equal(single, letters(["chair", "wall plug", "lamp"]))
    other = class_vectors(letters, CLASSES, lambda phrase: [phrase], {"wall_plug": ("socket", "switch")})
    assert torch.equal(other[1], letters(["socket"])[0] + letters(["switch"])[0])
    assert torch.equal(other[0], single[0])


def test_shapes_described_by_their_class_are_found():
    labels = torch.tensor([2, 0, 1, 1])
    said = letters([f"a render of a {plain_words(CLASSES[i])}" for i in labels.tolist()])
    assert zero_shot(said, class_vectors(letters, CLASSES, some_prompts), labels, CLASSES).accuracy == 1


def test_queries_are_added_as_released():
    image, text = torch.randn(2, 3, 4)
    assert torch.allclose(joined_queries(image, text, 0.2), image + 0.2 * text)
    with pytest.raises(ConfigError, match="1280 dimensions and the text teacher's 384: not one space"):
        joined_queries(torch.zeros(1, 1280), torch.zeros(1, 384))


def test_conse_as_the_loop_it_is():
    torch.manual_seed(0)
    probabilities, names = torch.randn(5, 20).softmax(1), torch.randn(20, 6)
    found = conse(probabilities, names, top=3)
    for row, own in zip(probabilities, found):
        likeliest = sorted(range(20), key=lambda k: -row[k].item())[:3]
        total = sum(row[k] for k in likeliest)
        expected = sum(row[k] / total * names[k] / names[k].norm() for k in likeliest)
        assert torch.allclose(own, expected, atol=1e-6)
    certain = F.one_hot(torch.tensor([7]), 20).float()
    assert torch.allclose(conse(certain, names)[0], F.normalize(names[7], dim=0), atol=1e-6)
    assert conse(probabilities, names, top=50).shape == (5, 6)


def test_conse_leads_to_the_class():
    """A classifier that knows related things finds the class it does not know."""
    names = letters(["rocking chair", "table lamp", "wall clock plug"])
    labels = torch.tensor([1, 0])
    probabilities = torch.tensor([[0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])
    vectors = class_vectors(letters, ("chair", "lamp"), lambda phrase: [phrase])
    assert zero_shot(conse(probabilities, names, top=1), vectors, labels, ("chair", "lamp")).accuracy == 1


def test_imagenet_names():
    names = imagenet_names()
    assert len(names) == 1000
    assert len(set(names)) == 1000
    assert [names[i].split(",")[0] for i in (0, 1, 559, 765, 846, 999)] == [
        "tench", "goldfish", "folding chair", "rocking chair", "table lamp", "toilet tissue",
    ]


def test_wrong_inputs():
    labels = torch.tensor([0, 1])
    with pytest.raises(DataError, match="in a common space"):
        zero_shot(torch.zeros(2, 3), torch.zeros(3, 4), labels, CLASSES)
    with pytest.raises(DataError, match="labels from 0 to 2"):
        zero_shot(torch.ones(2, 3), torch.ones(3, 3), torch.tensor([0, -1]), CLASSES)
    with pytest.raises(DataError, match="NaN or infinity"):
        zero_shot(torch.full((2, 3), torch.nan), torch.ones(3, 3), labels, CLASSES)
    with pytest.raises(ConfigError, match="at least one prompt"):
        class_vectors(letters, CLASSES, lambda phrase: [])
    with pytest.raises(ConfigError, match="3 classes, 2 names"):
        conse(torch.ones(1, 3), torch.ones(2, 4))
