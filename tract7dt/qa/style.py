"""The visual language: one palette, one symbol for one meaning, one colour for one band.

Sky images are grey on dark, so that the open, bright symbols stand out and no source is hidden under
its mark. Symbols that can meet in one picture differ in shape as well as in colour, and their colours
stay apart for red-, green- and blue-blind readers (measured in the tests). A red cross always means
"taken out" (saturated, unmatched, clipped), lime "accepted" (a matched detection, a PSF star). An open circle
is a star of the catalogue and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tract7dt.qa.color import ColorScale, to_hex

__all__ = [
    "CONTRAST",
    "DARK",
    "DOT_SCALE",
    "FAINT",
    "INK",
    "LEVEL",
    "NO_DATA",
    "PAPER",
    "SIGNED",
    "SYMBOLS",
    "Symbol",
    "as_drawn",
    "band_colors",
    "band_wavelength",
    "fading_scale",
    "on_paper",
    "order_bands",
    "zoomed_scale",
]

PAPER = "#ffffff"
INK = "#1c2026"
FAINT = "#6c7480"
#: Background of sky images and of the strip below them that carries legend, scale bar and compass.
DARK = "#14171c"
#: Pixels without data: a hue that no grey level has.
NO_DATA = "#2c4258"
#: Reference lines on dark (box outlines) and on white (levels).
CONTRAST = "#ffffff"
LEVEL = "#0b3d91"

#: Size factor below which open symbols become dots.
DOT_SCALE = 0.2

#: Signed quantities (residuals, PSF wings): blue below, dark at zero, orange above.
SIGNED = ColorScale(["#bfe6ff", "#4ba6ee", "#1a4f8f", "#14171c", "#8a4412", "#ef9132", "#ffe9b8"])


@dataclass(frozen=True, slots=True)
class Symbol:
    """How one meaning is drawn.

    Attributes
    ----------
    marker : str
        Shape, by the letters of Matplotlib; ``ellipse``: a tilted ellipse; ``bowtie``, ``hourglass``:
        two triangles.
    color : str
        For dark backgrounds.
    color_on_paper : str
        For white backgrounds.
    size : float
        Width in points.
    width : float
        Line width in points.
    filled : bool
        Whether the symbol covers what lies under it.
    """

    marker: str
    color: str
    color_on_paper: str
    size: float = 9.0
    width: float = 1.1
    filled: bool = False


#: One symbol for one meaning, in every picture.
SYMBOLS: dict[str, Symbol] = {
    # sources by type
    "star": Symbol("o", "#40eaff", "#0089a8"),
    # a circle that is recognisably not the star's circle
    "galaxy": Symbol("ellipse", "#ff2be0", "#b3119f", size=13.0),
    "unknown": Symbol("s", "#ffe83d", "#8f7a00", size=8.0),
    "halo": Symbol("h", "#939cab", "#6c7480", size=10.0),
    # taken out
    "saturated": Symbol("x", "#ff4b3e", "#d02b1f", size=8.0, width=1.3),
    "unmatched": Symbol("X", "#ff4b3e", "#d02b1f", size=7.0, width=0.0, filled=True),
    "clipped": Symbol("x", "#ff4b3e", "#d02b1f", size=5.0, width=1.0),
    "not_drawn": Symbol("x", "#9aa3ae", "#9aa3ae", size=6.0, width=1.0),
    # detections against the catalogue
    "matched": Symbol("P", "#baff55", "#3f8f00", size=9.0),
    "matched_source": Symbol("D", "#5c9dff", "#1f5fd0", size=10.5),
    "affected": Symbol("^", "#ff8c1a", "#b86200", size=9.5),
    # positions; a fitted position bears the symbol of its type, or halo
    "start": Symbol("+", "#ffffff", "#1c2026", size=7.0, width=0.9),
    # PSF stars
    "psf_used": Symbol("*", "#baff55", "#3f8f00", size=12.0, width=1.3),
    "gaia": Symbol("D", "#5c9dff", "#1f5fd0", size=12.5, width=0.8),
    # the match with Gaia
    "unlabelled": Symbol("v", "#aab2bd", "#6c7480", size=5.5, width=0.8),
    "injected": Symbol("p", "#ffb347", "#b86200", size=11.0, width=1.4),
    "cropped": Symbol("x", "#ff9a3d", "#b86200", size=8.0, width=1.3),
    # zero point
    "kept": Symbol("o", "#40eaff", "#0089a8", size=4.0, width=0.6, filled=True),
    "unreliable": Symbol("d", "#9aa3ae", "#8a929c", size=4.5, width=0.8),
}


def fading_scale(n: int, area_pt2: float) -> float:
    """Factor on symbol size for ``n`` sources on ``area_pt2`` square points: 1, less in a dense field.

    Symbols grow no wider than about half of the sources' mean distance. Below ``DOT_SCALE`` open symbols
    would merge into a solid cover, and :func:`as_drawn` makes dots of them.
    """
    if n < 1:
        return 1.0
    spacing = float((area_pt2 / n) ** 0.5)
    return float(np.clip(0.55 * spacing / 9.0, 0.08, 1.0))


def zoomed_scale(scale: float, pixel_pt: float) -> float:
    """Scale of symbols on an image whose pixels are ``pixel_pt`` points wide.

    Where few pixels fill the picture, a symbol of fixed size would lie inside of a star: it grows to about
    8 pixels, at most 2.2 times. In a dense field (``scale`` below 1) it stays.
    """
    return scale if scale < 1.0 else float(np.clip(8.0 * pixel_pt / 9.0, 1.0, 2.2))


def on_paper(symbol: Symbol) -> Symbol:
    """The symbol in its colour for white backgrounds."""
    return replace(symbol, color=symbol.color_on_paper)


def as_drawn(symbol: Symbol, scale: float) -> Symbol:
    """The symbol at ``scale``: smaller with thinner lines, a dot where it would merge with its neighbours."""
    if scale < DOT_SCALE:
        return replace(symbol, marker="o", size=max(0.6, 4.0 * scale), width=0.0, filled=True)
    return replace(symbol, size=symbol.size * scale, width=symbol.width * max(scale, 0.45) ** 0.7)


# --- bands ---------------------------------------------------------------------------------------------

# Effective wavelengths, nm: SDSS ugriz (Fukugita et al. 1996), Pan-STARRS y (Tonry et al. 2012),
# Johnson-Cousins (Bessell 2005).
_BROAD = {"u": 355, "g": 477, "r": 623, "i": 763, "z": 913, "y": 962}
_JOHNSON = {"U": 366, "B": 436, "V": 545, "R": 641, "I": 798, "J": 1220, "H": 1630, "K": 2190}
_NARROW = re.compile(r"[A-Za-z]?_?(\d{3,4})(?!\d)[A-Za-z_]*")
_LETTER = re.compile(r"([ugrizy])(?:[A-Z0-9_'].*)?|([UBVJH]|[RI]c?|Ks?)(?:[0-9_'].*)?")

# "Smooth rainbow" of Paul Tol (SRON/EPS/TN/09-002), the part from violet to dark red: brightness and hue
# change together, so neighbours stay apart for colour-blind readers.
_SPECTRUM = ColorScale(
    [
        "#6f4c9b", "#6059a9", "#5568b8", "#4e79c5", "#4d8ac6", "#4e96bc", "#549eb3", "#59a5a9", "#60ab9e",
        "#69b190", "#77b77d", "#8cbc68", "#a6be54", "#bebc48", "#d1b541", "#ddaa3c", "#e49c39", "#e78c35",
        "#e67932", "#e4632d", "#df4828", "#da2222", "#b8221e", "#95211b", "#721e17",
    ],
)  # fmt: skip
_BLUE_NM, _RED_NM = 350.0, 950.0


def band_wavelength(band: str) -> float | None:
    """Wavelength in nm that a band's name tells (``m400``: 400; ``rA``: 623), None if it tells none."""
    if match := _NARROW.fullmatch(band):
        return float(match[1])
    if match := _LETTER.fullmatch(band):
        return float(_BROAD[match[1]] if match[1] else _JOHNSON[match[2][0]])
    return None


def order_bands(bands: Iterable[str]) -> list[str]:
    """Bands by wavelength; those of unknown wavelength after them, in the order given."""
    known = [(band, band_wavelength(band)) for band in bands]
    return [b for b, w in sorted(known, key=lambda bw: np.inf if bw[1] is None else bw[1])]


def band_colors(bands: Sequence[str]) -> dict[str, str]:
    """Colour of each band: violet to dark red by wavelength; greys, in order, where it is unknown."""
    unknown = [band for band in bands if band_wavelength(band) is None]
    greys = np.linspace(0.25, 0.6, max(len(unknown), 1))
    colors: dict[str, str] = {}
    for band in bands:
        wavelength = band_wavelength(band)
        if wavelength is None:
            colors[band] = to_hex((float(greys[unknown.index(band)]),) * 3)
        else:
            colors[band] = to_hex(_SPECTRUM((wavelength - _BLUE_NM) / (_RED_NM - _BLUE_NM)))
    return colors
