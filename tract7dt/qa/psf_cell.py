"""The set of pictures of one PSF cell: which of them are wanted, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import SkyGeometry
from tract7dt.qa.psf_background import background_sheet, star_background_sheet
from tract7dt.qa.psf_montage import montage_sheet
from tract7dt.qa.psf_residual import fit_stars, growth_sheet, residual_sheet
from tract7dt.qa.raster import Sheet
from tract7dt.types import Box, Epsf, PsfDiagnosis

if TYPE_CHECKING:
    from tract7dt.settings import EpsfSettings

__all__ = ["draw_cell_diagnostics"]


def draw_cell_diagnostics(
    epsf: EpsfSettings,
    folder: Path,
    window: NDArray[np.floating],
    box: Box,
    stamp: Epsf | None,
    diagnosis: PsfDiagnosis | None,
    *,
    band: str,
    cell: str,
    dpi: int,
    sky: SkyGeometry | None = None,
) -> None:
    """Write the pictures that the switches want; one that is not wanted, or not possible, is removed.

    Parameters
    ----------
    epsf : EpsfSettings
        ``save_*``, ``diagnostics_show_colorbar``, ``residual_diag_max_stars``.
    folder : Path
        Of the cell.
    window : ndarray (ny, nx)
        Pixels of ``box``.
    box : Box
        The cell in the working frame.
    stamp : Epsf or None
        None: the cell has no PSF.
    diagnosis : PsfDiagnosis or None
    band, cell : str
    dpi : int
        Written into the files; these pictures are of fixed size.
    sky : SkyGeometry, optional
        At the middle of the cell, for compass and scale bar where pixels of the sky are shown.
    """
    pictures: dict[str, Callable[[], Sheet] | None] = dict.fromkeys(
        (
            "background_diagnostics", "star_local_background_diagnostics", "epsf_growth_curve",
            "epsf_residual_diagnostics", "extracted_stars", "used_stars",
        )
    )  # fmt: skip
    if diagnosis is not None:
        found = diagnosis
        annulus = (epsf.star_local_bkg_annulus_rin_pix, epsf.star_local_bkg_annulus_rout_pix)
        bar, most = epsf.diagnostics_show_colorbar, epsf.save_star_montage_max
        if epsf.save_patch_background_diagnostics:
            pictures["background_diagnostics"] = lambda: background_sheet(
                window, box, found, band=band, cell=cell, color_bar=bar, sky=sky
            )
        if epsf.save_star_local_background_diagnostics and epsf.star_local_bkg_subtract:
            pictures["star_local_background_diagnostics"] = lambda: star_background_sheet(
                found, annulus, band=band, cell=cell, color_bar=bar, sky=sky
            )
        if most > 0:
            for name, used_only in (("extracted_stars", False), ("used_stars", True)):
                pictures[name] = lambda used_only=used_only: montage_sheet(  # type: ignore[misc]
                    found, used_only=used_only, most=most, band=band, cell=cell, sky=sky
                )
    if stamp is not None and (epsf.save_residual_diagnostics or epsf.save_growth_curve):
        fits = None if diagnosis is None else fit_stars(stamp, diagnosis, epsf.residual_diag_max_stars)
        if fits is not None and epsf.save_residual_diagnostics:
            left = fits
            pictures["epsf_residual_diagnostics"] = lambda: residual_sheet(stamp, left, band=band, cell=cell)
        if epsf.save_growth_curve:
            pictures["epsf_growth_curve"] = lambda: growth_sheet(stamp, fits, band=band, cell=cell)
    for name, draw in pictures.items():
        path = folder / f"{name}.png"
        if draw is None:
            path.unlink(missing_ok=True)
        else:
            draw().save(path, dpi)
