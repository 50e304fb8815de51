"""What a payload's description and table must hold, checked before anything is fitted to it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd

from tract7dt.errors import ProductError
from tract7dt.patches.division import parse_patch
from tract7dt.types import F8, Epsf, Patch, PsfKind

__all__ = ["Meta", "check_table", "parse_meta"]

_COLUMN_TYPES = (
    {"str", "object", "bool"}
    | {
        f"{kind}{bits}"
        for kind, sizes in (("float", (16, 32, 64)), ("int", (8, 16, 32, 64)))
        for bits in sizes
    }
    | {f"uint{bits}" for bits in (8, 16, 32, 64)}
)
#: Columns that every payload's table has, and their types.
_REQUIRED = {
    "x_pix_white": "float64",
    "y_pix_white": "float64",
    "source_index": "int64",
    "x_pix_patch": "float64",
    "y_pix_patch": "float64",
    "_is_halo_source": "bool",
}


@dataclass(frozen=True, slots=True)
class Meta:
    """The part of a payload that is no array; PSFs with an empty stamp."""

    patch: Patch
    bands: tuple[str, ...]
    sky_sigma: F8
    gain: F8
    scale: F8
    fwhm_pix: F8
    psfs: tuple[Epsf | None, ...]
    paths: tuple[str, ...]
    columns: list[dict[str, str]]


def parse_meta(text: str) -> Meta:
    """Description of a payload from its JSON.

    Raises
    ------
    ProductError
        If it is no JSON, or anything in it is missing, of the wrong type or out of range.
    """
    try:
        meta = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ProductError(f"META is no JSON: {error}") from error
    if not isinstance(meta, Mapping) or not all(isinstance(meta.get(k), list) for k in ("bands", "columns")):
        raise ProductError("META lacks its lists of bands and columns")
    bands = [_band(entry, number) for number, entry in enumerate(meta["bands"])]
    names = tuple(entry["band"] for entry in bands)
    if not names or len(set(names)) != len(names):
        raise ProductError(f"META: expected bands that differ, found {list(names)}")
    paths = tuple(entry["path"] for entry in bands if entry["path"] is not None)
    if len(paths) not in (0, len(bands)):
        raise ProductError("META: some bands have a path, some have none")
    return Meta(
        patch=parse_patch(meta.get("patch"), "META, patch"),
        bands=names,
        sky_sigma=np.array([entry["sky_sigma"] for entry in bands]),
        gain=np.array([entry["gain"] for entry in bands]),
        scale=np.array([entry["scale"] for entry in bands]),
        fwhm_pix=np.array([entry["fwhm_pix"] for entry in bands]),
        psfs=tuple(entry["psf"] for entry in bands),
        paths=paths,
        columns=[_column(entry, number) for number, entry in enumerate(meta["columns"])],
    )


def _band(entry: object, number: int) -> dict[str, Any]:
    where = f"META, band {number}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("band"), str):
        raise ProductError(f"{where}: no name")
    where = f"META, band {entry['band']}"
    result: dict[str, Any] = {"band": entry["band"], "path": entry.get("path")}
    if result["path"] is not None and not isinstance(result["path"], str):
        raise ProductError(f"{where}: path is no text")
    for name in ("sky_sigma", "gain", "scale", "fwhm_pix"):
        value = entry.get(name)
        if value is None and name == "fwhm_pix":
            value = math.nan
        elif not isinstance(value, float) or not math.isfinite(value) or value <= 0:
            raise ProductError(f"{where}: expected a positive number as {name}, found {value!r}")
        result[name] = value
    return result | {"psf": _psf(entry.get("psf"), where)}


def _psf(entry: object, where: str) -> Epsf | None:
    if entry is None:
        return None
    if not isinstance(entry, Mapping):
        raise ProductError(f"{where}: PSF is no mapping")
    n_stars, quality = entry.get("n_stars"), entry.get("quality")
    kind: Any = entry.get("kind")
    if (
        type(n_stars) is not int
        or n_stars < 0
        or kind not in get_args(PsfKind)
        or not isinstance(quality, dict)
    ):
        raise ProductError(
            f"{where}: PSF has n_stars {n_stars!r}, kind {kind!r}, quality {type(quality).__name__}"
        )
    return Epsf(np.zeros((0, 0), np.float32), n_stars, kind, quality)


def _column(entry: object, number: int) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(k), str) for k in ("name", "label", "type")
    ):
        raise ProductError(f"META, column {number}: expected name, label and type")
    if entry["type"] not in _COLUMN_TYPES:
        raise ProductError(f"META, column {entry['name']!r}: unknown type {entry['type']!r}")
    return entry


def check_table(table: pd.DataFrame, meta: Meta) -> None:
    """Columns that the fit needs, finite positions, base sources within the base box.

    Raises
    ------
    ProductError
        Naming every problem found.
    """
    wrong = [
        f"{name}: expected {dtype}"
        for name, dtype in _REQUIRED.items()
        if str(table.dtypes.get(name)) != dtype
    ]
    if wrong:
        raise ProductError(f"table SOURCES: {'; '.join(wrong)}")
    problems = []
    x, y = table["x_pix_white"].to_numpy(), table["y_pix_white"].to_numpy()
    own = ~table["_is_halo_source"].to_numpy()
    n_lost = int((~np.isfinite(x) | ~np.isfinite(y)).sum())
    if n_lost:
        problems.append(f"{n_lost} positions are not finite")
    if not meta.patch.base.contains(x[own], y[own]).all():
        problems.append("a base source lies outside of the base box")
    for name, frame, corner in (("x_pix_patch", x, meta.patch.roi.x0), ("y_pix_patch", y, meta.patch.roi.y0)):
        if not np.allclose(table[name].to_numpy(), frame - corner, rtol=0, atol=1e-6):
            problems.append(f"{name} is not the position in the roi")
    index = table["source_index"]
    if index.duplicated().any() or (index < 0).any():
        problems.append("source_index repeats or is negative")
    if problems:
        raise ProductError(f"table SOURCES: {'; '.join(problems)}")
