"""What the pictures of a cell's PSF show besides the PSF: its background and its stars, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tract7dt.psf.cutouts import cutout, local_sky
from tract7dt.psf.detection import CellImage, detect_cell, stamp_width
from tract7dt.types import F4, Box, PsfDiagnosis

if TYPE_CHECKING:
    from tract7dt.settings import EpsfSettings
    from tract7dt.types import Frame

__all__ = ["diagnose", "diagnose_cell"]

#: The background map is smooth on tens of pixels: means over blocks of this many are kept.
STEP = 8
#: Reasons of candidates that were cut out for the stack and are not part of it.
_REFUSED_LATE = ("outlier", "fit_failed")


class Star(Protocol):
    """The part of a candidate that is looked at."""

    @property
    def x(self) -> float:
        """Working-frame position, pix."""

    @property
    def y(self) -> float:
        """Working-frame position, pix."""

    @property
    def snr(self) -> float:
        """Signal to noise in the forced aperture."""

    @property
    def used(self) -> bool:
        """Part of the stack."""

    @property
    def reason(self) -> str:
        """Why not."""


def diagnose(frame: Frame, cell: Box, candidates: Sequence[Star], epsf: EpsfSettings) -> PsfDiagnosis:
    """The same as :func:`diagnose_cell` from the frame, where the cell's image is not at hand any more."""
    return diagnose_cell(detect_cell(frame, cell, epsf), candidates, epsf)


def diagnose_cell(image: CellImage, candidates: Sequence[Star], epsf: EpsfSettings) -> PsfDiagnosis:
    """Background map and cutouts of the stars that went into the stack of a cell.

    Parameters
    ----------
    image : CellImage
    candidates : sequence of Star
        All of them; those that were turned down before the stack are passed over.
    epsf : EpsfSettings
        Size of the cutouts, ``star_local_bkg_*``.
    """
    window = image.window
    stars = [c for c in candidates if c.used or c.reason in _REFUSED_LATE]
    half = stamp_width(epsf) // 2
    width = 2 * half + 1
    data = np.full((len(stars), width, width), np.nan, np.float32)
    good = np.zeros(data.shape, bool)
    noise = np.zeros(len(stars))
    for i, star in enumerate(stars):
        x, y = round(star.x) - window.x0, round(star.y) - window.y0
        usable = ~cutout(image.nonfinite | image.saturated, x, y, half, True)
        segments = cutout(image.segments, x, y, half, 0)
        data[i] = np.where(usable, cutout(image.data, x, y, half, 0.0), np.nan)
        good[i] = usable & ((segments == 0) | (segments == segments[half, half]))
        noise[i] = image.noise[y, x]
    sky = np.zeros(len(stars))
    if epsf.star_local_bkg_subtract and stars:
        annulus = (epsf.star_local_bkg_annulus_rin_pix, epsf.star_local_bkg_annulus_rout_pix)
        known = np.where(good, data, 0.0).astype(float)
        sky = local_sky(known, good, annulus, epsf.star_local_bkg_sigma, epsf.star_local_bkg_minpix)
    cell = image.cell
    rows, columns = (
        slice(cell.y0 - window.y0, cell.y1 - window.y0),
        slice(cell.x0 - window.x0, cell.x1 - window.x0),
    )
    return PsfDiagnosis(
        background=_block_means(image.background[rows, columns]),
        step=STEP,
        x=np.array([star.x for star in stars], float),
        y=np.array([star.y for star in stars], float),
        snr=np.array([star.snr for star in stars], float),
        used=np.array([star.used for star in stars], bool),
        reason=tuple(star.reason for star in stars),
        data=data,
        good=good,
        sky=sky,
        noise=noise,
        gain=image.gain,
    )


def _block_means(image: F4) -> F4:
    ny, nx = image.shape
    padded = np.pad(image, ((0, -ny % STEP), (0, -nx % STEP)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // STEP, STEP, padded.shape[1] // STEP, STEP)
    out: F4 = blocks.mean(axis=(1, 3), dtype=np.float32)
    return out
