"""Operations on point and voxel tensors: pure functions, numba on the CPU, plain torch elsewhere."""

from contrast3d.ops.attention import cross_attention, self_attention
from contrast3d.ops.ball_query import ball_query
from contrast3d.ops.chamfer import chamfer
from contrast3d.ops.depth_image import depth_images
from contrast3d.ops.edge_conv import edge_conv
from contrast3d.ops.edge_mlp import edge_mlp
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.ops.gather import gather
from contrast3d.ops.kernel_map import kernel_map
from contrast3d.ops.knn import knn
from contrast3d.ops.linear import linear
from contrast3d.ops.neighbor_reduce import neighbor_max
from contrast3d.ops.offsets import offsets
from contrast3d.ops.patch_embed import patch_embed
from contrast3d.ops.radius_matches import correspondences, radius_matches
from contrast3d.ops.shaded_views import shaded_views
from contrast3d.ops.sparse_conv import sparse_conv, sparse_conv_transpose
from contrast3d.ops.sparse_pool import global_pool, sparse_pool
from contrast3d.ops.three_interpolate import three_interpolate
from contrast3d.ops.voxels import from_coords, voxel_labels, voxelize

__all__ = [
    "ball_query", "chamfer", "correspondences", "cross_attention", "depth_images", "edge_conv", "edge_mlp",
    "farthest_point_sampling", "from_coords", "gather", "global_pool", "kernel_map", "knn", "linear",
    "neighbor_max", "offsets", "patch_embed", "radius_matches", "self_attention", "shaded_views", "sparse_conv",
    "sparse_conv_transpose", "sparse_pool", "three_interpolate", "voxel_labels", "voxelize",
]
