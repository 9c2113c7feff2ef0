"""CPU kernel of the exact GELU with its slope."""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.elementary import exp2, reciprocal
from contrast3d.ops.kernels.threads import kernel

ZERO, ONE = np.float32(0), np.float32(1)
# 1 - Phi(z) = t (A1 + t (A2 + ...)) exp(-z^2 / 2), t = 1 / (1 + P z): Abramowitz and Stegun, 7.1.26, error 8e-8.
P = np.float32(0.3275911 / np.sqrt(2))
A1, A2, A3, A4, A5 = np.float32([0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]) / np.float32(2)
TO_EXP2 = np.float32(-0.5 / np.log(2))
DENSITY = np.float32(1 / np.sqrt(2 * np.pi))


@kernel
def gelu_and_slope(z, out, slope, start, stop):
    """out = z Phi(z), slope = Phi(z) + z phi(z), Phi being the normal distribution and phi its density.

    Flat arrays; slope may be z itself. One exponential serves both: that of Phi's tail is the density's.
    """
    z, out, slope = z[start:stop], out[start:stop], slope[start:stop]
    for j in range(len(z)):
        x = z[j]
        e = exp2(x * x * TO_EXP2)
        t = reciprocal(ONE + P * abs(x))
        tail = ((((A5 * t + A4) * t + A3) * t + A2) * t + A1) * t * e
        phi = ONE - tail if x > ZERO else tail
        out[j] = x * phi
        slope[j] = phi + x * e * DENSITY
