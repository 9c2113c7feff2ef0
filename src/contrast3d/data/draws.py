"""`Draws`: counter-based random numbers, so that what a sample draws depends on nothing but its own key.

A key is hashed from (seed, epoch, sample id, view). The numbers behind a key are the outputs of splitmix64
(Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") that starts there, so number i
is computed without the ones before it: no generator state, no order, the same for any batch, rank or resume.
Everything is int64 arithmetic with wrap-around: uniforms are the same bits on every device.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.types import Clouds

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # the increment and the two multipliers of splitmix64, as int64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def _mix(words: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """The output function of splitmix64: a bijection of 64-bit words whose output bits look independent."""
    words = words.clone(memory_format=torch.contiguous_format)
    high = torch.empty_like(words)
    for shift, multiplier in zip((30, 27, 31), (*_MULTIPLIERS, 1)):
        torch.bitwise_right_shift(words, shift, out=high)
        words ^= high.bitwise_and_((1 << (64 - shift)) - 1)  # >> copies the sign; a logical shift does not
        if multiplier != 1:
            words *= multiplier
    return words


def _absorb(key: Int[Tensor, "*s"], value: int | Int[Tensor, "*t"]) -> Tensor:
    """Hash one more number into a key."""
    if isinstance(value, int):
        value = (value + 2**63) % 2**64 - 2**63
    return _mix((key ^ value) + _GOLDEN)


def _halves(words: Int[Tensor, "*s w"]) -> tuple[Float[Tensor, "*s w"], Float[Tensor, "*s w"]]:
    """Each word -> two independent float32 in [0, 1) of 24 bits."""
    first = ((words >> 40) & 0xFFFFFF).float()
    second = ((words >> 16) & 0xFFFFFF).float()
    return first.mul_(2.0**-24), second.mul_(2.0**-24)


def _uniform(words: Int[Tensor, "*s w"], count: int) -> Float[Tensor, "*s c"]:
    return torch.stack(_halves(words), -1).flatten(-2)[..., :count]


def _normal(words: Int[Tensor, "*s w"], count: int) -> Float[Tensor, "*s c"]:
    """Box and Muller 1958: two uniforms -> two standard normals; |values| stay below 5.8."""
    radius, angle = _halves(words)
    radius = radius.neg_().add_(1).log_().mul_(-2).sqrt_()
    angle = angle.mul_(2 * math.pi)
    return torch.stack((angle.cos().mul_(radius), angle.sin_().mul_(radius)), -1).flatten(-2)[..., :count]


class Draws:
    """The random numbers of one batch: B independent streams, one per sample.

    Each call returns fresh numbers: it advances a counter that is the same for all samples. `child()` gives
    a part of a pipeline a counter of its own, so that what one part consumes never shifts the next one's.

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
        key = torch.zeros((), dtype=torch.int64, device=ids.device)
        for value in (seed, epoch, view):
            key = _absorb(key, value)
        return cls(_absorb(key, ids.long()))

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

    def child(self) -> Draws:
        """An independent `Draws` for the same samples; the counter moves on by one, whatever it does."""
        return Draws(*self._next())

    def uniform(
        self, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0
    ) -> Float[Tensor, "b *s"]:
        """(B, *shape) float32, uniform in [low, high)."""
        return self._samples(shape, _uniform).mul_(high - low).add_(low)

    def normal(self, shape: tuple[int, ...] = ()) -> Float[Tensor, "b *s"]:
        """(B, *shape) float32, standard normal."""
        return self._samples(shape, _normal)

    def integers(self, high: int | Int[Tensor, "b"], shape: tuple[int, ...] = ()) -> Int[Tensor, "b *s"]:
        """(B, *shape) int64, uniform in 0 ... high - 1; `high` may differ by sample and stays below 2^24."""
        if isinstance(high, Tensor):
            high = high.view(-1, *[1] * len(shape))
        return (self.uniform(shape).double() * high).long()

    def choice(self, weights: tuple[float, ...]) -> Int[Tensor, "b"]:
        """(B,) int64: option i with a probability proportional to weights[i]."""
        edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        edges = (edges / edges[-1])[:-1].to(self.keys.device)
        return torch.searchsorted(edges, self.uniform().double(), right=True)

    def points_uniform(self, clouds: Clouds, channels: int = 1) -> Float[Tensor, "n c"]:
        """(sum N, channels) float32, uniform in [0, 1), for the points of the B clouds.

        Keyed by each point's row in its untransformed cloud (`clouds.indices` where there are any), so what a
        point draws does not depend on which other points survived; repeats of a point draw the same.
        """
        return _uniform(self._point_words(clouds, channels), channels)

    def points_normal(self, clouds: Clouds, channels: int = 1) -> Float[Tensor, "n c"]:
        """(sum N, channels) float32, standard normal; keyed like `points_uniform`."""
        return _normal(self._point_words(clouds, channels), channels)

    def _next(self) -> tuple[Int[Tensor, "b"], Int[Tensor, "b"]]:
        self._stream += 1
        keys = _absorb(self.keys, self._stream)
        shared = self.parameter_keys is not self.keys
        return keys, _absorb(self.parameter_keys, self._stream) if shared else keys

    def _samples(self, shape: tuple[int, ...], convert) -> Tensor:
        count = math.prod(shape)
        keys = self._next()[1]
        steps = torch.arange(1, (count + 1) // 2 + 1, device=keys.device) * _GOLDEN
        return convert(_mix(keys[:, None] + steps), count).reshape(len(self), *shape)

    def _point_words(self, clouds: Clouds, channels: int) -> Int[Tensor, "n w"]:
        """Words enough for `channels` values per point: word w of row r is number r * W + w of the key."""
        keys, words = self._next()[0], (channels + 1) // 2
        counter = point_rows(clouds) * words
        counter = (counter[:, None] + torch.arange(1, words + 1, device=keys.device)).mul_(_GOLDEN)
        counter += keys.index_select(0, clouds.batch_index)[:, None]
        return _mix(counter)


def point_rows(clouds: Clouds) -> Int[Tensor, "n"]:
    """(sum N,) the row of each point in its untransformed cloud: `indices`, or else its row in this one."""
    if clouds.indices is not None:
        return clouds.indices
    return torch.arange(len(clouds.points), device=clouds.device) - clouds.offsets[clouds.batch_index]
