"""The passes of `ops.patch_embed` over its blocks on the CPU, and the statistics and gradients between them.

Names: x points, h the first layer (after relu), g the maxima of W2 h, z = [g, h], y = V z the layer before the second
batch norm, V = [Wg, Wf W2]. Biases before a batch norm only shift its mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from contrast3d.ops.collective import world_size, world_sum_
from contrast3d.ops.kernels import patch_embed as kernels
from contrast3d.ops.kernels import patch_embed_backward as backward_kernels
from contrast3d.ops.kernels.panels import panel_width
from contrast3d.ops.kernels.patch_embed import PIECES
from contrast3d.ops.kernels.threads import run

SAMPLE = 16  # one patch of so many tells roughly where the first layer's mean is


class Moments:
    """Sums over points of rows z and of z z^T in float64: of this process, and the mean and covariance of all.

    total: (D,) sum of z. about_mean: (D, D) sum of (z - mean) z^T, both of this process. mean, cov, count: of all.
    """

    def __init__(self, count: int, total: Tensor, second: Tensor):
        packed = torch.cat([total.new_tensor([count]), total, second.flatten()])
        packed = world_sum_(packed.clone()) if world_size() > 1 else packed
        width = len(total)
        self.count = float(packed[0])
        self.mean = packed[1 : width + 1] / self.count
        self.cov = packed[width + 1 :].view(width, width) / self.count - torch.outer(self.mean, self.mean)
        self.total, self.about_mean = total, second - torch.outer(self.mean, total)

    @classmethod
    def about(cls, count: int, origin: Tensor, total: Tensor, second: Tensor) -> Moments:
        """From sums of z - origin and of its squares, which are more exact."""
        cross = torch.outer(total, origin)
        return cls(count, total + count * origin, second + cross + cross.T + count * torch.outer(origin, origin))


class Norm:
    """A batch norm of y = V z: y -> scale y + shift. All in float64 but `scale` and `shift`.

    center: its mean, less what biases add to y. inv_std, moments (None in evaluation): as named.
    """

    def __init__(self, weight, bias, of: Tensor, moments: Moments | None, mean, var, constant: Tensor, eps: float):
        self.moments, self.of = moments, of
        if moments is None:
            self.center, self.var = (mean - constant).double(), var.double()
        else:
            self.spread = of @ moments.cov
            self.center, self.var = of @ moments.mean, (self.spread * of).sum(1).clamp_min(0)
        self.mean = self.center + constant
        self.inv_std = (self.var + eps).rsqrt()
        scale = weight * self.inv_std
        self.shift = (bias - scale * self.center).to(weight.dtype)
        self.scale = scale.to(weight.dtype)

    def backward(self, sums: Tensor, bias_grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """From sums = sum of d z^T and bias_grad = sum of d, d = dL/d(scale y + shift), of this process
        -> gradients of weight and of V, and the parts (D,), (D, D) of dL/dz = V^T (scale d) - part - (z - mean) matrix,
        None in evaluation.
        """
        sums, bias_grad = sums.double(), bias_grad.double()
        weight_grad = self.inv_std * ((self.of * sums).sum(1) - self.center * bias_grad)
        scale = self.scale.double()
        if self.moments is None:
            return weight_grad, scale[:, None] * sums, None, None
        m = self.moments
        first, second = world_sum_(torch.stack([bias_grad, weight_grad])) / m.count
        slope = second * self.inv_std
        spread = self.spread * m.count if world_size() == 1 else self.of @ m.about_mean
        of_grad = scale[:, None] * (sums - torch.outer(first, m.total) - slope[:, None] * spread)
        return weight_grad, of_grad, self.of.T @ (scale * first), self.of.T @ ((scale * slope)[:, None] * self.of)


class Pass:
    """One forward and one backward pass over patches of points (P, K, 3), of which `chosen` (V,) give tokens."""

    def __init__(self, points, chosen, weights, running, training: bool, eps: float, low: bool):
        self.all = points
        self.kept = None if training else chosen  # evaluation does not look at hidden patches
        x = points if training else points[chosen]
        self.size, self.dtype, self.low = points.shape[1], points.dtype, low
        self.chosen = chosen if training else torch.arange(len(chosen))
        self.x, self.w, self.running, self.training, self.eps = x, weights, running, training, eps
        self.lanes = panel_width(points.element_size())

    def forward(self) -> tuple[Tensor, tuple]:
        """-> tokens (V, C) and mean, variance of both norms with their count."""
        w, run_ = self.w, self.running
        flat = self.x.view(-1, 3)
        wide = flat.double()
        points = Moments(len(flat), wide.sum(0), wide.T @ wide) if self.training else None
        self.norm1 = Norm(w.norm1, w.shift1, w.conv1.double(), points, run_[0], run_[1], w.bias1, self.eps)
        self.affine = torch.cat([self.norm1.scale * w.conv1.T, self.norm1.shift[None]]).view(4, -1, self.lanes)
        self.wg, wf = w.conv3.chunk(2, 1)
        both = torch.cat([self.wg.double(), wf.double() @ w.conv2.double()], 1)
        moments = self._gather()
        constant = w.bias3 + (self.wg + wf) @ w.bias2
        self.norm2 = Norm(w.norm2, w.shift2, both, moments, run_[2], run_[3], constant, self.eps)
        self.middle = (self.norm2.scale[:, None] * both[:, self.maxima.shape[1] :]).to(self.dtype)
        tokens = self._tokens()
        stats = [t.to(self.dtype) for t in (self.norm1.mean, self.norm1.var, self.norm2.mean, self.norm2.var)]
        return tokens + w.bias4, (*stats, moments.count if moments else 0.0)

    def _gather(self) -> Moments | None:
        """The maxima g of each patch; in training the moments of z."""
        patches, training = len(self.x), self.training
        h, f = len(self.w.norm1), len(self.w.conv2)
        self.maxima, self.arg = self.x.new_empty(patches, f), torch.empty(patches, f, dtype=torch.int32)
        panels = h // self.lanes
        center = self.x.new_zeros(panels, self.lanes)
        if training:
            sample = self.x[::SAMPLE].reshape(-1, 3)
            affine = self.affine.view(4, -1)
            center = torch.addmm(affine[3], sample, affine[:3]).relu_().mean(0).view(panels, -1)
        self.sums = self.x.new_zeros(patches if training else 0, h)
        tiles = torch.zeros(PIECES if training else 0, panels, panels, self.lanes, self.lanes, dtype=torch.float64)
        run(kernels.GATHER[self.low], PIECES, self._flat(), self.size, self.affine.numpy(), center.numpy(),
            self._tiles(self.w.conv2), self.maxima.numpy(), self.arg.numpy(), self.sums.numpy(), tiles.numpy())
        if not training:
            return None
        return self._moments(center.view(-1), tiles.sum(0).transpose(1, 2).reshape(h, h))

    def _moments(self, center: Tensor, second: Tensor) -> Moments:
        middle = self.maxima.mean(0)
        g = self.maxima - middle
        cross = (g.T @ self.sums).double()
        count = self.sums.shape[0] * self.size
        total = torch.cat([g.double().sum(0) * self.size, self.sums.double().sum(0)])
        square = torch.cat([torch.cat([(g.T @ g).double() * self.size, cross], 1), torch.cat([cross.T, second], 1)])
        self.sums += self.size * center  # from here on of h itself
        return Moments.about(count, torch.cat([middle, center]).double(), total, square)

    def _tokens(self) -> Tensor:
        visible, c = len(self.chosen), len(self.w.conv4)
        self.offsets = torch.addmm(self.norm2.shift, self.maxima[self.chosen], (self.norm2.scale[:, None] * self.wg).T)
        tokens, self.winner = self.x.new_empty(visible, c), torch.empty(visible, c, dtype=torch.int32)
        run(kernels.TOKENS[self.low], PIECES, self._flat(), self.size, self.affine.numpy(), self.chosen.numpy(),
            self.offsets.numpy(), self._tiles(self.middle), self._tiles(self.w.conv4), tokens.numpy(),
            self.winner.numpy())
        return tokens

    def backward(self, grad: Tensor, of_points: bool) -> list[Tensor | None]:
        """Gradients of the points, where wanted, and of the weights in their order."""
        w, k, f = self.w, self.size, self.maxima.shape[1]
        patch_grad, point_grad, middle_sums, conv4 = self._tokens_backward(grad)
        sums = torch.cat([patch_grad.T @ self.maxima[self.chosen], middle_sums], 1)
        shift2 = patch_grad.sum(0)
        norm2, of, part, matrix = self.norm2.backward(sums, shift2)
        of, wf = of.to(self.dtype), w.conv3[:, f:]
        g_grad = self.x.new_zeros(len(self.x), f)
        g_grad[self.chosen] = patch_grad @ (self.norm2.scale[:, None] * self.wg)
        h = self.sums.shape[1]
        offsets, slope = self.x.new_zeros(len(self.x), h), self.x.new_zeros(h, h)
        if self.training:
            part, matrix, mean = part.to(self.dtype), matrix.to(self.dtype), self.norm2.moments.mean.to(self.dtype)
            z = torch.cat([self.maxima - mean[:f], self.sums / k - mean[f:]], 1)
            g_grad -= k * torch.addmm(part[:f], z, matrix[:, :f])
            slope = -matrix[f:, f:]
            offsets = torch.addmm(part[f:] + mean[f:] @ slope, z[:, :f], matrix[:f, f:]).neg_()
        conv2, affine_sums, points_grad = self._gather_backward(g_grad, offsets, slope, point_grad, of_points)
        norm1, conv1, part, matrix = self.norm1.backward(affine_sums[:3].T, affine_sums[3])
        if of_points:
            points_grad = self._of_points(points_grad, part, matrix)
        conv3, bias = torch.cat([of[:, :f], of[:, f:] @ w.conv2.T], 1), [None] * 3
        conv2 += wf.T @ of[:, f:]
        if not self.training:  # in training batch norm takes back what a bias adds
            of_y = self.norm2.scale * shift2
            conv3 += torch.outer(of_y, w.bias2.repeat(2))
            bias = [self.norm1.scale * affine_sums[3], (self.wg + wf).T @ of_y, of_y]
        bias = [torch.zeros_like(b) if found is None else found for b, found in zip((w.bias1, w.bias2, w.bias3), bias)]
        return [points_grad if of_points else None, conv1.to(self.dtype), bias[0], norm1.to(self.dtype), affine_sums[3],
                conv2, bias[1], conv3, bias[2], norm2.to(self.dtype), shift2, conv4, grad.sum(0)]

    def _tokens_backward(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> dL/dy summed over each patch (V, H) and times `middle` (V K, h), sum of dL/dy h^T, gradient of conv4."""
        visible, c, (i, h) = len(self.chosen), len(self.w.conv4), self.middle.shape
        n = self.lanes
        patch_grad, point_grad = self.x.new_zeros(visible, i), self.x.new_zeros(visible * self.size, h)
        middle_sums, last_sums = self.x.new_zeros(PIECES, i // n, h // n, n, n), self.x.new_zeros(PIECES, i // n, c, n)
        run(backward_kernels.TOKENS_BACKWARD[self.low], PIECES, self._flat(), self.size, self.affine.numpy(),
            self.chosen.numpy(), self.offsets.numpy(), self._tiles(self.middle), self._tiles(self.middle.T),
            self._panels(self.w.conv4), grad.numpy(), self.winner.numpy(), patch_grad.numpy(), point_grad.numpy(),
            middle_sums.numpy(), last_sums.numpy())
        return (patch_grad, point_grad, middle_sums.sum(0).transpose(1, 2).reshape(i, h),
                last_sums.sum(0).transpose(0, 1).reshape(c, i))

    def _gather_backward(self, g_grad, offsets, slope, point_grad, of_points: bool) -> tuple[Tensor, Tensor, Tensor]:
        """-> the winners' gradient of conv2, sums of e [x, 1] (4, h) with e = dL/d(before relu), that of points."""
        n, (f, h) = self.lanes, self.w.conv2.shape
        rank = torch.full((len(self.x),), -1)
        rank[self.chosen] = torch.arange(len(self.chosen))
        weight_sums, affine_sums = self.x.new_zeros(PIECES, h // n, f, n), self.x.new_zeros(PIECES, 4, h // n, n)
        points_grad = self.x.new_zeros(self.x[..., 0].numel() if of_points else 0, 3)
        run(backward_kernels.GATHER_BACKWARD[self.low], PIECES, self._flat(), self.size, self.affine.numpy(),
            offsets.numpy(), self._tiles(slope), rank.numpy(), point_grad.numpy(), self._panels(self.w.conv2),
            g_grad.numpy(), self.arg.numpy(), weight_sums.numpy(), affine_sums.numpy(), points_grad.numpy())
        return weight_sums.sum(0).transpose(0, 1).reshape(f, h), affine_sums.sum(0).view(4, h), points_grad

    def _of_points(self, grad: Tensor, part: Tensor | None, matrix: Tensor | None) -> Tensor:
        grad = grad.view(self.x.shape)
        if self.training:
            centered = (self.x - self.norm1.moments.mean.to(self.dtype)) @ matrix.to(self.dtype)
            return grad - part.to(self.dtype) - centered
        return torch.zeros_like(self.all).index_copy(0, self.kept, grad)

    def _flat(self):
        return self.x.view(-1, 3).numpy()

    def _panels(self, weight: Tensor):
        """(C, D) -> (D / w, C, w)."""
        return weight.reshape(len(weight), -1, self.lanes).transpose(0, 1).contiguous().numpy()

    def _tiles(self, weight: Tensor):
        """Weight (C, D) of a linear layer -> (D / w, C / w, w, w), of bfloat16 pairs (D / w, C / w, w / 2, w)."""
        n = self.lanes
        tiles = weight.reshape(len(weight) // n, n, -1, n).permute(2, 0, 3, 1)
        if not self.low:
            return tiles.contiguous().numpy()
        pairs = tiles.reshape(*tiles.shape[:2], 2, n // 2, n).permute(0, 1, 3, 4, 2).bfloat16().contiguous()
        return pairs.view(torch.int32)[..., 0].numpy()
