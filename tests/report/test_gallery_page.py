"""The gallery page and the strip of pictures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from contrast3d.report.clusters import cluster_rows
from contrast3d.report.gallery import Gallery
from contrast3d.report.page import write_gallery
from contrast3d.report.strip import write_strip


def clusters(count: int, each: int) -> np.ndarray:
    """Unit features about `count` axes."""
    rng = np.random.default_rng(0)
    features = np.repeat(np.eye(count, dtype=np.float32), each, axis=0) + 0.05 * rng.normal(size=(count * each, count))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def test_clusters_are_found_and_begin_with_their_centre():
    found = cluster_rows(clusters(3, 10), 3)
    assert sorted(tuple(sorted(rows.tolist())) for rows in found) == [
        tuple(range(0, 10)), tuple(range(10, 20)), tuple(range(20, 30))]
    assert len(cluster_rows(clusters(3, 1), 9)) == 3


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_the_page_is_whole_and_the_same_again(tmp_path, count):
    rng = np.random.default_rng(1)
    gallery = Gallery(
        rng.normal(size=(count, 64, 3)).astype(np.float32), rng.normal(size=(count, 4)).astype(np.float32),
        names=tuple(f"deep/<b>{i}" for i in range(count)), title="shapes",
    )
    pages = [write_gallery(tmp_path / name, gallery, title="T", summary={"shapes": count}) for name in ("a", "b")]
    first, again = (page.read_bytes() for page in pages)
    assert first == again
    assert b"<b>0" not in first
    assert (b"Nearest neighbours" in first) == (count > 1)
    assert (b">Clusters<" in first) == (count > 3)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_strips(tmp_path, suffix):
    clouds = np.random.default_rng(0).normal(size=(8, 64, 3)).astype(np.float32)
    path = write_strip(tmp_path / "deep" / f"strip.{suffix}", list(clouds), [("query", "a/b.stl")] * 8)
    assert path.stat().st_size > 1000
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_names_are_no_formulas_and_no_warnings(tmp_path):
    clouds = list(np.random.default_rng(0).normal(size=(2, 64, 3)).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_strip(tmp_path / "strip.png", clouds, [("query", r"$\broken{$.stl"), ("1", "部品 7.glb")])
