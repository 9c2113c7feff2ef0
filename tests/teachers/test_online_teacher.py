"""The online teacher, with toy networks."""

import pytest
import torch

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.shaded_views import shaded_views
from contrast3d.teachers import Online, Teacher
from contrast3d.types import Clouds


class Brightness:
    """An image teacher: the mean grey of a picture, twice."""

    name, dim, size, weights = "brightness", 2, 24, "0"

    def encode(self, images):
        return images.mean((1, 2, 3))[:, None].expand(-1, 2)


class Length:
    """A text teacher: how long a sentence is."""

    name, dim, weights = "length", 1, "0"

    def encode(self, texts):
        return torch.tensor([[float(len(text))] for text in texts])


def clouds(ids=(2, 0, 1)) -> Clouds:
    torch.manual_seed(0)
    return Clouds.from_dense(torch.randn(len(ids), 40, 3), ids=torch.tensor(ids))


def test_pictures_are_of_the_clouds_as_they_come():
    teacher = Online(Brightness(), views=2)
    assert isinstance(teacher, Teacher)
    assert teacher.dims == {"img": 2}
    batch = clouds()
    expected = shaded_views(batch.dense, 2, 24).mean((1, 2, 3, 4))
    assert torch.allclose(teacher(batch)["img"][:, 0], expected, atol=1e-5)


def test_captions_are_drawn_and_missing_ones_are_nan():
    teacher = Online(text=Length(), captions=["", ["four", "sixsix"], "one"])
    assert teacher.dims == {"text": 1}
    batch = clouds()
    drawn = torch.cat([teacher(batch)["text"] for _ in range(30)], 1)
    assert (drawn[0] == 3).all()
    assert drawn[1].isnan().all()
    assert set(drawn[2].tolist()) == {4, 6}
    again = []
    for _ in range(2):
        torch.manual_seed(1)
        again.append([float(teacher(batch)["text"][2]) for _ in range(9)])
    assert again[0] == again[1]  # torch's generator is all there is to it


def test_what_cannot_work_is_one_error():
    with pytest.raises(ConfigError, match="neither"):
        Online()
    with pytest.raises(ConfigError, match="no captions"):
        Online(text=Length())
    with pytest.raises(DataError, match="no ids"):
        Online(text=Length(), captions=["a"])(Clouds.from_dense(torch.zeros(1, 4, 3)))
