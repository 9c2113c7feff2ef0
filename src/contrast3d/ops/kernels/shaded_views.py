"""CPU kernels of `ops.shaded_views`: planes fitted around points, and discs in those planes drawn into a z-buffer."""

from __future__ import annotations

import math

import numpy as np

from contrast3d.ops.kernels.threads import kernel

FAR = -1e30
FLATTEST = 0.15  # discs seen on edge keep some width
THIRD_TURN = 2 * math.pi / 3


@kernel
def _flattest(c, normal):
    """normal = the unit eigenvector of the smallest eigenvalue of a symmetric matrix (xx, xy, xz, yy, yz, zz)."""
    mean = (c[0] + c[3] + c[5]) / 3
    xx, yy, zz = c[0] - mean, c[3] - mean, c[5] - mean
    off = c[1] * c[1] + c[2] * c[2] + c[4] * c[4]
    spread = math.sqrt((xx * xx + yy * yy + zz * zz + 2 * off) / 6)
    if spread <= 1e-12 + 1e-7 * mean:  # a ball, or one place: any direction is as good
        normal[0], normal[1], normal[2] = 0.0, 0.0, 1.0
        return
    det = xx * (yy * zz - c[4] * c[4]) - c[1] * (c[1] * zz - c[4] * c[2]) + c[2] * (c[1] * c[4] - yy * c[2])
    half = min(1.0, max(-1.0, det / (2 * spread * spread * spread)))
    low = 2 * spread * math.cos(math.acos(half) / 3 + THIRD_TURN)  # the smallest root of the shifted matrix
    xx, yy, zz = xx - low, yy - low, zz - low
    best = 0.0  # rows of what is left span the other two directions: the largest of their products
    for which in range(3):
        if which == 0:
            x, y, z = c[1] * c[4] - c[2] * yy, c[2] * c[1] - xx * c[4], xx * yy - c[1] * c[1]
        elif which == 1:
            x, y, z = c[1] * zz - c[2] * c[4], c[2] * c[2] - xx * zz, xx * c[4] - c[1] * c[2]
        else:
            x, y, z = yy * zz - c[4] * c[4], c[4] * c[2] - c[1] * zz, c[1] * c[4] - yy * c[2]
        length = x * x + y * y + z * z
        if length > best:
            best = length
            share = 1 / math.sqrt(length)
            normal[0], normal[1], normal[2] = x * share, y * share, z * share
    if best < 1e-30:  # points on a line: a direction across it
        x, y, z = xx, c[1], c[2]
        if abs(x) + abs(y) + abs(z) < 1e-15:
            x, y, z = c[1], yy, c[4]
        if abs(z) <= abs(x):
            x, y, z = -y, x, 0.0
        else:
            x, y, z = 0.0, z, -y
        length = math.sqrt(x * x + y * y + z * z)
        if length > 0:
            normal[0], normal[1], normal[2] = x / length, y / length, z / length
        else:
            normal[0], normal[1], normal[2] = 0.0, 0.0, 1.0


@kernel
def surfels(points, neighbors, rounds, normals, start, stop):
    """normals (B, N, 3): of the plane through the nearest points of each point, for clouds start to stop.

    points (B, N, 3), neighbors (B, N, k), each its own first. In each further round those far from the plane of the
    one before weigh less, so that the points beyond an edge do not tilt it.
    """
    n, k = neighbors.shape[1:]
    c, normal = np.empty(6), np.empty(3)
    weights = np.empty(k)
    for b in range(start, stop):
        cloud = points[b]
        for i in range(n):
            weights[:] = 1.0
            near = neighbors[b, i]
            for turn in range(rounds + 1):
                total, mx, my, mz = 1e-12, 0.0, 0.0, 0.0
                for j in range(k):
                    p, w = cloud[near[j]], weights[j]
                    total += w
                    mx += w * p[0]
                    my += w * p[1]
                    mz += w * p[2]
                mx, my, mz = mx / total, my / total, mz / total
                c[:] = 0.0
                for j in range(k):
                    p, w = cloud[near[j]], weights[j]
                    x, y, z = p[0] - mx, p[1] - my, p[2] - mz
                    c[0] += w * x * x
                    c[1] += w * x * y
                    c[2] += w * x * z
                    c[3] += w * y * y
                    c[4] += w * y * z
                    c[5] += w * z * z
                _flattest(c / total, normal)
                if turn < rounds:
                    own, last = cloud[i], cloud[near[k - 1]]
                    reach = 0.0
                    for axis in range(3):
                        reach += (last[axis] - own[axis]) ** 2
                    for j in range(k):
                        p = cloud[near[j]]
                        off = 0.0
                        for axis in range(3):
                            off += normal[axis] * (p[axis] - own[axis])
                        weights[j] = math.exp(-off * off / (0.01 * reach + 1e-12))
            for axis in range(3):
                normals[b, i, axis] = normal[axis]


@kernel
def _draw(seen, normals, radii, depth):
    """depth (H, W) = the nearest disc at each pixel, towards the viewer; FAR where none is.

    seen (N, 3) pixels right and down, and pixels towards the viewer; normals (N, 3) in the same axes, facing the
    viewer; radii (N,) in pixels. Every disc covers the pixel that it lies in, if it is seen on edge or not.
    """
    height, width = depth.shape
    depth[:] = FAR
    for i in range(len(seen)):
        x, y, z, r = seen[i, 0], seen[i, 1], seen[i, 2], radii[i]
        slant = max(normals[i, 2], FLATTEST)
        right, down = -normals[i, 0] / slant, -normals[i, 1] / slant
        for v in range(max(0, math.ceil(y - r)), min(height - 1, math.floor(y + r)) + 1):
            for u in range(max(0, math.ceil(x - r)), min(width - 1, math.floor(x + r)) + 1):
                dx, dy = u - x, v - y
                dz = right * dx + down * dy
                inside = dx * dx + dy * dy + dz * dz <= r * r or (abs(dx) <= 0.5 and abs(dy) <= 0.5)
                if inside and z + dz > depth[v, u]:
                    depth[v, u] = z + dz


@kernel
def _mix(seen, normals, radii, reach, behind, depth, sums):
    """sums (H, W, 3) = the normals around each pixel that is covered, of discs up to `behind` radii behind the front.

    They weigh in by a Gaussian, up to `reach` radii away: smooth shading over points that are not evenly spread.
    """
    height, width = depth.shape
    sums[:] = 0.0
    for i in range(len(seen)):
        x, y, z, r = seen[i, 0], seen[i, 1], seen[i, 2], radii[i] * reach
        a, b, c = normals[i, 0], normals[i, 1], normals[i, 2]
        slant, lowest, share = max(c, FLATTEST), z + behind * radii[i], -2.5 / (r * r)
        right, down = -a / slant, -b / slant
        for v in range(max(0, math.ceil(y - r)), min(height - 1, math.floor(y + r)) + 1):
            for u in range(max(0, math.ceil(x - r)), min(width - 1, math.floor(x + r)) + 1):
                dx, dy = u - x, v - y
                dz = right * dx + down * dy
                away = dx * dx + dy * dy + dz * dz
                inside = away <= r * r or (abs(dx) <= 0.5 and abs(dy) <= 0.5)
                if inside and FAR < depth[v, u] <= lowest + dz:
                    weight = math.exp(share * away)
                    sums[v, u, 0] += weight * a
                    sums[v, u, 1] += weight * b
                    sums[v, u, 2] += weight * c


@kernel
def _box(image, reach, line):
    """Each pixel becomes the sum over (2 reach + 1)^2 pixels around it, in place; `line` is working memory."""
    height, width = image.shape
    for axis in range(2):
        for row in range(width if axis else height):
            count = height if axis else width
            for i in range(count):
                line[i] = image[i, row] if axis else image[row, i]
            total = 0.0
            for i in range(min(reach, count)):
                total += line[i]
            for i in range(count):
                if i + reach < count:
                    total += line[i + reach]
                if i > reach:
                    total -= line[i - reach - 1]
                if axis:
                    image[i, row] = total
                else:
                    image[row, i] = total


@kernel
def _shade(depth, sums, look, means, weights, grey):
    """grey (H, W) of depth and normals: Lambert's light, less of it where the surface around is nearer (Luft 2006)."""
    height, width = depth.shape
    surface, background, ambient, darkening = look[0], look[1], look[2], look[3]
    reach = max(1, width // 32)
    for v in range(height):
        for u in range(width):
            weights[v, u] = 1.0 if depth[v, u] > FAR else 0.0
            means[v, u] = depth[v, u] if depth[v, u] > FAR else 0.0
    line = np.empty(max(height, width))
    for _ in range(2):
        _box(means, reach, line)
        _box(weights, reach, line)
    for v in range(height):
        for u in range(width):
            if depth[v, u] == FAR:
                grey[v, u] = background
                continue
            x, y, z = sums[v, u, 0], sums[v, u, 1], sums[v, u, 2]
            length = math.sqrt(x * x + y * y + z * z) + 1e-20
            lit = max(0.0, (x * look[4] + y * look[5] + z * look[6]) / length)
            hidden = (means[v, u] / weights[v, u] - depth[v, u]) / (0.06 * width)
            light = (ambient + (1 - ambient) * lit) * (1 - darkening * min(1.0, max(0.0, hidden)))
            grey[v, u] = min(1.0, surface * light)


@kernel
def draw_views(points, normals, spacing, cameras, fill, reach, behind, look, out, start, stop):
    """out (B * K, H, W) = pictures start to stop, view by view of cloud by cloud.

    points, normals (B, N, 3), spacing (B, N) radius of each disc, cameras (K, 3, 3) rows right, down, towards the
    viewer. The shape fills the share `fill` of the picture. look: surface, background, ambient, darkening, light (3).
    """
    n, views = points.shape[1], len(cameras)
    height, width = out.shape[1:]
    seen, turned, radii = np.empty((n, 3)), np.empty((n, 3)), np.empty(n)
    depth, sums = np.empty((height, width)), np.empty((height, width, 3))
    means, weights = np.empty((height, width)), np.empty((height, width))
    for picture in range(start, stop):
        b, camera = picture // views, cameras[picture % views]
        low, high = np.full(3, 1e30), np.full(3, -1e30)
        for i in range(n):
            for axis in range(3):
                value, normal = 0.0, 0.0
                for j in range(3):
                    value += camera[axis, j] * points[b, i, j]
                    normal += camera[axis, j] * normals[b, i, j]
                seen[i, axis], turned[i, axis] = value, normal
                low[axis], high[axis] = min(low[axis], value), max(high[axis], value)
            if turned[i, 2] < 0:
                for axis in range(3):
                    turned[i, axis] = -turned[i, axis]
        scale = fill / max((high[0] - low[0]) / width, (high[1] - low[1]) / height, 1e-9)
        for i in range(n):
            seen[i, 0] = (seen[i, 0] - (low[0] + high[0]) / 2) * scale + (width - 1) / 2
            seen[i, 1] = (seen[i, 1] - (low[1] + high[1]) / 2) * scale + (height - 1) / 2
            seen[i, 2] = (seen[i, 2] - (low[2] + high[2]) / 2) * scale
            radii[i] = min(max(spacing[b, i] * scale, 1.0), 0.1 * width)
        _draw(seen, turned, radii, depth)
        _mix(seen, turned, radii, reach, behind, depth, sums)
        _shade(depth, sums, look, means, weights, out[picture])
