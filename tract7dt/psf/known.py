"""Sources that the catalogue knows, detected in the frame or not, and what shines beside a star."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.psf.detection import Detections
    from tract7dt.types import Box

__all__ = ["KnownSources", "detected_widths", "objects_beside"]

F8 = NDArray[np.float64]

#: A row of the catalogue this near to a detection is that object, in FWHM, and at least in pix.
SAME_FWHM, SAME_PIX = 0.5, 1.5
#: The nearest row is the star's own when it is nearer than this, in FWHM.
OWN_FWHM = 1.2


@dataclass(frozen=True, slots=True)
class KnownSources:
    """Places and sizes of the catalogue's sources.

    Attributes
    ----------
    x, y : ndarray (n,)
        Pix.
    re : ndarray (n,)
        Half-light radius of the circle of the same area, pix; 0 for a star and where it is not known.
    """

    x: F8
    y: F8
    re: F8

    @classmethod
    def none(cls) -> KnownSources:
        """No source at all."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0))

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> KnownSources:
        """Those of the base catalogue that have a place.

        Parameters
        ----------
        table : DataFrame
            ``x_pix_white``, ``y_pix_white``; ``Re`` (pix), ``ELL`` and ``TYPE`` where there are any.
        """
        x, y = table["x_pix_white"].to_numpy(float), table["y_pix_white"].to_numpy(float)
        re = np.zeros(len(table))
        if "Re" in table:
            re = table["Re"].to_numpy(float)
            if "ELL" in table:
                ell = np.clip(np.nan_to_num(table["ELL"].to_numpy(float)), 0, 1)
                re = re * np.sqrt(1 - ell)
            if "TYPE" in table:
                star = table["TYPE"].astype(str).str.strip().str.upper() == "STAR"
                re = np.where(star, 0.0, re)
        placed = np.isfinite(x) & np.isfinite(y)
        return cls(x[placed], y[placed], np.where(np.isfinite(re) & (re > 0), re, 0.0)[placed])

    def within(self, window: Box) -> KnownSources:
        """Those in a window, in its pixels."""
        inside = window.contains(self.x, self.y)
        return KnownSources(self.x[inside] - window.x0, self.y[inside] - window.y0, self.re[inside])


def detected_widths(known: KnownSources, objects: Detections, fwhm: float) -> F8:
    """FWHM of each detection's image, pix: the stars', or what moments or the catalogue say beyond that.

    Parameters
    ----------
    known : KnownSources
        In the pixels of the window.
    objects : Detections
    fwhm : float
        Width of stars, pix.
    """
    widths = np.maximum(fwhm, 2.3548 * objects.rms_size)
    if len(known.x) and len(objects):
        distance, nearest = cKDTree(np.column_stack([known.x, known.y])).query(
            np.column_stack([objects.x, objects.y])
        )
        catalogued = np.hypot(fwhm, 2 * known.re[nearest])
        widths = np.where(distance <= _same(fwhm), np.maximum(widths, catalogued), widths)
    return widths


def objects_beside(
    known: KnownSources,
    objects: Detections,
    widths: F8,
    own: int,
    x: float,
    y: float,
    fwhm: float,
    reach: float,
) -> F8:
    """All that is known to lie beside a star: catalogue rows, and detections that are none.

    Parameters
    ----------
    known : KnownSources
        In the pixels of the window.
    objects : Detections
    widths : ndarray
        Their FWHM, pix.
    own : int
        The star's own detection, -1 if it has none.
    x, y : float
        The star in the window, pix.
    fwhm : float
        Width of stars, pix.
    reach : float
        What is farther away is left out, pix.

    Returns
    -------
    ndarray (m, 3)
        Offset from the star in x and y, and FWHM of the image there, pix.
    """
    same = _same(fwhm)
    distance = np.hypot(known.x - x, known.y - y)
    # rows on the star are the star, which some catalogues have twice; the nearest one is, also where the
    # catalogue's places are off by some pixels
    beside = (distance <= reach) & (distance > same)
    if beside.any() and distance.min() <= OWN_FWHM * fwhm:
        beside[distance.argmin()] = False
    # a Gaussian's half-light radius is half of its FWHM
    rows = [np.column_stack([known.x - x, known.y - y, np.hypot(fwhm, 2 * known.re)])[beside]]
    away = np.hypot(objects.x - x, objects.y - y)
    seen = (away <= reach) & (np.arange(len(objects)) != own) & ((away > same) | (own >= 0))
    for j in np.flatnonzero(seen):
        if not (np.hypot(known.x - objects.x[j], known.y - objects.y[j]) <= same).any():
            rows.append(np.array([[objects.x[j] - x, objects.y[j] - y, widths[j]]]))
    return np.concatenate(rows)


def _same(fwhm: float) -> float:
    """Distance within which a detection and a row of the catalogue are one object, pix."""
    return max(SAME_FWHM * fwhm, SAME_PIX)
