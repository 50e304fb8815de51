"""The PSF of a cell: stamp, radial profile, growth curve."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tract7dt.qa.palette import signed_index
from tract7dt.qa.plot_panel import FONT, PlotPanel
from tract7dt.qa.profile import growth_curve, half_width, radial_profile
from tract7dt.qa.raster import Sheet
from tract7dt.qa.raster_sky import nice_ticks
from tract7dt.qa.style import FAINT, INK, LEVEL, band_colors
from tract7dt.types import F8, Epsf

__all__ = ["MAX_DPI", "epsf_sheet", "plot_epsf"]

#: Side of a panel, points, and the most pixels of it; there are hundreds of these pictures in a field.
_PANEL, _MOST = 145.0, 340
MAX_DPI = 200
_LEFT, _TOP, _BAR, _GAP, _FOOT = 56, 80, 84, 66, 44
#: Linear within +-2e-4 of the peak, so that the wings and what is negative in them can be seen.
_LINEAR = 2e-4
#: How far below zero the colour bar reaches, value / peak.
_BAR_BELOW = -0.02
#: Shares of the light whose radii are told.
_SHARES = (0.5, 0.8)


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
        At most :data:`MAX_DPI` count; a panel is never more than 340 pixels.
    """
    epsf_sheet(epsf, meta, dpi=dpi).save(path, dpi)


def epsf_sheet(epsf: Epsf, meta: Mapping[str, Any], *, dpi: int) -> Sheet:
    """The picture behind :func:`plot_epsf`."""
    known = {**epsf.quality, "n_stars": epsf.n_stars, **{k: v for k, v in meta.items() if v is not None}}
    stamp = np.asarray(epsf.stamp, dtype=float)
    side = int(np.clip(_PANEL * min(dpi, MAX_DPI) / 72, 200, _MOST))
    zoom = max(1, round(side / stamp.shape[0]))
    side = max(side, zoom * stamp.shape[0])
    sheet = Sheet.blank(_LEFT + 3 * side + _BAR + 2 * _GAP + 16, _TOP + side + _FOOT)
    peak = float(np.nanmax(stamp, initial=0.0)) if np.isfinite(stamp).any() else 0.0
    title = "   ".join(str(known[key]) for key in ("band", "cell") if known.get(key)) or "PSF"
    sheet.text(_LEFT, 8, title, size=16, color=INK, bold=True)
    if not 0 < peak < np.inf:
        sheet.outline(_LEFT, _TOP, side, side, FAINT)
        sheet.text(_LEFT + side / 2, _TOP + side / 2 - 8, "no positive pixel", color=FAINT, align="centre")
        return sheet
    scaled = stamp / peak
    r, value = radial_profile(scaled)
    if "fwhm_pix" not in known:
        known["fwhm_pix"] = half_width(r, value)
    color = band_colors([str(known.get("band", ""))])[str(known.get("band", ""))]
    _draw_stamp(sheet, _LEFT, side, zoom, scaled)
    _draw_profile(sheet, _LEFT + side + _BAR + _GAP, side, r, value, _number(known, "fwhm_pix"), color)
    radii = _draw_energy(sheet, _LEFT + 2 * side + _BAR + 2 * _GAP, side, scaled, color)
    sheet.text(_LEFT, 32, _text(known, epsf, *radii), size=FONT + 1, color=FAINT)
    return sheet


def _number(known: Mapping[str, Any], key: str) -> float:
    value = known.get(key)
    return float(value) if isinstance(value, (int, float, np.number)) else float("nan")


def _text(known: Mapping[str, Any], epsf: Epsf, r50: float, r80: float) -> str:
    lent = known.get("borrowed_from")
    parts = [f"{epsf.kind} from {lent}" if lent else epsf.kind, f"{int(known['n_stars'])} stars"]
    for key, text in (
        ("fwhm_pix", "FWHM {:.2f} pix"),
        ("ellipticity", "ellipticity {:.3f}"),
        ("moffat_beta", "β {:.2f}"),
    ):
        value = _number(known, key)
        if np.isfinite(value):
            parts.append(text.format(value))
    parts.append(f"EE50 {r50:.2f}, EE80 {r80:.2f} pix")
    error = _number(known, "model_error")
    error = error if np.isfinite(error) else _number(known, "relative_error")
    if np.isfinite(error):
        parts.append(f"flux error {100 * error:.2f} %")
    return "   ·   ".join(parts)


def _asinh(value: F8) -> F8:
    """-1 to 1 for values from minus the peak to the peak."""
    return np.arcsinh(value / _LINEAR) / np.arcsinh(1 / _LINEAR)


def _draw_stamp(sheet: Sheet, left: int, side: int, zoom: int, scaled: F8) -> None:
    k = scaled.shape[0]
    width = k * zoom
    sheet.image(left, _TOP, signed_index(_asinh(scaled), 1.0), zoom)
    half = k / 2
    ticks = [t for t in nice_ticks(-half, half, 6) if abs(t) <= half - 0.5]
    PlotPanel(sheet, left, _TOP, width, width, (-half, half), (-half, half)).frame(
        ticks, ticks, "x − centre [pix]", "y − centre [pix]", lambda t: f"{t:g}".replace("-", "−")
    )
    low = float(_asinh(np.array(_BAR_BELOW)))
    shown = np.linspace(low, 1, width)[:, None].repeat(11, 1)
    sheet.image(left + width + 8, _TOP, signed_index(shown, 1.0))
    for tick in (-1e-2, 0.0, 1e-3, 1e-2, 1e-1, 1.0):
        y = _TOP + (1 - (float(_asinh(np.array(tick))) - low) / (1 - low)) * (width - 1)
        sheet.line(left + width + 19, y, left + width + 22, y, INK)
        sheet.text(left + width + 25, y - 8, _power(tick), size=FONT, color=INK)
    sheet.text(left + width + 8, _TOP - 18, "value / peak", size=FONT, color=INK)


def _power(value: float) -> str:
    """``10⁻³``."""
    if value == 0:
        return "0"
    exponent = round(float(np.log10(abs(value))))
    sign = "−" if value < 0 else ""
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{sign}1" if exponent == 0 else f"{sign}10{raised}"


def _draw_profile(sheet: Sheet, left: int, side: int, r: F8, value: F8, fwhm: float, color: str) -> None:
    ring = np.rint(r).astype(int)
    count = np.bincount(ring)
    some = count > 0
    mean = np.bincount(ring, value)[some] / count[some]
    centre = np.bincount(ring, r)[some] / count[some]
    positive = mean[mean > 0]
    floor = float(np.floor(np.log10(max(float(positive.min(initial=1.0)), 1e-6)))) if positive.size else -5.0
    floor = min(floor, -1.0)
    edge = max(float(r.max(initial=0.0)) / np.sqrt(2), 0.5)
    panel = PlotPanel(sheet, left, _TOP, side, side, (0.0, edge), (floor, 0.2))
    panel.frame(
        nice_ticks(0, edge, 6),
        np.arange(floor, 0.5),
        "radius [pix]",
        "value / peak",
        lambda t: _power(10.0**t),
    )
    panel.points(r, _log(value), color, 2.3, 0.75)
    panel.curve(centre, _log(mean), INK, 1.6)
    if np.isfinite(fwhm) and fwhm / 2 < edge:
        panel.level([0.0, fwhm / 2], [np.log10(0.5)] * 2, LEVEL)
        panel.level([fwhm / 2] * 2, [np.log10(0.5), floor], LEVEL)
        panel.text(fwhm / 2, np.log10(0.5), f"FWHM / 2 = {fwhm / 2:.2f}", LEVEL, (8, -8))
    for row, words in enumerate(("points: pixels", "line: ring mean")):
        top = _TOP + 24 + 16 * row  # below the words of the FWHM
        sheet.text(left + side - 8, top, words, size=FONT, color=FAINT, align="right")


def _log(value: F8) -> F8:
    return np.log10(value, out=np.full(value.shape, np.nan), where=value > 0)


def _draw_energy(sheet: Sheet, left: int, side: int, scaled: F8, color: str) -> tuple[float, float]:
    """Growth curve; returns the radii that hold 50 and 80 per cent (NaN where none does)."""
    radius_of, curve = growth_curve(scaled)
    edge = max(scaled.shape[0] / 2, 0.5)
    panel = PlotPanel(sheet, left, _TOP, side, side, (0.0, edge), (0.0, 1.05))
    panel.frame(
        nice_ticks(0, edge, 6), (0.0, 0.5, 0.8, 1.0), "radius [pix]", "encircled energy", lambda t: f"{t:.1f}"
    )
    panel.level([0.0, edge], [1.0, 1.0], FAINT, dash=1)
    radii = []
    for share in _SHARES:
        reached = np.flatnonzero(curve >= share)
        radius = float(radius_of[reached[0]]) if reached.size else float("nan")
        radii.append(radius)
        if np.isfinite(radius) and radius <= edge:
            panel.level([0.0, radius, radius], [share, share, 0.0], LEVEL)
    beside = np.nanmax([radius for radius in radii if radius <= edge], initial=0.0)  # right of both lines
    for share, radius in zip(_SHARES, radii, strict=True):
        if radius <= edge:
            panel.text(beside, share, f"{share:.0%}: {radius:.2f} pix", LEVEL, (8, 2))
    shown = radius_of <= edge
    panel.curve(radius_of[shown], curve[shown], color, 2.2)
    return radii[0], radii[1]
