"""Pictures of every stage, from arrays and tables.

``plot_*`` draw one picture from what they are given; ``draw_*`` draw the pictures of a stage as the
settings want them, into ``work_dir``. All are drawn on a canvas of 256 colours of the package's own
(:mod:`tract7dt.qa.raster`), with no global state: they may run in threads and processes. Nothing here
imports matplotlib; only its fonts are read. Names load when they are first used: most processes of a run draw
nothing, or only their own kind of picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tract7dt.on_demand import names_on_demand

if TYPE_CHECKING:
    from tract7dt.qa.bright import plot_bright_mask
    from tract7dt.qa.crop import plot_white_after_crop, plot_white_before_crop
    from tract7dt.qa.draw import (
        draw_bright_mask,
        draw_crop,
        draw_cutouts,
        draw_epsf_band,
        draw_gaia,
        draw_overlays,
        draw_patch,
        draw_zero_points,
    )
    from tract7dt.qa.overlay import plot_white_overlay, plot_white_zoom
    from tract7dt.qa.patch import plot_patch_overview
    from tract7dt.qa.psf import plot_epsf
    from tract7dt.qa.psf_stars import plot_psf_stars
    from tract7dt.qa.residual_map import write_residual_map
    from tract7dt.qa.zp import plot_zp_vs_mag

__all__ = [
    "draw_bright_mask",
    "draw_crop",
    "draw_cutouts",
    "draw_epsf_band",
    "draw_gaia",
    "draw_overlays",
    "draw_patch",
    "draw_zero_points",
    "plot_bright_mask",
    "plot_epsf",
    "plot_patch_overview",
    "plot_psf_stars",
    "plot_white_after_crop",
    "plot_white_before_crop",
    "plot_white_overlay",
    "plot_white_zoom",
    "plot_zp_vs_mag",
    "write_residual_map",
]

__getattr__ = names_on_demand(
    __name__,
    {
        "bright": ["plot_bright_mask"],
        "crop": ["plot_white_after_crop", "plot_white_before_crop"],
        "draw": [
            "draw_bright_mask",
            "draw_crop",
            "draw_cutouts",
            "draw_epsf_band",
            "draw_gaia",
            "draw_overlays",
            "draw_patch",
            "draw_zero_points",
        ],
        "overlay": ["plot_white_overlay", "plot_white_zoom"],
        "patch": ["plot_patch_overview"],
        "psf": ["plot_epsf"],
        "psf_stars": ["plot_psf_stars"],
        "residual_map": ["write_residual_map"],
        "zp": ["plot_zp_vs_mag"],
    },
)
