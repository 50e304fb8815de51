"""The white stack before and after the crop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.palette import grey_index
from tract7dt.qa.sky_page import SIDE, Entry, SkyPage, sky_page, sky_subtitle
from tract7dt.qa.stretch import block_mean, display_factor, measure_stretch
from tract7dt.qa.style import CONTRAST, FAINT
from tract7dt.types import Box

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["after_crop_page", "before_crop_page", "plot_white_after_crop", "plot_white_before_crop"]


def plot_white_before_crop(
    preview: NDArray[np.floating],
    crop_box: Box,
    path: str | os.PathLike[str],
    *,
    downsample: int = 4,
    preview_factor: int = 1,
    wcs: WCS | None = None,
    title: str = "White stack before the crop",
    dpi: int = 300,
) -> None:
    """Draw the whole input frame with the part that is kept and write white_before_crop.png.

    Parameters
    ----------
    preview : ndarray (ny, nx)
        White stack of the whole input frame, averaged over blocks of ``preview_factor`` pixels.
    crop_box : Box
        What is kept, in pixels of the whole input frame.
    path : path
    downsample : int
        Block size of the displayed image in pixels of the input frame (``crop.display_downsample``).
    preview_factor : int
        Pixels of the input frame in one pixel of ``preview``.
    wcs : WCS, optional
        Of the *working* frame (the cropped one).
    title : str
    dpi : int
    """
    page = before_crop_page(
        preview, crop_box, downsample=downsample, preview_factor=preview_factor, wcs=wcs, title=title, dpi=dpi
    )
    page.sheet.save(path, dpi)


def before_crop_page(
    preview: NDArray[np.floating],
    crop_box: Box,
    *,
    downsample: int,
    preview_factor: int,
    wcs: WCS | None,
    title: str,
    dpi: int,
) -> SkyPage:
    """The picture behind :func:`plot_white_before_crop`."""
    whole = Box(0, preview.shape[1] * preview_factor, 0, preview.shape[0] * preview_factor)
    more = max(1, downsample // preview_factor)
    side = int(SIDE * dpi / 72)
    factor = display_factor(preview.shape, more, side)
    image = block_mean(preview, factor)
    # The centre of the whole frame, expressed in the working frame that the WCS belongs to.
    centre = (whole.nx - 1) / 2 - crop_box.x0, (whole.ny - 1) / 2 - crop_box.y0
    sky = sky_geometry(wcs, *centre)
    kept = crop_box.nx * crop_box.ny / max(whole.nx * whole.ny, 1)
    label = f"kept: {crop_box.nx} × {crop_box.ny} pix ({100 * kept:.0f} % of the frame)"
    block = factor * preview_factor
    page = sky_page(
        grey_index(measure_stretch(image).grey(image), 48),
        block,
        whole,
        title=title,
        subtitle=sky_subtitle(sky, block, missing=bool(np.isnan(image).any())),
        entries=[Entry(label, color=CONTRAST)],
        sky=sky,
        side=side,
    )
    left, right, lower, upper = whole.x0, whole.x1, whole.y0, whole.y1
    for rest in (
        Box(left, crop_box.x0, lower, upper),
        Box(crop_box.x1, right, lower, upper),
        Box(crop_box.x0, crop_box.x1, lower, crop_box.y0),
        Box(crop_box.x0, crop_box.x1, crop_box.y1, upper),
    ):
        page.veil(rest, FAINT, 0.35)
    page.rectangle(crop_box, CONTRAST)
    if not np.isfinite(image).any():
        page.note("no finite pixel")
    return page


def plot_white_after_crop(
    white: NDArray[np.floating],
    path: str | os.PathLike[str],
    *,
    downsample: int = 4,
    wcs: WCS | None = None,
    crop_box: Box | None = None,
    title: str = "White stack of the working frame",
    dpi: int = 300,
) -> None:
    """Draw the working frame and write white_after_crop.png.

    Parameters
    ----------
    white : ndarray (ny, nx)
        May be a memory map.
    path : path
    downsample : int
        Block size of the displayed image (``crop.post_crop_display_downsample``).
    wcs : WCS, optional
        Of the working frame.
    crop_box : Box, optional
        Where the working frame lies in the input frame, for the legend.
    title : str
    dpi : int
    """
    page = after_crop_page(white, downsample=downsample, wcs=wcs, crop_box=crop_box, title=title, dpi=dpi)
    page.sheet.save(path, dpi)


def after_crop_page(
    white: NDArray[np.floating],
    *,
    downsample: int,
    wcs: WCS | None,
    crop_box: Box | None,
    title: str,
    dpi: int,
) -> SkyPage:
    """The picture behind :func:`plot_white_after_crop`."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    side = int(SIDE * dpi / 72)
    factor = display_factor(white.shape, downsample, side)
    image = block_mean(white, factor)
    sky = sky_geometry(wcs, (frame.nx - 1) / 2, (frame.ny - 1) / 2)
    label = f"working frame: {frame.nx} × {frame.ny} pix"
    if crop_box is not None:
        label += f", from ({crop_box.x0}, {crop_box.y0}) of the input frame"
    page = sky_page(
        grey_index(measure_stretch(image).grey(image), 48),
        factor,
        frame,
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        entries=[Entry(label, color=CONTRAST)],
        sky=sky,
        side=side,
    )
    if not np.isfinite(image).any():
        page.note("no finite pixel")
    return page
