"""Operations on point tensors: pure functions, numba on the CPU, plain torch elsewhere."""

from contrast3d.ops.ball_query import ball_query
from contrast3d.ops.edge_conv import edge_conv
from contrast3d.ops.edge_mlp import edge_mlp
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.ops.gather import gather
from contrast3d.ops.knn import knn
from contrast3d.ops.neighbor_reduce import neighbor_max
from contrast3d.ops.three_interpolate import three_interpolate

__all__ = [
    "ball_query", "edge_conv", "edge_mlp", "farthest_point_sampling", "gather", "knn", "neighbor_max",
    "three_interpolate",
]
