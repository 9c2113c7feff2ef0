"""`Draws`: counter-based random numbers, so that what a sample draws depends on nothing but its own key.

A key is hashed from (seed, epoch, view, sample id). The numbers behind a key are the outputs of splitmix64
(Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") that starts there, so number i
is computed without the ones before it: no generator state, no order, the same for any batch, rank or resume.
Everything is int64 arithmetic with wrap-around: uniforms are the same bits on every device, normals the same
to rounding.
"""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.data.segments import per_point, point_rows
from contrast3d.types import Clouds

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the increment and the two multipliers of splitmix64, as int64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def _mix_(words: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """The output function of splitmix64, in place: a bijection whose output bits look independent."""
    high = torch.empty_like(words)
    for shift, multiplier in zip((30, 27, 31), (*_MULTIPLIERS, None)):
        torch.bitwise_right_shift(words, shift, out=high)
        words ^= high.bitwise_and_((1 << (64 - shift)) - 1)  # >> copies the sign; a logical shift does not
        if multiplier is not None:
            words *= multiplier
    return words


def _uniform(words: Int[Tensor, "*s"], channels: int = 1) -> Float[Tensor, "*s c"]:
    """Each word -> 1 or 2 independent float32 of 24 bits, or 3 of 21 bits, in [0, 1)."""
    bits = min(24, 63 // channels)
    values = torch.empty(*words.shape, channels, device=words.device)
    for i in range(channels):
        values[..., i] = (words >> (64 - bits * (i + 1))).bitwise_and_((1 << bits) - 1)
    return values.mul_(2.0**-bits)


def _normal(words: Int[Tensor, "*s"], channels: int = 1) -> Float[Tensor, "*s c"]:
    """The inverse distribution function in the middle of each uniform's step; |values| stay below 5.5."""
    step = 2.0 ** -min(24, 63 // channels)
    return _uniform(words, channels).mul_(2).sub_(1 - step).erfinv_().mul_(math.sqrt(2))


def _fraction(words: Int[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Each word -> a float64 of 53 bits in [0, 1)."""
    return (words >> 11).bitwise_and_((1 << 53) - 1).double().mul_(2.0**-53)


class Draws:
    """The random numbers of one batch: B independent streams, one per sample.

    Each call returns fresh numbers: it advances a counter that is the same for all samples. `children` give
    the parts of a pipeline counters of their own, so that what one part consumes never shifts the next one's.

    keys: (B,) int64, one per sample; they key the per-point numbers.
    parameter_keys: (B,) int64, what keys the per-sample numbers; `keys` unless the draws are `shared()`.
    """

    def __init__(self, keys: Int[Tensor, "b"], parameter_keys: Int[Tensor, "b"] | None = None):
        self.keys = keys
        self.parameter_keys = keys if parameter_keys is None else parameter_keys
        self._stream = 0

    @classmethod
    def of(cls, seed: int, epoch: int, ids: Int[Tensor, "b"], view: int = 0) -> Draws:
        """The draws of the samples `ids` (B,) for one view in one epoch."""
        digest = hashlib.blake2b(f"{seed}, {epoch}, {view}".encode(), digest_size=8).digest()
        start = int.from_bytes(digest, "little", signed=True)
        return cls(_mix_((ids.long() * _GOLDEN).add_(start)))

    def __len__(self) -> int:
        return len(self.keys)

    def shared(self) -> Draws:
        """Every sample draws the parameters of the first: one rotation, shear, flip for the whole batch.

        Per-point noise stays independent. No method wants this; it reproduces the original report, whose
        transforms saw a collated batch as if it were one object (its second defect).
        """
        return Draws(self.keys, self.parameter_keys[:1].expand(len(self)))

    def take(self, rows: Int[Tensor, "m"] | slice) -> Draws:
        """The draws of some of the samples, from the same place in their streams on."""
        taken = Draws(self.keys[rows], self.parameter_keys[rows])
        taken._stream = self._stream
        return taken

    def children(self, count: int) -> list[Draws]:
        """Independent `Draws` for the same samples; the counter moves on by `count` in any case."""
        streams = torch.tensor([self._advance() for _ in range(count)], dtype=torch.int64)
        streams = streams.to(self.keys.device)[:, None]
        keys = _mix_(self.keys + streams)
        if self.parameter_keys is self.keys:
            return [Draws(own) for own in keys]
        return [Draws(*own) for own in zip(keys, _mix_(self.parameter_keys + streams))]

    def uniform(
        self, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0
    ) -> Float[Tensor, "b *s"]:
        """(B, *shape) float32, uniform in [low, high)."""
        return _uniform(self._words(shape))[..., 0].mul_(high - low).add_(low)

    def normal(self, shape: tuple[int, ...] = ()) -> Float[Tensor, "b *s"]:
        """(B, *shape) float32, standard normal."""
        return _normal(self._words(shape))[..., 0]

    def integers(self, high: int | Int[Tensor, "b"], shape: tuple[int, ...] = ()) -> Int[Tensor, "b *s"]:
        """(B, *shape) int64, uniform in 0 ... high - 1; `high` may differ by sample, and stays below 2^53."""
        if isinstance(high, Tensor):
            high = high.view(-1, *[1] * len(shape))
        return _fraction(self._words(shape)).mul_(high).long()

    def choice(self, weights: tuple[float, ...]) -> Int[Tensor, "b"]:
        """(B,) int64: option i with a probability proportional to weights[i]."""
        edges = torch.tensor(weights, dtype=torch.float64, device=self.keys.device).cumsum(0)
        return torch.searchsorted(edges[:-1] / edges[-1], _fraction(self._words(())), right=True)

    def points_words(self, clouds: Clouds) -> Int[Tensor, "n"]:
        """(sum N,) int64, 64 random bits for each point of the B clouds.

        Keyed by each point's row in its untransformed cloud (`clouds.indices` where there are any), so what a
        point draws does not depend on which other points survived; repeats of a point draw the same.
        """
        words = point_rows(clouds) * _GOLDEN
        return _mix_(words.add_(per_point(clouds, self.keys + self._advance())))

    def points_uniform(self, clouds: Clouds, channels: int = 1) -> Float[Tensor, "n c"]:
        """(sum N, channels <= 3) float32, uniform in [0, 1); keyed like `points_words`."""
        return _uniform(self.points_words(clouds), channels)

    def points_normal(self, clouds: Clouds, channels: int = 1) -> Float[Tensor, "n c"]:
        """(sum N, channels <= 3) float32, standard normal; keyed like `points_words`."""
        return _normal(self.points_words(clouds), channels)

    def _advance(self) -> int:
        """Where the next 2^32 numbers of each key start, as an int64 to add to it."""
        self._stream += 1
        return ((self._stream << 32) * _GOLDEN + 2**63) % 2**64 - 2**63

    def _words(self, shape: tuple[int, ...]) -> Int[Tensor, "b *s"]:
        counter = torch.arange(math.prod(shape), device=self.keys.device) * _GOLDEN + self._advance()
        return _mix_(self.parameter_keys[:, None] + counter).view(len(self), *shape)
