"""What goes into the stack of a cell besides its stars, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.wings import MoffatProfile

__all__ = ["Stack", "StackOptions"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What of ``epsf.*`` the stack needs.

    Attributes
    ----------
    size : int
        Width of the unit-sum stamp, odd (``final_psf_size``).
    max_iterations : int
    clip : bool
        5-sigma clip of pixels and stars.
    oversampling, recenter_boxsize : int
        For photutils.
    sky_annulus : (float, float) or None
        Radii of the local sky, pix; None: no local sky.
    sky_sigma_clip : float
    sky_min_pixels : int
    """

    size: int
    max_iterations: int
    clip: bool
    oversampling: int
    recenter_boxsize: int
    sky_annulus: tuple[float, float] | None
    sky_sigma_clip: float
    sky_min_pixels: int


@dataclass(frozen=True, slots=True)
class Stack:
    """Result of :func:`refine`; arrays run over the stars that went in.

    Attributes
    ----------
    stamp : ndarray (k, k)
        Effective PSF on the stars' grid; its central ``size`` by ``size`` pixels sum to 1.
    profile : MoffatProfile
        Fit of it, the model of the far wings.
    flux, dx, dy, sky : ndarray (n,)
        Fit of each star: scaled counts, pix from its centre pixel, scaled counts per pixel.
    used : ndarray, bool (n,)
    reasons : tuple of str
        Why a star was not used; "" if it was.
    chi : ndarray (n,)
        Root mean square of residual / sigma within the fit radius, photon noise included, no mismatch term.
    size_excess : ndarray (n,)
        Relative size of the star against the stamp (0.01: one per cent wider).
    model : ndarray (n, k, k)
        flux * shifted stamp.
    fine_share : float
        How much of what the profile holds beyond the pixels' Nyquist frequency the stars show, 0 to 1.
    mismatch : float
        Relative difference between the stars' own PSFs, from the spread of their sizes.
    iterations : int
    converged : bool
    start : str
        ``photutils`` or ``moffat``.
    """

    stamp: F8
    profile: MoffatProfile
    flux: F8
    dx: F8
    dy: F8
    sky: F8
    used: Bool
    reasons: tuple[str, ...]
    chi: F8
    size_excess: F8
    model: F8
    fine_share: float
    mismatch: float
    iterations: int
    converged: bool
    start: str
