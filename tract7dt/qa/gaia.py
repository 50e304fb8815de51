"""The match with Gaia: which catalogue rows are Gaia stars, and which stars were added."""

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
from tract7dt.qa.style import CONTRAST, SYMBOLS, draw_symbols, fading_scale, legend_handle, zoomed_scale
from tract7dt.types import F8, Bool, Box

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = ["gaia_figure", "gaia_groups", "plot_gaia_augmentation"]

_TEXTS = {
    "unlabelled": "catalogue source, not in Gaia",
    "gaia": "Gaia star in the catalogue",
    "injected": "Gaia star added",
    "saturated": "excluded: saturation",
    "cropped": "excluded: crop",
}


def plot_gaia_augmentation(
    white: NDArray[np.floating],
    table: pd.DataFrame,
    n_input: int,
    path: str | os.PathLike[str],
    *,
    wcs: WCS | None = None,
    box: Box | None = None,
    downsample: int = 4,
    title: str = "Match with Gaia",
    dpi: int = 300,
) -> None:
    """Draw the augmented catalogue on the white stack and write gaia_augmentation_overlay.png.

    Parameters
    ----------
    white : ndarray (ny, nx)
        White stack of the working frame; may be a memory map.
    table : DataFrame
        The augmented catalogue: ``x_pix_white``, ``y_pix_white``, ``gaia_source_id`` and the exclusion
        columns.
    n_input : int
        Rows of the input catalogue; what comes after them was added.
    path : path
    wcs : WCS, optional
        Of the working frame.
    box : Box, optional
        Square in which Gaia stars take part.
    downsample, title, dpi
        As in :func:`tract7dt.qa.overlay.plot_white_overlay`.
    """
    figure = gaia_figure(white, table, n_input, wcs=wcs, box=box, downsample=downsample, title=title, dpi=dpi)
    save_figure(figure, path)


def gaia_figure(
    white: NDArray[np.floating],
    table: pd.DataFrame,
    n_input: int,
    *,
    wcs: WCS | None,
    box: Box | None,
    downsample: int,
    title: str,
    dpi: int,
) -> Figure:
    """The figure behind :func:`plot_gaia_augmentation`."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    factor = display_factor(white.shape, downsample, int(SIDE * dpi / 72))
    image = block_mean(white, factor)
    groups = gaia_groups(table, n_input, frame)
    sky = sky_geometry(wcs, (frame.nx - 1) / 2, (frame.ny - 1) / 2)
    handles: list[Line2D] = [
        legend_handle(SYMBOLS[name], f"{text} (N={len(groups[name][0])})") for name, text in _TEXTS.items()
    ]
    if box is not None:
        handles.append(
            Line2D([], [], color=CONTRAST, linewidth=0.8, linestyle=(0, (4, 3)), label="Gaia stars used")
        )
    sheet = sky_sheet(
        [Panel(grey(image, measure_stretch(image)), extent_of(image.shape, factor, frame))],
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        handles=handles,
        sky=sky,
        dpi=dpi,
        side=SIDE,
    )
    ax = sheet.panels[0]
    scale = fading_scale(sum(len(x) for x, _ in groups.values()), sheet.area_pt2)
    scale = zoomed_scale(scale, sheet.pixel_pt)
    for name in _TEXTS:
        draw_symbols(ax, SYMBOLS[name], *groups[name], scale=scale)
    if box is not None:
        ax.add_patch(
            Rectangle(
                (box.x0 - 0.5, box.y0 - 0.5), box.nx, box.ny, fill=False, edgecolor=CONTRAST, linewidth=0.8,
                linestyle=(0, (4, 3)),
            )
        )  # fmt: skip
    ax.set(xlim=(-0.5, frame.x1 - 0.5), ylim=(-0.5, frame.y1 - 0.5))
    if not np.isfinite(image).any():
        note(ax, "no finite pixel", on_dark=True)
    return sheet.figure


def gaia_groups(table: pd.DataFrame, n_input: int, frame: Box) -> dict[str, tuple[F8, F8]]:
    """Positions by meaning; an excluded source is drawn as excluded and, if it is one, as a Gaia star."""
    x, y = table["x_pix_white"].to_numpy(float), table["y_pix_white"].to_numpy(float)
    inside = frame.contains(x, y)
    gaia: Bool = table["gaia_source_id"].fillna("").astype(str).to_numpy(str) != ""
    added = np.arange(len(table)) >= n_input
    saturated, cropped = (
        table[f"excluded_{name}"].to_numpy(bool)
        if f"excluded_{name}" in table
        else np.zeros(len(table), bool)
        for name in ("saturation", "crop")
    )
    picks = {
        "unlabelled": inside & ~gaia & ~saturated & ~cropped,
        "gaia": inside & gaia & ~added,
        "injected": inside & gaia & added,
        "saturated": inside & saturated,
        "cropped": inside & cropped & ~saturated,
    }
    return {name: (x[pick], y[pick]) for name, pick in picks.items()}
