"""CPU kernels of `ops.depth_image`: one z-buffer per view, and which points stand in front of it.

A triangle a, b, c in the frame of the camera meets the ray r = (x, y, 1) of a pixel at a r = alpha a + beta b +
gamma c with alpha = (b x c) . r / det(a, b, c) and so on: inside where all three are positive, and their sum is one
over the depth. All of it is linear in the pixel, holds behind the camera too, and so asks for no clipping.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.threads import kernel

SLACK = 1e-4  # pixels: neighbours share their edge, so that no crack opens between them


@kernel
def _bounds(corners, focal_x, focal_y, centre_x, centre_y, near, box):
    """box[:] = lowest and highest u, lowest and highest v of the part of a triangle beyond the near plane."""
    box[0], box[1], box[2], box[3] = np.inf, -np.inf, np.inf, -np.inf
    for i in range(3):
        x, y, z = corners[i, 0], corners[i, 1], corners[i, 2]
        j = (i + 1) % 3
        crosses = (z > near) != (corners[j, 2] > near)
        for part in range(2):
            if part == 0 and z <= near:
                continue
            if part == 1:
                if not crosses:
                    continue
                t = (near - z) / (corners[j, 2] - z)
                x, y, z = x + t * (corners[j, 0] - x), y + t * (corners[j, 1] - y), near
            u, v = focal_x * x / z + centre_x, focal_y * y / z + centre_y
            box[0], box[1], box[2], box[3] = min(box[0], u), max(box[1], u), min(box[2], v), max(box[3], v)


@kernel
def _edges(corners, focal_x, focal_y, centre_x, centre_y, edges):
    """edges[i] = (A, B, C): alpha, beta, gamma as A u + B v + C; False where the triangle is seen edge-on."""
    det = 0.0
    for i in range(3):
        p, q = corners[(i + 1) % 3], corners[(i + 2) % 3]
        nx, ny, nz = p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]
        edges[i, 0], edges[i, 1] = nx / focal_x, ny / focal_y
        edges[i, 2] = nz - centre_x * edges[i, 0] - centre_y * edges[i, 1]
        det = corners[i, 0] * nx + corners[i, 1] * ny + corners[i, 2] * nz
    if abs(det) < 1e-12:
        return False
    for i in range(3):
        for j in range(3):
            edges[i, j] /= det
    return True


@kernel
def _fill(edges, box, face, near, depth, faces):
    """Write the pixels of one triangle that come before what is there; depth holds 1 / z."""
    height, width = depth.shape
    sum_u = edges[0, 0] + edges[1, 0] + edges[2, 0]
    for v in range(int(max(0.0, np.ceil(box[2] - SLACK))), int(min(height - 1.0, np.floor(box[3] + SLACK))) + 1):
        low, high = max(0.0, box[0] - SLACK), min(width - 1.0, box[1] + SLACK)
        for i in range(3):
            slope, rest = edges[i, 0], edges[i, 1] * v + edges[i, 2]
            if slope > 0:
                low = max(low, -rest / slope - SLACK)
            elif slope < 0:
                high = min(high, -rest / slope + SLACK)
            elif rest < -SLACK * abs(edges[i, 1]):
                high = -1.0
        start = int(np.ceil(low))
        inverse = (edges[0, 1] + edges[1, 1] + edges[2, 1]) * v + edges[0, 2] + edges[1, 2] + edges[2, 2]
        for u in range(start, int(np.floor(high)) + 1):
            value = inverse + sum_u * u
            if value > depth[v, u] and value * near <= 1:
                depth[v, u] = value
                faces[v, u] = face


@kernel
def z_buffers(triangles, cameras, intrinsics, near, depth, faces, start, stop):
    """depth[w] (V, H, W) = z of the nearest triangle behind each pixel of view w, 0 for none; faces: its row, or -1.

    triangles (T, 3, 3) in the world, cameras (V, 4, 4) world to view, intrinsics (V, 4) = fx, fy, cx, cy.
    """
    corners, edges, box = np.empty((3, 3)), np.empty((3, 3)), np.empty(4)
    height, width = depth.shape[1:]
    for w in range(start, stop):
        turn, (fx, fy, cx, cy) = cameras[w], intrinsics[w]
        image, index = depth[w], faces[w]
        image[:] = 0
        index[:] = -1
        for t in range(len(triangles)):
            for i in range(3):
                x, y, z = triangles[t, i, 0], triangles[t, i, 1], triangles[t, i, 2]
                for k in range(3):
                    corners[i, k] = turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] * z + turn[k, 3]
            if max(corners[0, 2], corners[1, 2], corners[2, 2]) <= near:
                continue
            _bounds(corners, fx, fy, cx, cy, near, box)
            if box[0] > width - 1 or box[1] < 0 or box[2] > height - 1 or box[3] < 0:
                continue
            if _edges(corners, fx, fy, cx, cy, edges):
                _fill(edges, box, t, near, image, index)
        for v in range(height):
            for u in range(width):
                if image[v, u] > 0:
                    image[v, u] = 1 / image[v, u]


@kernel
def best_sighting(points, normals, faces, eyes, depth, index, tolerance, out, start, stop):
    """out[i] = the largest cosine of incidence / distance^2 over the eyes that see point i, 0 where none does.

    points, normals (N, 3); faces (N,) the triangle of each. eyes (E, 3). depth, index (E * 6, S, S): images of a
    cube around each eye, of the axes +x -x +y -y +z -z, whose columns and rows run along the next axis and the one
    after it. Seen is what lies on the triangle that the image shows there, or no more than the tolerance behind it.
    """
    size = depth.shape[1]
    half = size / 2
    for i in range(start, stop):
        best = 0.0
        for e in range(len(eyes)):
            dx, dy, dz = points[i, 0] - eyes[e, 0], points[i, 1] - eyes[e, 1], points[i, 2] - eyes[e, 2]
            ax, ay, az = abs(dx), abs(dy), abs(dz)
            if ax >= ay and ax >= az:
                axis, main, u, v = 0, dx, dy, dz
            elif ay >= az:
                axis, main, u, v = 1, dy, dz, dx
            else:
                axis, main, u, v = 2, dz, dx, dy
            z = abs(main)
            if z < 1e-6:
                continue
            w = 6 * e + 2 * axis + (1 if main < 0 else 0)
            column = min(size - 1, int((u / z + 1) * half))
            row = min(size - 1, int((v / z + 1) * half))
            if index[w, row, column] == faces[i] or z <= depth[w, row, column] + tolerance:
                square = dx * dx + dy * dy + dz * dz
                facing = abs(dx * normals[i, 0] + dy * normals[i, 1] + dz * normals[i, 2]) / np.sqrt(square)
                best = max(best, facing / square)
        out[i] = best
