"""The mask of bright sources that the catalogue does not have: unlisted stars, trails, artefacts.

They are found on the white stack, which keeps its saturated pixels, so that a saturated star is a peak and
not a hole.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import sep
from astropy.io import fits
from astropy.table import Table
from scipy import ndimage
from scipy.spatial import cKDTree

from tract7dt.errors import ProductError
from tract7dt.sep_buffers import sep_buffers
from tract7dt.store import atomic_path
from tract7dt.store.npy import read_rows, row_chunks, row_strips
from tract7dt.streaks import is_streak
from tract7dt.types import F4, F8, I8, U1, Bool, Field, Sources

if TYPE_CHECKING:
    from tract7dt.settings import BrightMaskSettings

__all__ = [
    "BRIGHT",
    "SATURATED",
    "BrightMask",
    "find_bright",
    "flag_affected",
    "read_bright_mask",
    "write_bright_mask",
]

log = logging.getLogger(__name__)

#: Bits of the mask.
BRIGHT = 1
SATURATED = 2

#: Bounds of SEP's pixel buffer, in pixels (about 60 bytes each).
_PIXSTACK = (1_000_000, 20_000_000)
_SUB_OBJECTS = 8192
#: Pixels of the white stack that are looked at at once, and rows beyond its own that each part of it sees: the
#: isophote of no source is larger.
_STRIP_PIXELS = 1 << 24
_MARGIN_ROWS = 256


@dataclass(frozen=True, slots=True)
class BrightMask:
    """Mask of the working frame and what it was made from.

    Attributes
    ----------
    mask : ndarray, uint8 (ny, nx)
        Bit 1: bright detections without a catalogue source; bit 2: saturated in any band.
    detections : pandas.DataFrame
        One row a SEP detection: ``x``, ``y`` (pix), ``a``, ``b`` (rms, pix), ``theta`` (rad,
        counter-clockwise from +x), ``flux`` (scaled counts), ``npix``, ``matched``, ``source_index`` (row of
        the base catalogue, -1 where none).
    """

    mask: U1
    detections: pd.DataFrame


def find_bright(field: Field, sources: Sources, settings: BrightMaskSettings) -> BrightMask:
    """Detect bright sources on the white stack and mask those that the catalogue does not know.

    A detection is known if an active source (not excluded) lies within ``match_radius_pix``. It is also known
    if it is a saturated star of the catalogue: such a star is excluded from the results but still modelled
    with its neighbours, and its core is masked as saturated, so that masking its wings too would only take
    good pixels away. The centroid of a saturated core is poor, so a source that itself lies on saturated
    pixels (within ``match_radius_pix``) is looked for within the detection's own major axis or
    ``min_radius_pix``, whichever is larger. A galaxy that was excluded because an unlisted star saturates
    beside it does not lie on saturated pixels, and does not shield that star.

    A detection of the shape of a trail is left to :mod:`tract7dt.streaks`, which masks it in the band that it
    crosses: an ellipse around it would take the sources along it from all the other bands.

    Parameters
    ----------
    field : Field
    sources : Sources
        Placed on the working frame.
    settings : BrightMaskSettings

    Returns
    -------
    BrightMask
        The ellipse of an unknown detection has the semi-axes ``ellipse_scale`` times a and b, at least
        ``min_radius_pix``; all ellipses are then dilated by ``dilate_pix``.
    """
    found = _extract(field, settings)
    mask = _saturated_any(field)
    source_index = _match(found, sources, mask, settings)
    unknown = found[(source_index < 0) & ~is_streak(found["a"], found["b"])]
    bright = _ellipses(unknown, field.shape, settings)
    share = float(bright.mean())
    log.info(
        "bright mask: %d detections, %d without a catalogue source, %.2f %% of the frame masked",
        len(found), len(unknown), 100 * share,
    )  # fmt: skip
    if share > 0.5:
        log.warning(
            "the bright mask covers %.0f %% of the frame: are the images sky-subtracted, is the catalogue "
            "of this field, is bright_mask.thresh_sigma high enough?", 100 * share,
        )  # fmt: skip
    mask[bright] |= BRIGHT
    detections = pd.DataFrame(
        {name: found[name].astype(np.float64) for name in ("x", "y", "a", "b", "theta", "flux")}
        | {"npix": found["npix"].astype(np.int64), "matched": source_index >= 0, "source_index": source_index}
    )
    return BrightMask(mask, detections)


def _extract(field: Field, settings: BrightMaskSettings) -> np.ndarray:
    """SEP's detections, by strips of rows: a source belongs to the strip in whose core its centre lies."""
    parts = []
    for y0, y1, core0, core1 in row_strips(*field.shape, _STRIP_PIXELS, _MARGIN_ROWS):
        found = _extract_strip(read_rows(field.white, y0, y1), read_rows(field.white_sigma, y0, y1), settings)
        found["y"] += y0
        first, last = core0 == 0, core1 == field.shape[0]
        mine = (first | (found["y"] >= core0 - 0.5)) & (last | (found["y"] < core1 - 0.5))
        parts.append(found[mine])
    return np.concatenate(parts)


def _extract_strip(white: F4, sigma: F4, settings: BrightMaskSettings) -> np.ndarray:
    """SEP's detections; no background is subtracted, the images come sky-subtracted."""
    blank = ~(np.isfinite(white) & np.isfinite(sigma))
    white[blank], sigma[blank] = 0.0, 1.0
    # The matched filter of SEP lifts faint pixels over the threshold as well: room for a few times as many.
    n_above = sum(
        int(np.count_nonzero(white[y0:y1] > settings.thresh_sigma * sigma[y0:y1]))
        for y0, y1 in row_chunks(*white.shape)
    )
    with sep_buffers(int(np.clip(4 * n_above, *_PIXSTACK)), _SUB_OBJECTS):
        found: np.ndarray = sep.extract(
            white,
            settings.thresh_sigma,
            err=sigma,
            mask=blank,
            minarea=settings.minarea,
            deblend_nthresh=settings.deblend_nthresh,
            deblend_cont=settings.deblend_cont,
            clean=settings.clean,
            clean_param=settings.clean_param,
        )
    return found


def _saturated_any(field: Field) -> U1:
    """``SATURATED`` where any band is saturated, 0 elsewhere."""
    mask = np.zeros(field.shape, np.uint8)
    for frame in field.frames.values():
        if frame.saturation is None:
            continue
        for y0, y1 in row_chunks(*field.shape):
            with np.errstate(invalid="ignore"):
                mask[y0:y1][read_rows(frame.data, y0, y1) >= frame.saturation] = SATURATED
    return mask


def _match(found: np.ndarray, sources: Sources, mask: U1, settings: BrightMaskSettings) -> I8:
    """Row of the base catalogue for each detection, -1 where none."""
    table = sources.table
    x, y = (table[name].to_numpy(np.float64) for name in ("x_pix_white", "y_pix_white"))
    on_frame = ~table["excluded_crop"].to_numpy(bool) & np.isfinite(x) & np.isfinite(y)
    active = np.flatnonzero(on_frame & ~table["excluded_any"].to_numpy(bool))
    at = np.column_stack([found["x"], found["y"]]).astype(np.float64)
    index = _nearest(at, active, x, y, np.full(len(at), settings.match_radius_pix))
    candidates = np.flatnonzero(on_frame)
    core = candidates[_on_saturation(mask, x[candidates], y[candidates], settings.match_radius_pix)]
    reach = np.maximum(found["a"], max(settings.match_radius_pix, settings.min_radius_pix))
    return np.where(index >= 0, index, _nearest(at, core, x, y, reach))


def _nearest(at: F8, members: I8, x: F8, y: F8, radius: F8) -> I8:
    """Nearest of ``members`` to each position ``at`` (n, 2) within its own ``radius`` (n,), -1 where none."""
    if members.size == 0 or len(at) == 0:
        return np.full(len(at), -1, np.int64)
    distance, nearest = cKDTree(np.column_stack([x[members], y[members]])).query(at)
    return np.where(distance <= radius, members[nearest], -1)


def _on_saturation(mask: U1, x: F8, y: F8, radius: float) -> Bool:
    """Whether a saturated pixel's centre lies within ``radius`` of each position."""
    ny, nx = mask.shape
    near = np.zeros(x.shape, bool)
    for i, (xi, yi) in enumerate(zip(x.tolist(), y.tolist())):
        x0, x1 = max(0, int(np.ceil(xi - radius))), min(nx, int(np.floor(xi + radius)) + 1)
        y0, y1 = max(0, int(np.ceil(yi - radius))), min(ny, int(np.floor(yi + radius)) + 1)
        window = mask[y0:y1, x0:x1]
        if window.any():
            py, px = np.nonzero(window & SATURATED)
            near[i] = bool((np.hypot(px + x0 - xi, py + y0 - yi) <= radius).any())
    return near


def _ellipses(detections: np.ndarray, shape: tuple[int, int], settings: BrightMaskSettings) -> Bool:
    """Dilated ellipses around ``detections``."""
    mask = np.zeros(shape, bool)
    if len(detections) == 0:
        return mask

    def semi_axis(rms: F4) -> F8:
        size = settings.ellipse_scale * np.nan_to_num(rms.astype(np.float64))
        return np.maximum(size, settings.min_radius_pix)

    theta = np.nan_to_num(detections["theta"].astype(np.float64))
    x, y = detections["x"].astype(np.float64), detections["y"].astype(np.float64)
    sep.mask_ellipse(mask, x, y, semi_axis(detections["a"]), semi_axis(detections["b"]), theta, r=1.0)
    if settings.dilate_pix > 0:
        mask = ndimage.binary_dilation(mask, iterations=settings.dilate_pix)
    return mask


def flag_affected(sources: Sources, mask: U1) -> Sources:
    """``sources`` with ``affected_by_bright_mask`` set where an active source's own pixel has bit 1.

    Parameters
    ----------
    sources : Sources
        Placed on the working frame.
    mask : ndarray, uint8 (ny, nx)
        As in :class:`BrightMask`.
    """
    table = sources.table
    active = np.flatnonzero(~table["excluded_any"].to_numpy(bool))
    x, y = (table[name].to_numpy(np.float64)[active] for name in ("x_pix_white", "y_pix_white"))
    # Pixel i covers [i - 0.5, i + 0.5): floor, not round, which goes to even.
    column, row = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    affected = np.zeros(len(table), bool)
    affected[active] = (mask[row, column] & BRIGHT) != 0
    if affected.any():
        log.warning("%d sources lie under the bright mask; their fits are not reliable", affected.sum())
    return Sources(table.assign(affected_by_bright_mask=affected), sources.has_id)


def write_bright_mask(bright: BrightMask, field: Field, path: str | Path) -> None:
    """Write the mask as a FITS image (uint8, with the WCS), the detections as its table ``DETECTIONS``."""
    header = field.wcs.to_header(relax=True)
    header["MASKBIT1"] = ("BRIGHT", "1: bright, no catalogue source there")
    header["MASKBIT2"] = ("SATURATED", "2: saturated in any band")
    table = fits.BinTableHDU(Table.from_pandas(bright.detections), name="DETECTIONS")
    with atomic_path(path) as temporary:
        hdus = fits.HDUList([fits.PrimaryHDU(bright.mask, header), table])
        hdus.writeto(temporary, overwrite=True)


def read_bright_mask(path: str | Path) -> U1:
    """Mask that :func:`write_bright_mask` wrote: uint8 (ny, nx).

    Raises
    ------
    ProductError
        The file is missing or damaged.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            data = hdus[0].data
    except FileNotFoundError:
        raise ProductError(f"{path}: missing; tract7dt run makes it") from None
    except (OSError, ValueError, TypeError) as error:
        raise ProductError(
            f"{path}: damaged ({error}); tract7dt run --refresh bright_mask makes it again"
        ) from error
    if data is None or data.ndim != 2 or data.dtype != np.uint8:
        raise ProductError(f"{path}: expected a uint8 image, found {None if data is None else data.dtype}")
    return np.ascontiguousarray(data)
