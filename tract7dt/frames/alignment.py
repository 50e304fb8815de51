"""Whether all images lie on one pixel frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WCS

from tract7dt.types import F8

if TYPE_CHECKING:
    from tract7dt.settings.inputs import WcsToleranceSettings

__all__ = ["alignment_problems"]

#: Largest difference of pixel positions that distortion terms may make between two aligned images, pix.
DISTORTION_TOLERANCE_PIX = 0.01


def alignment_problems(
    reference: WCS, other: WCS, shape: tuple[int, int], tolerance: WcsToleranceSettings
) -> list[str]:
    """What differs between the WCS of two images, beyond the tolerances.

    CTYPE, CRVAL, CRPIX and the matrix are compared as they stand: CD with CD, or PC and CDELT each; a CD
    against a PC image by the product CDELT * PC. Distortions have no comparable keywords across
    conventions, so where either image has any, corners and centre must fall within
    ``DISTORTION_TOLERANCE_PIX`` of each other.

    Parameters
    ----------
    reference, other : astropy.wcs.WCS
        Celestial WCS of the first image and of the one in question.
    shape : (int, int)
        ``(ny, nx)``.
    tolerance : WcsToleranceSettings
        Largest differences: ``crval`` (deg), ``crpix`` (pix), ``cd``, ``cdelt``.

    Returns
    -------
    list of str
        One sentence a difference; empty when aligned.
    """
    a, b = reference.wcs, other.wcs
    if list(a.ctype) != list(b.ctype):
        return [f"CTYPE {', '.join(b.ctype)}, expected {', '.join(a.ctype)}"]
    crval = np.asarray(b.crval) - np.asarray(a.crval)
    crval[0] = (crval[0] + 180.0) % 360.0 - 180.0  # 359.9999 and 0.0001 are neighbours
    pairs = [("CRVAL", crval, tolerance.crval, "deg"), ("CRPIX", b.crpix - a.crpix, tolerance.crpix, "pix")]
    if a.has_cd() and b.has_cd():
        pairs.append(("CD", b.cd - a.cd, tolerance.cd, "deg/pix"))
    elif a.has_cd() or b.has_cd():
        matrix = other.pixel_scale_matrix - reference.pixel_scale_matrix
        pairs.append(("CDELT * PC", matrix, tolerance.cd, "deg/pix"))
    else:
        pairs.append(("PC", b.get_pc() - a.get_pc(), tolerance.cd, ""))
        pairs.append(("CDELT", b.get_cdelt() - a.get_cdelt(), tolerance.cdelt, "deg/pix"))
    problems = [
        f"{name} differs by {largest:.3g} {unit}".rstrip() + f", allowed {allowed:g}"
        for name, difference, allowed, unit in pairs
        if not (largest := float(np.max(np.abs(difference)))) <= allowed
    ]
    if not problems and (_is_distorted(reference) or _is_distorted(other)):
        shift = _largest_shift(reference, other, shape)
        if not shift <= DISTORTION_TOLERANCE_PIX:
            problems.append(f"distortions differ by {shift:.3g} pix, allowed {DISTORTION_TOLERANCE_PIX:g}")
    return problems


def _is_distorted(wcs: WCS) -> bool:
    return wcs.sip is not None or bool(wcs.wcs.get_pv())


def _largest_shift(reference: WCS, other: WCS, shape: tuple[int, int]) -> float:
    """Largest distance on the sky between the same pixels of both images, in pixels."""
    ny, nx = shape
    x: F8 = np.array([0, nx - 1, 0, nx - 1, (nx - 1) / 2], float)
    y: F8 = np.array([0, 0, ny - 1, ny - 1, (ny - 1) / 2], float)
    ra_a, dec_a = reference.all_pix2world(x, y, 0)
    ra_b, dec_b = other.all_pix2world(x, y, 0)
    dra = ((ra_b - ra_a + 180.0) % 360.0 - 180.0) * np.cos(np.deg2rad(dec_a))
    scale = np.sqrt(abs(np.linalg.det(reference.pixel_scale_matrix)))
    return float(np.max(np.hypot(dra, dec_b - dec_a)) / scale)
