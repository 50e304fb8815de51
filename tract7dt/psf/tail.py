"""The PSF beyond its stamp: the Moffat tail that bright stars still show there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.wings import MoffatProfile, fit_moffat
from tract7dt.types import Epsf

__all__ = ["tail_record", "wing_stamp"]

F8 = NDArray[np.float64]

TAIL_KEYS = ("tail_amplitude", "tail_alpha", "tail_beta", "tail_e1", "tail_e2")
#: Relative error per pixel, over the peak, for the fit of a tail to a stamp without a record.
STAMP_ERROR = 1e-5


def tail_record(profile: MoffatProfile, total: float) -> dict[str, float]:
    """The profile as plain numbers, for a stamp that was divided by ``total``."""
    values = (profile.amplitude / total, profile.alpha, profile.beta, profile.e1, profile.e2)
    return dict(zip(TAIL_KEYS, (float(v) for v in values), strict=True))


def wing_stamp(epsf: Epsf, half: int) -> F8:
    """A stamp continued beyond its edge by its tail.

    The inner part is the unit-sum stamp itself; the tail comes on top of that sum. The tail is the Moffat
    profile of the stamp's record (``tail_*`` of its quality), or one fitted to the stamp where it has none;
    a stack's stamp fades into it towards its edge.

    Parameters
    ----------
    epsf : Epsf
    half : int
        Half-size of the result, pix.

    Returns
    -------
    ndarray, float64 (2 half + 1, 2 half + 1)

    Raises
    ------
    ValueError
        If ``half`` is negative.
    """
    if half < 0:
        raise ValueError(f"expected a half-size of at least 0, found {half}")
    stamp = np.asarray(epsf.stamp, float)
    stamp = stamp / stamp.sum()
    edge = stamp.shape[0] // 2
    profile = _tail(stamp, epsf.quality)
    if half <= edge:
        return np.array(stamp[edge - half : edge + half + 1, edge - half : edge + half + 1])
    wide = profile.stamp(2 * half + 1)
    # no rescaling at the edge: the rings there are noise, and a stack's stamp fades into its profile anyway
    inner = slice(half - edge, half + edge + 1)
    wide[inner, inner] = stamp
    return wide


def _tail(stamp: F8, quality: Mapping[str, Any]) -> MoffatProfile:
    values = [quality.get(name) for name in TAIL_KEYS]
    if all(isinstance(v, int | float) and np.isfinite(v) for v in values):
        profile = MoffatProfile(*(float(v) for v in values))  # type: ignore[arg-type]
        if profile.amplitude > 0 and profile.alpha > 0 and profile.beta > 1:
            return profile
    peak = float(stamp.max())
    start = MoffatProfile(peak, 3.0, 3.3)
    return fit_moffat(stamp, np.full(stamp.shape, (STAMP_ERROR * peak) ** 2), start)
