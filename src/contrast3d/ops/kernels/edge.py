"""CPU kernels of the edge convolutions: reductions over a neighbour graph, never over stored edges.

Centers i are M points, neighbours j are N points (often the same ones). Arrays are (B, M or N, C) and index
(B, M, K), C-contiguous; `start : stop` counts rows (b * M + i) in the gathering kernels and clouds b in the
scattering ones, where several rows write to one place.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.threads import kernel


@kernel
def neighbor_max(values, index, best, arg, start, stop):
    """best[b, i] = max_j values[b, j], arg[b, i] = the first j that attains it, j over index[b, i]."""
    n, k = index.shape[1], index.shape[2]
    for row in range(start, stop):
        b, i = row // n, row % n
        top, at = best[b, i], arg[b, i]
        first = index[b, i, 0]
        top[:] = values[b, first]
        at[:] = first
        for t in range(1, k):
            j = index[b, i, t]
            candidate = values[b, j]
            for c in range(candidate.shape[0]):
                if candidate[c] > top[c]:
                    top[c] = candidate[c]
                    at[c] = j


@kernel
def neighbor_max_sum(values, index, best, arg, total, start, stop):
    """`neighbor_max`, and total[b, i] = sum_j values[b, j] in the same pass.

    Four neighbours a sweep: the three results are loaded and stored a quarter as often, which is what it costs.
    """
    n, k = index.shape[1], index.shape[2]
    for row in range(start, stop):
        b, i = row // n, row % n
        top, at, add, own = best[b, i], arg[b, i], total[b, i], index[b, i]
        top[:] = values[b, own[0]]
        add[:] = top
        at[:] = own[0]
        fours = 1 + (k - 1) // 4 * 4
        for t in range(1, fours, 4):
            j0, j1, j2, j3 = np.int32(own[t]), np.int32(own[t + 1]), np.int32(own[t + 2]), np.int32(own[t + 3])
            v0, v1, v2, v3 = values[b, j0], values[b, j1], values[b, j2], values[b, j3]
            for c in range(top.shape[0]):
                most, where = top[c], at[c]
                add[c] += v0[c] + v1[c] + v2[c] + v3[c]
                where = j0 if v0[c] > most else where
                most = max(v0[c], most)
                where = j1 if v1[c] > most else where
                most = max(v1[c], most)
                where = j2 if v2[c] > most else where
                most = max(v2[c], most)
                where = j3 if v3[c] > most else where
                top[c], at[c] = max(v3[c], most), where
        for t in range(fours, k):
            j, candidate = np.int32(own[t]), values[b, own[t]]
            for c in range(top.shape[0]):
                add[c] += candidate[c]
                if candidate[c] > top[c]:
                    top[c] = candidate[c]
                    at[c] = j


@kernel
def neighbor_sum(values, index, total, start, stop):
    """total[b, i] = sum_j values[b, j], j over index[b, i]."""
    n, k = index.shape[1], index.shape[2]
    for row in range(start, stop):
        b, i = row // n, row % n
        add = total[b, i]
        add[:] = values[b, index[b, i, 0]]
        for t in range(1, k):
            candidate = values[b, index[b, i, t]]
            for c in range(candidate.shape[0]):
                add[c] += candidate[c]


@kernel
def scatter_sum(values, index, total, degree, start, stop):
    """total[b, j] += values[b, i] and degree[b, j] += 1 for every edge i -> j of index."""
    n, k = index.shape[1], index.shape[2]
    for b in range(start, stop):
        for i in range(n):
            row = values[b, i]
            for t in range(k):
                j = index[b, i, t]
                degree[b, j] += 1
                add = total[b, j]
                for c in range(row.shape[0]):
                    add[c] += row[c]


@kernel
def scatter_arg(values, arg, total, start, stop):
    """total[b, arg[b, i, c], c] += values[b, i, c]."""
    n, channels = values.shape[1], values.shape[2]
    for b in range(start, stop):
        for i in range(n):
            for c in range(channels):
                total[b, arg[b, i, c], c] += values[b, i, c]


@kernel
def edge_moments(center, neighbor, neighbor_total, degree, k, first, second, start, stop):
    """Per cloud, in float64: first[b] = sum of e and second[b] = sum of e^2 over edges e = center_i + neighbor_j.

    sum_ij (a_i + c_j)^2 = sum_i (k a_i^2 + 2 a_i S_i) + sum_j deg_j c_j^2 with S_i the sum over i's neighbours.
    """
    channels = center.shape[2]
    for b in range(start, stop):
        one, two = first[b], second[b]
        for i in range(center.shape[1]):
            for c in range(channels):
                a, s = float(center[b, i, c]), float(neighbor_total[b, i, c])
                one[c] += k * a + s
                two[c] += a * (k * a + 2.0 * s)
        for j in range(neighbor.shape[1]):
            deg = float(degree[b, j])
            for c in range(channels):
                v = float(neighbor[b, j, c])
                two[c] += deg * v * v


@kernel
def affine_activation(center, best, scale, shift, slope, out, start, stop):
    """out = act(scale * (center + best) + shift) per row, act the leaky ReLU of `slope`."""
    n = center.shape[1]
    for row in range(start, stop):
        b, i = row // n, row % n
        x, y, z = center[b, i], best[b, i], out[b, i]
        for c in range(x.shape[0]):
            v = scale[c] * (x[c] + y[c]) + shift[c]
            z[c] = v if v > 0 else slope * v


@kernel
def edge_conv_selected(grad, out, arg, slope, center, best, center_part, neighbor_part, bias_grad, dot, start, stop):
    """Back through maximum and activation, to the edges that won: y = scale * (center_i + best_i) + shift.

    center_part[b, i], neighbor_part[b, j]: dL/dy summed over the edges of i and of j (the latter added to zeros).
    bias_grad[b], dot[b]: float64 sums over the cloud of dL/dy and of dL/dy * (center_i + best_i).
    """
    n, channels = grad.shape[1], grad.shape[2]
    for b in range(start, stop):
        sum_g, sum_ge, onto = bias_grad[b], dot[b], neighbor_part[b]
        for i in range(n):
            x, y, e, m, g = grad[b, i], out[b, i], center[b, i], best[b, i], center_part[b, i]
            for c in range(channels):
                g[c] = x[c] if y[c] > 0 else slope * x[c]
                sum_g[c] += g[c]
                sum_ge[c] += g[c] * (e[c] + m[c])
            at = arg[b, i]
            for c in range(channels):
                onto[at[c], c] += g[c]


@kernel
def edge_norm_backward(center, neighbor, index, neighbor_total, reverse, degree, scale, shared, slope, mean,
                       center_part, neighbor_part, start, stop):
    """Back through batch norm over all edges; turns the parts in place into the gradients of the points.

    The gradient of edge e is scale * dL/dy - shared - slope * (e - mean); summed over the edges of i and of j.
    reverse, degree: zeros; they receive the sum of center_i over the edges into j, and the number of those.
    """
    k, channels = index.shape[2], center.shape[2]
    for b in range(start, stop):
        scatter_sum(center, index, reverse, degree, b, b + 1)
        for i in range(center.shape[1]):
            x, total, dx = center[b, i], neighbor_total[b, i], center_part[b, i]
            for c in range(channels):
                dx[c] = scale[c] * dx[c] - k * shared[c] - slope[c] * (k * (x[c] - mean[c]) + total[c])
        for j in range(neighbor.shape[1]):
            deg, y, total, dy = degree[b, j], neighbor[b, j], reverse[b, j], neighbor_part[b, j]
            for c in range(channels):
                dy[c] = scale[c] * dy[c] - deg * shared[c] - slope[c] * (deg * (y[c] - mean[c]) + total[c])


@kernel
def edge_mlp_hidden(center, neighbor, index, scale, shift, slope, row0, hidden, start, stop):
    """hidden[r * K + t] = act(scale * (center_i + neighbor_j) + shift), (b, i) = row0 + r, j = index[b, i, t]."""
    n, k = index.shape[1], index.shape[2]
    for r in range(start, stop):
        b, i = (row0 + r) // n, (row0 + r) % n
        x = center[b, i]
        for t in range(k):
            y = neighbor[b, index[b, i, t]]
            z = hidden[r * k + t]
            for c in range(x.shape[0]):
                v = scale[c] * (x[c] + y[c]) + shift[c]
                z[c] = v if v > 0 else slope * v


@kernel
def edge_mlp_max(edges, k, best, slot, start, stop):
    """best[row] = max_t edges[row * K + t] and slot[row] = the first t that attains it."""
    for row in range(start, stop):
        top, at = best[row], slot[row]
        top[:] = edges[row * k]
        at[:] = 0
        for t in range(1, k):
            candidate = edges[row * k + t]
            for c in range(candidate.shape[0]):
                if candidate[c] > top[c]:
                    top[c] = candidate[c]
                    at[c] = t


@kernel
def edge_mlp_backward(grad, index, slot, center, neighbor, weight, scale, shift, slope, center_grad, neighbor_grad,
                      weight_grad, start, stop):
    """Gradients of max_j weight @ act(scale * (a_i + c_j) + shift): only edges that won a maximum carry any.

    center_grad, neighbor_grad: with respect to the normalised sum, summed over i's and j's edges.
    weight_grad: (B, O, C), one slice per cloud so that pieces never share one.
    """
    n, outputs, channels = center.shape[1], weight.shape[0], weight.shape[1]
    for b in range(start, stop):
        for i in range(n):
            x, dx = center[b, i], center_grad[b, i]
            for o in range(outputs):
                g = grad[b, i, o]
                j = index[b, i, slot[b, i, o]]
                y, dy, w, dw = neighbor[b, j], neighbor_grad[b, j], weight[o], weight_grad[b, o]
                for c in range(channels):
                    v = scale[c] * (x[c] + y[c]) + shift[c]
                    passed = g if v > 0 else g * slope
                    dw[c] += passed * v
                    d = passed * w[c]
                    dx[c] += d
                    dy[c] += d
