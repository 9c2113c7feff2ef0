"""Pickled files read without unpickling: nothing they name is imported, nothing they ask for is called."""

from contrast3d.inert_pickle.files import read_pickled
from contrast3d.inert_pickle.objects import Name, Stub

__all__ = ["Name", "Stub", "read_pickled"]
