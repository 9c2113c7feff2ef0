"""Feature files and the cached teacher: what is stored comes back, what does not fit is refused."""

import dataclasses

import pytest
import torch

from contrast3d.errors import DataError, MissingDataError
from contrast3d.teachers import Cached, FeatureFile, Teacher
from contrast3d.teachers.feature_files import check_header, load_features
from contrast3d.types import Clouds

HEADER = {"kind": "img", "teacher": "toy", "data_hash": "aaa", "dataset": "Toys", "views": 3}


def stored(shapes=5, views=3, dim=4, missing=(2,), **header) -> FeatureFile:
    features = torch.randn(shapes, views, dim, generator=torch.Generator().manual_seed(dim)).half()
    rows = torch.arange(shapes)
    rows[list(missing)] = -1
    return FeatureFile(features, rows, HEADER | header, tuple(f"s{i}" for i in range(shapes)))


def clouds(ids) -> Clouds:
    return Clouds.from_dense(torch.zeros(len(ids), 4, 3), ids=torch.tensor(ids))


def test_what_is_saved_is_read(tmp_path):
    file = stored()
    file.save(tmp_path / "deep" / "a.safetensors")
    again = load_features(tmp_path / "deep" / "a.safetensors")
    assert torch.equal(again.features, file.features)
    assert torch.equal(again.rows, file.rows)
    assert again.header == HEADER
    assert again.names == file.names
    assert again.missing == ["s2"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.safetensors"]


def test_files_that_are_none_are_one_error(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(MissingDataError, match="no such file"):
        load_features(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing of the kind")
    save_file({"features": torch.zeros(1)}, tmp_path / "c.safetensors")
    for name in "bc":
        with pytest.raises(DataError, match="not readable"):
            load_features(tmp_path / f"{name}.safetensors")
    file = stored()
    dataclasses.replace(file, rows=file.rows + 9).save(tmp_path / "d.safetensors")
    with pytest.raises(DataError, match="features"):
        load_features(tmp_path / "d.safetensors")


def test_features_of_other_data_are_refused_and_both_hashes_named(tmp_path):
    check_header(tmp_path, HEADER, HEADER, "mend it")
    with pytest.raises(DataError, match=r"data hash aaa \(Toys\); expected bbb \(More\)\. Try: mend it"):
        check_header(tmp_path, HEADER, HEADER | {"data_hash": "bbb", "dataset": "More"}, "mend it")
    with pytest.raises(DataError, match="views = 3; expected views = 8"):
        check_header(tmp_path, HEADER, HEADER | {"views": 8}, "mend it")


def test_one_view_is_drawn_by_the_seed_and_missing_rows_are_nan():
    file = stored()
    teacher = Cached({"img": file})
    assert isinstance(teacher, Teacher)
    assert teacher.dims == {"img": 4}
    assert teacher.missing == {"img": ["s2"]}
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append(teacher(clouds([4, 2, 0] * 9))["img"])
    assert draws[0].dtype == torch.float32
    assert torch.equal(draws[0].nan_to_num(9), draws[1].nan_to_num(9))
    assert draws[0].isnan().all(1).tolist() == [False, True, False] * 9
    fours = {tuple(row) for row in draws[0][::3].tolist()}
    assert fours == {tuple(row) for row in file.features[4].float().tolist()}  # each view comes, whole


def test_the_mean_of_views_and_standard_features():
    file = stored(40, missing=())
    mean = Cached({"img": file}, "mean")(clouds(list(range(40))))["img"]
    assert torch.allclose(mean, file.features.float().mean(1), atol=1e-3)
    assert torch.allclose(file.mean_features(), mean, atol=1e-3)
    flat = dataclasses.replace(file, features=file.features * 3 + 5)
    spread = torch.cat([Cached({"img": flat}, standardize=True)(clouds(list(range(40))))["img"] for _ in range(60)])
    assert spread.mean(0).abs().max() < 0.1
    assert (spread.std(0) - 1).abs().max() < 0.1
    standard = Cached({"img": flat}, "mean", True)
    back = standard.restored("img", standard(clouds([3]))["img"])
    assert torch.allclose(back, flat.features[3:4].float().mean(1), atol=1e-2)
    own = Cached({"img": flat}, "mean", True, statistics={"img": (torch.full((4,), 5.0), torch.full((4,), 3.0))})
    assert torch.allclose(own(clouds([3]))["img"], mean[3:4], atol=1e-2)


def test_features_that_do_not_vary_are_not_blown_up():
    file = stored(30, missing=())
    file.features[:, :, 0] = 1 + 1e-3 * file.features[:, :, 0]
    out = Cached({"img": file}, standardize=True)(clouds(list(range(30))))["img"]
    assert out[:, 0].abs().max() < 0.1
    assert out[:, 1].abs().max() > 1


def test_shapes_may_share_what_is_said_of_them():
    file = FeatureFile(torch.arange(6.0).view(3, 1, 2), torch.tensor([2, 0, 2, -1]))
    out = Cached({"text": file})(clouds([0, 1, 2, 3]))["text"]
    assert out[:3].tolist() == [[4, 5], [0, 1], [4, 5]]
    assert out[3].isnan().all()
    assert file.statistics[0].tolist() == [2, 3]  # of what some shape has; each thing once


def test_a_part_of_the_set_keeps_its_teacher():
    file = stored(missing=())
    part = Cached({"img": file}, "mean").subset(torch.tensor([4, 1, 3]))
    assert len(part) == 3
    assert torch.allclose(part(clouds([2, 0]))["img"], file.features[[3, 4]].float().mean(1))
    assert torch.allclose(part.subset(torch.tensor([1]))(clouds([0]))["img"], file.features[[1]].float().mean(1))
    with pytest.raises(DataError, match="rows of 3 shapes"):
        part(clouds([3]))


def test_what_cannot_work_is_one_error():
    with pytest.raises(DataError, match="different sizes"):
        Cached({"img": stored(5), "text": stored(6)})
    with pytest.raises(DataError, match="no files"):
        Cached({})
    with pytest.raises(DataError, match="no ids"):
        Cached({"img": stored()})(Clouds.from_dense(torch.zeros(1, 4, 3)))
