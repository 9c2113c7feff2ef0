"""CPU kernels of voxel coordinates: keys, distinct rows, and the pairs of a kernel map by merging sorted keys.

A key is a coordinate as one int64 that rises with (cloud, x, y, z). Adding an offset to all coordinates adds one number
to all keys, so the neighbours at an offset are found by walking through two sorted lists once: no hash table.
"""

from __future__ import annotations

from contrast3d.ops.kernels.threads import kernel


@kernel
def keys_of(coords, low, weights, step, keys, start, stop):
    """keys[m] = weights . ([cloud, x, y, z] - [0, *low]) of coords[m], with x, y, z floored to multiples of `step`."""
    for m in range(start, stop):
        key = coords[m, 0] * weights[0]
        for axis in range(3):
            key += ((coords[m, 1 + axis] // step) * step - low[axis]) * weights[1 + axis]
        keys[m] = key


@kernel
def coords_of(keys, low, weights, coords, start, stop):
    """The inverse of `keys_of`."""
    for m in range(start, stop):
        coords[m, 0] = keys[m] // weights[0]
        rest = keys[m] % weights[0]
        for axis in range(3):
            coords[m, 1 + axis] = rest // weights[1 + axis] + low[axis]
            rest = rest % weights[1 + axis]


@kernel
def runs(keys, order, first, inverse, start, stop):
    """Voxels of points: first[v] = the lowest row with the v-th smallest key, inverse[row] = v. -> how many voxels.

    order: the rows in the order of their keys, ties in any order. start : stop is all of them.
    """
    v = -1
    for t in range(start, stop):
        row = order[t]
        if t == 0 or keys[row] != keys[order[t - 1]]:
            v += 1
            first[v] = row
        elif row < first[v]:
            first[v] = row
        inverse[row] = v
    return v + 1


@kernel
def merge(in_keys, out_keys, shifts, in_rows, out_rows, counts, start, stop):
    """For each offset i of start : stop, the pairs with in_keys[in] = out_keys[out] + shifts[i], in rising order.

    in_rows[i], out_rows[i]: room for all rows of out. counts[i]: pairs found. Keys are sorted and distinct.
    """
    many = len(in_keys)
    for i in range(start, stop):
        shift, found, j = shifts[i], 0, 0
        ins, outs = in_rows[i], out_rows[i]
        for u in range(len(out_keys)):
            wanted = out_keys[u] + shift
            while j < many and in_keys[j] < wanted:
                j += 1
            if j == many:
                break
            ins[found] = j
            outs[found] = u
            found += in_keys[j] == wanted
        counts[i] = found
