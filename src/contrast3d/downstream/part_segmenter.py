"""`PartSegmenter`: a patch transformer whose tokens tell the part of each point, trained by the engine's loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import device_of, evaluating
from contrast3d.errors import ConfigError, DataError
from contrast3d.metrics.part_iou import restricted_argmax
from contrast3d.metrics.segmentation import IGNORE
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.ops.three_interpolate import three_interpolate
from contrast3d.types import Clouds

CLASS_WIDTH = 64


class PartSegmenter(nn.Module):
    """forward(batch) is the cross-entropy over the points, as the training loop wants it.

    The head is that of Point-MAE and ReCon: tokens after a third, two thirds and all of the blocks, each through the
    last norm, side by side (3C); spread to the points by their three nearest centers, with the coordinates, through an
    MLP; beside the maximum and the mean of the tokens, the maximum of the queries, and the class of the shape.

    encoder: a `PatchTransformer` or `TwoTowers`. num_classes: of shapes, which are told. num_parts: to choose from.
    encoder_lr: peak learning rate of the encoder, where it is not the head's. norm_lr: that of the head's norms.
    """

    def __init__(
        self, encoder: nn.Module, num_classes: int, num_parts: int, dropout: float = 0.5,
        encoder_lr: float | None = None, norm_lr: float | None = None,
    ):
        super().__init__()
        if not (hasattr(encoder, "encode") and hasattr(encoder, "patches")):
            raise ConfigError(f"part segmentation reads tokens of patches, which {type(encoder).__name__} has not. "
                              "Try: a run of point-mae or recon")
        if num_parts < 2 or num_classes < 1:
            raise ConfigError(f"{num_parts} parts, {num_classes} classes; expected at least 2 and 1")
        self.encoder, self.num_classes, self.encoder_lr, self.norm_lr = encoder, num_classes, encoder_lr, norm_lr
        self._local, self._asked = ("local", "asked") if hasattr(encoder, "asked") else ("", "")
        c, depth = encoder.width, len(self._part(self._local).blocks)
        self.levels = tuple(sorted({max(1, round(depth * third / 3)) for third in (1, 2, 3)}))
        tokens = len(self.levels) * c
        whole = 2 * tokens + (c if encoder.queries else 0) + CLASS_WIDTH
        wide, half, quarter = round(8 * c / 3), round(4 * c / 3), round(2 * c / 3)  # 1024, 512, 256 in the papers
        self.of_class, self.class_norm = nn.Linear(num_classes, CLASS_WIDTH, bias=False), BatchNorm(CLASS_WIDTH)
        self.spread1, self.spread_norm1 = nn.Linear(3 + tokens, 4 * c), BatchNorm(4 * c)
        self.spread2, self.spread_norm2 = nn.Linear(4 * c, wide), BatchNorm(wide)
        self.mix1, self.mix_norm1 = nn.Linear(wide + whole, half), BatchNorm(half)
        self.dropout = nn.Dropout(dropout)
        self.mix2, self.mix_norm2 = nn.Linear(half, quarter), BatchNorm(quarter)
        self.parts = nn.Linear(quarter, num_parts)

    def param_groups(self) -> list[dict]:
        """What the optimiser trains; see engine/optimizers.py."""
        lr = lambda value: {} if value is None else {"lr": value}  # noqa: E731
        head = [module for name, module in self.named_children() if name != "encoder"]
        norms = [p for m in head if isinstance(m, BatchNorm) for p in m.parameters()]
        others = [p for m in head if not isinstance(m, BatchNorm) for p in m.parameters()]
        return [{"params": self.encoder.parameters(), **lr(self.encoder_lr)}, {"params": norms, **lr(self.norm_lr)},
                {"params": others}]

    def logits(self, clouds: Clouds) -> Float[Tensor, "b n p"]:
        """(B, N, P) of dense clouds with labels, the classes of the shapes."""
        if clouds.labels is None:
            raise DataError("batch", "no classes of shapes", "labelled shapes")
        points, (centers, tokens, queries) = clouds.dense, self._encoded(clouds)
        kind = F.one_hot(clouds.labels, self.num_classes).to(tokens.dtype)
        kind = F.leaky_relu(self.class_norm(self.of_class(kind)), 0.2)
        whole = torch.cat([tokens.amax(1), tokens.mean(1), *queries, kind], 1)
        # linear layers commute with weights that add up to one, so these see each token once, and not each point
        weight, wide = self.spread1.weight, self.spread2.out_features
        x = three_interpolate(centers, F.linear(tokens, weight[:, 3:]), points)
        x = self.spread_norm1(x + F.linear(points, weight[:, :3], self.spread1.bias)).relu()
        x = self.spread_norm2(self.spread2(x)).relu()
        of_whole = F.linear(whole, self.mix1.weight[:, wide:], self.mix1.bias)
        x = F.linear(x, self.mix1.weight[:, :wide]) + of_whole[:, None]
        x = self.dropout(self.mix_norm1(x).relu())
        return self.parts(self.mix_norm2(self.mix2(x)).relu())

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        """batch: views of clouds with labels of shapes and points, 255 for none; each view is a sample of its own."""
        losses, hits = [], []
        for view in batch:
            if view.point_labels is None:
                raise DataError("batch", "no labels of points", "a set with parts")
            logits, labels = self.logits(view).flatten(0, 1), view.point_labels
            known = (labels != IGNORE).sum().clamp(min=1)
            losses.append(F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / known)
            hits.append((logits.argmax(1) == labels).sum() / known)
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(hits).mean()}

    def _part(self, name: str) -> nn.Module:
        return getattr(self.encoder, name) if name else self.encoder

    def _encoded(self, clouds: Clouds) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Centers (B, G, 3), tokens (B, G, 3C), and [the maximum (B, C) over queries] or nothing.

        Queries are those that leave the last block, before the norm, as released.
        """
        left: list[Tensor] = []
        block = self._part(self._asked).blocks[-1]
        watch = block.register_forward_hook(lambda module, args, output: left.append(output[0]))
        try:
            encoded = self.encoder.encode(self.encoder.patches(clouds), levels=self.levels)
        finally:
            watch.remove()
        norm = self._part(self._local).norm
        tokens = torch.cat([norm(level) for level in encoded.levels], -1)
        return encoded.centers, tokens, [left[0].amax(1)] if self.encoder.queries else []


def predict_parts(
    segmenter: PartSegmenter, shapes: ShapeSet, of_class: Bool[Tensor, "l p"], batch_size: int = 16
) -> Int[Tensor, "s n"]:
    """(S, N) the part of each point, of those that its class may have; the segmenter is left as it was."""
    device = device_of(segmenter)
    with evaluating(segmenter):
        return torch.cat([
            restricted_argmax(segmenter.logits(clouds), clouds.labels, of_class.to(device)).cpu()
            for rows in torch.arange(len(shapes)).split(batch_size)
            for clouds in [shapes.clouds(rows, device=device)]
        ])
