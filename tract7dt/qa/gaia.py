"""The match with Gaia: which catalogue rows are Gaia stars, and which stars were added."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.palette import grey_index
from tract7dt.qa.sky_page import SIDE, Entry, SkyPage, sky_page, sky_subtitle
from tract7dt.qa.stretch import block_mean, display_factor, measure_stretch
from tract7dt.qa.style import CONTRAST, SYMBOLS, fading_scale, zoomed_scale
from tract7dt.types import F8, Bool, Box

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = ["gaia_groups", "gaia_page", "plot_gaia_augmentation"]

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
    page = gaia_page(white, table, n_input, wcs=wcs, box=box, downsample=downsample, title=title, dpi=dpi)
    page.sheet.save(path, dpi)


def gaia_page(
    white: NDArray[np.floating],
    table: pd.DataFrame,
    n_input: int,
    *,
    wcs: WCS | None,
    box: Box | None,
    downsample: int,
    title: str,
    dpi: int,
) -> SkyPage:
    """The picture behind :func:`plot_gaia_augmentation`."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    side = int(SIDE * dpi / 72)
    factor = display_factor(white.shape, downsample, side)
    image = block_mean(white, factor)
    groups = gaia_groups(table, n_input, frame)
    sky = sky_geometry(wcs, (frame.nx - 1) / 2, (frame.ny - 1) / 2)
    more = _outside(table, groups)
    entries = [
        Entry(f"{text} (N={len(groups[name][0])}{more.get(name, '')})", SYMBOLS[name])
        for name, text in _TEXTS.items()
    ]
    if box is not None:
        entries.append(Entry("Gaia stars used", color=CONTRAST, look="dashed"))
    page = sky_page(
        grey_index(measure_stretch(image).grey(image), 48),
        factor,
        frame,
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        entries=entries,
        sky=sky,
        side=side,
    )
    scale = fading_scale(sum(len(x) for x, _ in groups.values()), page.area_pt2)
    scale = zoomed_scale(scale, page.per_pixel / page.unit)
    for name in _TEXTS:
        page.symbols(name, SYMBOLS[name], *groups[name], scale)
    if box is not None:
        page.rectangle(box, CONTRAST, dash=5)
    if not np.isfinite(image).any():
        page.note("no finite pixel")
    return page


def _outside(table: pd.DataFrame, groups: dict[str, tuple[F8, F8]]) -> dict[str, str]:
    """How many excluded sources lie outside of the picture, as words; the crop takes most of its own out."""
    n = {"saturated": "excluded_saturation", "cropped": "excluded_crop"}
    flagged = {name: int(table[column].sum()) for name, column in n.items() if column in table}
    if "excluded_saturation" in table and "cropped" in flagged:  # drawn as saturated
        flagged["cropped"] -= int((table["excluded_crop"] & table["excluded_saturation"]).sum())
    beyond = {name: n - len(groups[name][0]) for name, n in flagged.items()}
    return {name: f", {n} outside" for name, n in beyond.items() if n > 0}


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
