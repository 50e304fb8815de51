"""The bright-source mask: detections, what they match, and what the mask covers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.palette import TINTS, grey_index, tinted
from tract7dt.qa.sky_page import SIDE, Entry, SkyPage, sky_page, sky_subtitle
from tract7dt.qa.stretch import block_any, block_mean, display_factor, measure_stretch
from tract7dt.qa.style import SYMBOLS, fading_scale, zoomed_scale
from tract7dt.types import F8, U1, Bool, Box

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = ["bright_mask_groups", "bright_mask_page", "plot_bright_mask"]

#: Bits of white_bright_mask.fits and how they are tinted.
_BRIGHT, _SATURATED = 1, 2
_TINT = {_BRIGHT: 0, _SATURATED: 1}


def plot_bright_mask(
    white: NDArray[np.floating],
    mask: U1,
    detections: pd.DataFrame,
    sources: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    wcs: WCS | None = None,
    downsample: int = 4,
    title: str = "Bright sources on the white stack",
    dpi: int = 300,
) -> None:
    """Draw detections, catalogue and mask on the white stack; write white_bright_mask_overlay.png.

    Parameters
    ----------
    white : ndarray (ny, nx)
    mask : ndarray, uint8 (ny, nx)
        Bit 1: masked around unmatched detections; bit 2: saturated in any band.
    detections : DataFrame
        ``x``, ``y`` (pix), ``matched`` (bool), ``source_index`` (row of ``sources``, where matched).
    sources : DataFrame
        ``x_pix_white``, ``y_pix_white``, ``affected_by_bright_mask``.
    path : path
    wcs, downsample, title, dpi
        As in :func:`tract7dt.qa.overlay.plot_white_overlay`.
    """
    page = bright_mask_page(
        white, mask, detections, sources, wcs=wcs, downsample=downsample, title=title, dpi=dpi
    )
    page.sheet.save(path, dpi)


def bright_mask_page(
    white: NDArray[np.floating],
    mask: U1,
    detections: pd.DataFrame,
    sources: pd.DataFrame,
    *,
    wcs: WCS | None,
    downsample: int,
    title: str,
    dpi: int,
) -> SkyPage:
    """The picture behind :func:`plot_bright_mask`."""
    frame = Box(0, white.shape[1], 0, white.shape[0])
    side = int(SIDE * dpi / 72)
    factor = display_factor(white.shape, downsample, side)
    image = block_mean(white, factor)
    index = grey_index(measure_stretch(image).grey(image), 48)
    for bit, number in _TINT.items():
        index = tinted(index, block_any(mask, bit, factor), number)
    groups = bright_mask_groups(detections, sources)
    sky = sky_geometry(wcs, (frame.nx - 1) / 2, (frame.ny - 1) / 2)
    page = sky_page(
        index,
        factor,
        frame,
        title=title,
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        entries=_legend(groups, mask),
        sky=sky,
        side=side,
    )
    scale = fading_scale(sum(len(x) for x, _ in groups.values()), page.area_pt2)
    scale = zoomed_scale(scale, page.per_pixel / page.unit)
    for name, (x, y) in groups.items():
        page.symbols(name, SYMBOLS[name], x, y, scale)
    if not np.isfinite(image).any():
        page.note("no finite pixel")
    return page


def bright_mask_groups(detections: pd.DataFrame, sources: pd.DataFrame) -> dict[str, tuple[F8, F8]]:
    """Positions by meaning, in drawing order: matched_source, matched, affected, unmatched."""
    dx, dy = detections["x"].to_numpy(float), detections["y"].to_numpy(float)
    matched: Bool = detections["matched"].to_numpy(bool)
    sx, sy = sources["x_pix_white"].to_numpy(float), sources["y_pix_white"].to_numpy(float)
    partner = np.unique(detections["source_index"].to_numpy()[matched].astype(np.int64))
    is_partner = np.zeros(len(sources), dtype=bool)
    is_partner[partner[(partner >= 0) & (partner < len(sources))]] = True
    affected = np.zeros(len(sources), dtype=bool)
    if "affected_by_bright_mask" in sources:
        affected = sources["affected_by_bright_mask"].to_numpy(bool)
    affected = affected & ~is_partner & np.isfinite(sx) & np.isfinite(sy)
    return {
        "matched_source": (sx[is_partner], sy[is_partner]),
        "matched": (dx[matched], dy[matched]),
        "affected": (sx[affected], sy[affected]),
        "unmatched": (dx[~matched], dy[~matched]),
    }


def _legend(groups: dict[str, tuple[F8, F8]], mask: U1) -> list[Entry]:
    texts = {
        "matched": "detection, in the catalogue",
        "unmatched": "detection, not in the catalogue",
        "matched_source": "catalogue source, detected",
        "affected": "catalogue source under the mask",
    }
    entries = [Entry(f"{text} (N={len(groups[name][0])})", SYMBOLS[name]) for name, text in texts.items()]
    for bit, text in ((_BRIGHT, "masked as bright"), (_SATURATED, "saturated in any band")):
        words = f"{text} ({_share(mask, bit)} of the pixels)"
        entries.append(Entry(words, color=TINTS[_TINT[bit]], look="area"))
    return entries


def _share(mask: U1, bit: int) -> str:
    """Share of the pixels with ``bit``, read by strips of rows."""
    rows = max(1, 4_000_000 // max(1, mask.shape[1]))
    count = sum(
        int(np.count_nonzero(np.asarray(mask[r : r + rows]) & bit)) for r in range(0, mask.shape[0], rows)
    )
    percent = 100.0 * count / max(mask.size, 1)
    return "0 %" if count == 0 else f"{percent:.2g} %" if percent >= 0.01 else "<0.01 %"
