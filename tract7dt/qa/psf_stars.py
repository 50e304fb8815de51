"""The candidates of a cell's PSF: those that it was made of, and why the others were not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import sky_geometry
from tract7dt.qa.palette import grey_index
from tract7dt.qa.psf import MAX_DPI
from tract7dt.qa.sky_page import Entry, SkyPage, sky_page, sky_subtitle
from tract7dt.qa.stretch import block_mean, display_factor, measure_stretch
from tract7dt.qa.style import SYMBOLS, Symbol, fading_scale, zoomed_scale
from tract7dt.types import Box

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["REASON_SYMBOLS", "plot_psf_stars", "psf_stars_page"]

#: Symbols of the candidates that were turned down, by reason; red is for saturation, as everywhere. No shape is
#: that of a type, a halo source or a start position.
REASON_SYMBOLS: dict[str, Symbol] = {
    "saturated": SYMBOLS["saturated"],
    "nonfinite": Symbol("1", "#c9d1dc", "#6c7480", size=10.0),
    "edge": Symbol("<", "#c9d1dc", "#6c7480", size=9.0),
    "roundness": Symbol("d", "#ff2be0", "#b3119f", size=11.0),
    "size": Symbol("4", "#ff2be0", "#b3119f", size=11.0, width=1.4),
    "neighbour": Symbol("bowtie", "#ff8c1a", "#b86200", size=10.0),
    "min_sep": Symbol(">", "#ff8c1a", "#b86200", size=9.0),
    "snr": Symbol("3", "#ffe83d", "#8f7a00", size=9.5),
    "outlier": Symbol("hourglass", "#ff9d93", "#d02b1f", size=9.0),
    "fit_failed": Symbol("2", "#ff9d93", "#d02b1f", size=9.5),
    "max_stars": Symbol("H", "#9aa3ae", "#8a929c", size=7.0),
}
_REASON_TEXTS = {
    "snr": "low S/N",
    "min_sep": "close to brighter star",
    "neighbour": "neighbour in stamp",
    "nonfinite": "pixels without data",
    "max_stars": "good, not needed",
    "roundness": "not round",
    "size": "not of the size of a star",
}
#: Longer side of the image, points, and the most pixels of it.
_SIDE, _MOST = 330.0, 920
_LEVELS = 40
_OTHER_SHAPES = ("hourglass", "d", "4", "<", "2")
_OTHER_REASONS = tuple(Symbol(marker, "#c7a4ff", "#5b2fa8", size=8.5) for marker in _OTHER_SHAPES)


def plot_psf_stars(
    window: NDArray[np.floating],
    box: Box,
    candidates: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    band: str = "",
    cell: str = "",
    wcs: WCS | None = None,
    dpi: int = 300,
    most: int = _MOST,
) -> None:
    """Draw a cell with its PSF stars and the candidates that were turned down, and write psfstars.png.

    Parameters
    ----------
    window : ndarray (ny, nx)
        Pixels of ``box``.
    box : Box
        The cell in the working frame.
    candidates : sequence of mapping
        ``x``, ``y`` (pix, working frame), ``origin`` (``sep`` or ``gaia``), ``used`` (bool), ``reason``
        (why not used).
    path : path
    band, cell : str
    wcs : WCS, optional
        Of the working frame.
    dpi : int
        At most :data:`~tract7dt.qa.psf.MAX_DPI` count.
    most : int
        Most pixels of the image's longer side.
    """
    page = psf_stars_page(window, box, candidates, band=band, cell=cell, wcs=wcs, dpi=dpi, most=most)
    page.sheet.save(path, dpi)


def psf_stars_page(
    window: NDArray[np.floating],
    box: Box,
    candidates: Sequence[Mapping[str, Any]],
    *,
    band: str,
    cell: str,
    wcs: WCS | None,
    dpi: int,
    most: int = _MOST,
) -> SkyPage:
    """The picture behind :func:`plot_psf_stars`; its sheet's ``marks`` are by ``used``, ``gaia`` and reason."""
    side = min(int(_SIDE * min(dpi, MAX_DPI) / 72), most)
    factor = display_factor(window.shape, 1, side)
    image = block_mean(window, factor)
    sky = sky_geometry(wcs, (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2)
    x, y = (np.array([c[axis] for c in candidates], dtype=float) for axis in "xy")
    groups = _groups(candidates)
    page = sky_page(
        grey_index(measure_stretch(image).grey(image), _LEVELS),
        factor,
        box,
        title="   ".join(part for part in ("PSF stars", band, cell) if part),
        subtitle=sky_subtitle(sky, factor, missing=bool(np.isnan(image).any())),
        entries=[Entry(text, symbol) for symbol, text, _ in groups.values()],
        sky=sky,
        side=side,
    )
    scale = zoomed_scale(fading_scale(len(x), page.area_pt2), page.per_pixel / page.unit)
    for name, (symbol, _, pick) in reversed(groups.items()):  # the commonest reasons last, used ones on top
        page.symbols(name, symbol, x[pick], y[pick], scale)
    if not np.isfinite(image).any() or not len(candidates):
        page.note("no candidate" if np.isfinite(image).any() else "no finite pixel")
    return page


def _groups(candidates: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Symbol, str, NDArray[np.bool_]]]:
    """Symbol, words and members of what is drawn: used, of Gaia, and each reason, the commonest first."""
    used = np.array([bool(c["used"]) for c in candidates], dtype=bool)
    gaia = np.array([str(c.get("origin", "")).startswith("gaia") for c in candidates], dtype=bool)
    reasons = np.array(
        ["" if c["used"] else str(c.get("reason") or "not used") for c in candidates], dtype=object
    )
    found = {
        "gaia": (SYMBOLS["gaia"], "Gaia star", gaia),
        "used": (SYMBOLS["psf_used"], "used", used),
    }
    for reason, symbol in _reason_symbols(Counter(reasons[~used].tolist())).items():
        words = _REASON_TEXTS.get(reason, reason.replace("_", " "))
        found[reason] = (symbol, words, (reasons == reason) & ~used)
    return {name: (s, f"{words} (N={int(pick.sum())})", pick) for name, (s, words, pick) in found.items()}


def _reason_symbols(counts: Counter[str]) -> dict[str, Symbol]:
    """Symbol of each reason, commonest first; one that is not known gets the next free symbol."""
    free = iter(_OTHER_REASONS)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {reason: REASON_SYMBOLS.get(reason) or next(free, _OTHER_REASONS[-1]) for reason, _ in ordered}
