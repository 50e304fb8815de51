"""Which PSF a patch is fitted with: the cell's ePSF if it is good enough, else an analytic model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.psf.analytic import circular_gaussians_stamp, imitate_with_gaussians, moffat_stamp
from tract7dt.types import Epsf, PatchPayload, PsfAudit

if TYPE_CHECKING:
    from tract7dt.settings import MoffatPsfSettings, PatchRunSettings, Settings
    from tract7dt.types import PsfKind

__all__ = ["ChosenPsf", "choose_psf", "choose_psfs"]

F8 = NDArray[np.float64]

#: Kinds of stamps that were made of stars.
EMPIRICAL = ("epsf", "borrowed")


@dataclass(frozen=True, slots=True)
class ChosenPsf:
    """PSF of one band of a patch.

    Attributes
    ----------
    stamp : ndarray, float64 (k, k)
        Unit sum, for point sources.
    stamp_extended : ndarray or None
        For galaxies; None: the same.
    kind : str
        ``epsf``, ``borrowed`` or the fallback model.
    reason : str or None
        Why a fallback was used; None when it was not.
    """

    stamp: F8
    stamp_extended: F8 | None
    kind: PsfKind
    reason: str | None


def choose_psf(
    epsf: Epsf | None, fwhm_pix: float, patch_run: PatchRunSettings, moffat_psf: MoffatPsfSettings
) -> ChosenPsf:
    """Choose the PSF of one band.

    Parameters
    ----------
    epsf : Epsf or None
        Of the patch's cell.
    fwhm_pix : float
        Width from the header, pix; NaN if unknown: then that of the cell's stars, then the default.
    patch_run : PatchRunSettings
        ``min_epsf_nstars_for_use``, ``psf_model`` and the fallback's keys.
    moffat_psf : MoffatPsfSettings

    Returns
    -------
    ChosenPsf
    """
    reason = _why_not(epsf, patch_run.min_epsf_nstars_for_use)
    if epsf is None or reason is not None:
        width = fwhm_pix
        if not (math.isfinite(width) and width > 0):
            width = _width_of_stars(epsf)
            source = f"{width:.2f} pix from the stars that there are"
            if not math.isfinite(width):
                width = patch_run.fallback_default_fwhm_pix
                source = f"default {width:g} pix"
            reason = f"{reason}; no FWHM in the header, {source}"
        return ChosenPsf(_analytic(width, patch_run, moffat_psf), None, patch_run.psf_fallback_model, reason)
    stamp = np.asarray(epsf.stamp, float)
    stamp = stamp / stamp.sum()
    if patch_run.psf_model == "hybrid":
        return ChosenPsf(stamp, imitate_with_gaussians(stamp, patch_run.hybrid_psf_n), epsf.kind, None)
    if patch_run.psf_model == "gaussian_mixture_from_stamp":
        stamp = imitate_with_gaussians(stamp, patch_run.gaussian_mixture_n)
    return ChosenPsf(stamp, None, epsf.kind, None)


def _why_not(epsf: Epsf | None, min_stars: int) -> str | None:
    if epsf is None or epsf.kind not in EMPIRICAL:
        return "no ePSF in this cell"
    if epsf.n_stars < min_stars:
        return f"ePSF of {epsf.n_stars} stars, fewer than {min_stars}"
    return None


def _width_of_stars(epsf: Epsf | None) -> float:
    """FWHM of the few stars that made no ePSF worth using, pix; NaN where nothing is known."""
    width = None if epsf is None else epsf.quality.get("fwhm_pix")
    return float(width) if isinstance(width, int | float) and width > 0 else math.nan


def _is_mixture(chosen: ChosenPsf, patch_run: PatchRunSettings) -> bool:
    """Whether a Gaussian mixture made by imitation serves stars and galaxies alike."""
    if chosen.reason is not None:
        return chosen.kind == "gaussian_mixture"
    return patch_run.psf_model == "gaussian_mixture_from_stamp"


def _analytic(fwhm: float, patch_run: PatchRunSettings, moffat_psf: MoffatPsfSettings) -> F8:
    """Fallback stamp; ``gaussian_mixture`` is ``gaussian_mixture_n`` Gaussians that imitate the Moffat."""
    if patch_run.psf_fallback_model == "moffat":
        return moffat_stamp(fwhm, moffat_psf.beta, moffat_psf.radius_pix)
    if patch_run.psf_fallback_model == "ncircular_gaussian":
        return circular_gaussians_stamp(
            fwhm, patch_run.ncircular_gaussian_n, patch_run.fallback_stamp_radius_pix
        )
    moffat = moffat_stamp(fwhm, moffat_psf.beta, patch_run.fallback_stamp_radius_pix)
    return imitate_with_gaussians(moffat, patch_run.gaussian_mixture_n)


def choose_psfs(
    payload: PatchPayload, settings: Settings
) -> tuple[tuple[F8, ...], tuple[F8, ...] | None, PsfAudit]:
    """PSFs of all bands of a patch, and the record of the choice.

    Parameters
    ----------
    payload : PatchPayload
    settings : Settings
        ``patch_run`` and ``moffat_psf``.

    Returns
    -------
    psf : tuple of ndarray, float64 (k, k)
        Per band, unit sum, for point sources.
    psf_extended : tuple of ndarray or None
        Per band, for galaxies; None: the same.
    audit : PsfAudit
    """
    chosen = [
        choose_psf(epsf, float(fwhm), settings.patch_run, settings.moffat_psf)
        for epsf, fwhm in zip(payload.psfs, payload.fwhm_pix, strict=True)
    ]
    minimum = settings.patch_run.min_epsf_nstars_for_use
    extended: tuple[F8, ...] | None = None
    if any(c.stamp_extended is not None for c in chosen):
        extended = tuple(c.stamp if c.stamp_extended is None else c.stamp_extended for c in chosen)
    audit = PsfAudit(
        min_nstars=minimum,
        kinds=tuple(c.kind for c in chosen),
        n_stars=tuple(0 if e is None else e.n_stars for e in payload.psfs),
        reasons={b: c.reason for b, c in zip(payload.bands, chosen, strict=True) if c.reason is not None},
        low_star_bands=tuple(
            b
            for b, e in zip(payload.bands, payload.psfs, strict=True)
            if e is not None and e.kind in EMPIRICAL and e.n_stars < minimum
        ),
        mixture_bands=tuple(
            b for b, c in zip(payload.bands, chosen, strict=True) if _is_mixture(c, settings.patch_run)
        ),
    )
    return tuple(c.stamp for c in chosen), extended, audit
