"""Point-MAE and ReCon in straightforward PyTorch, for `recon_step.py`: what one writes from the papers, layer by layer.

Every point of every patch, hidden or not, goes through the whole mini-PointNet with the maximum beside each point;
Chamfer by all pairs; farthest-point sampling in a Python loop; attention as softmax(q k^T) v. Modules have the names of
the library's, so that weights go over as they are.
"""

from __future__ import annotations

import torch
from dgcnn import plain_sampling
from torch import Tensor, nn
from torch.nn import functional as F

from contrast3d.methods.point_mae import PointMAE
from contrast3d.nn.attention import DropPath


def plain_group(points: Tensor, num_patches: int, patch_size: int) -> tuple[Tensor, Tensor]:
    """(B, N, 3) -> centers (B, G, 3), points of patches (B, G, K, 3) relative to them."""
    rows = torch.arange(len(points))[:, None]
    centers = points[rows, plain_sampling(points, num_patches)]
    index = torch.cdist(centers, points).topk(patch_size, largest=False).indices
    return centers, points[rows[:, :, None], index] - centers[:, :, None]


def plain_chamfer(first: Tensor, second: Tensor) -> Tensor:
    """Chamfer-L2 of sets (S, K, 3), through the table of all distances."""
    squared = (first[:, :, None] - second[:, None]).square().sum(-1)
    return squared.amin(2).mean() + squared.amin(1).mean()


class PlainPatchEmbed(nn.Module):
    """The mini-PointNet, (B, G, K, 3) -> (B, G, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Linear(3, 128), nn.BatchNorm1d(128)
        self.conv2 = nn.Linear(128, 256)
        self.conv3, self.norm2 = nn.Linear(512, 512), nn.BatchNorm1d(512)
        self.conv4 = nn.Linear(512, width)

    def forward(self, points: Tensor) -> Tensor:
        *patches, k, _ = points.shape
        f = self.conv2(F.relu(self.norm1(self.conv1(points.reshape(-1, 3))))).view(-1, k, 256)
        both = torch.cat([f.amax(1, keepdim=True).expand_as(f), f], 2).flatten(0, 1)
        return self.conv4(F.relu(self.norm2(self.conv3(both)))).view(*patches, k, -1).amax(2)


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v))


class PlainCrossAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.q = heads, nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        b, n, c = tokens.shape
        q = self.q(queries).view(b, -1, self.heads, c // self.heads).transpose(1, 2)
        k, v = self.kv(tokens).view(b, n, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, heads, N, D) each -> (B, N, C)."""
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


class PlainMlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PlainBranch(nn.Module):
    def __init__(self, attention: nn.Module, width: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), attention
        self.norm2, self.mlp = nn.LayerNorm(width), PlainMlp(width)


class PlainBlock(nn.Module):
    """The standard block."""

    def __init__(self, width: int, heads: int, drop_path: float = 0.0):
        super().__init__()
        self.local, self.drop = PlainBranch(PlainAttention(width, heads), width), DropPath(drop_path)

    def forward(self, queries: Tensor | None, x: Tensor) -> tuple[Tensor | None, Tensor]:
        x = x + self.drop(self.local.attn(self.local.norm1(x)))
        return queries, x + self.drop(self.local.mlp(self.local.norm2(x)))


class PlainTwoStreamBlock(nn.Module):
    """ReCon's block in the released order, the gradient from queries to tokens stopped."""

    def __init__(self, width: int, heads: int, drop_path: float = 0.0):
        super().__init__()
        self.local = PlainBranch(PlainAttention(width, heads), width)
        self.queries = PlainBranch(PlainCrossAttention(width, heads), width)
        self.drop = DropPath(drop_path)

    def forward(self, queries: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        queries, x = self.queries.norm1(queries), self.local.norm1(x)
        queries = queries + self.drop(self.queries.attn(queries, x.detach()))
        x = x + self.drop(self.local.attn(x))
        queries, x = self.queries.norm2(queries), self.local.norm2(x)
        return queries + self.drop(self.queries.mlp(queries)), x + self.drop(self.local.mlp(x))


def _position(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))


class PlainEncoder(nn.Module):
    def __init__(self, like: nn.Module):
        super().__init__()
        width, heads = like.width, like.blocks[0].local.attn.num_heads
        make = PlainBlock if like.block == "standard" else PlainTwoStreamBlock
        self.names = like.queries
        self.embed, self.position = PlainPatchEmbed(width), _position(width)
        self.tokens = nn.ParameterDict({name: nn.Parameter(torch.empty(width)) for name in self.names})
        self.token_positions = nn.ParameterDict({name: nn.Parameter(torch.empty(1, width)) for name in self.names})
        self.blocks = nn.ModuleList(make(width, heads, block.drop_path.rate) for block in like.blocks)
        self.norm = nn.LayerNorm(width)
        self.projections = nn.ModuleDict(
            {name: nn.Linear(width, layer.out_features) for name, layer in like.projections.items()})

    def forward(self, points: Tensor, centers: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        b, _, c = *mask.shape, self.norm.weight.shape[0]
        x = self.embed(points)[~mask].view(b, -1, c)  # the hidden ones only now
        position = self.position(centers[~mask].view(b, -1, 3))
        queries = q_position = None
        if self.names:
            queries = torch.stack([self.tokens[name] for name in self.names]).expand(b, -1, -1)
            q_position = torch.cat([self.token_positions[name] for name in self.names])
        for block in self.blocks:
            queries, x = block(queries + q_position if self.names else None, x + position)
        found = self.norm(queries).unbind(1) if self.names else ()
        return dict(zip(self.names, found)), self.norm(x)


class PlainDecoder(nn.Module):
    def __init__(self, like: nn.Module):
        super().__init__()
        width, heads = len(like.mask_token), like.blocks[0].local.attn.num_heads
        self.mask_token, self.position = nn.Parameter(torch.empty(width)), _position(width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, block.drop_path.rate) for block in like.blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, like.head.out_features)

    def forward(self, x: Tensor, shown: Tensor, hidden: Tensor) -> Tensor:
        b, m, _ = hidden.shape
        position = self.position(torch.cat([shown, hidden], 1))
        x = torch.cat([x, self.mask_token.to(x.dtype).expand(b, m, -1)], 1)
        for block in self.blocks:
            x = block(None, x + position)[1]
        return self.head(self.norm(x[:, -m:])).view(b, m, -1, 3)


class PlainMAE(nn.Module):
    """The step of `PointMAE` or `ReCon`, with the method's weights."""

    def __init__(self, method: PointMAE):
        super().__init__()
        self.num_patches, self.patch_size = method.encoder.num_patches, method.encoder.patch_size
        self.ratio = method.mask_ratio
        self.encoder, self.decoder = PlainEncoder(method.encoder), PlainDecoder(method.decoder)
        self.load_state_dict(method.state_dict())

    def forward(self, clouds: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """clouds (B, N, 3); targets (B, D) by query."""
        centers, points = plain_group(clouds, self.num_patches, self.patch_size)
        b, g, _ = centers.shape
        order = torch.rand(b, g).argsort(dim=1, stable=True)  # the draw of `random_mask`
        mask = torch.zeros(b, g, dtype=torch.bool).scatter(1, order[:, : int(self.ratio * g)], True)
        queries, x = self.encoder(points, centers, mask)
        shown, hidden = centers[~mask].view(b, -1, 3), centers[mask].view(b, -1, 3)
        predicted = self.decoder(x, shown, hidden)
        loss = plain_chamfer(predicted.flatten(0, 1).to(points), points[mask])  # not in bfloat16
        for name, layer in self.encoder.projections.items():
            loss = loss + F.smooth_l1_loss(layer(queries[name]).to(points), targets[name])
        return loss
