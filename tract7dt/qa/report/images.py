"""Images of the report: the white stack, the residual maps, the ePSF stamps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tract7dt.qa.residual_map import BLOCK, NO_RESIDUAL, STEPS_PER_SIGMA, mosaic
from tract7dt.qa.stretch import block_mean, grey, measure_stretch
from tract7dt.qa.style import SIGNED

if TYPE_CHECKING:
    from tract7dt.qa.report.products import RunProducts
    from tract7dt.store import WorkDir

__all__ = ["epsf_arrays", "residual_arrays", "signed_colors", "white_picture"]

#: Longest side of the white stack in the report, pixels.
_WHITE = 2800
_QUALITY = 80
#: Values of all residual maps together, at most.
_RESIDUAL_PIXELS = 1_500_000
#: Values of all ePSF stamps together; beyond, only their middle is shown.
_STAMP_PIXELS = 1_200_000
#: Residuals are shown in quarters of a sigma up to six.
_SHOWN_PER_SIGMA, _LIMIT = 4, 24
#: The ePSF's stretch: linear within this share of the peak.
_LINEAR = 2e-4


def white_picture(run: RunProducts) -> dict[str, Any]:
    """The white stack as a grey JPEG (``src``), upper row first, and pixels of the frame in one of its own."""
    factor = max(1, -(-max(run.shape) // _WHITE))
    image = block_mean(run.white, factor)
    shown = grey(image, measure_stretch(image))[::-1, :, :3]
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown[..., 0])).save(out, "JPEG", quality=_QUALITY)
    text = base64.b64encode(out.getvalue()).decode("ascii")
    return {"src": f"data:image/jpeg;base64,{text}", "factor": factor, "shape": list(image.shape)}


def residual_arrays(
    run: RunProducts, work: WorkDir, order: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Residual maps (nband + 1, ny, nx), the first of all bands together, in quarters of a sigma."""
    n = len(run.bands)
    step = BLOCK
    while (n + 1) * (-(-run.shape[0] // step)) * (-(-run.shape[1] // step)) > _RESIDUAL_PIXELS:
        step *= 2
    parts = [(box, work.patch_residual(tag)) for tag, box in run.patches.items()]
    maps = mosaic(parts, run.shape, n, step)[[list(run.bands).index(band) for band in order]]
    if (maps == NO_RESIDUAL).all():
        return {}, {}
    good = maps != NO_RESIDUAL
    sigmas = np.where(good, maps, 0) / STEPS_PER_SIGMA
    count = good.sum(axis=0)
    every = np.divide(sigmas.sum(axis=0), np.sqrt(count), out=np.zeros(count.shape), where=count > 0)
    stacked = np.concatenate([every[None], sigmas])
    shown = np.clip(np.round(stacked * _SHOWN_PER_SIGMA), -_LIMIT, _LIMIT).astype(np.int8)
    shown[np.concatenate([(count == 0)[None], ~good])] = NO_RESIDUAL
    scatter = [float(1.4826 * np.median(np.abs(s[g]))) if g.any() else None for s, g in zip(sigmas, good)]
    about = {"step": step, "shape": list(shown.shape), "per_sigma": _SHOWN_PER_SIGMA, "scatter": scatter}
    return {"maps": shown}, about


def epsf_arrays(
    run: RunProducts, order: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]], int]:
    """Stamps of all ePSFs (n, side, side), coded for the signed scale, and what is known of each cell.

    Returns
    -------
    arrays : dict
        ``stamps``, uint8: 128 is zero, 255 the peak, asinh in between.
    cells : list of dict
        ``band``, ``row``, ``col``, ``stamp`` (number or None), ``n_stars``, ``fwhm_pix``, ``ellipticity``,
        ``theta_deg``, ``kind``, ``status``, ``reason``.
    side : int
    """
    entries = [(band, tag, meta) for band in order for tag, meta in run.cells.get(band, {}).items()]
    shapes = [meta["stamp"].shape[0] for _, _, meta in entries if meta["stamp"] is not None]
    side = min(shapes, default=0)
    while shapes and len(shapes) * side * side > _STAMP_PIXELS and side > 21:
        side -= 2
    cells: list[dict[str, Any]] = []
    stamps: list[NDArray[np.uint8]] = []
    for band, tag, meta in entries:
        number = None
        if meta["stamp"] is not None:
            number = len(stamps)
            stamps.append(_coded(_middle(np.asarray(meta["stamp"], float), side)))
        cells.append(_cell(band, tag, meta, number))
    arrays = {"stamps": np.stack(stamps)} if stamps else {}
    return arrays, cells, side


def _cell(band: str, tag: str, meta: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    quality = meta.get("quality") or {}
    kept = {
        name: quality.get(name) for name in ("fwhm_pix", "ellipticity", "theta_deg", "ee50_pix", "ee80_pix")
    }
    said = {name: meta.get(name) for name in ("row", "col", "kind", "status", "reason")}
    return {"band": band, "cell": tag, "stamp": number, "n_stars": meta.get("nstars_used"), **said, **kept}


def _middle(stamp: NDArray[np.floating], side: int) -> NDArray[np.floating]:
    y, x = ((n - side) // 2 for n in stamp.shape)
    return stamp[y : y + side, x : x + side]


def _coded(stamp: NDArray[np.floating]) -> NDArray[np.uint8]:
    peak = float(np.nanmax(stamp, initial=0.0))
    if not peak > 0:
        return np.full(stamp.shape, 128, np.uint8)
    level = np.arcsinh(np.nan_to_num(stamp) / peak / _LINEAR) / np.arcsinh(1 / _LINEAR)
    return (128 + np.clip(np.round(127 * level), -127, 127)).astype(np.uint8)


def signed_colors() -> list[list[int]]:
    """The signed scale in 256 colours."""
    return [[round(255 * float(v)) for v in SIGNED(i / 255)] for i in range(256)]
