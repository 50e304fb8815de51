"""Division of the working frame into fitting patches, and the files that describe it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tract7dt.errors import ConfigError, ProductError
from tract7dt.geometry import cell_boxes
from tract7dt.store import WorkDir, atomic_path, write_json
from tract7dt.types import Box, Patch

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["COLUMNS", "build_patches", "halo_width", "patch_row", "read_patches", "write_patches"]

log = logging.getLogger(__name__)

#: Columns of patches.csv and keys of each entry of patches.json.
COLUMNS = (
    "epsf_r",
    "epsf_c",
    "patch_r",
    "patch_c",
    "epsf_tag",
    "patch_tag",
    "x0_base",
    "x1_base",
    "y0_base",
    "y1_base",
    "x0_roi",
    "x1_roi",
    "y0_roi",
    "y1_roi",
    "halo_pix",
)
_TEXT = ("epsf_tag", "patch_tag")


def halo_width(final_psf_size: int, halo_pix_min: int) -> int:
    """Width of the halo: half a PSF stamp plus 2 pixels, at least ``halo_pix_min``."""
    return max((final_psf_size - 1) // 2 + 2, halo_pix_min)


def build_patches(field_box: Box, cells: Iterable[tuple[int, int]], settings: Settings) -> list[Patch]:
    """Divide each ePSF cell of the working frame into ``epsf.ngrid`` by ``epsf.ngrid`` patches.

    Parameters
    ----------
    field_box : Box
        The working frame.
    cells : iterable of (row, col)
        Cells that hold an active source. With ``epsf.skip_empty_epsf_patches`` only these are divided,
        otherwise all are.
    settings : Settings
        Sections ``epsf`` (``epsf_ngrid``, ``ngrid``, ``final_psf_size``, ``skip_empty_epsf_patches``) and
        ``patches`` (``halo_pix_min``).

    Returns
    -------
    list of Patch
        By cell, then by patch, each row by row. The base boxes of all cells tile the frame.

    Raises
    ------
    ConfigError
        If the frame has fewer pixels than the divisions asked for.
    """
    epsf = settings.epsf
    halo = halo_width(epsf.final_psf_size, settings.patches.halo_pix_min)
    needed = epsf.epsf_ngrid * epsf.ngrid
    if min(field_box.shape) < needed:
        raise ConfigError(
            f"the working frame is {field_box.nx} x {field_box.ny} pixels, too small for "
            f"epsf.epsf_ngrid = {epsf.epsf_ngrid} times epsf.ngrid = {epsf.ngrid}: {needed} patches per "
            "axis need at least a pixel each; lower one of them, or crop.margin"
        )
    boxes = cell_boxes(field_box, epsf.epsf_ngrid)
    wanted = set(cells) if epsf.skip_empty_epsf_patches else set(boxes)
    patches = [
        Patch(*cell, *within, base=base, roi=base.expanded(halo, field_box), halo_pix=halo)
        for cell, box in boxes.items()
        if cell in wanted
        for within, base in cell_boxes(box, epsf.ngrid).items()
    ]
    log.info("%d patches in %d of %d ePSF cells, halo %d pix", len(patches), len(wanted), len(boxes), halo)
    return patches


def patch_row(patch: Patch) -> dict[str, Any]:
    """Description of one patch: :data:`COLUMNS` and their values."""
    row = {
        "epsf_r": patch.epsf_row,
        "epsf_c": patch.epsf_col,
        "patch_r": patch.row,
        "patch_c": patch.col,
        "epsf_tag": patch.epsf_tag,
        "patch_tag": patch.tag,
    }
    for name, box in (("base", patch.base), ("roi", patch.roi)):
        row |= {f"{edge}_{name}": value for edge, value in asdict(box).items()}
    return row | {"halo_pix": patch.halo_pix}


def write_patches(patches: Sequence[Patch], work: WorkDir) -> None:
    """Write patches.csv and patches.json."""
    rows = [patch_row(patch) for patch in patches]
    with atomic_path(work.patches_csv) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(temporary, index=False)
    write_json(work.patches_json, rows)


def read_patches(path: str | os.PathLike[str]) -> list[Patch]:
    """Read patches.json.

    Raises
    ------
    ProductError
        If the file is missing, is no JSON, or an entry is incomplete or inconsistent: a base box outside
        of its roi, a tag that does not belong to its indices, patches that overlap.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProductError(f"{path} is missing; tract7dt build-patches makes it") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ProductError(f"{path} cannot be read: {error}") from error
    if not isinstance(rows, list):
        raise ProductError(f"{path}: expected a list of patches, found {type(rows).__name__}")
    patches = [parse_patch(row, f"{path}, entry {number}") for number, row in enumerate(rows)]
    _check_disjoint(patches, path)
    return patches


def parse_patch(row: object, where: str) -> Patch:
    """Patch from its description (:func:`patch_row`); ProductError, naming ``where``, if it is wrong."""
    if not isinstance(row, Mapping):
        raise ProductError(f"{where}: expected a mapping, found {type(row).__name__}")
    wrong = [
        name
        for name in COLUMNS
        if type(row.get(name)) is not (str if name in _TEXT else int) or (name not in _TEXT and row[name] < 0)
    ]
    if wrong:
        raise ProductError(f"{where}: missing or not of its type: {', '.join(wrong)}")
    base, roi = (
        Box(*(row[f"{edge}_{name}"] for edge in ("x0", "x1", "y0", "y1"))) for name in ("base", "roi")
    )
    patch = Patch(
        row["epsf_r"],
        row["epsf_c"],
        row["patch_r"],
        row["patch_c"],
        base=base,
        roi=roi,
        halo_pix=row["halo_pix"],
    )
    if base.nx < 1 or base.ny < 1 or base.expanded(0, roi) != base:
        raise ProductError(f"{where}: base box {base} is empty or not within roi {roi}")
    if (patch.tag, patch.epsf_tag) != (row["patch_tag"], row["epsf_tag"]):
        raise ProductError(
            f"{where}: tags {row['patch_tag']}, {row['epsf_tag']} do not belong to {patch.tag}"
        )
    return patch


def _check_disjoint(patches: Sequence[Patch], path: str | os.PathLike[str]) -> None:
    """Base boxes must not share a pixel: a source would be fitted and reported twice."""
    edges = np.array([[p.base.x0, p.base.x1, p.base.y0, p.base.y1] for p in patches]).reshape(-1, 4)
    for number, (x0, x1, y0, y1) in enumerate(edges):
        later = edges[number + 1 :]
        shared = (later[:, 0] < x1) & (later[:, 1] > x0) & (later[:, 2] < y1) & (later[:, 3] > y0)
        if shared.any():
            other = patches[number + 1 + int(np.argmax(shared))]
            raise ProductError(f"{path}: patches {patches[number].tag} and {other.tag} overlap")
