"""CPU kernel of `ops.farthest_point_sampling`."""

from __future__ import annotations

from contrast3d.ops.kernels.masks import WIDTH, below, lowest_bit
from contrast3d.ops.kernels.threads import kernel


@kernel
def _first_largest(keys):
    """The lowest index of the largest integer; len(keys) is a multiple of WIDTH."""
    largest = keys[0]
    for j in range(len(keys)):
        largest = max(largest, keys[j])
    for block in range(0, len(keys), WIDTH):
        bits = ~below(keys, block, largest)
        if bits:
            return block + lowest_bit(bits)
    return 0


@kernel
def farthest_points(points, nearest, keys, first, out, start, stop):
    """out[b] = the indices of greedy farthest points of cloud b, from first[b] on.

    points (B, 3, N), first (B,), out (B, m) int64. nearest (B, N + padding): squared distance of each point
    to the points chosen so far, infinite at first; -1 in the padding and, once chosen, at the chosen points.
    keys: the same memory read as integers, which order like the floats from zero on. LLVM vectorises the
    maximum of integers; that of floats it does not, because of NaN.
    """
    for b in range(start, stop):
        x, y, z, distances = points[b, 0], points[b, 1], points[b, 2], nearest[b]
        chosen = first[b]
        for i in range(out.shape[1]):
            out[b, i] = chosen
            distances[chosen] = -1
            qx, qy, qz = x[chosen], y[chosen], z[chosen]
            for j in range(len(x)):
                dx, dy, dz = x[j] - qx, y[j] - qy, z[j] - qz
                d = dx * dx + dy * dy + dz * dz
                distances[j] = d if d < distances[j] else distances[j]
            chosen = _first_largest(keys[b])
