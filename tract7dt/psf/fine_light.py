"""Light of a profile that is finer than the pixels, as a star shows it at its fraction of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.shift import StampShifter
from tract7dt.psf.wings import MoffatProfile

__all__ = ["FineLight"]

F8 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FineLight:
    """What (k, k) pixels sample of a profile but do not resolve; a stack of stars averages it out.

    Attributes
    ----------
    profile : MoffatProfile
    k : int
        Odd.
    share : float
        Of it that the stars show: 0 for frames that were smoothed, as by resampling.
    """

    profile: MoffatProfile
    k: int
    share: float = 1.0

    def at(self, dx: F8, dy: F8, core: slice) -> F8:
        """The profile's samples minus its resolved part for stars ``dx``, ``dy`` (n,) pix off the centre.

        Returns
        -------
        ndarray (n, m, m)
            Of the rows and columns ``core``.
        """
        axis = (np.arange(self.k, dtype=float) - self.k // 2)[core]
        exact = self.profile.image(
            axis[None, None, :] - dx[:, None, None], axis[None, :, None] - dy[:, None, None]
        )
        # one stamp is transformed, then moved to all places
        smooth = StampShifter(self.k).moved(self.profile.resolved(self.k), dx, dy)[:, core, core]
        return self.share * (exact - smooth)
