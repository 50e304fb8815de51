"""The white stack before and after the crop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.figure import Panel, note, save_figure, sky_sheet
from tract7dt.qa.overlay import SIDE, extent_of, sky_subtitle
from tract7dt.qa.stretch import block_mean, display_factor, grey, measure_stretch
from tract7dt.qa.style import CONTRAST, FAINT
from tract7dt.types import Box

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["after_crop_figure", "before_crop_figure", "plot_white_after_crop", "plot_white_before_crop"]


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
    figure = before_crop_figure(
        preview, crop_box, downsample=downsample, preview_factor=preview_factor, wcs=wcs, title=title, dpi=dpi
    )
    save_figure(figure, path)


def before_crop_figure(
    preview: NDArray[np.floating],
    crop_box: Box,
    *,
    downsample: int,
    preview_factor: int,
    wcs: WCS | None,
    title: str,
    dpi: int,
) -> Figure:
    """The figure behind :func:`plot_white_before_crop`."""
    whole = Box(0, preview.shape[1] * preview_factor, 0, preview.shape[0] * preview_factor)
    more = max(1, downsample // preview_factor)
    factor = display_factor(preview.shape, more, int(SIDE * dpi / 72))
    image = block_mean(preview, factor)
    # The centre of the whole frame, expressed in the working frame that the WCS belongs to.
    centre = (whole.nx - 1) / 2 - crop_box.x0, (whole.ny - 1) / 2 - crop_box.y0
    sky = sky_geometry(wcs, *centre)
    kept = crop_box.nx * crop_box.ny / max(whole.nx * whole.ny, 1)
    label = f"kept: {crop_box.nx} × {crop_box.ny} pix ({100 * kept:.0f} % of the frame)"
    block = factor * preview_factor
    sheet = sky_sheet(
        [Panel(grey(image, measure_stretch(image)), extent_of(image.shape, block, whole))],
        title=title,
        subtitle=sky_subtitle(sky, block, missing=bool(np.isnan(image).any())),
        handles=[Line2D([], [], color=CONTRAST, linewidth=1.2, label=label)],
        sky=sky,
        dpi=dpi,
        side=SIDE,
    )
    ax = sheet.panels[0]
    left, right, bottom, top = ax.get_xlim() + ax.get_ylim()
    x0, x1, y0, y1 = crop_box.x0 - 0.5, crop_box.x1 - 0.5, crop_box.y0 - 0.5, crop_box.y1 - 0.5
    for x, y, dx, dy in (
        (left, bottom, x0 - left, top - bottom),
        (x1, bottom, right - x1, top - bottom),
        (x0, bottom, x1 - x0, y0 - bottom),
        (x0, y1, x1 - x0, top - y1),
    ):
        ax.add_patch(Rectangle((x, y), dx, dy, facecolor=FAINT, alpha=0.35, linewidth=0))
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=CONTRAST, linewidth=1.2))
    ax.set(xlim=(-0.5, whole.x1 - 0.5), ylim=(-0.5, whole.y1 - 0.5))
    if not np.isfinite(image).any():
        note(ax, "no finite pixel", on_dark=True)
    return sheet.figure


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
    figure = after_crop_figure(white, downsample=downsample, wcs=wcs, crop_box=crop_box, title=title, dpi=dpi)
    save_figure(figure, path)


def after_crop_figure(
    white: NDArray[np.floating],
    *,
    downsample: int,
    wcs: WCS | None,
    crop_box: Box | None,
    title: str,
    dpi: int,
) -> Figure:
    """The figure behind :func:`plot_white_after_crop`."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    factor = display_factor(white.shape, downsample, int(SIDE * dpi / 72))
    image = block_mean(white, factor)
    sky = sky_geometry(wcs, (frame.nx - 1) / 2, (frame.ny - 1) / 2)
    label = f"working frame: {frame.nx} × {frame.ny} pix"
    if crop_box is not None:
        label += f", from ({crop_box.x0}, {crop_box.y0}) of the input frame"
    sheet = sky_sheet(
        [Panel(grey(image, measure_stretch(image)), extent_of(image.shape, factor, frame))],
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        handles=[Line2D([], [], color=CONTRAST, linewidth=1.2, label=label)],
        sky=sky,
        dpi=dpi,
        side=SIDE,
    )
    ax = sheet.panels[0]
    ax.set(xlim=(-0.5, frame.x1 - 0.5), ylim=(-0.5, frame.y1 - 0.5))
    if not np.isfinite(image).any():
        note(ax, "no finite pixel", on_dark=True)
    return sheet.figure
