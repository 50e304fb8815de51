"""The spatial model of a band on disk: its stamp as ``spatial.npy``, its numbers in the band's manifest."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tract7dt.errors import ProductError
from tract7dt.psf.deform import N_MODES
from tract7dt.psf.surface import MAX_DEGREE, n_terms
from tract7dt.store import atomic_path, sha256_bytes, sha256_file
from tract7dt.store.npy import write_array
from tract7dt.types import F4, F8, Box, SpatialPsf

__all__ = ["read_spatial", "write_spatial"]

NAME = "spatial.npy"


def write_spatial(model: SpatialPsf | None, folder: Path) -> dict[str, Any] | None:
    """Write the stamp of a model, or remove that of an earlier run.

    Returns
    -------
    dict or None
        What the manifest says of it.
    """
    path = folder / NAME
    if model is None:
        path.unlink(missing_ok=True)
        return None
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        write_array(stream, np.asarray(model.stamp, np.float32))
    return {
        "stamp": NAME,
        "stamp_sha256": sha256_file(path),
        "profile": list(model.profile),
        "coefficients": model.coefficients.tolist(),
        "limits": model.limits.tolist(),
        "box": [model.box.x0, model.box.x1, model.box.y0, model.box.y1],
        "size": model.size,
        "n_stars": model.n_stars,
        "quality": dict(model.quality),
    }


def read_spatial(entry: object, manifest: Path) -> SpatialPsf | None:
    """Read what :func:`write_spatial` wrote.

    Parameters
    ----------
    entry : object
        The manifest's ``spatial``; None: there is no model.
    manifest : Path

    Raises
    ------
    ProductError
        If the stamp is missing or damaged, or the entry is not of the expected form.
    """
    if entry is None:
        return None
    where = f"{manifest}, spatial"
    if not isinstance(entry, Mapping):
        raise ProductError(f"{where}: expected a mapping, found {type(entry).__name__}")
    stamp = _stamp(entry, manifest)
    coefficients, profile = _numbers(entry, "coefficients", where), _numbers(entry, "profile", where)
    limits = _numbers(entry, "limits", where)
    if limits.shape != (N_MODES, 2) or not (limits[:, 0] <= limits[:, 1]).all():
        raise ProductError(f"{where}: expected {N_MODES} pairs of limits, lower first")
    box, size, n_stars, quality = (entry.get(name) for name in ("box", "size", "n_stars", "quality"))
    terms = (N_MODES, n_terms(MAX_DEGREE))
    if coefficients.shape != terms or profile.shape != (5,) or not (profile[:3] > (0, 0, 1)).all():
        raise ProductError(f"{where}: expected {terms} coefficients and a Moffat profile of 5 numbers")
    if not isinstance(box, list) or len(box) != 4 or not all(type(edge) is int for edge in box):
        raise ProductError(f"{where}: expected a box of 4 whole numbers, found {box!r}")
    if type(size) is not int or size % 2 == 0 or not 0 < size <= stamp.shape[0] or type(n_stars) is not int:
        raise ProductError(f"{where}: size {size!r} and n_stars {n_stars!r} do not fit {stamp.shape}")
    if not isinstance(quality, Mapping) or not isinstance(quality.get("fwhm_pix"), int | float):
        raise ProductError(f"{where}: quality lacks fwhm_pix")
    amplitude, alpha, beta, e1, e2 = (float(value) for value in profile)
    return SpatialPsf(
        stamp, (amplitude, alpha, beta, e1, e2), coefficients, limits, Box(*box), size, n_stars, quality
    )


def _numbers(entry: Mapping[str, Any], name: str, where: str) -> F8:
    try:
        values = np.array(entry.get(name), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProductError(f"{where}: {name} are not numbers: {error}") from error
    if not np.all(np.isfinite(values)):
        raise ProductError(f"{where}: {name} are not finite")
    return values


def _stamp(entry: Mapping[str, Any], manifest: Path) -> F4:
    path = manifest.parent / str(entry.get("stamp"))
    if not path.is_file():
        raise ProductError(f"{path} is missing; {manifest} names it")
    data = path.read_bytes()
    if sha256_bytes(data) != entry.get("stamp_sha256"):
        raise ProductError(
            f"{path} differs from the digest in {manifest}; tract7dt run --refresh build_epsf makes it again"
        )
    try:
        stamp = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ProductError(f"{path} is not a NumPy array file: {error}") from error
    if stamp.ndim != 2 or stamp.shape[0] != stamp.shape[1] or stamp.shape[0] % 2 == 0:
        raise ProductError(f"{path}: expected a square stamp of odd width, found shape {stamp.shape}")
    if stamp.dtype != np.float32 or not np.all(np.isfinite(stamp)):
        raise ProductError(f"{path}: expected finite float32 values, found {stamp.dtype}")
    return np.asarray(stamp, np.float32)
