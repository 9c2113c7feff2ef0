"""The z-buffer against a caster of single rays, the kernel against the torch path, and what hides what."""

import numpy as np
import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.ops.depth_image import _depth_torch, depth_images, sightings

CAMERA = torch.tensor([[20.0, 0, 11.5], [0, 22.0, 8.5], [0, 0, 1]], dtype=torch.float64)
SIZE = (18, 24)


def looking(*place):
    pose = torch.eye(4, dtype=torch.float64)[None]
    pose[0, :3, 3] = torch.tensor(place)
    return pose


def soup(count, seed=0, dtype=torch.float64):
    """Triangles of all sizes before, around and behind a camera at the origin that looks along +z."""
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, 1, 3, generator=draw, dtype=torch.float64) * 2 + torch.tensor([0, 0, 2.0])
    return (centre + torch.randn(count, 3, 3, generator=draw, dtype=torch.float64)).to(dtype)


def cast(triangles, pose, near):
    """Each ray against each triangle (Moeller, Trumbore 1997): depth and triangle of each pixel."""
    turn, start = pose[:3, :3].numpy(), pose[:3, 3].numpy()
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    rays = np.stack([(u - 11.5) / 20, (v - 8.5) / 22, np.ones(SIZE)], -1) @ turn.T
    depth, faces = np.zeros(SIZE), np.full(SIZE, -1)
    for t, (a, b, c) in enumerate(triangles.numpy()):
        p = np.cross(rays, c - a)
        det = p @ (b - a)
        s = start - a
        q = np.cross(s, b - a)
        x, y, z = p @ s / det, rays @ q / det, (c - a) @ q / det
        hit = (x >= 0) & (y >= 0) & (x + y <= 1) & (z >= near) & ((faces < 0) | (z < depth))
        depth[hit], faces[hit] = z[hit], t
    return depth, faces


@pytest.mark.parametrize("place", [(0.0, 0, 0), (0.3, -0.2, 1.5)])
def test_equals_single_rays(place):
    triangles, pose = soup(40), looking(*place)
    depth, faces = depth_images(triangles, pose, CAMERA, SIZE, near=0.1)
    expected, rows = cast(triangles, pose[0], 0.1)
    assert (faces[0].numpy() == rows).mean() > 0.995  # a ray through an edge may go either way
    same = faces[0].numpy() == rows
    np.testing.assert_allclose(depth[0].numpy()[same], expected[same], rtol=1e-5)
    assert (rows >= 0).mean() > 0.5  # and there was something to see


def test_kernel_equals_torch_path_and_threads_change_nothing():
    triangles = soup(60, 1)
    poses = torch.cat([looking(0, 0, 0), looking(0.5, 0.1, -1), looking(0, 1, 2)])
    depth, faces = depth_images(triangles, poses, CAMERA, SIZE)
    plain, plain_faces = _depth_torch(triangles, poses, CAMERA, SIZE, 0.05)
    same = faces == plain_faces
    assert same.float().mean() > 0.995
    torch.testing.assert_close(depth[same], plain[same], rtol=1e-5, atol=0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = depth_images(triangles, poses, CAMERA, SIZE)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone[0], depth)
    assert torch.equal(alone[1], faces)


def wall(z, half=3.0):
    """A square across the line of sight, of two triangles."""
    a, b, c, d = ([-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z])
    return torch.tensor([[a, b, c], [a, c, d]])


def test_a_wall_has_no_cracks_and_the_nearer_wins():
    depth, faces = depth_images(torch.cat([wall(3.0), wall(2.0, 0.5)]), looking(0, 0, 0), CAMERA, SIZE)
    assert (depth > 0).all()
    assert set(depth.unique().tolist()) == {2.0, 3.0}
    assert torch.equal(faces >= 2, depth == 2)


def test_a_floor_that_passes_below_the_camera():
    floor = torch.tensor([[[-50.0, 1, -50], [50, 1, -50], [50, 1, 50]], [[-50, 1, -50], [50, 1, 50], [-50, 1, 50]]])
    depth, _ = depth_images(floor, looking(0, 0, 0), CAMERA, SIZE)
    rows = torch.arange(SIZE[0])
    expected = torch.where(rows > 8.5, 22 / (rows - 8.5), 0)
    torch.testing.assert_close(depth[0], expected.float()[:, None].expand(SIZE), rtol=1e-4, atol=0)


def test_nothing_to_see():
    depth, faces = depth_images(torch.zeros(0, 3, 3), looking(0, 0, 0), CAMERA, SIZE)
    assert depth.eq(0).all()
    assert faces.eq(-1).all()
    assert depth_images(wall(-1.0), looking(0, 0, 0), CAMERA, SIZE)[0].eq(0).all()  # behind
    assert depth_images(torch.zeros(1, 3, 3), looking(0, 0, -1), CAMERA, SIZE)[0].eq(0).all()  # without area
    assert depth_images(wall(1.0), looking(0, 0, 0)[:0], CAMERA, SIZE)[0].shape == (0, *SIZE)


def test_bad_arguments():
    with pytest.raises(DataError, match="size"):
        depth_images(wall(1.0), looking(0, 0, 0), CAMERA, (0, 5))
    with pytest.raises(DataError, match="focal"):
        depth_images(wall(1.0), looking(0, 0, 0), torch.zeros(3, 3), SIZE)
    with pytest.raises(DataError, match="NaN"):
        depth_images(wall(float("nan")), looking(0, 0, 0), CAMERA, SIZE)
    with pytest.raises(DataError, match="size"):
        sightings(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), wall(1.0), torch.zeros(1, 3), size=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_sightings_along_each_axis(axis, sign):
    shift = [(axis - 2) % 3, (axis - 1) % 3, axis]  # the line of sight becomes `axis`
    far, near = wall(3.0 * sign), wall(2.0 * sign, 0.5)
    triangles = torch.empty(4, 3, 3)
    triangles[..., shift] = torch.cat([far, near])
    points = torch.empty(4, 3)
    points[:, shift] = torch.tensor([[2.0, 1, 3 * sign], [0.1, 0.2, 3 * sign], [0.1, 0.2, 2 * sign], [2, -1, 3 * sign]])
    faces = torch.tensor([0, 0, 2, 0])
    seen = sightings(points, faces, triangles, torch.zeros(1, 3))
    square = points.square().sum(1)
    expected = points[:, axis].abs() / square.sqrt() / square
    expected[1] = 0  # behind the small square
    torch.testing.assert_close(seen, expected)
    both = sightings(points, faces, triangles, torch.cat([torch.zeros(1, 3), points[1:2] * 0.9]))
    assert both[1] > 5  # from behind the small square it is close
