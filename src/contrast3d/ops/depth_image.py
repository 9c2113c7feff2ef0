"""Depth images of triangle meshes, and which points of a mesh some places see."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.kernels import depth_image as kernels
from contrast3d.ops.kernels import threads

NEAR = 0.05  # metres: what is closer to a camera is not seen
BLOCK = 1 << 22  # rays times triangles held at a time on other devices
_LOWEST = -1e-5  # of a barycentric coordinate: neighbours share their edge


@torch.no_grad()
def depth_images(
    triangles: Float[Tensor, "t 3 3"], poses: Float[Tensor, "v 4 4"], intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int], near: float = NEAR,
) -> tuple[Float[Tensor, "v h w"], Int[Tensor, "v h w"]]:
    """What V pinhole cameras see: depth (V, H, W) along the optical axis, 0 for nothing, and the triangle, -1 for none.

    triangles: corners in the world. poses: camera to world, x to the right, y down, z ahead. intrinsics: fx, fy, cx,
    cy in pixels; pixel (u, v) looks along ((u - cx) / fx, (v - cy) / fy, 1). size: (H, W). Both sides of a triangle
    are seen, from `near` on. Depth is float32, the triangle's row int32.

    Raises DataError where a size is below one, a focal length not positive, or (CPU) a value not finite.
    """
    height, width = size
    fx, fy = float(intrinsics[0, 0]), float(intrinsics[1, 1])
    if height < 1 or width < 1 or not (fx > 0 and fy > 0 and near > 0):
        raise DataError("depth_images", f"size {size}, focal lengths {fx:g} {fy:g}, near {near:g}", "positive numbers")
    if triangles.device.type != "cpu":
        return _depth_torch(triangles, poses, intrinsics, size, near)
    if not (torch.isfinite(triangles).all() and torch.isfinite(poses).all()):
        raise DataError("depth_images", "NaN or infinite triangles or poses", "finite metres")
    depth = np.empty((len(poses), height, width), np.float32)
    faces = np.empty(depth.shape, np.int32)
    camera = np.tile([fx, fy, float(intrinsics[0, 2]), float(intrinsics[1, 2])], (len(poses), 1))
    cameras = np.linalg.inv(poses.double().numpy())
    corners = np.ascontiguousarray(triangles.double().numpy())
    threads.run(kernels.z_buffers, len(poses), corners, cameras, camera, float(near), depth, faces)
    return torch.from_numpy(depth), torch.from_numpy(faces)


def _depth_torch(
    triangles: Tensor, poses: Tensor, intrinsics: Tensor, size: tuple[int, int], near: float
) -> tuple[Tensor, Tensor]:
    """Any device, plain torch: every ray against every triangle, memory bounded by BLOCK."""
    height, width = size
    v, u = torch.meshgrid(*(torch.arange(n, device=triangles.device).to(triangles) for n in size), indexing="ij")
    k = intrinsics.to(triangles)
    rays = torch.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], torch.ones_like(u)]).view(3, -1)
    depth = triangles.new_zeros(len(poses), height * width)
    faces = torch.full(depth.shape, -1, dtype=torch.int32, device=depth.device)
    step = max(1, BLOCK // (3 * max(1, rays.shape[1])))
    for view, camera in enumerate(torch.linalg.inv(poses.to(triangles))):
        corners = triangles @ camera[:3, :3].T + camera[:3, 3]
        for start in range(0, len(corners), step):
            a, b, c = corners[start : start + step].unbind(1)
            normals = torch.stack([b.cross(c, dim=-1), c.cross(a, dim=-1), a.cross(b, dim=-1)], 1)
            det = (normals[:, 0] * a).sum(-1)
            weights = (normals / det[:, None, None]) @ rays  # (T, 3, H W); NaN where seen edge-on, which no test passes
            inverse = weights.sum(1)
            hit = (weights >= _LOWEST * inverse.abs()[:, None]).all(1) & (inverse * near <= 1) & (inverse > 0)
            best, face = torch.where(hit, inverse, 0).max(0)
            nearer = best > depth[view]
            depth[view] = torch.where(nearer, best, depth[view])
            faces[view] = torch.where(nearer, (face + start).int(), faces[view])
    depth = torch.where(depth > 0, 1 / depth, 0).float()
    return depth.view(-1, height, width), faces.view(-1, height, width)


@torch.no_grad()
def sightings(
    points: Float[Tensor, "n 3"], faces: Int[Tensor, "n"], triangles: Float[Tensor, "t 3 3"],
    eyes: Float[Tensor, "e 3"], size: int = 96, tolerance: float = 0.02,
) -> Float[Tensor, "n"]:
    """(N,) float32: how well the best of E places sees each point of a mesh, 0 where none does.

    It is the cosine of the angle of incidence over the squared distance in metres, to which the density of a scan is
    proportional. faces: the triangle on which each point lies. Hidden is what lies more than `tolerance` behind the
    surface in an image of size x size pixels of each side of a cube around the place. CPU alone.

    Raises DataError on another device, or for a size below one.
    """
    if points.device.type != "cpu" or size < 1:
        raise DataError("sightings", f"{points.device.type} tensors and size {size}", "CPU tensors and a positive size")
    cube = torch.from_numpy(_cube_poses(eyes.double().numpy()))
    centre = (size - 1) / 2  # rays through the middles of size x size equal squares
    camera = torch.tensor([[size / 2, 0, centre], [0, size / 2, centre], [0, 0, 1]], dtype=torch.float64)
    depth, index = depth_images(triangles, cube, camera, (size, size))
    corners = triangles.numpy()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    out = np.empty(len(points), np.float32)
    images = depth.numpy()
    images[images == 0] = np.inf  # nothing there hides nothing
    threads.run(
        kernels.best_sighting, len(points), points.numpy(), normals[faces.numpy()], faces.numpy(), eyes.numpy(),
        images, index.numpy(), float(tolerance), out,
    )
    return torch.from_numpy(out)


def _cube_poses(eyes: np.ndarray) -> np.ndarray:
    """(E * 6, 4, 4): cameras that look along +x -x +y -y +z -z, columns and rows along the next two axes.

    Mirror images half of them, which a z-buffer does not mind.
    """
    poses = np.zeros((len(eyes), 6, 4, 4))
    poses[..., :3, 3], poses[..., 3, 3] = eyes[:, None], 1
    for axis in range(3):
        for side, sign in enumerate((1, -1)):
            turn = poses[:, 2 * axis + side]
            turn[:, (axis + 1) % 3, 0] = turn[:, (axis + 2) % 3, 1] = 1
            turn[:, axis, 2] = sign
    return poses.reshape(-1, 4, 4)
