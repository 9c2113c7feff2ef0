"""Data sets, array files, folders, transforms and loaders; `contrast3d.datasets` is this package."""

from contrast3d.data.arrays import load_arrays
from contrast3d.data.folder import load_folder
from contrast3d.data.ldraw40 import LDraw40
from contrast3d.data.ldraw40_parts import LDraw40Parts
from contrast3d.data.loader import ViewLoader
from contrast3d.data.modelnet40 import ModelNet10, ModelNet40
from contrast3d.data.pair_loader import PairLoader
from contrast3d.data.pairs import find_pairs
from contrast3d.data.presets import preset
from contrast3d.data.rgbd import read_rgbd
from contrast3d.data.room_camera import room_views
from contrast3d.data.rooms import Rooms, make_room
from contrast3d.data.s3dis import S3DIS
from contrast3d.data.scannet import ScanNet
from contrast3d.data.scanobjectnn import ScanObjectNN
from contrast3d.data.scene_loader import SceneLoader
from contrast3d.data.scene_views import SceneViews, load_views, save_views
from contrast3d.data.scenes import Scene, SceneSet
from contrast3d.data.shapenet55 import ShapeNet55
from contrast3d.data.shapenetpart import ShapeNetPart
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.sweethome3d import SweetHome3D
from contrast3d.data.three_d_match import ThreeDMatch

__all__ = [
    "LDraw40", "LDraw40Parts", "ModelNet10", "ModelNet40", "PairLoader", "Rooms", "S3DIS", "ScanNet", "ScanObjectNN",
    "Scene", "SceneLoader", "SceneSet", "SceneViews", "ShapeNet55", "ShapeNetPart", "ShapeSet", "SweetHome3D",
    "ThreeDMatch", "ViewLoader", "find_pairs", "load_arrays", "load_folder", "load_views", "make_room", "preset",
    "read_rgbd", "room_views", "save_views",
]
