"""One fitted patch at a glance: data, model and what is left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tract7dt.qa.compass import SkyGeometry, sky_geometry
from tract7dt.qa.palette import SIGNED_STEPS, grey_index, signed_index
from tract7dt.qa.raster import Sheet, text_width
from tract7dt.qa.raster_sky import draw_axis, draw_sky_strip
from tract7dt.qa.sky_page import sky_subtitle
from tract7dt.qa.stretch import block_mean, display_factor, measure_stretch
from tract7dt.qa.style import CONTRAST, FAINT, INK, PAPER, SYMBOLS, fading_scale, order_bands
from tract7dt.types import F4, F8, Bool, Box, Patch

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = ["patch_sheet", "plot_patch_overview", "weighted_stacks"]

#: Longer side of a panel: points as for every picture, and never more pixels than this.
_SIDE, _MOST = 172.0, 500
_SIGMAS = 5.0
_LEFT, _TOP, _GAP, _BAR = 52, 66, 16, 52
_AXIS, _STRIP = 34, 44
_LEVELS = 48


def plot_patch_overview(
    data: F4,
    model: F4,
    weight: F4,
    bands: Sequence[str],
    table: pd.DataFrame,
    patch: Patch,
    path: str | os.PathLike[str],
    *,
    wcs: WCS | None = None,
    dpi: int = 300,
) -> None:
    """Draw the weighted stack of data, model and residual of a patch and write patch_overview.png.

    Parameters
    ----------
    data, model, weight : ndarray (nband, ny, nx)
        Scaled counts, model with sky, 1 / sigma**2 (0: masked), of the patch's roi.
    bands : sequence of str
    table : DataFrame
        One row a source: ``x_pix_patch``, ``y_pix_patch`` (start, pix in the roi), ``x_pix_patch_fit``,
        ``y_pix_patch_fit`` (NaN or absent: not fitted), ``_is_halo_source``, ``stype``.
    patch : Patch
    path : path
    wcs : WCS, optional
        Of the working frame, for compass and scale bar.
    dpi : int
        A panel is 172 points wide, and at most 500 pixels.
    """
    patch_sheet(data, model, weight, bands, table, patch, wcs=wcs, dpi=dpi).save(path, dpi)


def patch_sheet(
    data: F4,
    model: F4,
    weight: F4,
    bands: Sequence[str],
    table: pd.DataFrame,
    patch: Patch,
    *,
    wcs: WCS | None,
    dpi: int,
) -> Sheet:
    """The picture behind :func:`plot_patch_overview`."""
    seen, fitted, residual = weighted_stacks(data, model, weight)
    roi = patch.roi
    side = min(int(_SIDE * dpi / 72), _MOST)
    factor = display_factor(seen.shape, 1, side)
    seen, fitted = block_mean(seen, factor), block_mean(fitted, factor)
    # The mean of n independent pixels in sigma has a width of 1/sqrt(n): scaled back, 1 stays one sigma.
    residual = block_mean(residual, factor) * np.float32(factor)
    stretch = measure_stretch(seen)
    zoom = max(1, side // max(seen.shape))
    width, height = seen.shape[1] * zoom, seen.shape[0] * zoom
    sky = sky_geometry(wcs, (roi.x0 + roi.x1 - 1) / 2, (roi.y0 + roi.y1 - 1) / 2)
    missing = bool(np.isnan(seen).any())
    words = _subtitle(bands, table, residual, sky, factor, missing)
    total = max(_LEFT + 3 * width + 2 * _GAP + _BAR + 6, _LEFT + text_width(words, 10) + 10, 660)
    sheet = Sheet.blank(total, _TOP + height + _AXIS + _STRIP)
    sheet.text(_LEFT, 6, f"Patch {patch.tag}", size=15, color=INK, bold=True)
    sheet.text(_LEFT, 27, words, size=10, color=FAINT)
    panels = (
        ("data, weighted stack", grey_index(stretch.grey(seen), _LEVELS)),
        ("model", grey_index(stretch.grey(fitted), _LEVELS)),
        ("(data − model) / σ", signed_index(residual, _SIGMAS)),
    )
    for number, (title, index) in enumerate(panels):
        left = _LEFT + number * (width + _GAP)
        sheet.text(left, _TOP - 18, title, size=12, color=INK)
        sheet.image(left, _TOP, index, zoom)
        draw_axis(sheet, left, _TOP + height, width, (roi.x0, roi.x1), "x [pix]", horizontal=True)
    draw_axis(sheet, _LEFT, _TOP, height, (roi.y0, roi.y1), "y [pix]", horizontal=False)
    _color_bar(sheet, _LEFT + 3 * width + 2 * _GAP + 8, _TOP, height)
    place = _Place(roi, _LEFT, _TOP, width, height, zoom / factor)
    for number in range(3):
        place.outline(place.panel(sheet, number), patch.base)
    _draw_sources(sheet, place, table)
    if not np.isfinite(seen).any():
        sheet.text(_LEFT + 8, _TOP + height / 2 - 8, "every pixel is masked", size=11, color=PAPER)
    draw_sky_strip(sheet, sheet.pixels.shape[0] - _STRIP, _STRIP, _legend(table), sky, zoom / factor, width)
    return sheet


class _Place:
    """Where a position of the working frame lies in a panel."""

    def __init__(self, roi: Box, left: int, top: int, width: int, height: int, per_pixel: float) -> None:
        self.roi, self._left, self._top = roi, left, top
        self._width, self._height, self.per_pixel = width, height, per_pixel

    def panel(self, sheet: Sheet, number: int) -> Sheet:
        """A panel as a sheet of its own, so that no symbol sticks out of it."""
        left = self._left + number * (self._width + _GAP)
        part = sheet.pixels[self._top : self._top + self._height, left : left + self._width]
        return Sheet(part, sheet.texts, sheet.marks)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a panel of a position."""
        return (
            (x - self.roi.x0 + 0.5) * self.per_pixel - 0.5,
            self._height - (y - self.roi.y0 + 0.5) * self.per_pixel - 0.5,
        )

    def outline(self, panel: Sheet, box: Box) -> None:
        """The base box, dashed."""
        x0, y1 = self.at(box.x0 - 0.5, box.y0 - 0.5)
        x1, y0 = self.at(box.x1 - 0.5, box.y1 - 0.5)
        panel.outline(round(x0), round(y0), round(x1 - x0) + 1, round(y1 - y0) + 1, CONTRAST, dash=4)
        panel.marks.setdefault("base box", []).append((x0, y1))

    @property
    def area(self) -> float:
        """Of a panel, square pixels."""
        return float(self._width * self._height)


def _subtitle(
    bands: Sequence[str],
    table: pd.DataFrame,
    residual: F4,
    sky: SkyGeometry | None,
    factor: int,
    missing: bool,
) -> str:
    order = order_bands(bands)
    names = order[0] if len(order) == 1 else f"{order[0]} … {order[-1]}" if order else "none"
    halo = table["_is_halo_source"].to_numpy(bool)
    parts = [f"{len(bands)} bands: {names}", f"{int((~halo).sum())} sources, {int(halo.sum())} in the halo"]
    spread = _spread(residual)
    if np.isfinite(spread):
        parts.append(f"residual scatter {spread:.2f} σ")
    return "   ·   ".join([*parts, sky_subtitle(sky, factor, missing=missing)])


def weighted_stacks(data: F4, model: F4, weight: F4) -> tuple[F4, F4, F4]:
    """Weighted mean of data and of model over the bands, and their difference in sigma.

    With w = 1/sigma**2: mean = sum(w d) / sum(w), and (mean_d - mean_m) sqrt(sum(w)) has unit variance
    where the model is right. NaN where no band has weight.

    Returns
    -------
    data, model, residual : ndarray, float32 (ny, nx)
    """
    good = (weight > 0) & np.isfinite(data) & np.isfinite(model)
    w = np.where(good, weight, np.float32(0))
    total = w.sum(axis=0)
    some = total > 0
    means = []
    for cube in (data, model):
        summed = np.where(good, cube, np.float32(0)) * w
        blank = np.full(total.shape, np.nan, dtype=np.float32)
        means.append(np.divide(summed.sum(axis=0), total, out=blank, where=some))
    residual = ((means[0] - means[1]) * np.sqrt(total)).astype(np.float32)
    return means[0], means[1], residual


def _spread(residual: F4) -> float:
    """Robust standard deviation of the residual."""
    good = residual[np.isfinite(residual)]
    return float(1.4826 * np.median(np.abs(good - np.median(good)))) if good.size else float("nan")


def _columns(table: pd.DataFrame, roi: Box) -> tuple[F8, F8, F8, F8]:
    """Start and fitted positions in the working frame; fitted NaN where there is none."""
    out: list[F8] = []
    for name in ("x_pix_patch", "y_pix_patch", "x_pix_patch_fit", "y_pix_patch_fit"):
        offset = roi.x0 if name.startswith("x") else roi.y0
        values = table[name].to_numpy(float) if name in table else np.full(len(table), np.nan)
        out.append(values + offset)
    return out[0], out[1], out[2], out[3]


def _kinds(table: pd.DataFrame) -> dict[str, Bool]:
    """Who is drawn how: halo sources by their own symbol, base sources by model."""
    halo = table["_is_halo_source"].to_numpy(bool)
    stype = table["stype"].fillna("").astype(str).str.strip().str.lower().to_numpy(str)
    star = np.isin(stype, ("star",))
    known = star | np.isin(stype, ("gal", "exp", "dev", "sersic"))
    return {
        "halo": halo,
        "unknown": ~halo & ~known,
        "galaxy": ~halo & known & ~star,
        "star": ~halo & star,
    }


def _color_bar(sheet: Sheet, left: int, top: int, height: int) -> None:
    values = np.linspace(-_SIGMAS, _SIGMAS, max(height, SIGNED_STEPS))[:height, None]
    sheet.image(left, top, signed_index(np.repeat(values, 9, axis=1), _SIGMAS))
    for value in (-5.0, -2.5, 0.0, 2.5, 5.0):
        y = top + height - 1 - (value + _SIGMAS) / (2 * _SIGMAS) * (height - 1)
        sheet.line(left + 9, y, left + 12, y, INK)
        sheet.text(left + 15, y - 7, f"{value:g} σ".replace("-", "−"), size=10, color=INK)


def _draw_sources(sheet: Sheet, place: _Place, table: pd.DataFrame) -> None:
    x0, y0, x1, y1 = _columns(table, place.roi)
    # A source without a fit stands where it started.
    there = np.isfinite(x1) & np.isfinite(y1)
    x, y = np.where(there, x1, x0), np.where(there, y1, y0)
    scale = min(1.0, 1.2 * fading_scale(len(table), place.area))
    data, residual = place.panel(sheet, 0), place.panel(sheet, 2)
    for i in np.flatnonzero(there):
        data.line(*place.at(x0[i], y0[i]), *place.at(x1[i], y1[i]), CONTRAST)
    for name, members in _kinds(table).items():
        symbol = SYMBOLS[name]
        size = symbol.size * 1.5 * scale
        for i in np.flatnonzero(members & np.isfinite(x) & np.isfinite(y)):
            data.mark(name, symbol, *place.at(x[i], y[i]), size=size, width=1.4)
            # On the residual only a hair line: what is inside of the symbol matters here.
            residual.mark(f"{name} residual", symbol, *place.at(x[i], y[i]), size=size, width=0.8, rim=False)
    for i in np.flatnonzero(np.isfinite(x0) & np.isfinite(y0)):
        data.mark("start", SYMBOLS["start"], *place.at(x0[i], y0[i]), size=9 * scale, width=1.0)


def _legend(table: pd.DataFrame) -> list[tuple[str, str]]:
    kinds = _kinds(table)
    texts = {
        "star": "star, fitted",
        "galaxy": "galaxy, fitted",
        "unknown": "unknown type",
        "halo": "halo source",
    }
    entries = [
        (name, f"{text} (N={int(kinds[name].sum())})")
        for name, text in texts.items()
        if kinds[name].any() or name in ("star", "halo")
    ]
    return [*entries, ("start", "start position")]
