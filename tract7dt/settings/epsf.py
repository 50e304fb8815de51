"""Sections of the PSF: the empirical one and the Moffat that stands in for it."""

from __future__ import annotations

from typing import Annotated, Literal

from tract7dt.settings.fields import (
    AboveOne,
    AutoCount,
    AutoWholeNumber,
    Count,
    Flag,
    LowerCase,
    NonNegative,
    OddCount,
    Positive,
    Real,
    Rising,
    Section,
    WholeNumber,
    key,
)

__all__ = ["EpsfSettings", "MoffatPsfSettings"]


class EpsfSettings(Section):
    """Empirical PSFs: one per band and cell, built from stars."""

    use_gaiaxp: Flag = key(True, "Use Gaia stars as candidates.")
    epsf_ngrid: Count = key(7, "ePSF cells per axis.")
    ngrid: Count = key(6, "Patches per axis in a cell.")
    skip_empty_epsf_patches: Flag = key(True, "Skip cells without a source to fit.")
    thresh_sigma: Positive = key(10.0, "Detection threshold for stars.", unit="sigma")
    minarea: Count = key(25, "Smallest area of a detection.", unit="pix")
    cutout_size: OddCount = key(61, "Side of the cutout of a star.", unit="pix")
    edge_pad: WholeNumber = key(
        10, "Stars whose cutout comes nearer to the edge are left out of the ePSF.", unit="pix"
    )
    min_sep: NonNegative = key(30.0, "Smallest distance between stars.", unit="pix")
    max_stars: Count = key(30, "Most stars per cell.")
    q_range: Annotated[tuple[Positive, Positive], Rising] = key(
        (0.7, 1.3), "Range of a / b of a star, lower limit first."
    )
    psfstar_mode: Annotated[Literal["sep", "gaia", "sep+gaia"], LowerCase] = key(
        "sep+gaia", "Where stars come from: detections, Gaia, or both."
    )
    gaia_mag_min: Real = key(10.0, "Brightest Gaia star that is used.", unit="mag AB")
    gaia_mag_max: Real = key(30.0, "Faintest Gaia star that is used.", unit="mag AB")
    gaia_snap_to_sep: Flag = key(True, "Move a Gaia star to the detection that it matches.")
    gaia_forced_k_fwhm: Positive = key(
        1.5, "Radius of the aperture of a Gaia star without a detection.", unit="FWHM"
    )
    gaia_forced_rmin_pix: Positive = key(3.0, "Smallest radius of that aperture.", unit="pix")
    gaia_forced_rmax_pix: Positive = key(15.0, "Largest radius of that aperture.", unit="pix")
    gaia_snr_min: NonNegative = key(20.0, "Smallest S/N of a Gaia star.")
    gaia_match_r_pix: NonNegative = key(
        5.0, "Largest distance of a Gaia star from its detection.", unit="pix"
    )
    spatial: Annotated[Literal["cell", "interpolated"], LowerCase] = key(
        "interpolated",
        "PSF of a patch: the stamp of its cell, or a model of the whole frame at the centre of the patch.",
    )
    star_sat_check_r: AutoWholeNumber = key(
        "auto",
        "Half side of the box around a star that must hold no saturated pixel; auto is cutout_size // 2.",
        unit="pix",
    )
    oversamp: Count = key(1, "Oversampling of the ePSF.")
    maxiters: Count = key(30, "Largest number of iterations of the ePSF.")
    do_clip: Flag = key(True, "Clip the stack of stars at 5 sigma.")
    recenter_boxsize: OddCount = key(9, "Side of the box in which the ePSF is centred.", unit="pix")
    final_psf_size: OddCount = key(
        55, "Side of the final stamp; where it is larger than cutout_size, that is the side.", unit="pix"
    )
    save_star_montage_max: WholeNumber = key(100, "Most stars in a montage.")
    background_subtract_patch: Flag = key(True, "Subtract a background map of the cell first.")
    background_boxsize: Count = key(96, "Box of the background map.", unit="pix")
    background_filtersize: Count = key(9, "Median filter of the background map, in boxes.")
    background_source_mask_sigma: Positive = key(
        3.0, "Pixels this far above the median are left out of the background.", unit="sigma"
    )
    background_mask_dilate: WholeNumber = key(1, "How often that mask is grown.", unit="iterations")
    star_local_bkg_subtract: Flag = key(True, "Subtract the local background of every star.")
    star_local_bkg_annulus_rin_pix: NonNegative = key(
        20.0, "Inner radius of the annulus of the local background, clamped to the stamp.", unit="pix"
    )
    star_local_bkg_annulus_rout_pix: Positive = key(
        30.0, "Outer radius of that annulus, clamped to the stamp.", unit="pix"
    )
    star_local_bkg_sigma: Positive = key(3.0, "Clipping of the local background.", unit="sigma")
    star_local_bkg_minpix: WholeNumber = key(
        30, "With fewer good pixels in the annulus the local background is 0.", unit="pix"
    )
    save_patch_background_diagnostics: Flag = key(True, "Write background_diagnostics.png.")
    save_star_local_background_diagnostics: Flag = key(
        True, "Write star_local_background_diagnostics.png, one row per star."
    )
    diagnostics_show_colorbar: Flag = key(True, "Draw colour bars in the background pictures.")
    save_growth_curve: Flag = key(True, "Write epsf_growth_curve.png.")
    save_residual_diagnostics: Flag = key(True, "Write epsf_residual_diagnostics.png.")
    residual_diag_max_stars: WholeNumber = key(100, "Most stars in the residual picture.")
    parallel_bands: Flag = key(True, "Build several bands at once.")
    max_workers: AutoCount = key("auto", "Bands built at once; auto is min(bands, cores).")

    @property
    def wants_diagnoses(self) -> bool:
        """Whether a picture is wanted that shows more of a cell than its PSF and its candidates."""
        switches = (
            self.save_patch_background_diagnostics,
            self.save_star_local_background_diagnostics,
            self.save_growth_curve,
            self.save_residual_diagnostics,
        )
        return any(switches) or self.save_star_montage_max > 0

    @classmethod
    def rising_pairs(cls) -> tuple[tuple[str, str], ...]:
        """Magnitude limits and radii."""
        return (
            ("gaia_mag_min", "gaia_mag_max"),
            ("star_local_bkg_annulus_rin_pix", "star_local_bkg_annulus_rout_pix"),
        )


class MoffatPsfSettings(Section):
    """The Moffat PSF of ``psf_fallback_model: moffat``."""

    beta: AboveOne = key(3.5, "Exponent of the Moffat profile.")
    radius_pix: Positive = key(25.0, "Half side of the Moffat stamp.", unit="pix")
