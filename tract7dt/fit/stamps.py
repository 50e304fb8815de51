"""Sizes of the square stamps on which sources are drawn.

A stamp is m x m pixels around the pixel nearest to the source, and what lies within ``m // 2 - 1`` pixels of it
is used. A source needs all pixels where its model exceeds a small fraction of the noise in any band; beyond, the
periodic image would also reach back in. Sizes are products of small primes, for which FFTs are fast.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit._jit import kernel

I8 = NDArray[np.int64]

# fmt: off
FFT_SIZES: I8 = np.array([
    16, 18, 20, 24, 30, 32, 36, 40, 48, 50, 54, 60, 64, 72, 80, 90, 96, 100, 108, 120, 128, 144, 160, 180, 192,
    200, 216, 240, 256, 288, 320, 360, 384, 400, 432, 480, 512, 576, 640, 768, 1024,
], dtype=np.int64)
# fmt: on
_SIZES: list[int] = FFT_SIZES.tolist()


def stamp_size(radius: int) -> int:
    """Smallest stamp of which the pixels within ``radius`` of its middle can be used (at most 1024)."""
    return _SIZES[min(bisect_left(_SIZES, 2 * radius + 2), len(_SIZES) - 1)]


def usable_radius(size: int) -> int:
    """Radius that a stamp of this size serves."""
    return size // 2 - 1


def boxes(centre: I8, radius: I8, ny: int, nx: int) -> I8:
    """Parts of the stamps that lie on the patch: int64 (S, 4) as x0, x1, y0, y1; all zero where none does.

    Parameters
    ----------
    centre : ndarray, int64 (S, 2)
        Middle pixel (x, y).
    radius : ndarray, int64 (S,)
    ny, nx : int
        Shape of the patch.
    """
    box = np.stack(
        [
            np.maximum(0, centre[:, 0] - radius),
            np.minimum(nx, centre[:, 0] + radius + 1),
            np.maximum(0, centre[:, 1] - radius),
            np.minimum(ny, centre[:, 1] + radius + 1),
        ],
        axis=1,
    )
    box[(box[:, 1] <= box[:, 0]) | (box[:, 3] <= box[:, 2])] = 0
    return box


@kernel
def extent(image: Any, middle: int, level: float) -> int:
    """Largest Chebyshev distance from pixel (middle, middle) at which ``|image| > level``."""
    m = image.shape[0]
    limit = np.float32(level)
    # from the outermost rows inwards; once something was found, only what is farther out than that is looked at
    for radius in range(max(middle, m - 1 - middle), 0, -1):
        for y in (middle - radius, middle + radius):
            if 0 <= y < m:
                row = image[y]
                largest = np.float32(0)
                for x in range(m):
                    largest = max(largest, abs(row[x]))
                if largest > limit:
                    return radius
        for y in range(max(0, middle - radius + 1), min(m, middle + radius)):
            for x in (middle - radius, middle + radius):
                if 0 <= x < m and abs(image[y, x]) > limit:
                    return radius
    return 0
