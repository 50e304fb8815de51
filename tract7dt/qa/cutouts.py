"""Cutouts of a patch's sources: one column a band; data, model and residual below each other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tract7dt.qa.compass import SkyGeometry
from tract7dt.qa.palette import NO_DATA_INDEX, grey_index, signed_index
from tract7dt.qa.raster import Sheet, lay_mark
from tract7dt.qa.raster_sky import draw_sky_strip
from tract7dt.qa.style import FAINT, INK, PAPER, SYMBOLS, band_colors, order_bands

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.types import F4, F8

__all__ = ["CutoutScale", "CutoutSheet", "cutout_sheets"]

U1 = NDArray[np.uint8]

_LEFT, _TOP, _GAP = 74, 52, 3
_FOOT_LINE, _STRIP = 14, 40
#: Sides of a tile in the picture: a smaller cutout is enlarged, a larger one block-averaged.
_SMALLEST, _LARGEST = 64, 150
_NARROWEST = 470
_SIGMAS = 5.0
#: An image is kept in codes of its asinh, once for a patch: 0 ... _CODES - 1, and _HOLE without data.
_CODES, _HOLE = 254, 255
_SOFTENING = 3.0
#: Grey levels of noise; more would only take disk.
_LEVELS = 40
_SAMPLE_STEP = 3


class CutoutScale(Protocol):
    """The part of ``settings.patch_run`` that the cutouts read."""

    @property
    def cutout_size(self) -> int:
        """Side, pix."""

    @property
    def cutout_data_p_lo(self) -> float:
        """Percentile shown black, data."""

    @property
    def cutout_data_p_hi(self) -> float:
        """Percentile shown white, data."""

    @property
    def cutout_model_p_lo(self) -> float:
        """Percentile shown black, model."""

    @property
    def cutout_model_p_hi(self) -> float:
        """Percentile shown white, model."""

    @property
    def cutout_resid_p_abs(self) -> float:
        """Percentile of absolute residuals that reaches the end of the scale."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A source as it is drawn.

    Attributes
    ----------
    symbol : str
    start : (float, float)
    fitted : ndarray (nband, 2)
        NaN: not fitted.
    """

    symbol: str
    start: tuple[float, float]
    fitted: F8


class CutoutSheet:
    """What the cutouts of one patch share: bands in order, tiles, frame and labels.

    Parameters
    ----------
    data, model, weight : ndarray (nband, ny, nx)
        Scaled counts, model with sky, 1 / sigma**2 (0: masked).
    sky_sigma : ndarray (nband,)
    bands : sequence of str
    sources : DataFrame
        ``x_pix_patch``, ``y_pix_patch`` (start), ``x_pix_patch_fit``, ``y_pix_patch_fit`` or, in single-band
        mode, ``x_pix_patch_{band}_fit`` and so on (NaN: not fitted), ``_is_halo_source``, ``stype``; where
        known ``FLUX_{band}_fit``, ``FLUXERR_{band}_fit``, ``CHI2_{band}_fit``.
    scale : CutoutScale
    sky : SkyGeometry or None
        For compass and scale bar.
    """

    def __init__(
        self,
        data: F4,
        model: F4,
        weight: F4,
        sky_sigma: F8,
        bands: Sequence[str],
        sources: pd.DataFrame,
        scale: CutoutScale,
        sky: SkyGeometry | None,
    ) -> None:
        self._bands = order_bands(bands)
        order = [list(bands).index(band) for band in self._bands]
        self._scale, self._sky = scale, sky
        self._block = -(-scale.cutout_size // _LARGEST)
        self._n = -(-scale.cutout_size // self._block)
        self._zoom = max(1, -(-_SMALLEST // scale.cutout_size))
        self._side = self._n * self._zoom
        self._fluxes = tuple(_columns(sources, name, self._bands) for name in ("FLUX", "FLUXERR"))
        self._rows = _rows(sources, self._bands)
        w = weight[order]
        with np.errstate(invalid="ignore"):
            residual = np.where(w > 0, (data[order] - model[order]) * np.sqrt(w), np.nan)
        self._limit = self._residual_limit(residual)
        sigma = np.asarray(sky_sigma, np.float64)[order] / self._block
        self._data, self._model = (
            _Coded.of(self._averaged(cube[order]), sigma, self._n) for cube in (data, model)
        )
        # the mean of n independent pixels in sigma has a width of 1/sqrt(n)
        index = signed_index(self._averaged(residual) * self._block, self._limit)
        self._residual = _padded(index, self._n, NO_DATA_INDEX)
        self._frame = self._template()

    def _residual_limit(self, residual: NDArray[np.floating]) -> float:
        """End of the residual scale: five sigma, more where the wanted percentile lies beyond."""
        sample = np.abs(residual[:, ::4, ::4])
        sample = sample[np.isfinite(sample)]
        wanted = np.percentile(sample, self._scale.cutout_resid_p_abs) if sample.size else 0.0
        return float(max(_SIGMAS, np.ceil(wanted)))

    # --- what all of them share --------------------------------------------------------------------
    def _column(self, number: int) -> int:
        return _LEFT + number * (self._side + _GAP)

    def _line(self, number: int) -> int:
        return _TOP + number * (self._side + _GAP)

    def _template(self) -> Sheet:
        n, side = len(self._bands), self._side
        width = max(self._column(n) + 6, _NARROWEST)
        foot = self._line(3)
        sheet = Sheet.blank(width, foot + 2 * _FOOT_LINE + 6 + _STRIP, PAPER)
        colors = band_colors(self._bands)
        for i, band in enumerate(self._bands):
            sheet.fill(self._column(i), _TOP - 3, side, 3, colors[band])
            sheet.text(
                self._column(i) + side / 2,
                _TOP - 18,
                band,
                size=11,
                color=INK,
                bold=True,
                align="centre",
            )
        for row, text in enumerate(("data", "model", "data−model")):
            middle = self._line(row) + side / 2
            sheet.text(_LEFT - 5, middle - 7, text, size=10, color=INK, align="right")
        sheet.text(
            _LEFT - 5, self._line(2) + side / 2 + 6, f"±{self._limit:g} σ", size=9, color=FAINT, align="right"
        )
        for row, text in enumerate(("flux", "error")):
            sheet.text(_LEFT - 5, foot + _FOOT_LINE * row, text, size=9, color=FAINT, align="right")
        entries = (("star", "star"), ("galaxy", "galaxy"), ("halo", "halo source"), ("start", "start"))
        per_pixel = self._zoom / self._block
        draw_sky_strip(sheet, sheet.pixels.shape[0] - _STRIP, _STRIP, entries, self._sky, per_pixel, side)
        return sheet

    # --- one source --------------------------------------------------------------------------------
    def draw(self, number: int, title: str, subtitle: str) -> Sheet:
        """The picture of the source in row ``number``."""
        sheet = self._frame.copy()
        sheet.text(8, 2, title, size=13, color=INK, bold=True)
        sheet.text(8, 18, subtitle, size=9, color=FAINT)
        x0, y0 = (
            int(np.clip(round(v / self._block) - self._n // 2, -self._n, length))
            for v, length in zip(self._rows[number].start, self._data.shape[::-1], strict=True)
        )
        window = (
            slice(None), slice(y0 + self._n, y0 + 2 * self._n), slice(x0 + self._n, x0 + 2 * self._n)
        )  # fmt: skip
        scale = self._scale
        data = self._upright(self._data.grey(window, scale.cutout_data_p_lo, scale.cutout_data_p_hi))
        self._mark(data, number, x0 * self._block, y0 * self._block, sheet)
        model = self._upright(self._model.grey(window, scale.cutout_model_p_lo, scale.cutout_model_p_hi))
        for row, tiles in enumerate((data, model, self._upright(self._residual[window]))):
            top = self._line(row)
            for i, tile in enumerate(tiles):
                left = self._column(i)
                sheet.pixels[top : top + self._side, left : left + self._side] = tile
        self._numbers(sheet, number)
        return sheet

    def _averaged(self, window: F4) -> F4:
        b = self._block
        if b == 1:
            return window
        n, ny, nx = window.shape
        padded = np.pad(window, ((0, 0), (0, -ny % b), (0, -nx % b)), constant_values=np.nan)
        blocks = padded.reshape(n, padded.shape[1] // b, b, padded.shape[2] // b, b)
        count = np.isfinite(blocks).sum(axis=(2, 4))
        total = np.nansum(blocks, axis=(2, 4))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)

    def _upright(self, tiles: U1) -> U1:
        shown = tiles[:, ::-1]
        if self._zoom > 1:
            shown = shown.repeat(self._zoom, axis=1).repeat(self._zoom, axis=2)
        return shown

    def _mark(self, tiles: U1, number: int, x0: int, y0: int, sheet: Sheet) -> None:
        """Start and fitted positions of the source and, thinner, of its neighbours."""
        per_pixel = self._zoom / self._block
        own, reach = self._rows[number], self._n * self._block
        for other, row in enumerate(self._rows):
            x, y = row.start
            if not (x0 <= x < x0 + reach and y0 <= y < y0 + reach):
                continue
            mine = other == number
            places = (
                [(tiles, row.fitted[0])]
                if _one_place(row.fitted)
                else list(zip(tiles[:, None], row.fitted, strict=True))
            )
            symbol = SYMBOLS[row.symbol]
            for part, (fx, fy) in places:
                if not np.isfinite(fx):
                    fx, fy = row.start
                u = (fx - x0 + 0.5) * per_pixel
                v = self._side - (fy - y0 + 0.5) * per_pixel
                lay_mark(part, symbol, u, v, size=15 if mine else 11, width=1.3 if mine else 1.0, rim=mine)
                sheet.marks.setdefault(row.symbol, []).append((float(fx), float(fy)))
        u, v = (own.start[0] - x0 + 0.5) * per_pixel, self._side - (own.start[1] - y0 + 0.5) * per_pixel
        lay_mark(tiles, SYMBOLS["start"], u, v, size=7, width=0.9)
        sheet.marks.setdefault("start", []).append(own.start)

    def _numbers(self, sheet: Sheet, number: int) -> None:
        """Flux and error below each column."""
        middles = [self._column(i) + self._side / 2 for i in range(len(self._bands))]
        for line, values in enumerate(self._fluxes):
            texts = [f"{value:.4g}" if np.isfinite(value) else "–" for value in values[number]]
            top = self._line(3) + line * _FOOT_LINE
            sheet.texts_in_line(middles, top, texts, size=10, color=INK)


def _columns(sources: pd.DataFrame, name: str, bands: Sequence[str]) -> F8:
    """``{name}_{band}_fit`` of all sources (n, nband); NaN where there is no such column."""
    out = np.full((len(sources), len(bands)), np.nan)
    for i, band in enumerate(bands):
        if f"{name}_{band}_fit" in sources:
            out[:, i] = sources[f"{name}_{band}_fit"].to_numpy(float)
    return out


@dataclass(frozen=True, slots=True)
class _Coded:
    """Images as codes of their asinh, made once for a patch: a cutout's own stretch is then one small table.

    Softened at three sigma, the asinh is linear in the noise and logarithmic in the sources. It is
    monotonic, so percentiles can be taken of the codes.

    Attributes
    ----------
    codes : ndarray, uint8 (nband, ny, nx)
        With a margin of holes around.
    low, step : ndarray (nband,)
        Asinh of code 0, and of one code more.
    shape : (int, int)
        Without the margin.
    """

    codes: U1
    low: F8
    step: F8
    shape: tuple[int, int]

    @classmethod
    def of(cls, images: F4, sigma: F8, margin: int) -> _Coded:
        """Codes of images (nband, ny, nx) with noise ``sigma`` (nband,)."""
        good = np.isfinite(images)
        sample = np.where(good, images, np.nan)[:, ::2, ::2].reshape(len(images), -1)
        middle = np.array([np.median(s[np.isfinite(s)]) if np.isfinite(s).any() else 0.0 for s in sample])
        soft = (_SOFTENING * sigma).astype(np.float32)[:, None, None]
        with np.errstate(invalid="ignore", over="ignore"):
            value = np.arcsinh((images - middle.astype(np.float32)[:, None, None]) / soft)
        low = np.min(value, axis=(1, 2), where=good, initial=-1.0)
        high = np.max(value, axis=(1, 2), where=good, initial=3.0)
        step = (high - low) / (_CODES - 1)
        codes = np.where(good, (value - low[:, None, None]) / step[:, None, None] + 0.5, _HOLE).astype(
            np.uint8
        )
        shape = (int(images.shape[1]), int(images.shape[2]))
        return cls(_padded(codes, margin, _HOLE), low.astype(float), step.astype(float), shape)

    def grey(self, window: tuple[slice, ...], p_lo: float, p_hi: float) -> U1:
        """Palette indices of a window, stretched between two percentiles and at least -3 to +9 sigma."""
        codes = self.codes[window]
        sample = np.sort(codes[:, ::_SAMPLE_STEP, ::_SAMPLE_STEP].reshape(len(codes), -1), axis=1)
        last = ((sample != _HOLE).sum(axis=1) - 1).clip(0)
        band = np.arange(len(codes))
        ends = [sample[band, (last * p / 100).astype(int)].tolist() for p in (p_lo, p_hi)]
        out = np.empty_like(codes)
        for i, (low, high) in enumerate(zip(*ends, strict=True)):
            out[i] = self._table(i, low, high)[codes[i]]
        return out

    def _table(self, band: int, low: int, high: int) -> U1:
        """Palette index of every code of a band where the codes ``low`` and ``high`` are the percentiles."""
        first, step = float(self.low[band]), float(self.step[band])
        darkest = min(first + step * min(low, _CODES - 1), -float(np.arcsinh(3 / _SOFTENING)))
        brightest = max(first + step * min(high, _CODES - 1), float(np.arcsinh(9 / _SOFTENING)))
        return _grey_table(first, step, darkest, brightest)


@functools.lru_cache(maxsize=4096)
def _grey_table(first: float, step: float, darkest: float, brightest: float) -> U1:
    """Most sources have the same two ends, so that few tables serve a patch."""
    table = grey_index(
        np.clip((first + step * np.arange(256) - darkest) / (brightest - darkest), 0, 1), _LEVELS
    )
    table[_HOLE] = NO_DATA_INDEX
    return table


def _padded(images: U1, margin: int, value: int) -> U1:
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin)), constant_values=value)


def _one_place(fitted: F8) -> bool:
    return bool((fitted == fitted[0]).all() or not np.isfinite(fitted).any())


def _rows(sources: pd.DataFrame, bands: Sequence[str]) -> list[_Row]:
    halo = sources["_is_halo_source"].to_numpy(bool)
    stype = sources["stype"].fillna("").astype(str).str.strip().str.lower().to_numpy(str)
    start = sources[["x_pix_patch", "y_pix_patch"]].to_numpy(float)
    places = np.full((len(sources), len(bands), 2), np.nan)
    for axis, name in enumerate("xy"):
        for i, band in enumerate(bands):
            single = f"{name}_pix_patch_{band}_fit"
            column = single if single in sources else f"{name}_pix_patch_fit"
            if column in sources:
                places[:, i, axis] = sources[column].to_numpy(float)
    kind = np.where(
        halo,
        "halo",
        np.where(
            stype == "star",
            "star",
            np.where(np.isin(stype, ("gal", "exp", "dev", "sersic")), "galaxy", "unknown"),
        ),
    )
    return [_Row(str(k), (float(x), float(y)), p) for k, (x, y), p in zip(kind, start, places, strict=True)]


def cutout_sheets(
    shared: CutoutSheet, titles: Sequence[tuple[str, str]], paths: Sequence[Path], numbers: Sequence[int]
) -> None:
    """Write the cutouts of the sources ``numbers`` of a patch, one file each."""
    for number, (title, subtitle), path in zip(numbers, titles, paths, strict=True):
        shared.draw(number, title, subtitle).save(path)
