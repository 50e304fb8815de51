"""What the last nights of a field came to: from the work_dirs on this machine, else from where it is published."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tract7dt.errors import StoreError, StoreUnreachableError
from tract7dt.results.runs import FoundRun, list_runs, read_manifest
from tract7dt.store import WorkDir
from tract7dt.store.objects import ObjectStore
from tract7dt.store.urls import name_problem
from tract7dt.upkeep.work_dirs import nights_here, stored_record

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["NightRecord", "history", "zero_points_of"]

log = logging.getLogger(__name__)

_ENDED = ("done", "partial")


@dataclass(frozen=True, slots=True)
class NightRecord:
    """The last run of a night.

    Attributes
    ----------
    night, run_id : str
    status : str
        ``done``, ``partial``, ``failed``, ``running``.
    wall_s : float
    counts : mapping
        Sources, fitted, reliable, patches, failed_patches.
    zero_points : mapping
        By band, mag AB; of a run that ended well.
    where : str
        Folder or URL of the run.
    """

    night: str
    run_id: str
    status: str
    wall_s: float
    counts: Mapping[str, Any]
    zero_points: Mapping[str, float]
    where: str


def history(template: Settings, limit: int, before: str | None = None) -> list[NightRecord]:
    """The last nights of a field, the latest first.

    Parameters
    ----------
    template : Settings
        With ``{night}`` as yet in its paths.
    limit : int
        Nights at most.
    before : str, optional
        YYYY-MM-DD; only nights before this one.

    Raises
    ------
    StoreError
        The store that the field is published to refuses; with ``StoreUnreachableError``, does not answer.
    """
    found = {
        night: record
        for night, settings in nights_here(template)
        if (before is None or night < before) and (record := _local(night, settings)) is not None
    }
    if len(found) < limit and template.publish.url is not None:
        for record in _published(template, limit, before):
            if record.night not in found or found[record.night].status not in _ENDED:
                found[record.night] = record
    return [found[night] for night in sorted(found, reverse=True)[:limit]]


def zero_points_of(table: str) -> dict[str, float]:
    """Zero points by band from the text of ``zp_summary.csv``; bands without one are left out."""
    found = {}
    for row in csv.DictReader(io.StringIO(table)):
        try:
            value = float(row.get("zp_median") or "nan")
        except ValueError:
            continue
        if row.get("band") and math.isfinite(value):
            found[str(row["band"])] = value
    return found


def _record(night: str, record: Mapping[str, Any], table: str, where: str) -> NightRecord:
    status = str(record.get("status"))
    return NightRecord(
        night=night,
        run_id=str(record.get("run_id") or ""),
        status=status,
        wall_s=float(record.get("wall_s") or 0.0),
        counts=record.get("counts") or {},
        zero_points=zero_points_of(table) if status in _ENDED else {},
        where=where,
    )


def _local(night: str, settings: Settings) -> NightRecord | None:
    work = WorkDir.of(settings)
    record = stored_record(work)
    if not record:
        return None
    done = {entry["name"] for entry in record.get("stages", ()) if entry.get("status") in ("done", "cached")}
    table = ""
    if "compute_zp" in done:  # else it is an earlier run's
        try:
            table = work.zp_summary.read_text(encoding="utf-8")
        except OSError:
            table = ""
    return _record(night, record, table, str(work.root))


def _published(template: Settings, limit: int, before: str | None) -> list[NightRecord]:
    url, field = str(template.publish.url), template.inputs.tile_name
    endpoint = template.publish.endpoint_url
    nights = [name for name in ObjectStore(url, endpoint).folders(field) if name_problem(name) is None]
    records = []
    for night in sorted((n for n in nights if before is None or n < before), reverse=True)[:limit]:
        try:
            runs = [run for run in list_runs(url, field, night, endpoint) if run.status in _ENDED]
            if runs:
                found = read_manifest(url, field, night, runs[-1].run_id, endpoint)
                records.append(_of_published(night, found))
        except StoreUnreachableError:
            raise
        except (StoreError, ValueError) as error:
            log.warning("night %s of %s is passed over: %s", night, field, error)
    return records


def _of_published(night: str, found: FoundRun) -> NightRecord:
    texts = {"run_summary": "{}", "zero_points": ""}
    for kind in texts:
        for entry in found.manifest.of_kind(kind)[:1]:
            texts[kind] = found.store.read(entry.key).decode("utf-8", "replace")
    record = json.loads(texts["run_summary"])
    if not isinstance(record, dict):
        raise ValueError(f"{found.store.address()}: run_summary.json holds no mapping")
    # The record may have been taken before the run was closed; the manifest knows how it ended.
    record |= {"run_id": found.manifest.run_id, "status": found.manifest.status}
    return _record(night, record, texts["zero_points"], found.store.address())
