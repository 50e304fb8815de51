"""Light of other objects on a star's cutout: how much falls on the star, and which pixels to leave out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tract7dt.psf.cutouts import cutout
from tract7dt.psf.detection import CellImage
from tract7dt.psf.wings import MoffatProfile

__all__ = ["neighbour_light"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Index of the profile that neighbours are assumed to have: wide wings, and a cube is quick.
NEIGHBOUR_BETA = 3
#: A pixel counts as a neighbour's where that is brighter than this many sky sigma ...
FOREIGN_SIGMA = 0.3
#: ... and than this share of the star itself.
FOREIGN_SHARE = 0.01
#: Growth of the detected footprints of others, pix.
FOOTPRINT_GROWTH = 2


def neighbour_light(
    image: CellImage,
    widths: F8,
    x: int,
    y: int,
    own: int,
    half: int,
    flux: float,
    fwhm: float,
    fit_pix: float,
) -> tuple[float, Bool]:
    """Predicted light of all other detections on one star's cutout.

    Each is drawn as a round Moffat profile that has the isophotal flux within the isophote's area; what a
    profile does not describe (a trail) is caught by its footprint.

    Parameters
    ----------
    image : CellImage
    widths : ndarray (n,)
        FWHM of each detection, pix.
    x, y : int
        Centre pixel of the cutout in the window.
    own : int
        Index of the star's own detection, -1 if it has none.
    half : int
        Half-size of the cutout; where it leaves the window nothing is known of others.
    flux : float
        Aperture flux of the star, scaled counts.
    fwhm : float
        Width of stars, pix.
    fit_pix : float
        Fit radius, pix.

    Returns
    -------
    share : float
        Their flux within the fit radius, over the star's; inf where another footprint covers the centre.
    foreign : ndarray, bool (2 half + 1, 2 half + 1)
        Pixels to leave out.
    """
    objects = image.objects
    axis = np.arange(-half, half + 1)
    radius = np.hypot(axis[:, None], axis[None, :])
    disc = radius <= fit_pix
    noise = float(image.noise[y, x])
    alpha = widths / (2 * np.sqrt(2 ** (1 / NEIGHBOUR_BETA) - 1))
    within = 1 - (1 + objects.n_pixels / (np.pi * alpha**2)) ** (1 - NEIGHBOUR_BETA)
    amplitude = objects.flux / within * (NEIGHBOUR_BETA - 1) / (np.pi * alpha**2)
    distance = np.hypot(objects.x - x, objects.y - y)
    nearest = np.maximum(distance - half * np.sqrt(2), 0)
    reaches = amplitude * (1 + (nearest / alpha) ** 2) ** -NEIGHBOUR_BETA > FOREIGN_SIGMA / 2 * noise
    if own >= 0:
        reaches[own] = False
    else:
        reaches &= distance > fit_pix / 2
    light = np.zeros_like(radius)
    for j in np.flatnonzero(reaches):
        squared = (axis[:, None] + y - objects.y[j]) ** 2 + (axis[None, :] + x - objects.x[j]) ** 2
        base = 1 / (1 + squared / alpha[j] ** 2)
        light += amplitude[j] * base * base * base
    star = MoffatProfile.of_width(fwhm, NEIGHBOUR_BETA).image(
        axis[None, :].astype(float), axis[:, None].astype(float)
    )
    foreign = light > np.maximum(FOREIGN_SIGMA * noise, FOREIGN_SHARE * flux * star)
    segments = cutout(image.segments, x, y, half, 0)
    mine = segments[half, half] if own < 0 else own + 1
    others = (segments > 0) & (segments != mine)
    share = float(light[disc].sum() / flux) if flux > 0 else np.inf
    if (others & (radius <= 0.5 * fit_pix)).any():
        share = np.inf
    grown = ndimage.binary_dilation(others, iterations=FOOTPRINT_GROWTH) if others.any() else others
    # a footprint's growth must not eat the star's own core
    foreign |= others | (grown & (radius > fit_pix))
    return share, foreign
