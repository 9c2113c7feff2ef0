"""Sparse convolution by its definition: dictionaries of coordinates and loops, in float64. And what to try it on."""

import itertools
from contextlib import contextmanager

import torch
from hypothesis import strategies as st

from contrast3d.ops.voxels import from_coords


def cells(seed, count, extent=4, clouds=(0, 1)):
    """Up to `count` distinct rows [cloud, x, y, z] in any order, negative ones among them."""
    draw = torch.Generator().manual_seed(seed)
    places = torch.randint(-extent, extent, (count, 3), generator=draw)
    cloud = torch.tensor(clouds)[torch.randint(len(clouds), (count, 1), generator=draw)]
    rows = torch.cat([cloud, places], 1).unique(dim=0)
    return rows[torch.randperm(len(rows), generator=draw)]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def voxels_of(seed=0, count=60, width=5, dtype=torch.float64, extent=4, clouds=(0, 1)):
    coords = cells(seed, count, extent, clouds)
    return from_coords(coords, normal(len(coords), width, seed=seed + 1, dtype=dtype))[0]


@contextmanager
def threads(count):
    former = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(former)


CELLS = st.builds(  # clouds 1 and 2 of four may be empty
    cells, seed=st.integers(0, 999), count=st.integers(0, 40), extent=st.sampled_from([1, 3, 20]),
    clouds=st.sampled_from([(0,), (0, 1), (0, 3)]),
)


def offsets(kernel_size, step):
    """x fastest; odd kernels centred, even ones from 0 on."""
    low = -(kernel_size // 2) if kernel_size % 2 else 0
    sides = range(low, low + kernel_size)
    return [(x * step, y * step, z * step) for z in sides for y in sides for x in sides]


def coarse(coords, step):
    """The sorted coordinates floored to multiples of `step`."""
    return sorted({(b, x // step * step, y // step * step, z // step * step) for b, x, y, z in coords.tolist()})


def pairs(ins, outs, kernel_size, step):
    """For each offset the list of (row of in, row of out) with coordinate of out + offset = coordinate of in."""
    place = {tuple(c): m for m, c in enumerate(ins.tolist())}
    found = []
    for dx, dy, dz in offsets(kernel_size, step):
        wanted = ((place.get((b, x + dx, y + dy, z + dz)), u) for u, (b, x, y, z) in enumerate(outs.tolist()))
        found.append([(m, u) for m, u in wanted if m is not None])
    return found


def convolved(features, weight, found, rows):
    """out[u] = sum over the offsets i and their pairs (m, u) of features[m] W_i."""
    out = features.new_zeros(rows, weight.shape[2])
    for i, some in enumerate(found):
        for m, u in some:
            out[u] += features[m] @ weight[i]
    return out


def gradients(features, weight, found, grad):
    """Of sum(out * grad): to the features and to the weight."""
    of_features, of_weight = torch.zeros_like(features), torch.zeros_like(weight)
    for i, some in enumerate(found):
        for m, u in some:
            of_features[m] += weight[i] @ grad[u]
            of_weight[i] += features[m, :, None] * grad[u]
    return of_features, of_weight


def pooled(features, found, rows, reduce):
    """Over whatever is under the kernel, zeros where nothing is."""
    under = [[] for _ in range(rows)]
    for m, u in itertools.chain.from_iterable(found):
        under[u].append(features[m])
    reduced = {"sum": lambda x: x.sum(0), "mean": lambda x: x.mean(0), "max": lambda x: x.amax(0)}[reduce]
    return torch.stack([reduced(torch.stack(x)) if x else features.new_zeros(features.shape[1]) for x in under])
