"""What the kernels take for granted about their input, checked and arranged.

In numpy, on the caller's thread: torch would wake its OpenMP threads, which then spin for milliseconds on the
cores that the kernel is about to use.
"""

from __future__ import annotations

import numpy as np

from contrast3d.errors import DataError
from contrast3d.ops.kernels.masks import padding


def check_finite(name: str, values: np.ndarray) -> None:
    """Refuse (..., C) values that are NaN, infinite, or so large that a squared distance may overflow."""
    limit = np.sqrt(np.finfo(values.dtype).max / (16 * max(1, values.shape[-1])))
    if values.size and not (values.max() < limit and values.min() > -limit):  # NaN compares false
        raise DataError(name, "NaN, infinite or overflowing values", "finite values")


def padded_columns(points: np.ndarray) -> np.ndarray:
    """(B, N, C) with C <= 3 -> (B, 3, N + padding): absent axes zero, the padding at infinity."""
    b, n, c = points.shape
    columns = np.full((b, 3, n + padding(n)), np.inf, points.dtype)
    columns[:, :c, :n] = points.transpose(0, 2, 1)
    columns[:, c:, :n] = 0
    return columns
