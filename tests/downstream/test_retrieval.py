"""The retrieval protocol: its baselines, its result, its mistakes."""

from __future__ import annotations

import pytest
import torch

import contrast3d as c3d
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.retrieval import retrieval
from contrast3d.errors import ConfigError, DataError
from contrast3d.types import Features


class Sizes(torch.nn.Module):
    """Features that tell the classes of `shapes` apart: a direction by the spread of the points."""

    embed_dim = 2

    def forward(self, clouds):
        spread = clouds.dense.std((1, 2))
        return Features(torch.stack([spread.cos(), spread.sin()], 1))


@pytest.fixture
def shapes():
    torch.manual_seed(0)
    labels = torch.arange(24) % 3
    points = torch.randn(24, 50, 3) * (1 + 0.4 * labels[:, None, None])
    return ShapeSet(points, labels, ("a", "b", "c"), title="Toys test")


def test_contestants_and_result(shapes):
    told = []
    fresh = lambda seed: c3d.nn.PointNet(4, widths=(4,))  # noqa: E731
    found = retrieval(Sizes(), (shapes, shapes), name="ours", draws=2, seed=3, make_untrained=fresh,
                      on_progress=told.append)
    assert told == list(found.values) == ["training-free", "untrained encoder", "ours"]
    assert [len(values) for values in found.values.values()] == [1, 2, 1]
    assert found.values["ours"][0] > 0.8
    assert found.dataset == "Toys"
    result = found.to_result("recipe", commit="c", command="x", device="cpu", seed=7)
    assert result["mean"] == found.values["ours"][0]
    assert (result["metric"], result["protocol"], result["std"]) == ("mean_average_precision", "retrieval", None)
    assert set(result["baselines"]) == {"training-free", "untrained encoder"}
    assert result["baselines"]["untrained encoder"]["std"] is not None
    assert found.render().row_count == 3


def test_unlabelled_shapes_are_left_out(shapes):
    labels = shapes.labels.clone()
    labels[:4] = -1
    some = ShapeSet(shapes.points, labels, shapes.classes, title="Toys test")
    assert c3d.evaluate.retrieval(Sizes(), lambda split: some, make_untrained=False).shapes == 20


def test_mistakes(shapes):
    with pytest.raises(DataError, match="no labels; expected a labelled set"):
        retrieval(Sizes(), ShapeSet(shapes.points))
    with pytest.raises(ConfigError, match="draws = 0"):
        retrieval(Sizes(), shapes, draws=0)
