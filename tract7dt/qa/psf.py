"""The PSF of a cell: stamp, radial profile, growth curve."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from tract7dt.qa.figure import axes_at, dress, heading, new_figure, note, save_figure
from tract7dt.qa.profile import growth_curve, half_width, radial_profile
from tract7dt.qa.style import FAINT, INK, LEVEL, SIGNED, band_colors
from tract7dt.types import F8, Epsf

__all__ = ["MAX_DPI", "epsf_figure", "plot_epsf"]

_EPSF_WIDTH, _EPSF_HEIGHT = 620.0, 213.0
_PANEL, _EPSF_TOP = 145.0, 38.0
#: How far below zero the colour bar reaches, value / peak.
_BAR_BELOW = 0.02
#: There are two pictures a cell and band, hundreds of a field: beyond this resolution they only take longer.
MAX_DPI = 200


def plot_epsf(epsf: Epsf, meta: Mapping[str, Any], path: str | os.PathLike[str], *, dpi: int = 300) -> None:
    """Draw stamp, radial profile and encircled energy, and write epsf.png.

    Parameters
    ----------
    epsf : Epsf
    meta : mapping
        ``band``, ``cell`` and, where known, ``n_stars``, ``fwhm_pix``, ``ellipticity``; what is missing is
        taken from ``epsf.quality``, else measured or left out.
    path : path
    dpi : int
        At most :data:`MAX_DPI` count.
    """
    save_figure(epsf_figure(epsf, meta, dpi=min(dpi, MAX_DPI)), path)


def epsf_figure(epsf: Epsf, meta: Mapping[str, Any], *, dpi: int) -> Figure:
    """The figure behind :func:`plot_epsf`."""
    known = {**epsf.quality, "n_stars": epsf.n_stars, **{k: v for k, v in meta.items() if v is not None}}
    band = str(known.get("band", ""))
    color = band_colors([band])[band]
    stamp = np.asarray(epsf.stamp, dtype=float)
    figure = new_figure(_EPSF_WIDTH, _EPSF_HEIGHT, dpi)
    image = axes_at(figure, 40, _EPSF_TOP, _PANEL, _PANEL)
    bar = axes_at(figure, 40 + _PANEL + 5, _EPSF_TOP, 6, _PANEL)
    profile = axes_at(figure, 275, _EPSF_TOP, 145, _PANEL)
    energy = axes_at(figure, 463, _EPSF_TOP, 145, _PANEL)
    dress(image, "x − centre [pix]", "y − centre [pix]")
    dress(profile, "radius [pix]", "value / peak")
    dress(energy, "radius [pix]", "encircled energy")
    peak = float(np.nanmax(stamp, initial=0.0)) if np.isfinite(stamp).any() else 0.0
    if not peak > 0:
        heading(figure, _epsf_title(known), "", left=40)
        bar.set_axis_off()
        for ax in (image, profile, energy):
            ax.set(xticks=[], yticks=[])
            note(ax, "no positive pixel")
        return figure
    r, value = radial_profile(stamp / peak)
    measured = half_width(r, value)
    if "fwhm_pix" not in known:
        known["fwhm_pix"] = measured
    _draw_stamp(image, bar, stamp / peak)
    _draw_profile(profile, r, value, _number(known, "fwhm_pix"), color)
    r50, r80 = _draw_energy(energy, stamp / peak, color)
    heading(figure, _epsf_title(known), _epsf_text(known, epsf, r50, r80), left=40)
    return figure


def _number(known: Mapping[str, Any], key: str) -> float:
    value = known.get(key)
    return float(value) if isinstance(value, (int, float, np.number)) else float("nan")


def _epsf_title(known: Mapping[str, Any]) -> str:
    return "   ".join(str(known[key]) for key in ("band", "cell") if known.get(key)) or "PSF"


def _epsf_text(known: Mapping[str, Any], epsf: Epsf, r50: float, r80: float) -> str:
    parts = [f"{epsf.kind}", f"{int(known['n_stars'])} stars"]
    for key, text in (("fwhm_pix", "FWHM {:.2f} pix"), ("ellipticity", "ellipticity {:.3f}")):
        value = _number(known, key)
        if np.isfinite(value):
            parts.append(text.format(value))
    parts.append(f"EE50 {r50:.2f}, EE80 {r80:.2f} pix")
    parts.append(f"sum {float(np.nansum(epsf.stamp)):.4f}")
    return "   ·   ".join(parts)


def _draw_stamp(ax: Axes, bar: Axes, scaled: F8) -> None:
    # Linear within ±2e-4 of the peak, so that the wings and what is negative in them can be seen.
    norm = AsinhNorm(linear_width=2e-4, vmin=-1.0, vmax=1.0)
    half = scaled.shape[0] / 2
    ax.imshow(
        scaled, origin="lower", cmap=SIGNED, norm=norm, interpolation="nearest",
        extent=(-half, half, -half, half), aspect="auto",
    )  # fmt: skip
    # drawn as a picture: a colour bar proper costs as much as the rest of the panel
    low, high = float(norm(-_BAR_BELOW)), 1.0
    shown = norm.inverse(np.linspace(low, high, 256))[:, None]
    bar.imshow(shown, origin="lower", cmap=SIGNED, norm=norm, extent=(0, 1, low, high), aspect="auto")
    ticks = [-1e-2, 0.0, 1e-3, 1e-2, 1e-1, 1.0]
    bar.xaxis.set_visible(False)
    bar.set_yticks([float(norm(t)) for t in ticks], labels=[_power(t) for t in ticks])
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.tick_params(labelsize=6.5, colors=INK, width=0.5, length=2, pad=2)
    for spine in bar.spines.values():
        spine.set_linewidth(0.5)
    bar.set_ylabel("value / peak", fontsize=7.5, color=INK, labelpad=1)


def _power(value: float) -> str:
    """``10⁻³`` without mathtext."""
    if value == 0:
        return "0"
    exponent = round(float(np.log10(abs(value))))
    sign = "−" if value < 0 else ""
    return (
        f"{sign}1"
        if exponent == 0
        else f"{sign}10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def _draw_profile(ax: Axes, r: F8, value: F8, fwhm: float, color: str) -> None:
    ax.plot(r, np.where(value > 0, value, np.nan), ".", color=color, markersize=1.6, alpha=0.5)
    edges = np.arange(0.0, r.max() + 1.0)
    which = np.digitize(r, edges) - 1
    rings = [i for i in range(len(edges)) if (which == i).any()]
    centre = [float(r[which == i].mean()) for i in rings]
    mean = np.array([float(value[which == i].mean()) for i in rings])
    ax.plot(centre, np.where(mean > 0, mean, np.nan), color=INK, linewidth=1.0)
    if np.isfinite(fwhm):
        ax.plot([0, fwhm / 2], [0.5, 0.5], color=LEVEL, linewidth=1.0)
        ax.plot([fwhm / 2] * 2, [0.5, 1e-7], color=LEVEL, linewidth=0.8, linestyle=(0, (3, 2)))
        ax.annotate(
            f"FWHM / 2 = {fwhm / 2:.2f}", (fwhm / 2, 0.5), xytext=(5, -1), textcoords="offset points",
            fontsize=7, color=LEVEL,
        )  # fmt: skip
    positive = mean[mean > 0]
    floor = 10.0 ** np.floor(np.log10(max(float(positive.min()), 1e-6))) if positive.size else 1e-5
    ax.set_yscale("log", subs=[])  # minor ticks by the hundred are made before any locator can drop them
    ax.set(xlim=(0, max(float(r.max()) / np.sqrt(2), 0.5)), ylim=(floor, 1.6))
    ax.yaxis.set_major_locator(FixedLocator([10.0**i for i in range(-7, 1)]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _power(v)))
    ax.yaxis.set_minor_locator(FixedLocator([]))
    ax.text(
        0.97, 0.95, "points: pixels\nline: ring mean", transform=ax.transAxes, fontsize=6.5, color=FAINT,
        ha="right", va="top",
    )  # fmt: skip


def _draw_energy(ax: Axes, scaled: F8, color: str) -> tuple[float, float]:
    """Growth curve; returns the radii that hold 50 and 80 per cent (NaN where none does)."""
    radius_of, curve = growth_curve(scaled)
    ax.plot(radius_of, curve, color=color, linewidth=1.3)
    radii = []
    for share in (0.5, 0.8):
        reached = np.flatnonzero(curve >= share)
        radius = float(radius_of[reached[0]]) if reached.size else float("nan")
        radii.append(radius)
        ax.plot([0, radius, radius], [share, share, 0], color=LEVEL, linewidth=0.8, linestyle=(0, (3, 2)))
        if np.isfinite(radius):
            ax.annotate(
                f"{share:.0%}: {radius:.2f} pix", (radius, share), xytext=(5, -8),
                textcoords="offset points", fontsize=7, color=LEVEL,
            )  # fmt: skip
    ax.set(xlim=(0, scaled.shape[0] / 2), ylim=(0, 1.05), yticks=[0.0, 0.5, 0.8, 1.0])
    ax.axhline(1.0, color=FAINT, linewidth=0.5)
    return radii[0], radii[1]
