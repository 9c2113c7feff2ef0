"""CPU kernel of `ops.offsets`: neighbours less their center."""

from __future__ import annotations

from contrast3d.ops.kernels.threads import kernel


@kernel
def offsets(points, index, centers, out, start, stop):
    """out[b, g] = points[b, index[b, g]] - centers[b, g] for the centers start to stop, counted through all clouds.

    points (B, N, C), index (B, G, K), centers (B, G, C), out (B, G, K, C).
    """
    count, k = index.shape[1:]
    n, channels = points.shape[1:]
    for i in range(start, stop):
        b, g = i // count, i % count
        for j in range(k):
            row = index[b, g, j]
            if row < 0 or row >= n:
                raise IndexError
            for c in range(channels):
                out[b, g, j, c] = points[b, row, c] - centers[b, g, c]
