"""The stars of a PSF cell side by side."""

from __future__ import annotations

import numpy as np

from tract7dt.qa.compass import SkyGeometry
from tract7dt.qa.palette import grey_index
from tract7dt.qa.psf_stars import REASON_SYMBOLS
from tract7dt.qa.raster import Sheet
from tract7dt.qa.raster_sky import STRIP, draw_sky_strip
from tract7dt.qa.style import FAINT, INK, SYMBOLS
from tract7dt.types import F4, F8, PsfDiagnosis

__all__ = ["montage_sheet"]

_LEFT, _TOP, _GAP, _LINE, _LEVELS = 14, 56, 4, 16, 40
#: Wanted width of a tile; more tiles than ``_MANY`` are not enlarged.
_TILE, _MANY = 110, 36


def montage_sheet(
    diagnosis: PsfDiagnosis,
    *,
    used_only: bool,
    most: int,
    band: str,
    cell: str,
    sky: SkyGeometry | None = None,
) -> Sheet:
    """Cutouts of the stars, the brightest first, each in its own asinh stretch.

    Parameters
    ----------
    diagnosis : PsfDiagnosis
    used_only : bool
        Only those of the final stack; else all that were cut out for it.
    most : int
        How many are shown at most (``epsf.save_star_montage_max``).
    band, cell : str
    sky : SkyGeometry, optional
        For compass and scale bar.
    """
    chosen = np.flatnonzero(diagnosis.used) if used_only else np.arange(len(diagnosis.x))
    chosen = chosen[np.argsort(-diagnosis.snr[chosen], kind="stable")]
    shown = chosen[:most]
    k = diagnosis.data.shape[-1]
    zoom = max(1, round(_TILE / k)) if len(shown) <= _MANY else 1
    side = k * zoom
    columns = max(1, min(len(shown), int(np.ceil(np.sqrt(1.5 * max(len(shown), 1))))))
    rows = -(-len(shown) // columns)
    strip = 0 if sky is None else STRIP
    width = max(2 * _LEFT + columns * (side + _GAP), 520)
    sheet = Sheet.blank(width, _TOP + max(rows, 1) * (side + _LINE + _GAP) + 10 + strip)
    what = "Stars of the stack" if used_only else "Stars cut out for the stack"
    sheet.text(_LEFT, 6, f"{what}   {band}   {cell}", size=15, color=INK, bold=True)
    more = f", the brightest {len(shown)} shown" if len(shown) < len(chosen) else ""
    words = f"{len(chosen)} stars{more}   ·   {k} × {k} pix   ·   asinh stretch   ·   blue: no data"
    sheet.text(_LEFT, 27, words, size=11, color=FAINT)
    for number, i in enumerate(shown):
        left = _LEFT + (number % columns) * (side + _GAP)
        top = _TOP + (number // columns) * (side + _LINE + _GAP)
        _tile(sheet, left, top, zoom, diagnosis, int(i))
    if not len(shown):
        sheet.text(_LEFT, _TOP, "none", size=12, color=FAINT)
    if sky is not None:
        draw_sky_strip(sheet, sheet.pixels.shape[0] - strip, strip, (), sky, zoom, side, 11)
    return sheet


def _tile(sheet: Sheet, left: int, top: int, zoom: int, diagnosis: PsfDiagnosis, i: int) -> None:
    sheet.image(left, top, grey_index(_level(diagnosis.data[i], diagnosis.noise[i]), _LEVELS), zoom)
    reason = diagnosis.reason[i]
    symbol = SYMBOLS["psf_used"] if diagnosis.used[i] else REASON_SYMBOLS.get(reason, SYMBOLS["unmatched"])
    sheet.mark(reason or "used", symbol, left + 9, top + 9, size=9, width=1.4)
    words = f"S/N {diagnosis.snr[i]:.0f}" + ("" if diagnosis.used[i] else f", {reason.replace('_', ' ')}")
    sheet.text(left, top + diagnosis.data.shape[-1] * zoom + 1, words, size=10, color=INK)


def _level(image: F4, noise: F8) -> F4:
    """Asinh between two sigma below the sky and the peak, linear within three sigma."""
    scaled = np.arcsinh(image / max(3.0 * float(noise), 1e-12))
    low, high = float(np.arcsinh(-2 / 3)), max(float(np.nanmax(scaled, initial=1.0)), 1.0)
    return np.clip((scaled - low) / (high - low), 0, 1)
