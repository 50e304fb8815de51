"""Section of the zero point."""

from __future__ import annotations

from typing import Annotated, Literal

from tract7dt.settings.fields import (
    Flag,
    LowerCase,
    NonNegative,
    Positive,
    Real,
    Section,
    WholeNumber,
    key,
)

__all__ = ["ZpSettings"]


class ZpSettings(Section):
    """Zero point from Gaia XP synthetic photometry."""

    enabled: Flag = key(True, "Measure the zero point of every band and write magnitudes.")
    inject_gaia_sources: Flag = key(
        True, "Add Gaia stars that match no catalogue source as new rows; false only matches."
    )
    gaia_mag_min: Real = key(8.0, "Brightest phot_g_mean_mag of a star that is used.", unit="mag")
    gaia_mag_max: Real = key(18.0, "Faintest phot_g_mean_mag of a star that is used.", unit="mag")
    match_radius_arcsec: Positive = key(
        3.0, "Largest distance of a Gaia star from its catalogue source.", unit="arcsec"
    )
    min_box_size_pix: WholeNumber = key(
        3000, "Smallest side of the box around the catalogue that Gaia stars are taken from.", unit="pix"
    )
    clip_sigma: Positive = key(3.0, "Stars further than this from the median are clipped.", unit="sigma")
    clip_max_iters: WholeNumber = key(10, "Largest number of clipping iterations.")
    gaia_pos_err_pix: NonNegative | None = key(
        0.1, "Position prior of added Gaia stars, one sigma; null or 0 sets none.", unit="pix"
    )
    plot_mag_lo: Real = key(10.0, "Lower limit of the magnitude axis of the plots.", unit="mag")
    plot_mag_hi: Real = key(20.0, "Upper limit of the magnitude axis of the plots.", unit="mag")
    plot_zp_offset: Positive = key(0.25, "Half range of the zero-point axis of the plots.", unit="mag")
    zp_err_method: Annotated[Literal["all_mad", "bright_std"], LowerCase] = key(
        "all_mad",
        "Error of the zero point: MAD of all kept stars, or standard deviation of the bright ones.",
    )
    zp_err_snr_min: NonNegative = key(
        100.0, "Smallest S/N of the stars of bright_std; halved and quartered where fewer than 10 remain."
    )

    @classmethod
    def rising_pairs(cls) -> tuple[tuple[str, str], ...]:
        """Magnitude limits."""
        return ("gaia_mag_min", "gaia_mag_max"), ("plot_mag_lo", "plot_mag_hi")
