"""What the report is made of: the products of a run, as they lie on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tract7dt.errors import ProductError
from tract7dt.qa.compass import SkyGeometry, sky_geometry
from tract7dt.qa.draw import working_wcs
from tract7dt.types import Box

if TYPE_CHECKING:
    from tract7dt.settings import Settings
    from tract7dt.store import WorkDir

__all__ = ["RunProducts", "read_warnings"]

_WARNING = re.compile(r"\bWARNING\b[\s|:\]]*(.*)")
_MOST_WARNINGS = 200
_LOG_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class RunProducts:
    """A run as the report sees it; what is not there (no zero point, no fit yet) is None or empty.

    Attributes
    ----------
    record : mapping
        ``run_summary.json``.
    differences : mapping
        Settings that are not the default: key -> (value, default).
    bands : tuple of str
    shape : (int, int)
        Of the working frame, ny, nx.
    zp_ref : float
    white : ndarray (ny, nx)
        Memory map.
    catalog : DataFrame
        The final catalogue.
    zero_points, stars : DataFrame or None
        zp_summary.csv and the per-object file.
    cells : mapping
        Band -> cell -> meta.json of its ePSF, with the stamp as ``stamp`` where there is one.
    patches : mapping
        Patch tag -> base box.
    sky : SkyGeometry or None
        At the middle of the frame.
    warnings : tuple of str
    """

    record: Mapping[str, Any]
    differences: Mapping[str, tuple[Any, Any]]
    bands: tuple[str, ...]
    shape: tuple[int, int]
    zp_ref: float
    white: NDArray[np.floating]
    catalog: pd.DataFrame
    zero_points: pd.DataFrame | None
    stars: pd.DataFrame | None
    cells: Mapping[str, Mapping[str, Mapping[str, Any]]]
    patches: Mapping[str, Box]
    sky: SkyGeometry | None
    warnings: tuple[str, ...]

    @classmethod
    def read(
        cls,
        settings: Settings,
        work: WorkDir,
        record: Mapping[str, Any],
        differences: Mapping[str, tuple[Any, Any]],
    ) -> RunProducts:
        """Read the products of ``work``.

        Raises
        ------
        ProductError
            The frames or the catalogue are missing or damaged.
        """
        try:
            manifest = json.loads(work.field_manifest.read_text(encoding="utf-8"))
            white = np.load(work.frames / "white.npy", mmap_mode="r", allow_pickle=False)
            # Column by column, each let go of by arrow once pandas has it: a million rows fill memory twice.
            catalog = pq.read_table(work.final_catalog.with_suffix(".parquet")).to_pandas(
                split_blocks=True, self_destruct=True
            )
            bands = tuple(str(band) for band in manifest["bands"])
        except (OSError, ValueError, KeyError) as error:
            raise ProductError(
                f"{work.root}: the report needs frames and a final catalogue: {error}; run the pipeline first"
            ) from error
        done = {entry["name"] for entry in record["stages"] if entry["status"] in ("done", "cached")}
        measured = "compute_zp" in done
        return cls(
            record=record,
            differences=differences,
            bands=bands,
            shape=(int(white.shape[0]), int(white.shape[1])),
            zp_ref=settings.image_scaling.zp_ref,
            white=white,
            catalog=catalog,
            zero_points=_table(work.zp_summary) if measured else None,
            stars=_table(work.zp_per_object) if measured else None,
            cells={band: _cells(work, band) for band in bands},
            patches=_patches(work.patches_json),
            sky=sky_geometry(working_wcs(work.wcs), (white.shape[1] - 1) / 2, (white.shape[0] - 1) / 2),
            warnings=read_warnings(work.root / f"{record['command']}.log", str(record["started"])),
        )


def _table(path: Path) -> pd.DataFrame | None:
    try:
        return pd.read_csv(path, dtype={"band": str, "gaia_source_id": str})
    except (OSError, ValueError):
        return None


def _cells(work: WorkDir, band: str) -> dict[str, Mapping[str, Any]]:
    """Records of a band's cells with their stamps; a damaged one is left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(work.epsf.glob(f"{_literal(band)}/*/meta.json")):
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            stamp_path = path.parent / "epsf.npy"
            stamp = np.load(stamp_path, allow_pickle=False) if stamp_path.is_file() else None
        except (OSError, ValueError):
            continue
        if isinstance(meta, dict):
            found[path.parent.name] = {**meta, "stamp": stamp}
    return found


def _literal(name: str) -> str:
    """A name that a glob takes for itself."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _patches(path: Path) -> dict[str, Box]:
    try:
        rows: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(row["patch_tag"]): Box(row["x0_base"], row["x1_base"], row["y0_base"], row["y1_base"])
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_warnings(path: Path, started: str) -> tuple[str, ...]:
    """Warnings of the log since ``started`` (ISO 8601), each text once, with how often it came.

    Lines of a time before that are passed over where the line begins with a time.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _LOG_BYTES))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    since = started[:19].replace("T", " ")
    counts: dict[str, int] = {}
    for line in lines:
        if re.match(r"\d{4}-\d\d-\d\d ", line) and line[:19] < since:
            continue
        if match := _WARNING.search(line):
            counts[match[1]] = counts.get(match[1], 0) + 1
    shown = [text if n == 1 else f"{text} ({n} times)" for text, n in counts.items()]
    return tuple(shown[:_MOST_WARNINGS])
