"""Networks: clouds in, features out; they know nothing of losses, data or training."""

from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.edge_conv import EdgeConv
from contrast3d.nn.heads import projector
from contrast3d.nn.partwise import Partwise
from contrast3d.nn.pointnet import PointNet
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.nn.sparse import SparseConv
from contrast3d.nn.sparse_unet import SparseUNet

__all__ = ["DGCNN", "EdgeConv", "Partwise", "PointNet", "Rebuildable", "SparseConv", "SparseUNet", "projector"]
