"""Zero point of every star against its magnitude."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tract7dt.qa.plot_panel import PlotPanel
from tract7dt.qa.raster import Sheet, text_width
from tract7dt.qa.raster_sky import nice_ticks
from tract7dt.qa.style import FAINT, INK, LEVEL, SYMBOLS, Symbol, band_colors, on_paper
from tract7dt.types import F8, Bool, ZeroPoint

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ZpPlotRange", "plot_zp_vs_mag", "star_groups", "zp_sheet"]

#: Layout in points, and the resolutions at which it is drawn.
_WIDTH, _HEIGHT = 462, 306
_LEFT, _TOP, _MAIN, _PLOT, _SIDE, _GAP = 44, 52, 330, 206, 70, 8
_WORDS = 6.6
_DPI = (100, 200)
_BINS = 30


class ZpPlotRange(Protocol):
    """The part of ``settings.zp`` that the plots read."""

    @property
    def plot_mag_lo(self) -> float:
        """Brightest magnitude of the restricted range."""

    @property
    def plot_mag_hi(self) -> float:
        """Faintest magnitude of the restricted range."""

    @property
    def plot_zp_offset(self) -> float:
        """Half height of the restricted range, mag."""


def plot_zp_vs_mag(
    stars: pd.DataFrame,
    zp: ZeroPoint,
    limits: ZpPlotRange,
    path: str | os.PathLike[str],
    *,
    full_range: bool,
    dpi: int = 300,
) -> None:
    """Draw one band's stars and write zp_vs_mag__{band}.png or its ``_fullrange`` twin.

    Parameters
    ----------
    stars : DataFrame
        ``band``, ``gaiaxp_mag``, ``zp``, ``zp_err``, ``is_kept``, ``is_clipped``, as in the per-object
        file; rows of other bands are passed over. A star that is neither kept nor clipped is unreliable.
    zp : ZeroPoint
    limits : ZpPlotRange
        ``settings.zp``.
    path : path
    full_range : bool
        Whether the axes hold every star, or the range of ``limits`` with arrows for the stars outside.
    dpi : int
    """
    zp_sheet(stars, zp, limits, full_range=full_range, dpi=dpi).save(path, dpi)


def zp_sheet(stars: pd.DataFrame, zp: ZeroPoint, limits: ZpPlotRange, *, full_range: bool, dpi: int) -> Sheet:
    """The picture behind :func:`plot_zp_vs_mag`; its ``marks`` are by group and ``outside ^`` and so on."""
    mag, value, error, groups = star_groups(stars, zp.band)
    color = band_colors([zp.band])[zp.band]
    symbols = _symbols(color)
    unit = float(np.clip(dpi, *_DPI)) / 72
    left, top, main, plot, side = (round(v * unit) for v in (_LEFT, _TOP, _MAIN, _PLOT, _SIDE))
    size = round(_WORDS * unit)
    sheet = Sheet.blank(round(_WIDTH * unit), round(_HEIGHT * unit))
    sheet.text(left, 0.5 * size, f"Zero point, {zp.band}", size=round(1.4 * size), color=INK, bold=True)
    sheet.text(left, 2.6 * size, _summary(zp), size=size, color=FAINT)
    xlim, ylim = _ranges(mag, value, zp, limits, full_range)
    panel = PlotPanel(sheet, left, top, main, plot, xlim, ylim, size)
    _frame(panel, zp)
    counts = PlotPanel(sheet, left + main + round(_GAP * unit), top, side, plot, (0.0, 1.0), ylim, size)
    _histogram(counts, value, groups, color, zp)
    outside = 0
    for name in ("clipped", "unreliable", "kept"):
        pick = groups[name]
        outside += _draw_group(panel, name, symbols[name], mag[pick], value[pick], error[pick], unit)
    entries = [
        (symbols[name], f"{name} (N={int(groups[name].sum())})") for name in ("kept", "clipped", "unreliable")
    ]
    if outside:
        arrow = Symbol(">", FAINT, FAINT, size=4.5, width=0.0, filled=True)
        entries.append((arrow, f"outside the range (N={outside})"))
    _legend(sheet, left, top + plot + round(3.6 * size), entries, size, unit)
    if not any(members.any() for members in groups.values()):
        words = "no Gaia star with a magnitude and a positive flux"
        sheet.text(left + main / 2, top + plot / 2, words, size=size + 2, color=FAINT, align="centre")
    return sheet


def _frame(panel: PlotPanel, zp: ZeroPoint) -> None:
    (x0, x1), (y0, y1) = panel.x_limits, panel.y_limits
    x_ticks, y_ticks = nice_ticks(x0, x1, 7), nice_ticks(y0, y1, 7)
    panel.grid(x_ticks, y_ticks, FAINT, 0.16)
    _level(panel, zp)
    step = y_ticks[1] - y_ticks[0] if len(y_ticks) > 1 else y1 - y0
    digits = max(0, int(np.ceil(-np.log10(max(step, 1e-9)) - 1e-9)))
    panel.frame(
        x_ticks,
        y_ticks,
        f"Gaia XP magnitude in {zp.band} [mag AB]",
        "zero point [mag AB of 1 scaled count]",
        lambda tick: f"{tick:.{digits}f}".replace("-", "−"),
    )


def _legend(
    sheet: Sheet, left: int, middle: int, entries: list[tuple[Symbol, str]], size: int, unit: float
) -> None:
    for symbol, text in entries:
        wide = symbol.size * unit
        sheet.mark("legend", symbol, left + size / 2, middle, size=wide, width=symbol.width * unit, rim=False)
        sheet.text(left + 1.3 * size, middle - 0.7 * size, text, size=size, color=INK)
        left += round(3 * size) + text_width(text, size)


def _symbols(color: str) -> dict[str, Symbol]:
    kept = replace(SYMBOLS["kept"], color=color, color_on_paper=color)
    return {"kept": kept} | {name: on_paper(SYMBOLS[name]) for name in ("unreliable", "clipped")}


def star_groups(stars: pd.DataFrame, band: str) -> tuple[F8, F8, F8, dict[str, Bool]]:
    """Magnitude, zero point and error of one band's stars, and who is kept, unreliable and clipped.

    Stars without a finite magnitude or zero point are left out.
    """
    mine = stars[stars["band"].astype(str) == band]
    mag, value = mine["gaiaxp_mag"].to_numpy(float), mine["zp"].to_numpy(float)
    good = np.isfinite(mag) & np.isfinite(value)
    mine, mag, value = mine[good], mag[good], value[good]
    error = mine["zp_err"].to_numpy(float)
    kept = mine["is_kept"].to_numpy(bool)
    clipped = mine["is_clipped"].to_numpy(bool) & ~kept
    return mag, value, error, {"kept": kept, "unreliable": ~kept & ~clipped, "clipped": clipped}


def _ranges(
    mag: F8, value: F8, zp: ZeroPoint, limits: ZpPlotRange, full_range: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    middle = zp.value if np.isfinite(zp.value) else float(np.median(value)) if value.size else 25.0
    if not full_range or not value.size:
        half = limits.plot_zp_offset
        return (limits.plot_mag_lo, limits.plot_mag_hi), (middle - half, middle + half)
    x0, x1 = float(mag.min()), float(mag.max())
    y0, y1 = min(float(value.min()), middle), max(float(value.max()), middle)
    pad_x, pad_y = max(0.05 * (x1 - x0), 0.1), max(0.06 * (y1 - y0), 0.02)
    return (x0 - pad_x, x1 + pad_x), (y0 - pad_y, y1 + pad_y)


def _level(panel: PlotPanel, zp: ZeroPoint) -> None:
    if not np.isfinite(zp.value):
        return
    if np.isfinite(zp.err):
        panel.band(zp.value - zp.err, zp.value + zp.err, LEVEL, 0.13)
    panel.band(zp.value, zp.value, LEVEL, 1.0)


def _draw_group(
    panel: PlotPanel, name: str, symbol: Symbol, mag: F8, value: F8, error: F8, unit: float
) -> int:
    """Points with error bars; those outside as arrows on the border. Returns how many are outside."""
    (x0, x1), (y0, y1) = panel.x_limits, panel.y_limits
    inside = (mag >= x0) & (mag <= x1) & (value >= y0) & (value <= y1)
    bars = inside & np.isfinite(error)
    panel.error_bars(mag[bars], value[bars], error[bars], symbol.color, 0.45)
    panel.symbols(name, symbol, mag[inside], value[inside], unit)
    # One arrow a star: up or down where the zero point is outside, else left or right.
    dx, dy = 0.012 * (x1 - x0), 0.016 * (y1 - y0)
    x, y = np.clip(mag, x0 + dx, x1 - dx), np.clip(value, y0 + dy, y1 - dy)
    level = ~inside & (value <= y1) & (value >= y0)
    directions: Mapping[str, Bool] = {
        "^": value > y1, "v": value < y0, "<": level & (mag < x0), ">": level & (mag > x1)
    }  # fmt: skip
    for marker, where in directions.items():
        if where.any():
            arrow = Symbol(marker, symbol.color, symbol.color, size=4.5, width=0.0, filled=True)
            panel.symbols(f"outside {marker}", arrow, x[where], y[where], unit)
    return int((~inside).sum())


def _histogram(panel: PlotPanel, value: F8, groups: dict[str, Bool], color: str, zp: ZeroPoint) -> None:
    """How many stars there are at a zero point: all that are reliable, and in front of them those kept."""
    edges = np.linspace(*panel.y_limits, _BINS + 1)
    kept, _ = np.histogram(value[groups["kept"]], edges)
    every, _ = np.histogram(value[groups["kept"] | groups["clipped"]], edges)
    most = max(1.0, 1.1 * float(every.max(initial=0)))
    panel = replace(panel, x_limits=(0.0, most))
    for number, tint in ((every, SYMBOLS["clipped"].color_on_paper), (kept, color)):
        for n, low, high in zip(number, edges[:-1], edges[1:], strict=True):
            (_, right), (upper, lower) = panel.at(np.array([0, n]), np.array([high, low]))
            rows = round(float(upper)), round(float(lower))
            panel.sheet.fill(panel.left, panel.top + rows[0], round(float(right)), rows[1] - rows[0], tint)
    _level(panel, zp)
    ticks = [tick for tick in nice_ticks(0, most, 3) if tick > 0 and tick == round(tick)]
    panel.frame(ticks, (), "stars", "", str)


def _summary(zp: ZeroPoint) -> str:
    if not np.isfinite(zp.value):
        return f"no zero point   ·   {zp.n_raw} stars, {zp.n_unreliable} unreliable"
    parts = [
        f"ZP {zp.value:.4f} ± {zp.err:.4f} mag",
        f"MAD {zp.err_mad:.4f}",
        f"bright std {zp.err_std:.4f}",
        f"error of the median {zp.err_median:.4f}",
        f"clip {zp.clip_sigma:g} σ",
    ]
    return "   ·   ".join(part for part in parts if "nan" not in part)
