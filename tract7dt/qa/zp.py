"""Zero point of every star against its magnitude."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tract7dt.qa.figure import axes_at, dress, heading, new_figure, note, save_figure
from tract7dt.qa.style import FAINT, INK, LEVEL, SYMBOLS, Symbol, band_colors, draw_symbols, legend_handle
from tract7dt.types import F8, Bool, ZeroPoint

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ZpPlotRange", "plot_zp_vs_mag", "star_groups", "zp_figure"]

_WIDTH, _HEIGHT = 470.0, 300.0
_LEFT, _TOP, _MAIN, _PLOT, _SIDE = 50.0, 36.0, 330.0, 218.0, 66.0


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
    save_figure(zp_figure(stars, zp, limits, full_range=full_range, dpi=dpi), path)


def zp_figure(
    stars: pd.DataFrame, zp: ZeroPoint, limits: ZpPlotRange, *, full_range: bool, dpi: int
) -> Figure:
    """The figure behind :func:`plot_zp_vs_mag`."""
    mag, value, error, groups = star_groups(stars, zp.band)
    color = band_colors([zp.band])[zp.band]
    symbols = _symbols(color)
    figure = new_figure(_WIDTH, _HEIGHT, dpi)
    heading(figure, f"Zero point, {zp.band}", _summary(zp), left=_LEFT)
    main = axes_at(figure, _LEFT, _TOP, _MAIN, _PLOT)
    side = axes_at(figure, _LEFT + _MAIN + 8, _TOP, _SIDE, _PLOT)
    dress(main, f"Gaia XP magnitude in {zp.band} [mag AB]", "zero point [mag AB of 1 scaled count]")
    dress(side, "stars", "")
    xlim, ylim = _ranges(mag, value, zp, limits, full_range)
    main.set(xlim=xlim, ylim=ylim)
    side.set_ylim(ylim)
    main.grid(color=FAINT, alpha=0.18, linewidth=0.5)
    if np.isfinite(zp.value):
        _level(main, zp)
        _level(side, zp)
    outside = 0
    for name, members in groups.items():
        outside += _draw_group(main, symbols[name], mag[members], value[members], error[members])
    _histogram(side, value, groups, color, ylim)
    handles: list[Line2D] = [
        legend_handle(symbols[name], f"{name} (N={int(groups[name].sum())})", on_dark=False)
        for name in ("kept", "clipped", "unreliable")
    ]
    if outside:
        arrow = Symbol(">", FAINT, FAINT, size=4.5, width=0.0, filled=True)
        handles.append(legend_handle(arrow, f"outside the range (N={outside})", on_dark=False))
    main.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.02, -0.125), ncols=4, frameon=False,
        fontsize=7.5, labelcolor=INK, handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip
    if not any(members.any() for members in groups.values()):
        note(main, "no Gaia star with a magnitude and a positive flux")
    return figure


def _symbols(color: str) -> dict[str, Symbol]:
    kept = SYMBOLS["kept"]
    return {
        "kept": Symbol(kept.marker, color, color, size=kept.size, width=kept.width, filled=True),
        "unreliable": SYMBOLS["unreliable"],
        "clipped": SYMBOLS["clipped"],
    }


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


def _level(ax: Axes, zp: ZeroPoint) -> None:
    ax.axhline(zp.value, color=LEVEL, linewidth=1.0, zorder=1.5)
    if np.isfinite(zp.err):
        ax.axhspan(zp.value - zp.err, zp.value + zp.err, color=LEVEL, alpha=0.13, linewidth=0, zorder=1)


def _draw_group(ax: Axes, symbol: Symbol, mag: F8, value: F8, error: F8) -> int:
    """Points with error bars; those outside as arrows on the border. Returns how many are outside."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    inside = (mag >= x0) & (mag <= x1) & (value >= y0) & (value <= y1)
    color = symbol.color_on_paper
    bars = inside & np.isfinite(error)
    if bars.any():
        ends = np.stack(
            [np.column_stack([mag[bars], (value + s * error)[bars]]) for s in (-1.0, 1.0)], axis=1
        )
        ax.add_collection(LineCollection(list(ends), colors=color, linewidths=0.6, alpha=0.45), autolim=False)
    draw_symbols(ax, symbol, mag[inside], value[inside], on_dark=False)
    if inside.all():
        return 0
    # One arrow a star: up or down where the zero point is outside, else left or right.
    dx, dy = 0.012 * (x1 - x0), 0.016 * (y1 - y0)
    x, y = np.clip(mag, x0 + dx, x1 - dx), np.clip(value, y0 + dy, y1 - dy)
    for marker, where in (
        ("^", value > y1),
        ("v", value < y0),
        ("<", ~inside & (value <= y1) & (value >= y0) & (mag < x0)),
        (">", ~inside & (value <= y1) & (value >= y0) & (mag > x1)),
    ):
        arrow = Symbol(marker, color, color, size=4.5, width=0.0, filled=True)
        draw_symbols(ax, arrow, x[where], y[where], on_dark=False)
    return int((~inside).sum())


def _histogram(ax: Axes, value: F8, groups: dict[str, Bool], color: str, ylim: tuple[float, float]) -> None:
    edges = np.linspace(*ylim, 31)
    kept, _ = np.histogram(value[groups["kept"]], edges)
    every, _ = np.histogram(value[groups["kept"] | groups["clipped"]], edges)
    ax.stairs(every, edges, orientation="horizontal", color=SYMBOLS["clipped"].color_on_paper, fill=True)
    ax.stairs(kept, edges, orientation="horizontal", color=color, fill=True)
    ax.set_xlim(0, max(1.0, 1.1 * float(every.max(initial=0))))
    ax.tick_params(labelleft=False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, prune="lower"))


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
