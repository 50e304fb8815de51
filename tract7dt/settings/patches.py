"""Sections of the patches: geometry, payloads, the fit and the merge."""

from __future__ import annotations

from typing import Annotated, Literal

from tract7dt.settings.fields import (
    AutoCount,
    Count,
    Flag,
    GzipLevel,
    LowerCase,
    NonNegative,
    OneToThree,
    Percentile,
    Positive,
    Section,
    Text,
    WholeNumber,
    key,
)

__all__ = ["MergeSettings", "PatchInputsSettings", "PatchRunSettings", "PatchesSettings"]


class PatchesSettings(Section):
    """Geometry of the patches."""

    halo_pix_min: WholeNumber = key(
        20,
        "Smallest halo around a patch; the halo is max((final_psf_size - 1)/2 + 2, halo_pix_min).",
        unit="pix",
    )


class PatchInputsSettings(Section):
    """Payloads of the patches."""

    save_patch_inputs: Flag = key(True, "Write the payloads to disk.")
    skip_empty_patch: Flag = key(True, "Skip patches without a source of their own.")
    max_workers: Count = key(16, "Threads that write payloads.")
    gzip_compresslevel: GzipLevel = key(
        1, "Compression of the payloads: 0 none, 1 fast, above by zlib, which takes twenty times as long."
    )


class PatchRunSettings(Section):
    """The fit of the patches."""

    enable_multi_band_simultaneous_fitting: Flag = key(
        True, "Fit all bands at once (shared position and shape); false fits each band by itself."
    )
    engine: Annotated[Literal["native", "tractor"], LowerCase] = key(
        "native", "Fit engine: the built-in one, or The Tractor where it is installed."
    )
    noise_model: Annotated[Literal["sky", "total"], LowerCase] = key(
        "sky",
        "Weights of the fit: sky noise, or sky and source noise; errors account for source noise in both.",
    )
    resume: Flag = key(
        False, "The run-patches command keeps fits that are there and up to date; a whole run always does."
    )
    remove_payloads: Flag = key(
        False,
        "Remove the payload of a patch once it is fitted and drawn; a run that has to fit it again writes the "
        "payloads anew.",
    )
    max_workers: AutoCount = key(
        "auto", "Patches fitted at once; a number larger than the cores is capped with a log line."
    )
    threads_per_process: Count = key(1, "Threads of the numerical libraries in each worker.")
    gal_model: Annotated[Literal["dev", "exp", "sersic", "star"], LowerCase] = key(
        "exp", "Model of sources whose TYPE is GAL, blank or unknown."
    )
    n_opt_iters: Count = key(20, "Largest number of iterations per stage of the fit.")
    dlnp_stop: NonNegative = key(1e-12, "Gain in log-posterior below which the fit has converged.")
    r_ap: Positive = key(5.0, "Radius of the aperture of start fluxes.", unit="pix")
    eps_flux: NonNegative = key(1e-4, "Smallest start flux.", unit="scaled counts")
    sersic_n_init: Positive = key(3.0, "Start value of the Sersic index where the catalogue has none.")
    re_fallback_pix: Positive = key(
        3.0, "Start value of the half-light radius where the catalogue has none.", unit="pix"
    )
    psf_model: Annotated[Literal["pixelized", "hybrid", "gaussian_mixture_from_stamp"], LowerCase] = key(
        "pixelized", "How an ePSF is used: the stamp, a Gaussian mixture of it, or both."
    )
    psf_fallback_model: Annotated[Literal["moffat", "gaussian_mixture", "ncircular_gaussian"], LowerCase] = (
        key("moffat", "PSF where there is no usable ePSF.")
    )
    min_epsf_nstars_for_use: WholeNumber = key(2, "An ePSF of fewer stars is not used.")
    ncircular_gaussian_n: OneToThree = key(3, "Components of ncircular_gaussian.")
    hybrid_psf_n: Count = key(9, "Gaussians of the hybrid PSF.")
    gaussian_mixture_n: Count = key(4, "Gaussians of the mixture made from a stamp.")
    fallback_default_fwhm_pix: Positive = key(
        4.0, "FWHM of the fallback PSF where the header has neither PEEING nor SEEING.", unit="pix"
    )
    fallback_stamp_radius_pix: Positive = key(
        25.0, "Half side of the stamp of a Gaussian fallback PSF.", unit="pix"
    )
    cutout_size: Count = key(100, "Side of the cutouts of sources.", unit="pix")
    cutout_max_sources: WholeNumber | None = key(None, "Most cutouts per patch; null draws all.")
    cutout_start: WholeNumber = key(0, "First source that gets a cutout.")
    cutout_data_p_lo: Percentile = key(1.0, "Lower limit of the grey scale of data.", unit="percentile")
    cutout_data_p_hi: Percentile = key(99.0, "Upper limit of the grey scale of data.", unit="percentile")
    cutout_model_p_lo: Percentile = key(1.0, "Lower limit of the grey scale of models.", unit="percentile")
    cutout_model_p_hi: Percentile = key(99.0, "Upper limit of the grey scale of models.", unit="percentile")
    cutout_resid_p_abs: Percentile = key(
        99.0, "Limit of the grey scale of absolute residuals.", unit="percentile"
    )
    no_cutouts: Flag = key(False, "Draw no cutouts.")
    no_patch_overview: Flag = key(False, "Draw no patch overviews.")
    flag_maxiter_margin: WholeNumber = key(
        0, "opt_hit_max_iters is set within this many iterations of the limit."
    )
    pos_max_shift_pix: NonNegative | None = key(
        5.0, "Bound on the shift of a position from the catalogue's, per axis; null sets none.", unit="pix"
    )
    enable_staged_fit: Flag = key(True, "Fit in three stages: positions held, positions alone, everything.")

    @classmethod
    def rising_pairs(cls) -> tuple[tuple[str, str], ...]:
        """Limits of the grey scales."""
        return ("cutout_data_p_lo", "cutout_data_p_hi"), ("cutout_model_p_lo", "cutout_model_p_hi")


class MergeSettings(Section):
    """The merge of the patch catalogues."""

    pattern: Text = key("*_cat_fit.csv", "Names of the patch catalogues (glob).")
