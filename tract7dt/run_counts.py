"""What a run read and made, counted from its products."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract7dt.errors import InputError, StoreError
from tract7dt.store import WorkDir, sha256_file
from tract7dt.store.urls import is_url

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["field_inputs", "patch_costs", "product_counts"]

log = logging.getLogger(__name__)


def _json(path: Path) -> Any:
    """Content of a JSON product; None if it is missing or damaged: a count must not end a run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def field_inputs(work: WorkDir, settings: Settings) -> list[dict[str, str]]:
    """Inputs of the field with the digests of their bytes.

    Images bring theirs from the field's manifest, so that no image is read again; that of a URL is of its
    local copy. What cannot be read has an empty one.
    """
    given = settings.inputs
    tables = [given.input_catalog, given.image_list_file, given.gaiaxp_synphot_csv]
    found = [{"path": str(path), "sha256": _digest(str(path))} for path in tables if path]
    frames = (_json(work.field_manifest) or {}).get("frames", [])
    entries = frames.values() if isinstance(frames, dict) else frames
    found += [{"path": str(f.get("path", "")), "sha256": str(f.get("sha256", ""))} for f in entries]
    return found


def _digest(path: str) -> str:
    try:
        if is_url(path):
            from tract7dt.store.remote import local_copy  # fsspec comes with it

            path = str(local_copy(path))
        return sha256_file(path) if Path(path).is_file() else ""
    except (InputError, StoreError, OSError) as error:
        log.warning("%s: its digest is not known: %s", path, error)
        return ""


def product_counts(work: WorkDir, done: AbstractSet[str]) -> dict[str, Any]:
    """Counts of sources and patches.

    Parameters
    ----------
    work : WorkDir
    done : set of str
        Stages whose products belong to the run; the others' may be an earlier run's.

    Returns
    -------
    dict
        ``sources``, ``active`` once the inputs are loaded; ``patches``, ``failed_patches`` (tag -> reason)
        and ``patches_not_fitted`` once the patches are fitted; ``fitted``, ``reliable`` once they are merged.
    """
    counts: dict[str, Any] = {}
    if "merge" in done:
        counts |= _table_counts(work.merged)
    else:
        for stage, name in (("bright_mask", "bright"), ("augment_gaia", "gaia"), ("load_inputs", "loaded")):
            if stage in done:
                counts |= _table_counts(work.sources(name))
                break
    if "run_patches" in done:
        counts |= _patch_counts(work)
    return counts


def _table_counts(path: Path) -> dict[str, Any]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.is_file():
        return {}
    try:
        names = pq.read_schema(path).names
        known = ("excluded_any", "stype_fit", "fit_is_reliable", "fit_quality_issues")
        wanted = [c for c in known if c in names]
        table = pq.read_table(path, columns=wanted)
    except (OSError, ValueError) as error:
        log.warning("%s cannot be counted: %s", path, error)
        return {}
    counts: dict[str, Any] = {"sources": table.num_rows if wanted else pq.read_metadata(path).num_rows}
    if "excluded_any" in wanted:
        counts["active"] = counts["sources"] - (pc.sum(table["excluded_any"]).as_py() or 0)
    if "stype_fit" in wanted:
        filled = pc.fill_null(pc.not_equal(table["stype_fit"].cast("string"), ""), False)
        counts["fitted"] = pc.sum(filled).as_py() or 0
    if "fit_is_reliable" in wanted:
        counts["reliable"] = pc.sum(table["fit_is_reliable"]).as_py() or 0
    if "fit_quality_issues" in wanted:
        counts["issues"] = _issue_counts(table["fit_quality_issues"].to_pylist())
    return counts


def _issue_counts(texts: list[str | None]) -> dict[str, int]:
    """How many sources have each issue, in the order of the definition."""
    from tract7dt.flags import QUALITY_ISSUES

    found = Counter(name for text in texts if text for name in text.split(","))
    return {issue.name: found[issue.name] for issue in QUALITY_ISSUES if found[issue.name]}


def _patch_counts(work: WorkDir) -> dict[str, Any]:
    """Patches with the reason of each that failed, and those without a fit of their payload."""
    index: dict[str, Any] = dict(_json(work.payloads / "payloads.json") or {})
    failed: dict[str, str] = {}
    lacking: list[str] = []
    for tag, entry in index.items():
        meta = _json(work.patch_meta(tag)) or {}
        payload = (entry.get("ref") or {}).get("sha256")
        if not meta or meta.get("payload_sha256") != payload:  # none, or that of an earlier division
            lacking.append(tag)
        elif meta.get("status") == "failed":
            failed[tag] = str(meta.get("reason", ""))
    return {"patches": len(index), "failed_patches": failed, "patches_not_fitted": lacking}


def patch_costs(work: WorkDir) -> dict[str, dict[str, float | None]]:
    """What the fit of each patch was expected to cost and has cost, by tag.

    Returns
    -------
    dict
        ``predicted_cpu_s`` and ``cpu_s``, ``wall_s`` (None where the patch has no fit), s, by tag.
    """
    from tract7dt.patches import SECONDS_PER_COST

    found = {}
    for tag, entry in dict(_json(work.payloads / "payloads.json") or {}).items():
        meta = _json(work.patch_meta(tag)) or {}
        spent = {name: _rounded(meta.get(name)) for name in ("cpu_s", "wall_s")}
        found[tag] = {"predicted_cpu_s": _rounded(entry.get("cost"), SECONDS_PER_COST), **spent}
    return found


def _rounded(value: object, factor: float = 1.0) -> float | None:
    return round(value * factor, 4) if isinstance(value, (int, float)) else None
