"""The parts of a SimCLR step on DGCNN, and the whole of it, against straightforward PyTorch.

The reference stores every edge: cdist + topk, (B, N, k, 2 C) gathered edges, Linear, BatchNorm, activation, max.
Weights and inputs are the same, and results are compared before anything is timed.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import harness  # before torch: sets how OpenMP threads wait
import torch
from harness import Case, relative_difference
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize

from contrast3d.losses.info_nce import nt_xent
from contrast3d.methods.simclr import SimCLR
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.edge_conv import EdgeConv
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.ops.gather import gather
from contrast3d.ops.knn import knn
from contrast3d.types import Clouds

FLOAT, INDEX = 4, 8  # bytes
TEMPERATURE, WIDTH = 0.07, 128  # of NT-Xent


@dataclass(frozen=True)
class Sizes:
    """B clouds of N points with k neighbours; m points sampled; pairs of embeddings, few and many."""

    b: int = 32
    n: int = 1024
    k: int = 20
    m: int = 512
    few_pairs: int = 4096
    many_pairs: int = 32768


QUICK = Sizes(b=3, n=64, k=5, m=16, few_pairs=32, many_pairs=128)


def cases(quick: bool) -> dict[tuple[str, str], Callable[[], Case]]:
    """Every row's name and variant, and what builds its case."""
    s = QUICK if quick else Sizes()
    return {
        ("edge_conv_64_128", "forward"): partial(edge_conv_case, s, backward=False),
        ("edge_conv_64_128", "forward+backward"): partial(edge_conv_case, s, backward=True),
        ("edge_conv_64_128", "forward, memory kept"): partial(edge_conv_case, s, backward=False, as_in_training=True),
        ("edge_conv_64_128", "forward+backward, memory kept"): partial(
            edge_conv_case, s, backward=True, as_in_training=True),
        ("simclr_step_report", "float32"): partial(simclr_case, s),
        ("knn", "3-D"): partial(knn_case, s, channels=3, wanted_ratio=5),
        ("knn", "64-d"): partial(knn_case, s, channels=64, wanted_ratio=3),
        ("fps", f"{s.n} to {s.m}"): partial(sampling_case, s),
        ("nt_xent", f"2 x {s.few_pairs}"): partial(nt_xent_case, s.few_pairs, plain=True),
        ("nt_xent", f"2 x {s.many_pairs}"): partial(nt_xent_case, s.many_pairs, plain=False),
    }


# ---- the straightforward version


def plain_knn(x: Tensor, k: int) -> Tensor:
    return torch.cdist(x, x).topk(k, largest=False).indices


def plain_edges(x: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) and (B, N, k) -> (B, N, k, 2 C): [x_i, x_j - x_i]."""
    neighbors = x[torch.arange(len(x))[:, None, None], index]
    centers = x[:, :, None].expand_as(neighbors)
    return torch.cat([centers, neighbors - centers], dim=-1)


class PlainEdgeConv(nn.Module):
    """max over neighbours of Linear, BatchNorm, leaky ReLU and Linear, as far as `layer` has them."""

    def __init__(self, layer: EdgeConv):
        super().__init__()
        self.first = nn.Linear(layer.first.in_features, layer.first.out_features, layer.first.bias is not None)
        self.norm = layer.norm and nn.BatchNorm1d(layer.norm.num_features)
        self.last = layer.last and nn.Linear(layer.last.in_features, layer.last.out_features)
        self.negative_slope = layer.negative_slope
        self.load_state_dict(layer.state_dict())

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        y = self.first(plain_edges(x, index))
        if self.norm:
            y = leaky_relu(self.norm(y.flatten(0, 2)).view_as(y), self.negative_slope)
        return (self.last(y) if self.last else y).amax(2)


class PlainSimCLR(nn.Module):
    """SimCLR with DGCNN.report(): each graph built in the space of its layer's input, pooled by max."""

    def __init__(self, method: SimCLR):
        super().__init__()
        self.k = method.encoder.k
        self.convs = nn.ModuleList(PlainEdgeConv(conv) for conv in method.encoder.convs)
        self.embed = nn.Linear(method.encoder.embed.in_features, method.encoder.embed.out_features)
        self.projector = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10))
        self.embed.load_state_dict(method.encoder.embed.state_dict())
        self.projector.load_state_dict(method.projector.state_dict())

    def project(self, x: Tensor) -> Tensor:
        levels = []
        for conv in self.convs:
            x = conv(x, plain_knn(x.detach(), self.k))
            levels.append(x)
        return self.projector(self.embed(torch.cat(levels, dim=-1)).amax(1))

    def forward(self, views: list[Tensor]) -> Tensor:
        return plain_nt_xent(*(self.project(view) for view in views))


def plain_nt_xent(first: Tensor, second: Tensor) -> Tensor:
    z = normalize(torch.cat([first, second]), dim=-1)
    similarity = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z)).roll(len(first))
    return nn.functional.cross_entropy(similarity, partner)


def plain_sampling(points: Tensor, m: int) -> Tensor:
    b, n, _ = points.shape
    rows = torch.arange(b)
    chosen = torch.zeros(b, dtype=torch.int64)
    nearest = torch.full((b, n), torch.inf)
    out = torch.empty(b, m, dtype=torch.int64)
    for i in range(m):
        out[:, i] = chosen
        distances = (points - points[rows, chosen][:, None]).square().sum(-1)
        nearest = torch.minimum(nearest, distances)
        chosen = nearest.argmax(1)
    return out


# ---- the rows. Counts of bytes take each array of B N rows once for every sweep that must read or write it;
# what is used again inside a sweep (a cloud's neighbours, 0.5 MB) is taken to stay in cache.


def clouds_compared(dtype: torch.dtype) -> slice:
    """Float64 proves that the formulas are one, for which a few clouds do; float32 is what is timed."""
    return slice(None) if dtype == torch.float32 else slice(4)


def edge_conv_case(s: Sizes, backward: bool, as_in_training: bool = False) -> Case:
    """The layer alone, training mode, on a given graph."""
    c, d = 64, 128
    generator = torch.manual_seed(0)
    ours = EdgeConv(c, (d,))
    with torch.no_grad():  # both signs: a negative one turns the maximum into a minimum
        ours.norm.weight.normal_(generator=generator)
    reference = PlainEdgeConv(ours)
    index = knn(torch.randn(s.b, s.n, 3), s.k)
    x = torch.randn(s.b, s.n, c, requires_grad=True)
    direction = torch.randn(s.b, s.n, d)  # an arbitrary dL/d out

    def results(layer: nn.Module, x: Tensor, index: Tensor, direction: Tensor) -> list[Tensor]:
        out = layer(x, index)
        return [out, *(torch.autograd.grad(out, [x, *layer.parameters()], direction) if backward else ())]

    def difference(dtype: torch.dtype) -> float:
        some = clouds_compared(dtype)
        inputs = x[some].detach().to(dtype).requires_grad_(), index[some], direction[some].to(dtype)
        pair = (results(copy.deepcopy(layer).to(dtype), *inputs) for layer in (ours, reference))
        return max(relative_difference([a], [b]) for a, b in zip(*pair, strict=True))

    run = partial(results, x=x, index=index, direction=direction)
    rows, edges = s.b * s.n, s.b * s.n * s.k
    # Two products per point; one addition and one comparison per edge. center, neighbor and the maximum are
    # written, and read again once the statistics of all edges are known; arg and sum are kept for backward, out.
    flops = 2 * rows * 2 * c * d + 2 * edges * d
    moved = FLOAT * rows * (c + 9 * d) + INDEX * edges
    if backward:
        # Each product has two gradients; batch norm sends one addition along every edge. grad, out, arg, center,
        # neighbor are read and the two gradients written; once their sums are known, center, neighbor, sum and
        # both gradients are read and the gradients written; the four products read them twice. x: read by two, out.
        flops += 4 * rows * 2 * c * d + edges * d
        moved += FLOAT * rows * (3 * c + 18 * d) + 2 * INDEX * edges
    note = "The gather of neighbour rows out of the cache, k rows per point, comes on top."
    return Case(partial(run, ours), flops, moved, note, partial(run, reference), difference,
                wanted_ratio=10 if backward else 15, as_in_training=as_in_training)


def simclr_case(s: Sizes) -> Case:
    """Two views, forward, NT-Xent, backward, a step of Adam; both sides train on, each with its own weights."""
    torch.manual_seed(0)
    method = SimCLR(DGCNN.report(s.k), projection_dim=10, hidden_dim=256, temperature=TEMPERATURE, head_norm=False)
    reference = PlainSimCLR(method)
    views = list(torch.randn(2, s.b, s.n, 3))
    clouds = [Clouds.from_dense(view) for view in views]

    def difference(dtype: torch.dtype) -> float:
        """Of the loss, and of all gradients together: a bias before batch norm has none but rounding."""
        some = [view[clouds_compared(dtype)].to(dtype) for view in views]
        ours, plain = (copy.deepcopy(model).to(dtype) for model in (method, reference))
        losses = [ours([Clouds.from_dense(view) for view in some])["loss"], plain(some)]
        gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss, model in zip(losses, (ours, plain))]
        return max(relative_difference(losses[:1], losses[1:]), relative_difference(*gradients))

    note = "Most is the product on every edge of the first layer, a block in the cache at a time."
    return Case(training_step(method, lambda: method(clouds)["loss"]), *simclr_work(s), note,
                training_step(reference, lambda: reference(views)), difference, wanted_ratio=5)


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def simclr_work(s: Sizes) -> tuple[float, float]:
    """Floating-point operations and bytes of the step with the fused layers, heads and loss of B rows left out."""
    rows, edges, h, d, width, embed = s.b * s.n, s.b * s.n * s.k, 64, 128, 192, 128
    graphs = 9 * rows * s.n + (2 * (h + 1) + 1) * rows * s.n  # as in knn_case, in 3-D and 64-d
    # Layer 1: two 3 -> 64 products per point; per edge an addition, batch norm and ReLU (4), a 64 -> 64 product
    # and a comparison. Backward only the edge that won each of the 64 maxima carries a gradient: two rows of 64.
    first = 2 * rows * 6 * h + edges * h * (4 + 2 * h + 1) + 4 * rows * h * h + 4 * rows * 6 * h
    second = 3 * 2 * rows * 2 * h * d + edges * d  # two 64 -> 128 products per point, a comparison per edge
    last = 3 * 2 * rows * width * embed
    # Arrays of B N rows, written and read again, forward and backward alike: two halves and a result of each
    # layer, their concatenation and the embedding; twice the neighbours, which every layer reads once each way.
    moved = 2 * 2 * FLOAT * rows * (3 * h + 3 * d + width + embed) + 2 * 3 * INDEX * edges
    return 2 * (graphs + first + second + last), 2 * moved


def knn_case(s: Sizes, channels: int, wanted_ratio: float) -> Case:
    """The graph of all points among themselves."""
    torch.manual_seed(0)
    points = torch.randn(s.b, s.n, channels)

    def difference(dtype: torch.dtype) -> float:
        """Of the distances to the neighbours found: those equally near may come in either order."""
        x, rows = points.to(dtype), torch.arange(s.b)[:, None, None]
        pair = ((x[rows, find(x, s.k)] - x[:, :, None]).square().sum(-1).sqrt() for find in (knn, plain_knn))
        return relative_difference(*([distances] for distances in pair))

    pairs = s.b * s.n * s.n
    # In 3-D three differences, squares and two sums per pair; beyond, a product of C + 1 columns. Then at least
    # one comparison. Distances need not leave the cache.
    flops = (9 if channels == 3 else 2 * (channels + 1) + 1) * pairs
    moved = s.b * s.n * (FLOAT * channels + INDEX * s.k)
    note = "The selection of the k smallest reads each distance several times and multiplies nothing."
    return Case(partial(knn, points, s.k), flops, moved, note, partial(plain_knn, points, s.k), difference,
                wanted_ratio=wanted_ratio)


def sampling_case(s: Sizes) -> Case:
    """Farthest-point sampling of every cloud, from point 0."""
    torch.manual_seed(0)
    points = torch.randn(s.b, s.n, 3)

    def difference(dtype: torch.dtype) -> float:
        """Of each cloud's farthest distance from its sample: of equally far points either may be chosen."""
        x = points.to(dtype)
        samples = (gather(x, choose(x, s.m)) for choose in (farthest_point_sampling, plain_sampling))
        pair = ((x[:, :, None] - sample[:, None]).square().sum(-1).amin(2).amax(1) for sample in samples)
        return relative_difference(*([radius] for radius in pair))

    # Per chosen point and point: three differences, squares, two sums, a minimum and a maximum.
    flops = 10 * s.b * s.m * s.n
    moved = s.b * (FLOAT * 3 * s.n + INDEX * s.m)
    note = "One cloud fits the first-level cache; each choice waits for the maximum of the one before."
    return Case(partial(farthest_point_sampling, points, s.m), flops, moved, note,
                partial(plain_sampling, points, s.m), difference, wanted_ratio=8)


def nt_xent_case(pairs: int, plain: bool) -> Case:
    """Forward and backward; against the full similarity matrix where that fits."""
    torch.manual_seed(0)
    embeddings = [view.requires_grad_() for view in torch.randn(2, pairs, WIDTH).unbind()]

    def results(loss: Callable[..., Tensor], views: list[Tensor]) -> list[Tensor]:
        value = loss(*views)
        return [value, *torch.autograd.grad(value, views)]

    def difference(dtype: torch.dtype) -> float:
        views = [view.detach().to(dtype).requires_grad_() for view in embeddings]
        pair = (results(loss, views) for loss in (fused, plain_nt_xent))
        return max(relative_difference([a], [b]) for a, b in zip(*pair, strict=True))

    fused = partial(nt_xent, temperature=TEMPERATURE)
    ours, reference = (partial(results, loss, embeddings) for loss in (fused, plain_nt_xent))
    # One product of all rows with all rows forward; backward the same again, since it is not stored, and two more.
    flops = 4 * 2 * (2 * pairs) ** 2 * WIDTH
    moved = FLOAT * 2 * pairs * WIDTH * (1 + 2 + 1)  # embeddings read in both directions, their gradients written
    note = "Two exponentials per pair of rows, and every block of similarities through the cache, come on top."
    if plain:
        return Case(ours, flops, moved, note, reference, difference)
    return Case(ours, flops, moved, note, wanted_peak_mb=1024, max_rounds=3)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, cases))
