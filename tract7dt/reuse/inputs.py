"""What each stage reads besides the settings, as digests by name: narrow, so that it runs only if it must."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tract7dt import __version__, geometry, stages
from tract7dt.errors import ProductError
from tract7dt.reuse.digests import MISSING, FileDigests, digest_of
from tract7dt.reuse.field import FieldParts
from tract7dt.store import sha256_bytes
from tract7dt.types import Box, Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["INPUTS", "check_inputs_of", "read_by"]

Digests = dict[str, str]


def check_inputs_of(settings: Settings, files: FileDigests) -> Digests:
    """Files that ``load_inputs`` only checks: a Gaia table is refused before pixels are read."""
    return _gaia(settings, files) if settings.zp.enabled else {}


def _gaia(settings: Settings, files: FileDigests) -> Digests:
    given = settings.inputs.gaiaxp_synphot_csv
    return {"Gaia table": files.of(given)} if given else {}


def _load_inputs(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    from tract7dt import frames

    images = frames.read_image_list(settings.inputs.image_list_file, settings.base_dir, settings.names)
    digests = files.known(images)  # nobody need read a tile to know that it is to be loaded
    found = {"input catalogue": files.of(settings.inputs.input_catalog)}
    # Their order is that of the bands; where they lie does not count.
    return found | {f"image {number}": digest for number, digest in enumerate(digests, 1)}


def _augment_gaia(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    field = FieldParts(given["field"].path)
    found = {"sources": files.of(given["sources"].path)} | _gaia(settings, files)
    found["geometry of the field"] = field.part("shape", "wcs", "epoch", "zp_ref", "bands")
    return found | (field.frames() if settings.source_saturation_cut.enabled else {})


def _bright_mask(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    field = FieldParts(given["field"].path)
    found = {"sources": files.of(given["sources"].path)}
    found["white stack"] = field.part("shape", "wcs", "white_digest", "white_sigma_digest")
    return found | field.frames()


def _build_epsf_band(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    field, band = FieldParts(given["field"].path), given["band"]
    sources = given["sources"]
    found = field.frames([band]) | _cells(settings, field, files, sources)
    found["places and sizes of the sources"] = _known_sources(sources.path, files.of(sources.path))
    found["geometry of the field"] = field.part("shape", "wcs")
    if settings.epsf.use_gaiaxp and settings.inputs.gaiaxp_synphot_csv:
        found |= _gaia(settings, files) | {"epoch": field.part("epoch")}
    return found


def _summarise_epsf(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    return _epsf(files, given["bands"])


def _build_patches(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    field = FieldParts(given["field"].path)
    return _cells(settings, field, files, given["sources"]) | {"size of the field": field.part("shape")}


def _compose_final_masks(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    field, mask = FieldParts(given["field"].path), given["mask"]
    return field.frames() | {
        "bright mask": "none" if mask is None else files.of(mask.path),
        "bands": field.part("bands", "shape"),
    }


def _build_patch_inputs(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    field = FieldParts(given["field"].path)
    found = {name: files.of(given[name].path) for name in ("sources", "masks", "patches")}
    found["geometry of the field"] = field.part("shape", "bands")
    return found | field.frames() | _epsf(files, given["epsf"])


def _merge(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    field = FieldParts(given["field"].path)
    return {
        "sources": files.of(given["sources"].path),
        "fits": digest_of(sorted(_fit(ref) for ref in given["fits"])),
        "rows of the patches": _rows_of_failed(given["fits"], settings),
        "geometry of the field": field.part("shape", "wcs", "bands", "zp_ref"),
        "the zero point": "follows" if stages.gaia_skip_reason(settings) is None else "does not follow",
        "software": __version__,  # stands in the catalogue
    }


def _compute_zp(settings: Settings, files: FileDigests, given: Mapping[str, Any]) -> Digests:
    found = {"merged catalogue": files.of(given["catalog"].path)} | _gaia(settings, files)
    found["bands"] = FieldParts(given["field"].path).part("bands", "zp_ref")
    return found | {"software": __version__}


#: By name of the stage function: ``(settings, files, arguments) -> digests``. A stage that is not here is not
#: recorded: it costs nothing, or keeps records of its own (the fits, patch by patch).
INPUTS: Mapping[str, Callable[[Settings, FileDigests, Mapping[str, Any]], Digests]] = MappingProxyType(
    {
        "load_inputs": _load_inputs,
        "augment_gaia": _augment_gaia,
        "bright_mask": _bright_mask,
        "build_epsf_band": _build_epsf_band,
        "summarise_epsf": _summarise_epsf,
        "build_patches": _build_patches,
        "compose_final_masks": _compose_final_masks,
        "build_patch_inputs": _build_patch_inputs,
        "merge": _merge,
        "compute_zp": _compute_zp,
    }
)


def read_by(stage: str, value: Any) -> Digests:
    """SHA-256 by path or URL of the files that a stage has digested itself, from what it returned."""
    return FieldParts(value.field.path).images if stage == "load_inputs" else {}


# --- parts ---------------------------------------------------------------------------------------------


def _epsf(files: FileDigests, bands: Sequence[Ref]) -> Digests:
    digests = files.of_all([ref.path for ref in bands])
    return {f"ePSF of {Path(ref.path).parent.name}": digest for ref, digest in zip(bands, digests)}


def _cells(settings: Settings, field: FieldParts, files: FileDigests, sources: Ref) -> Digests:
    """The cells that hold an active source: all that patches read of the catalogue."""
    if not settings.epsf.skip_empty_epsf_patches:
        return {"active cells": "all"}
    ngrid = settings.epsf.epsf_ngrid
    return {"active cells": _active_cells(sources.path, files.of(sources.path), field.shape, ngrid)}


@lru_cache(maxsize=64)
def _active_cells(path: str, sha256: str, shape: tuple[int, int], ngrid: int) -> str:
    from tract7dt import sources

    try:
        table = sources.read_sources(path).table
    except ProductError:
        return MISSING
    active = table.loc[~table["excluded_any"].to_numpy(bool)]
    x, y = active["x_pix_white"].to_numpy(float), active["y_pix_white"].to_numpy(float)
    boxes = geometry.cell_boxes(Box(0, shape[1], 0, shape[0]), ngrid)
    return digest_of([list(cell) for cell, box in boxes.items() if box.contains(x, y).any()])


@lru_cache(maxsize=64)
def _known_sources(path: str, sha256: str) -> str:
    """What ePSFs read of the catalogue: where stars have neighbours."""
    from tract7dt import sources
    from tract7dt.psf.known import KnownSources

    try:
        known = KnownSources.of_table(sources.read_sources(path).table)
    except ProductError:
        return MISSING
    return sha256_bytes(b"".join(column.tobytes() for column in (known.x, known.y, known.re)))


def _fit(ref: Ref) -> list[str]:
    """What the merge takes from a fit: its catalogue, or why there is none. Not: how long it took."""
    meta = _read(Path(ref.path))
    return [str(meta.get("patch_tag")), str(meta.get("catalog_sha256") or meta.get("reason") or MISSING)]


def _rows_of_failed(fits: Sequence[Ref], settings: Settings) -> str:
    """The rows of patches that failed are told by the payloads' index."""
    from tract7dt.store import WorkDir

    failed = [
        str(meta["patch_tag"]) for ref in fits if (meta := _read(Path(ref.path))).get("status") == "failed"
    ]
    if not failed:
        return "none failed"
    index = _read(WorkDir.of(settings).payloads / "payloads.json")
    return digest_of({tag: index.get(tag, {}).get("source_index") for tag in sorted(failed)})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
