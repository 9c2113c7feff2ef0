"""The data sets this library knows: what they are, under which terms, how they lie on disk, who reads them.

Adding one: write its reader in a file of its own, then add one entry to DATASETS below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from contrast3d.data import arrays, folder, modelnet40, s3dis, scannet, scanobjectnn, shapenet55, shapenetpart
from contrast3d.data import three_d_match as threedmatch
from contrast3d.data.shape_files import SUFFIXES
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, Contrast3dError

Reader = Callable[..., ShapeSet]


@dataclass(frozen=True)
class DataSet:
    """One line of `contrast3d data list`.

    read: (split, root, num_points) -> ShapeSet; embedded sets ignore the root.
    problems: root -> one line for each thing that is missing or odd, with how it must look.
    layout: how the files must lie below the root; empty for an embedded set.
    """

    name: str
    what: str
    shapes: str
    classes: str
    splits: tuple[str, ...]
    terms: str
    source: str
    read: Reader
    problems: Callable[[str | Path], list[str]]
    layout: str = ""

    @property
    def embedded(self) -> bool:
        return not self.layout


def _ldraw40(split: str, root: str | Path, num_points: int) -> ShapeSet:
    from contrast3d.data.ldraw40 import LDraw40

    return _first_points(LDraw40(split), num_points)


def _ldraw40_parts(split: str, root: str | Path, num_points: int) -> ShapeSet:
    from contrast3d.data.ldraw40_parts import LDraw40Parts

    return _first_points(LDraw40Parts(split), num_points)


def _sweethome3d(split: str, root: str | Path, num_points: int) -> ShapeSet:
    from contrast3d.data.sweethome3d import SweetHome3D

    return _first_points(SweetHome3D(split), num_points)


def _ldraw_pool(split: str, root: str | Path, num_points: int) -> ShapeSet:
    from contrast3d.data.ldraw40 import LDrawPool

    return _first_points(LDrawPool(root), num_points)


def _first_points(shapes: ShapeSet, num_points: int) -> ShapeSet:
    if num_points > shapes.num_points:
        raise ConfigError(f"{shapes.title} has {shapes.num_points} points a shape, not {num_points}")
    first = lambda v: None if v is None else v[:, :num_points].contiguous()  # noqa: E731
    return replace(shapes, points=first(shapes.points), point_labels=first(shapes.point_labels))


def _arrays(split: str, root: str | Path, num_points: int | None) -> ShapeSet:
    return arrays.load_arrays(root, num_points)


def _folder(split: str, root: str | Path, num_points: int) -> ShapeSet:
    return folder.load_folder(root, num_points)


def _fails(read: Reader, split: str, num_points: int | None, root: str | Path) -> list[str]:
    """Why `read` cannot read the set: the only check there is for one that is a single file."""
    try:
        read(split, root, num_points)
    except Contrast3dError as error:
        return [str(error)]
    return []


DATASETS = (
    DataSet(
        "LDraw40", "CAD parts of the LDraw library", "2,537", "40", ("train", "test", "all"), "CC BY 2.0",
        "Debian's ldraw-parts", _ldraw40, partial(_fails, _ldraw40, "all", 1024),
    ),
    DataSet(
        "LDraw40Parts", "LDraw-40 with a family for each point", "2,537", "40", ("train", "test", "all"), "CC BY 2.0",
        "Debian's ldraw-parts", _ldraw40_parts, partial(_fails, _ldraw40_parts, "all", 1024),
    ),
    DataSet(
        "SweetHome3D", "furniture of Sweet Home 3D", "747", "16", ("all", "labelled"), "CC0 and CC BY 3.0",
        "Debian's sweethome3d-furniture", _sweethome3d, partial(_fails, _sweethome3d, "all", 1024),
    ),
    DataSet(
        "LDrawPool", "LDraw parts outside LDraw-40", "3,204", "none", ("all",), "CC BY 2.0",
        "Debian's ldraw-parts", _ldraw_pool, partial(_fails, _ldraw_pool, "all", 1024),
        "  ldraw-pool.npz, written by `python tools/build_ldraw40.py --pool FOLDER/ldraw-pool.npz`",
    ),
    DataSet(
        "ModelNet40", "CAD models of things and vehicles", "12,311", "40", ("train", "test"),
        "academic research only", "Princeton ModelNet (Wu et al., CVPR 2015), modelnet.cs.princeton.edu",
        modelnet40.ModelNet40, modelnet40.problems, modelnet40.layout_text(),
    ),
    DataSet(
        "ModelNet10", "ten classes of ModelNet40", "4,899", "10", ("train", "test"),
        "academic research only", "Princeton ModelNet (Wu et al., CVPR 2015), modelnet.cs.princeton.edu",
        modelnet40.ModelNet10, partial(modelnet40.problems, family=modelnet40.MODELNET10),
        modelnet40.layout_text(modelnet40.MODELNET10),
    ),
    DataSet(
        "ShapeNetPart", "ShapeNet models with part labels", "16,881", "16",
        ("train", "val", "test", "trainval"), "academic research only",
        "ShapeNet (Yi et al., SIGGRAPH Asia 2016), shapenet.org",
        shapenetpart.ShapeNetPart, shapenetpart.problems, shapenetpart.LAYOUT_TEXT,
    ),
    DataSet(
        "ShapeNet55", "ShapeNet models as clouds of points", "52,470", "55", ("train", "test", "all"),
        "academic research only", shapenet55.SOURCE, shapenet55.ShapeNet55, shapenet55.problems,
        shapenet55.LAYOUT_TEXT,
    ),
    *(
        DataSet(
            f"ScanObjectNN{ending}", f"scanned objects, {what}", shapes, "15", ("train", "test"),
            "academic research only", scanobjectnn.SOURCE, partial(scanobjectnn.ScanObjectNN, variant=variant),
            partial(scanobjectnn.problems, variant=variant), scanobjectnn.layout_text(variant),
        )
        for ending, variant, what, shapes in (
            ("", "PB_T50_RS", "moved and scaled", "14,298"), ("-OBJ-BG", "OBJ_BG", "with background", "2,890"),
            ("-OBJ-ONLY", "OBJ_ONLY", "alone", "2,890"),
        )
    ),
    DataSet(
        "arrays", "your own .npz, .npy or .h5 file", "any", "any", ("all",), "your own", "you",
        _arrays, partial(_fails, _arrays, "all", None),
        f"  .npz or .h5: {arrays.LAYOUT}\n  .npy: points alone",
    ),
    DataSet(
        "folder", "your own meshes and point clouds", "any", "any", ("all",), "your own", "you",
        _folder, folder.broken_files, f"  files ending in {', '.join(SUFFIXES)}, in any sub-folders",
    ),
)


def _of_scenes(split: str, root: str | Path, num_points: int) -> ShapeSet:
    raise ConfigError("a data set of scenes, not of single shapes. Try: a recipe of scenes, point-contrast-rooms say")


SCENES = (
    DataSet(
        "Rooms", "furnished indoor rooms, generated", "300", "20", ("train", "val", "test"), "none",
        "made on the spot", _of_scenes, lambda root: [],
    ),
    DataSet(
        "3DMatch", "fused fragments of indoor scans", "8", "none", ("all",), "research only", threedmatch.SOURCE,
        _of_scenes, threedmatch.problems, threedmatch.LAYOUT_TEXT,
    ),
    DataSet(
        "S3DIS", "six floors of offices, labelled", "272", "13", ("train", "test", "all"), "non-commercial",
        s3dis.SOURCE, _of_scenes, s3dis.problems, s3dis.LAYOUT_TEXT,
    ),
    DataSet(
        "ScanNet", "indoor scans, labelled", "1,613", "20", ("train", "val", "test"), "terms to sign",
        scannet.SOURCE, _of_scenes, scannet.problems, scannet.LAYOUT_TEXT,
    ),
)


def find(name: str) -> DataSet:
    """The data set of that name, whatever its case and dashes; a ConfigError names those there are."""
    plain = lambda text: "".join(c for c in text.lower() if c.isalnum())  # noqa: E731
    for dataset in (*DATASETS, *SCENES):
        if plain(dataset.name) == plain(name):
            return dataset
    raise ConfigError(f"no data set {name!r}; there are {', '.join(d.name for d in (*DATASETS, *SCENES))}")


def table() -> str:
    """What `contrast3d data list` prints: one line a data set."""
    header = ("name", "{}", "classes", "splits", "where", "terms", "what")
    rows = [
        (d.name, d.shapes, d.classes, ",".join(d.splits), "embedded" if d.embedded else "your disk", d.terms,
         d.what)
        for d in (*DATASETS, *SCENES)
    ]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    line = lambda row: "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()  # noqa: E731
    parts = []
    for what, some in (("shapes", rows[: len(DATASETS)]), ("scenes", rows[len(DATASETS) :])):
        heading = [cell.format(what) for cell in header]
        parts.append("\n".join([line(heading), "  ".join("-" * width for width in widths), *map(line, some)]))
    return "\n\n".join(parts)


def describe(name: str) -> str:
    """What one data set is, how its files must lie, and where they officially come from."""
    d = find(name)
    kind = "scenes" if d in SCENES else "shapes"
    where = "inside the package" if d.embedded else f"one of these layouts:\n{d.layout}"
    return (
        f"{d.name}: {d.what}; {d.shapes} {kind}, {d.classes} classes, splits {', '.join(d.splits)}\n"
        f"terms: {d.terms}\nsource: {d.source}\nfiles: {where}"
    )


def check(name: str, root: str | Path) -> list[str]:
    """What `contrast3d data check NAME` prints: a line for everything missing or odd; else empty."""
    return find(name).problems(root)
