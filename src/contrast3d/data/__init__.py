"""Data sets, array files, folders, transforms and loaders; `contrast3d.datasets` is this package."""

from contrast3d.data.arrays import load_arrays
from contrast3d.data.folder import load_folder
from contrast3d.data.ldraw40 import LDraw40
from contrast3d.data.loader import ViewLoader
from contrast3d.data.modelnet40 import ModelNet10, ModelNet40
from contrast3d.data.presets import preset
from contrast3d.data.scanobjectnn import ScanObjectNN
from contrast3d.data.shapenet55 import ShapeNet55
from contrast3d.data.shapenetpart import ShapeNetPart
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.sweethome3d import SweetHome3D

__all__ = [
    "LDraw40", "ModelNet10", "ModelNet40", "ScanObjectNN", "ShapeNet55", "ShapeNetPart", "ShapeSet", "SweetHome3D",
    "ViewLoader", "load_arrays", "load_folder", "preset",
]
