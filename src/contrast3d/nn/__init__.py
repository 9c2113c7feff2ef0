"""Networks: clouds in, features out; they know nothing of losses, data or training."""

from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.edge_conv import EdgeConv
from contrast3d.nn.heads import projector
from contrast3d.nn.partwise import Partwise
from contrast3d.nn.patch_decoder import PatchDecoder
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.pointnet import PointNet
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.nn.sparse import SparseConv
from contrast3d.nn.sparse_unet import SparseUNet
from contrast3d.nn.two_towers import TwoTowers

__all__ = [
    "DGCNN", "EdgeConv", "Partwise", "PatchDecoder", "PatchTransformer", "PointNet", "Rebuildable", "SparseConv",
    "SparseUNet", "TwoTowers", "projector",
]
