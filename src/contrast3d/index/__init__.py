"""Shapes as unit vectors, in a folder of plain files or in memory: stored, searched, freed of near-duplicates.

What computes the vectors is handed in: this package knows no network and no run (see `recipes.shape_index`).
"""

from contrast3d.index.shards import Entry, Shard
from contrast3d.index.store import Header, IndexDir
from contrast3d.index.vectors import Index

__all__ = ["Entry", "Header", "Index", "IndexDir", "Shard"]
