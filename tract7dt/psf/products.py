"""The ePSFs of one band as a product: what is kept of each cell, and how it is written and read."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tract7dt.errors import ProductError
from tract7dt.psf.spatial_file import read_spatial, write_spatial
from tract7dt.store import atomic_path, sha256_bytes, sha256_file, write_json
from tract7dt.store.npy import write_array
from tract7dt.types import Box, Epsf, EpsfGrid, PsfDiagnosis

if TYPE_CHECKING:
    from tract7dt.psf.cutouts import StarStamps
    from tract7dt.psf.selection import Candidate
    from tract7dt.psf.stack import Stack
    from tract7dt.store import WorkDir

__all__ = ["BandEpsf", "CellMeta", "read_band", "write_band"]

FORMAT = "tract7dt ePSF band, version 2"
KINDS = ("epsf", "borrowed", "moffat", "gaussian_mixture", "ncircular_gaussian")


@dataclass(frozen=True, slots=True)
class CellMeta:
    """The record of one cell, whether or not it has an ePSF.

    Attributes
    ----------
    band, tag : str
    row, col : int
    box : Box
        The cell in the working frame.
    status : str
        ``built``, ``borrowed`` (the stamp of another cell) or ``absent``.
    reason : str
        Why not ``built``; "" if it was.
    candidates : tuple of Candidate
        Every candidate with the reason of its refusal.
    n_extracted : int
        Stars that were cut out for the stack.
    n_used : int
        Stars that the stack used.
    object_fwhm : float
        Width of the round objects of a cell without an ePSF and without a width in the header, pix; else NaN.
    background_level, noise : float
        Median background map and sky sigma of the cell, scaled counts.
    seconds : float
        CPU time of the cell.
    stars, spare, stack : StarStamps, StarStamps, Stack or None
        Cutouts of the stack, cutouts that only tell how the PSF varies, and the stack: for the spatial
        model; in memory only, never written.
    diagnosis : PsfDiagnosis or None
        For the pictures, where some are wanted that need it; in memory only.
    """

    band: str
    tag: str
    row: int
    col: int
    box: Box
    status: str
    reason: str
    candidates: tuple[Candidate, ...]
    n_extracted: int
    n_used: int
    object_fwhm: float
    background_level: float
    noise: float
    seconds: float
    stars: StarStamps | None = field(default=None, repr=False, compare=False)
    spare: StarStamps | None = field(default=None, repr=False, compare=False)
    stack: Stack | None = field(default=None, repr=False, compare=False)
    diagnosis: PsfDiagnosis | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class BandEpsf:
    """All cells of a band: the ePSFs that there are, and a record of every active cell.

    Attributes
    ----------
    grid : EpsfGrid
    meta : mapping of str to CellMeta
        By cell tag, every active cell.
    """

    grid: EpsfGrid
    meta: Mapping[str, CellMeta]


def write_band(result: BandEpsf, work: WorkDir) -> Path:
    """Write ``epsf.npy`` and ``meta.json`` per cell, ``spatial.npy``, then the manifest ``cells.json``.

    The manifest goes last: it exists only when all that it names does. A stamp that an earlier run left
    in a cell that has none now is removed.

    Returns
    -------
    Path
        The manifest.
    """
    band = result.grid.band
    cells: dict[str, Any] = {}
    manifest = work.epsf_band(band)
    manifest.unlink(missing_ok=True)
    for tag, meta in result.meta.items():
        folder = work.epsf_cell(band, tag)
        epsf = result.grid.cells.get(tag)
        stamp_path = folder / "epsf.npy"
        entry: dict[str, Any] = {"status": meta.status, "reason": meta.reason, "n_stars": 0}
        if epsf is None:
            stamp_path.unlink(missing_ok=True)
        else:
            with atomic_path(stamp_path) as temporary, temporary.open("wb") as stream:
                write_array(stream, np.asarray(epsf.stamp, np.float32))
            entry |= {
                "n_stars": epsf.n_stars,
                "kind": epsf.kind,
                "epsf": f"{tag}/epsf.npy",
                "epsf_sha256": sha256_file(stamp_path),
            }
        write_json(folder / "meta.json", _meta_record(meta, epsf))
        entry |= {"meta": f"{tag}/meta.json", "meta_sha256": sha256_file(folder / "meta.json")}
        cells[tag] = entry
    record = {"format": FORMAT, "band": band, "cells": cells}
    write_json(manifest, record | {"spatial": write_spatial(result.grid.spatial, manifest.parent)})
    return manifest


def _meta_record(meta: CellMeta, epsf: Epsf | None) -> dict[str, Any]:
    box = meta.box
    return {
        "band": meta.band,
        "cell": meta.tag,
        "row": meta.row,
        "col": meta.col,
        "box": {"x0": box.x0, "x1": box.x1, "y0": box.y0, "y1": box.y1},
        "status": meta.status,
        "reason": meta.reason,
        "kind": None if epsf is None else epsf.kind,
        "convention": "effective PSF (pixel response included), unit sum, centred on the middle pixel",
        "n_candidates": len(meta.candidates),
        "nstars_extract": meta.n_extracted,
        "nstars_used": meta.n_used,
        "object_fwhm_pix": meta.object_fwhm if math.isfinite(meta.object_fwhm) else None,
        "background_level": meta.background_level,
        "noise": meta.noise,
        "quality": {} if epsf is None else dict(epsf.quality),
        "candidates": [
            {
                "x": round(c.x, 3),
                "y": round(c.y, 3),
                "origin": c.origin,
                "snr": round(c.snr, 2),
                "half_light_pix": c.half_light_pix,
                "used": c.used,
                "reason": c.reason,
            }
            for c in meta.candidates
        ],
    }


def read_band(manifest: str | Path) -> EpsfGrid:
    """Read what :func:`write_band` wrote, every file checked against its digest.

    Raises
    ------
    ProductError
        If the manifest or a file that it names is missing, damaged or not of the expected form.
    """
    manifest = Path(manifest)
    record = _read_json(manifest.read_bytes() if manifest.is_file() else None, manifest)
    if record.get("format") != FORMAT or not isinstance(record.get("cells"), dict):
        raise ProductError(f"{manifest}: expected format '{FORMAT}', found {record.get('format')!r}")
    cells: dict[str, Epsf] = {}
    for tag, entry in record["cells"].items():
        if not isinstance(entry, dict):
            raise ProductError(f"{manifest}: cell {tag} is {entry!r}, not a mapping")
        if "epsf" not in entry:
            continue
        stamp = _read_stamp(_checked(manifest, tag, entry, "epsf"), manifest.parent / entry["epsf"])
        meta = _read_json(_checked(manifest, tag, entry, "meta"), manifest.parent / str(entry.get("meta")))
        kind, n_stars = entry.get("kind"), entry.get("n_stars")
        if kind not in KINDS or not isinstance(n_stars, int):
            raise ProductError(f"{manifest}: cell {tag} has kind {kind!r} and n_stars {n_stars!r}")
        cells[tag] = Epsf(stamp, n_stars, kind, meta.get("quality", {}))
    return EpsfGrid(str(record.get("band")), cells, read_spatial(record.get("spatial"), manifest))


def _checked(manifest: Path, tag: str, entry: Mapping[str, Any], what: str) -> bytes:
    path = manifest.parent / str(entry.get(what))
    if not path.is_file():
        raise ProductError(f"{path} is missing; {manifest} names it for cell {tag}")
    data = path.read_bytes()
    if sha256_bytes(data) != entry.get(f"{what}_sha256"):
        raise ProductError(
            f"{path} differs from the digest in {manifest} (cell {tag}); "
            "tract7dt run --refresh build_epsf makes it again"
        )
    return data


def _read_stamp(data: bytes, path: Path) -> NDArray[np.float32]:
    try:
        stamp = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ProductError(f"{path} is not a NumPy array file: {error}") from error
    if stamp.ndim != 2 or stamp.shape[0] != stamp.shape[1] or stamp.shape[0] % 2 == 0:
        raise ProductError(f"{path}: expected a square stamp of odd width, found shape {stamp.shape}")
    if stamp.dtype != np.float32 or not np.all(np.isfinite(stamp)):
        raise ProductError(f"{path}: expected finite float32 values, found {stamp.dtype}")
    if abs(float(stamp.sum(dtype=float)) - 1) > 1e-3:
        raise ProductError(f"{path}: expected unit sum, found {float(stamp.sum(dtype=float)):.5f}")
    return stamp


def _read_json(data: bytes | None, path: Path) -> dict[str, Any]:
    if data is None:
        raise ProductError(f"{path} is missing; tract7dt run-epsf makes it")
    try:
        record = json.loads(data)
    except ValueError as error:
        raise ProductError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ProductError(f"{path}: expected a JSON object, found {type(record).__name__}")
    return record
