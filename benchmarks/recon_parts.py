"""The parts of a step of Point-MAE or ReCon against straightforward PyTorch; rows of `recon_step.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from harness import Case, relative_difference
from plain_recon import PlainBlock, PlainPatchEmbed, PlainTwoStreamBlock, plain_chamfer, plain_group
from recon_work import QUERIES, Sizes, block_macs, embed_macs, plain_embed_macs, two_stream_macs
from torch import Tensor, nn

from contrast3d.losses.chamfer import chamfer_l2
from contrast3d.nn.attention import Block, TwoStreamBlock
from contrast3d.nn.patches import PatchEmbed, group, random_mask
from contrast3d.ops.linear import linear

FLOAT = 4  # bytes


def clouds_of(s: Sizes) -> Tensor:
    """(B, N, 3) in the unit ball."""
    points = torch.randn(s.b, s.n, 3, generator=torch.Generator().manual_seed(0))
    return points / points.norm(dim=-1).amax(1)[:, None, None]


def product_case(s: Sizes, precision: str) -> Case:
    """The library's fastest product of its kind, against torch's in float32: what shares of the ceiling can reach."""
    a, b = torch.rand(2, s.square, s.square)
    low = a.bfloat16(), b.bfloat16()
    ours = partial(torch.mm, *low) if precision == "bfloat16" else partial(linear, a, b)
    difference = None if precision == "bfloat16" else lambda dtype: relative_difference(
        [linear(a.to(dtype), b.to(dtype))], [a.to(dtype) @ b.to(dtype).T])
    return Case(ours, 2 * s.square**3, 3 * FLOAT * s.square**2, "A step's share over this one's is its share of this.",
                partial(torch.mm, a, b), difference)


def grouping_case(s: Sizes, kept: bool = False) -> Case:
    """kept: freed memory is kept on our side, as training does; fresh pages are a fifth of the time otherwise."""
    points = clouds_of(s)

    def difference(dtype: torch.dtype) -> float:
        """Of the points, sorted by distance: their order in a patch is free."""
        found = [group(points.to(dtype), s.g, s.k), plain_group(points.to(dtype), s.g, s.k)]
        pairs = [(found[0].centers, found[0].points), found[1]]
        return relative_difference(*([centers, patch.norm(dim=-1).sort(-1).values] for centers, patch in pairs))

    # Per pair of a center and a point, once for sampling and once for neighbours: 8 for the distance, then a minimum.
    flops = 2 * 9 * s.b * s.g * s.n
    moved = FLOAT * 3 * s.b * (s.n + s.g * (1 + s.k))
    note = "Each choice waits for the maximum before it, and the selection of the nearest multiplies nothing."
    return Case(partial(group, points, s.g, s.k), flops, moved, note, partial(plain_group, points, s.g, s.k),
                difference, wanted_ratio=8, as_in_training=kept)


def part_case(own: Callable[..., list[Tensor]], plain: Callable[..., list[Tensor]], flops: float, low: bool,
              note: str) -> Case:
    """own(dtype, low) and plain(dtype, False) -> results with gradients; what is timed is float32 or, low, bfloat16."""

    def difference(dtype: torch.dtype) -> float:
        return max(relative_difference([a], [b]) for a, b in zip(own(dtype, False), plain(dtype, False), strict=True)
                   if b.abs().max() > 0)

    if low:
        off = max(relative_difference([a], [b]) for a, b in zip(own(torch.float32, True), plain(torch.float32, False)))
        note += f" Results and gradients differ from float32 by {off:.0e} at most."
    return Case(partial(own, torch.float32, low), flops, 0.0, note, partial(plain, torch.float32, False),
                None if low else difference, max_rounds=5)


def chamfer_case(s: Sizes) -> Case:
    """The hidden patches, forward and backward."""
    sets = s.b * (s.g - s.v)
    pair = torch.randn(2, sets, s.k, 3, generator=torch.Generator().manual_seed(0))

    def results(loss: Callable[..., Tensor], dtype: torch.dtype, _low: bool) -> list[Tensor]:
        both = [x.to(dtype).requires_grad_() for x in pair]
        value = loss(*both)
        return [value.detach(), *torch.autograd.grad(value, both)]

    note = "Eight operations for a distance and a comparison, both ways."
    return part_case(partial(results, chamfer_l2), partial(results, plain_chamfer), 2 * 9 * sets * s.k**2, False, note)


def trained(module: nn.Module, run: Callable[[nn.Module, Tensor], list[Tensor]], inputs: Tensor, dtype: torch.dtype,
            low: bool, of_inputs: bool) -> list[Tensor]:
    """Outputs, and gradients of the inputs where wanted and of the weights that have more than rounding."""
    module.to(dtype)
    x = inputs.to(dtype).requires_grad_(of_inputs)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        out = run(module, x)
    weights = [p for p in module.parameters() if p.ndim == 2]
    grads = torch.autograd.grad(sum(o.float().square().mean() if low else o.square().mean() for o in out),
                                [*([x] if of_inputs else []), *weights])
    return [*(o.detach() for o in out), *grads]


def embed_case(s: Sizes, low: bool) -> Case:
    """Tokens of the visible patches, forward and backward."""
    torch.manual_seed(0)
    ours = PatchEmbed(s.c)
    plain = PlainPatchEmbed(s.c)
    plain.load_state_dict(ours.state_dict())
    points, visible = group(clouds_of(s), s.g, s.k).points, ~random_mask(s.b, s.g, 1 - s.v / s.g)
    own = partial(trained, ours, lambda net, x: [net(x, visible)], points, of_inputs=False)
    reference = partial(trained, plain, lambda net, x: [net(x)[visible].view(s.b, -1, s.c)], points, of_inputs=False)
    note = f"On paper {plain_embed_macs(s) / embed_macs(s):.1f}x fewer multiplications."
    return part_case(lambda d, low: own(dtype=d, low=low), lambda d, low: reference(dtype=d, low=low),
                     2 * embed_macs(s), low, note)


def block_case(s: Sizes, two_streams: bool, low: bool) -> Case:
    """A block forward and backward: the decoder's on all patches, or ReCon's on the visible ones and three queries."""
    torch.manual_seed(0)
    heads, tokens = s.c // 64, s.v if two_streams else s.g
    make, make_plain = (TwoStreamBlock, PlainTwoStreamBlock) if two_streams else (Block, PlainBlock)
    ours, plain = make(s.c, heads), make_plain(s.c, heads)
    plain.load_state_dict(ours.state_dict())
    count = len(QUERIES) if two_streams else 0
    inputs = torch.randn(s.b, count + tokens, s.c)

    def run(block: nn.Module, x: Tensor) -> list[Tensor]:
        more = (two_streams,) if block is ours else ()
        return list(block(x[:, :count], x[:, count:], *more))[0 if two_streams else 1 :]

    own, reference = (partial(trained, block, run, inputs, of_inputs=True) for block in (ours, plain))
    multiplications = two_stream_macs(s, "recon") if two_streams else 3 * block_macs(s, tokens)
    return part_case(lambda d, low: own(dtype=d, low=low), lambda d, low: reference(dtype=d, low=low),
                     2 * multiplications, low, "The same products on both sides; norms, GELU and sums come on top.")
