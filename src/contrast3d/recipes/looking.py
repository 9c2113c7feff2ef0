"""What the verbs of an index show: a strip of pictures, a list of duplicates, a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contrast3d.errors import ConfigError
from contrast3d.index.duplicates import Group
from contrast3d.index.store import write_csv
from contrast3d.index.vectors import Index
from contrast3d.recipes.shape_index import Hit, Query
from contrast3d.report.gallery import Gallery, spread_rows
from contrast3d.report.page import write_gallery
from contrast3d.report.strip import write_strip

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".webp")


def check_picture(path: Path) -> None:
    """A ConfigError for a suffix that no picture has: before the search, not after it."""
    if path.suffix.lower() not in PICTURES:
        raise ConfigError(f"out = {str(path)!r}; expected a picture ending in {', '.join(PICTURES)}")


def strip(index: Index, query: Query, hits: Sequence[Hit], path: Path) -> Path:
    """A picture of the query and what was found, nearest first."""
    count = index.shards[0].points.shape[1]
    clouds = [query.points[:count], *index.points([hit.row for hit in hits])]
    captions = [("query", query.name), *((f"{hit.rank}   {hit.distance:.4f}", hit.name) for hit in hits)]
    return write_strip(path, clouds, captions)


def duplicates_csv(index: Index, groups: Sequence[Group], path: Path) -> Path:
    """A row per shape that has a near-duplicate: group, name, distance to the nearest of the group, which that is."""
    rows = (
        (number, index.entries[row].name, f"{distance:.6f}", index.entries[nearest].name)
        for number, group in enumerate(groups, 1)
        for row, distance, nearest in zip(group.rows, group.distances, group.nearest)
    )
    return write_csv(path, ("group", "name", "distance", "nearest"), rows)


def duplicates_text(index: Index, groups: Sequence[Group], most: int = 20) -> str:
    """The largest groups, a line per shape with its distance to the nearest of the group."""
    lines = []
    for number, group in enumerate(groups[:most], 1):
        lines.append(f"group {number}: {len(group.rows)} shapes")
        lines += [f"  {d:.4f}  {index.name(row)}" for row, d in zip(group.rows, group.distances)]
    if len(groups) > most:
        lines.append(f"... and {_groups(len(groups) - most)} more")
    copies = sum(len(group.rows) - 1 for group in groups)
    remain = f"without duplicates {len(index) - copies:,} of {len(index):,} shapes remain"
    return "\n".join([*lines, f"{_groups(len(groups))}; {remain}"])


def _groups(count: int) -> str:
    return f"{count:,} group{'' if count == 1 else 's'}"


def gallery(index: Index, path: Path, most: int = 1000) -> Path:
    """A page of clusters, neighbours and a map of the shapes in an index; of more than `most` a random choice."""
    if most < 1:
        raise ConfigError(f"most = {most}; expected at least 1")
    rows = index.rows[spread_rows(len(index), most)]
    header = index.header
    shown = f"{len(rows):,} of them" if len(rows) < len(index) else "all of them"
    summary = {"index": index.folder or "in memory", "shapes": f"{len(index):,}; here {shown}",
               "features": f"{header.width} wide, of {header.num_points} points a shape",
               "run": header.run or "unknown", "recipe": header.recipe or "none"}
    found = Gallery(
        points=index.points(rows), features=index.vectors(rows), names=tuple(index.name(row) for row in rows.tolist()),
        title="shapes",
    )
    title = f"Shapes of {index.folder.resolve().name}" if index.folder else "Shapes"
    return write_gallery(path, found, title=title, summary=summary, most=most)
