"""The first stamp: photutils' ``EPSFBuilder``, as far as it goes.

At oversampling 1 its smoothing lowers the peak by 2 to 11 % (FWHM 4.5 to 2.5 pix, 30 simulated stars), and
without smoothing its centring and resampling leave 0.3 to 1 % in PSF flux. That is a good start, and no more.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from tract7dt.psf.cutouts import StarStamps, fit_radius
from tract7dt.psf.wings import MoffatProfile

log = logging.getLogger(__name__)

__all__ = ["photutils_start"]

F8 = NDArray[np.float64]

#: More of its iterations cost CPU time and gain nothing that the stack does not find.
PHOTUTILS_ITERATIONS = 3
#: The best stars will do for a start, and each costs as much as in the whole of the stack.
PHOTUTILS_STARS = 12


def photutils_start(
    stars: StarStamps, fwhm: float, oversampling: int, recenter_boxsize: int, max_iterations: int
) -> F8 | None:
    """First stamp and its core from photutils' ``EPSFBuilder``, of the first stars; None when it finds none.

    Only the core is built (the wings come later), without smoothing, in few iterations:
    the stack does the rest. With ``oversampling > 1`` the pixel-centre samples are taken.

    Returns
    -------
    ndarray (k, k) or None
        Core in a Moffat's wings, unit sum.
    """
    # Only here: workers that fit patches import this package for its fallbacks, and do without 40 MB of photutils.
    from photutils.psf import EPSFBuilder, EPSFStar, EPSFStars

    k = stars.k
    half = int(min(k // 2, max(7, np.ceil(fit_radius(fwhm)))))
    core = slice(k // 2 - half, k // 2 + half + 1)
    cutouts = []
    best = slice(PHOTUTILS_STARS)
    for data, good in zip(stars.data[best, core, core], stars.good[best, core, core], strict=True):
        cutouts.append(
            EPSFStar(np.where(good, data, 0.0), weights=good.astype(float), cutout_center=(half, half))
        )
    box = min(recenter_boxsize, 2 * half - 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            builder = EPSFBuilder(
                oversampling=oversampling,
                maxiters=min(max_iterations, PHOTUTILS_ITERATIONS),
                smoothing_kernel=None,
                recentering_boxsize=box,
                progress_bar=False,
            )
            built = builder(EPSFStars(cutouts)).epsf.data
    except (ValueError, TypeError, RuntimeError) as error:  # includes scipy's QhullError
        log.debug("photutils made no ePSF of %d stars: %s", len(cutouts), error)
        return None
    centre, step = built.shape[0] // 2, oversampling
    reach = min(centre // step, half)
    inner = built[centre - reach * step :: step, centre - reach * step :: step][
        : 2 * reach + 1, : 2 * reach + 1
    ]
    stamp = MoffatProfile.of_width(fwhm).stamp(k)
    place = slice(k // 2 - reach, k // 2 + reach + 1)
    total = float(inner.sum())
    if (
        not np.all(np.isfinite(inner))
        or total <= 0
        or inner.max() != inner[reach - 2 : reach + 3, reach - 2 : reach + 3].max()
    ):
        return None
    stamp[place, place] = inner * (stamp[place, place].sum() / total)
    return stamp / stamp.sum()
