"""Final masks: what the fit must not use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tract7dt.errors import ProductError
from tract7dt.store import WorkDir, atomic_path, note_written, write_json
from tract7dt.store.npy import RowWriter, open_array, read_rows, row_chunks
from tract7dt.streaks import find_streaks
from tract7dt.types import BAD_BRIGHT, BAD_NONFINITE, BAD_SATURATED, U1, Bool, Field, Frame

__all__ = ["compose_masks", "open_mask"]


def compose_masks(field: Field, bright: U1 | None, work: WorkDir) -> Path:
    """Write the final mask of every band, ``frames/{band}_bad.npy``, and ``frames/masks.json`` last.

    Parameters
    ----------
    field : Field
    bright : ndarray, uint8 (ny, nx), or None
        Bright mask; its bit 1 becomes ``BAD_BRIGHT`` in every band, and a trail that crosses one band
        becomes ``BAD_BRIGHT`` in that band. None: neither.
    work : WorkDir

    Returns
    -------
    Path
        ``masks.json``: shape, and per band the file, its digest and the number of pixels with each bit.

    Raises
    ------
    ProductError
        ``bright`` is not of the field's shape.
    """
    if bright is not None and bright.shape != field.shape:
        raise ProductError(f"bright mask: expected shape {field.shape}, found {bright.shape}")
    work.masks_manifest.unlink(missing_ok=True)
    bands = {}
    for band, frame in field.frames.items():
        target = work.final_mask(band)
        with (
            atomic_path(target) as temporary,
            RowWriter(temporary, field.shape, np.uint8, digest=True, holes=True) as writer,
        ):
            streaks = None if bright is None else find_streaks(frame)
            counts = _write_band(frame, bright, streaks, writer)
        digest = writer.digest()
        note_written(target, digest)
        bands[band] = {"file": target.name, "digest": digest, **counts}
    write_json(
        work.masks_manifest,
        {
            "shape": field.shape,
            "bits": {"nonfinite": BAD_NONFINITE, "saturated": BAD_SATURATED, "bright": BAD_BRIGHT},
            "bands": bands,
        },
    )
    return work.masks_manifest


def _write_band(frame: Frame, bright: U1 | None, streaks: Bool | None, writer: RowWriter) -> dict[str, int]:
    counts = dict.fromkeys(("n_nonfinite", "n_saturated", "n_bright", "n_bad"), 0)
    for y0, y1 in row_chunks(*frame.data.shape):
        data = read_rows(frame.data, y0, y1)
        bits = np.where(np.isfinite(data), 0, BAD_NONFINITE).astype(np.uint8)
        if frame.saturation is not None:
            with np.errstate(invalid="ignore"):
                bits[data >= frame.saturation] |= BAD_SATURATED
        if bright is not None:
            bits[(bright[y0:y1] & 1) != 0] |= BAD_BRIGHT
        if streaks is not None:
            bits[streaks[y0:y1]] |= BAD_BRIGHT
        writer.write(y0, bits)
        counts["n_nonfinite"] += int(np.count_nonzero(bits & BAD_NONFINITE))
        counts["n_saturated"] += int(np.count_nonzero(bits & BAD_SATURATED))
        counts["n_bright"] += int(np.count_nonzero(bits & BAD_BRIGHT))
        counts["n_bad"] += int(np.count_nonzero(bits))
    return counts


def open_mask(manifest: str | Path, band: str) -> U1:
    """Read-only memory map of the final mask of ``band``: bits ``BAD_*``, uint8 (ny, nx).

    Parameters
    ----------
    manifest : path
        ``frames/masks.json``.

    Raises
    ------
    ProductError
        The manifest or the mask is missing or damaged, or knows no such band.
    """
    path = Path(manifest)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ny, nx = content["shape"]
        bands = content["bands"]
        if band not in bands:
            raise ProductError(f"{path}: no mask of band {band!r}, only of {', '.join(bands)}")
        return open_array(
            path.parent / bands[band]["file"], (int(ny), int(nx)), np.uint8, "compose_final_masks"
        )
    except FileNotFoundError:
        raise ProductError(f"{path}: missing; tract7dt run makes it") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ProductError(
            f"{path}: damaged ({error!r}); tract7dt run --refresh compose_final_masks makes it again"
        ) from error
