"""Stars cut out of a cell: pixels, which of them count, noise and local sky."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["StarStamps", "cutout", "fit_radius", "local_sky"]

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StarStamps:
    """Square cutouts of ``n`` stars, background map subtracted.

    Attributes
    ----------
    x, y : ndarray, int64 (n,)
        Working-frame pixel at the centre of each cutout.
    data : ndarray, float64 (n, k, k)
        Scaled counts; 0 where not good.
    good : ndarray, bool (n, k, k)
        Finite, not saturated, not a neighbour's.
    noise : ndarray, float64 (n,)
        Sky sigma per pixel at the star, scaled counts.
    gain : float
        Electrons per scaled count.
    beside : tuple of ndarray (m, 3)
        What is known to lie beside each star: offset from the centre pixel in x and y, and FWHM of its image,
        pix. Empty where nobody asked.
    """

    x: I8
    y: I8
    data: F8
    good: Bool
    noise: F8
    gain: float
    beside: tuple[F8, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def k(self) -> int:
        """Width of the cutouts, odd."""
        return self.data.shape[1]

    def subset(self, which: NDArray[np.intp]) -> StarStamps:
        """The stars of these numbers."""
        return replace(
            self,
            x=self.x[which],
            y=self.y[which],
            data=self.data[which],
            good=self.good[which],
            noise=self.noise[which],
            beside=tuple(self.beside[i] for i in which) if self.beside else (),
        )


def cutout(image: NDArray[Any], x: int, y: int, half: int, fill: float) -> NDArray[Any]:
    """Square of half-size ``half`` about pixel (x, y), ``fill`` where it leaves the image."""
    ny, nx = image.shape
    result = np.full((2 * half + 1, 2 * half + 1), fill, image.dtype)
    x0, x1, y0, y1 = max(x - half, 0), min(x + half + 1, nx), max(y - half, 0), min(y + half + 1, ny)
    result[y0 - y + half : y1 - y + half, x0 - x + half : x1 - x + half] = image[y0:y1, x0:x1]
    return result


def fit_radius(fwhm: float) -> float:
    """Radius within which a star's flux and place are fitted, pix."""
    return float(np.clip(2.5 * fwhm, 5.0, 20.0))


def local_sky(
    data: F8, good: Bool, annulus: tuple[float, float], sigma: float, min_pixels: int, iterations: int = 5
) -> F8:
    """Sigma-clipped median of each cutout in an annulus, clamped to the cutout.

    Parameters
    ----------
    data, good : ndarray (n, k, k)
    annulus : (float, float)
        Inner and outer radius, pix; radii beyond the cutout mean its edge.
    sigma : float
        Clip, in units of the half-range of the middle 68 %.
    min_pixels : int
        With fewer good pixels the sky is 0.

    Returns
    -------
    ndarray (n,)
        Scaled counts per pixel.
    """
    half = data.shape[1] // 2
    axis = np.arange(-half, half + 1)
    radius = np.hypot(axis[:, None], axis[None, :])
    outer = min(annulus[1], float(half))
    inner = min(annulus[0], outer - 3.0)
    ring = (radius >= inner) & (radius <= outer)
    sky = np.zeros(len(data))
    for i, (pixels, ok) in enumerate(zip(data[:, ring], good[:, ring], strict=True)):
        values = np.sort(pixels[ok])
        if len(values) >= max(min_pixels, 1):
            sky[i] = _clipped_median(values, sigma, iterations)
    return sky


def _clipped_median(values: F8, sigma: float, iterations: int) -> float:
    """Median of sorted values within ``sigma`` of it; sigma is half the range of the middle 68.3 %."""
    low, high = 0, len(values)
    for _ in range(iterations):
        n = high - low
        middle = values[low + n // 2]
        spread = 0.5 * (values[low + int(0.8413 * (n - 1))] - values[low + int(0.1587 * (n - 1))])
        if spread <= 0:
            break
        bounds = np.searchsorted(values, [middle - sigma * spread, middle + sigma * spread])
        if (bounds[0], bounds[1]) == (low, high):
            break
        low, high = max(int(bounds[0]), low), min(int(bounds[1]), high)
    return float(np.median(values[low:high]))
