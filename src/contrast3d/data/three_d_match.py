"""3DMatch (Zeng et al., CVPR 2017): fused fragments of indoor scenes with their poses, for registration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contrast3d.data.file_sets import judge_broken, read_each
from contrast3d.data.fragment_files import with_gt_pairs
from contrast3d.data.scene_views import EXPECTED, SceneViews, load_views
from contrast3d.errors import DataError, MissingDataError

TEST = (  # the eight scenes of the test set
    "7-scenes-redkitchen", "sun3d-home_at-home_at_scan1_2013_jan_1", "sun3d-home_md-home_md_scan9_2012_sep_30",
    "sun3d-hotel_uc-scan3", "sun3d-hotel_umd-maryland_hotel1", "sun3d-hotel_umd-maryland_hotel3",
    "sun3d-mit_76_studyroom-76-1studyroom2", "sun3d-mit_lab_hj-lab_hj_tea_nov_2_2012_scan1_erika",
)
SOURCE = "3DMatch (Zeng et al. 2017), 3dmatch.cs.princeton.edu"
LAYOUT_TEXT = (
    f"  3dmatch/<scene>.npz, one for each scene: {EXPECTED}; made of the fragments of {SOURCE}\n"
    "  3dmatch/<scene>-evaluation/gt.log: the pairs that 3DMatch registers; only where these are asked for"
)


def ThreeDMatch(root: str | Path, scenes: Sequence[str] | None = None, *, gt: bool = False) -> list[SceneViews]:
    """The scenes of a folder of 3DMatch fragments, by name; or one file.

    scenes: which, by name or by a part of it that only one has ("mit_lab"), in that order; None for all. gt: with the
    pairs that 3DMatch's own lists have (`fragment_files.with_gt_pairs`), for `registration(..., pairs="gt")`.
    """
    files = list_scenes(Path(root))
    if scenes is not None:
        files = [_named(files, scene, root) for scene in scenes]
    found, _, broken = read_each(load_views, files)
    judge_broken("3DMatch", broken, len(files))
    return [with_gt_pairs(scene, files[0].parent) for scene in found] if gt else found


def list_scenes(root: Path) -> list[Path]:
    """The files of the scenes in `root` or in its folder 3dmatch; a MissingDataError where there are none."""
    if root.is_file():
        return [root]
    for folder in (root / "3dmatch", root / "3DMatch", root):  # other sets may lie beside the folder
        files = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))
        if files:
            return files
    found = "no scenes of 3DMatch" if root.exists() else "no such folder"
    raise MissingDataError(str(root), found, f"this layout there or below:\n{LAYOUT_TEXT}")


def _named(files: list[Path], scene: str, root: str | Path) -> Path:
    exact = [path for path in files if path.stem == scene]
    fits = exact or [path for path in files if scene in path.stem]
    if len(fits) != 1:
        found = f"{len(fits)} scenes are called {scene!r}"
        raise DataError(str(root), found, f"one of {', '.join(path.stem for path in files)}")
    return fits[0]


def problems(root: str | Path) -> list[str]:
    """What keeps the test set under `root` from being whole, one line each; empty when nothing does."""
    try:
        files = list_scenes(Path(root))
    except DataError as error:
        return [str(error)]
    broken = read_each(load_views, files)[2]
    here = {path.stem for path in files}
    missing = [f"{root}: no {name}.npz; expected the eight test scenes" for name in TEST if name not in here]
    return [f"{line} (source: {SOURCE})" for line in broken + missing]
