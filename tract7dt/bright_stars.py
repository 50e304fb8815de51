"""What a saturated star does to the pixels around it, beyond what the fit can model.

The fit gives every star a PSF stamp of some fifty pixels. A star a thousand times brighter than the stars of that
stamp shines on beyond its edge, and within it the stamp is wrong by a share of the star's own light that is
hundreds of times the sky noise. Left alone, the galaxies around bend and swell to fit both. So the light beyond
the stamp is subtracted, with the stamp's own tail, and the error of the model is added to the variance: less
weight where the star shines, the same as ever where it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tract7dt.types import F4, F8, Bool

__all__ = ["MODEL_ERROR", "WING_RADIUS", "flux_from_wings", "overlap", "without_bright_stars"]

#: Error of a saturated star's model, as a share of the model: ePSF stamps agree with the true PSF to a few per
#: cent out to 8 pixels, their tails to 10-20 %. The scatter of the stamp around its circles comes on top: what is
#: noise of 1e-5 of the flux to the stars of the stamp is eight times the sky noise to a star of magnitude 9.
MODEL_ERROR = 0.1

#: How far the wings of a saturated star are followed, pix.
WING_RADIUS = 120

_BRIGHT_SIGMA = 20.0
_FAINTEST = 1e-4
_MIN_PIXELS = 10


def without_bright_stars(
    data: F4,
    weight: F4,
    sky_sigma: F8,
    stamp_size: Sequence[int],
    wings: Iterable[F8],
    x: F8,
    y: F8,
    flux: F8,
    share: float = MODEL_ERROR,
) -> tuple[F4, F4]:
    """Data without the light of some stars beyond their PSF stamps, weights with the error of their models.

    Parameters
    ----------
    data, weight : ndarray, float32 (nband, ny, nx)
        Scaled counts, 1 / sigma**2 (0: masked).
    sky_sigma : ndarray, float64 (nband,)
        Scaled counts.
    stamp_size : sequence of int
        Width of the PSF stamp that the fit uses, pix, per band: the light inside stays in ``data``.
    wings : iterable of ndarray, float64 (k, k)
        PSF of each band continued beyond that stamp, k odd; the stamp's part has unit sum.
    x, y : ndarray, float64 (n,)
        The stars, pix; may lie off the patch.
    flux : ndarray, float64 (nband, n)
        Their fluxes, scaled counts; the brighter of it and what unsaturated pixels say is used, since an
        aperture on a clipped core is a lower limit. NaN: not known.
    share : float, optional
        Error of the model as a share of it.

    Returns
    -------
    data, weight : ndarray, float32 (nband, ny, nx)
        New arrays; ``weight`` becomes ``1 / (1 / weight + error**2)``, where the error of the model is ``share``
        of it, and the scatter of the stamp at that radius times the flux.
    """
    clean, less = np.empty(data.shape, np.float32), np.empty(data.shape, np.float32)
    for band, wide in enumerate(wings):
        tails, variance = np.zeros(data.shape[1:]), np.zeros(data.shape[1:])
        beyond = wide.copy()
        edge, centre = stamp_size[band] // 2, wide.shape[0] // 2
        inside = slice(max(centre - edge, 0), centre + edge + 1)
        beyond[inside, inside] = 0.0
        error = np.hypot(share * wide, _scatter_by_radius(wide))
        for star in range(len(x)):
            found = overlap(wide.shape[0], data.shape[1:], float(x[star]), float(y[star]))
            if found is None:
                continue
            place, part = found
            used = weight[band][place] > 0
            seen = flux_from_wings(data[band][place], used, wide, part, float(sky_sigma[band]))
            bright = max(float(np.nan_to_num(flux[band, star])), seen, 0.0)
            tails[place] += bright * beyond[part]
            variance[place] += (bright * error[part]) ** 2
        clean[band], less[band] = data[band] - tails, weight[band] / (1.0 + weight[band] * variance)
    return clean, less


def _scatter_by_radius(stamp: F8) -> F8:
    """Standard deviation of the stamp's pixels at about the same distance from its centre, at every pixel."""
    axis = np.arange(stamp.shape[0]) - stamp.shape[0] // 2
    ring = np.rint(np.hypot(axis[:, None], axis[None, :])).astype(np.int64).ravel()
    n = np.bincount(ring)
    mean = np.bincount(ring, stamp.ravel()) / n
    square = np.bincount(ring, stamp.ravel() ** 2) / n
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0.0))[ring].reshape(stamp.shape))


def flux_from_wings(data: F4, used: Bool, stamp: F8, part: tuple[slice, slice], sky_sigma: float) -> float:
    """Flux of a star from its bright pixels: the median of data / stamp, 0 with too few of them.

    Parameters
    ----------
    data, used : ndarray (ny, nx)
        Scaled counts; False where masked, as a saturated core is.
    stamp : ndarray (k, k)
        The PSF.
    part : (slice, slice)
        Its pixels that ``data`` shows. Those below 1e-4 of its peak do not count: out there, other sources
        are brighter than the star.
    sky_sigma : float
        Scaled counts.
    """
    shown = stamp[part]
    bright = used & (data > _BRIGHT_SIGMA * sky_sigma) & (shown > _FAINTEST * stamp.max())
    if np.count_nonzero(bright) < _MIN_PIXELS:
        return 0.0
    return float(np.median(data[bright] / shown[bright]))


def overlap(
    size: int, shape: tuple[int, ...], x: float, y: float
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where a ``size`` pixels wide stamp centred on the pixel nearest to (x, y) lands on an image.

    Returns
    -------
    image, stamp : (slice, slice)
        The shared pixels in either; None if there are none.
    """
    half = size // 2
    image, stamp = [], []
    for centre, length in ((y, shape[0]), (x, shape[1])):
        start = round(centre) - half
        low, high = max(0, -start), min(size, length - start)
        if high <= low:
            return None
        image.append(slice(start + low, start + high))
        stamp.append(slice(low, high))
    return (image[0], image[1]), (stamp[0], stamp[1])
