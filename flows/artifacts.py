"""Artifacts of a run in Prefect's UI: progress of bands and patches, stages, zero points, reliability, summary.

They are made from what the run writes anyway (its record, the progress folder) by a thread that looks every
few seconds, so that no worker and no patch waits for the server. Keys begin with the field's name: the UI then
shows a field's runs in a row. A server that is away costs an artifact, never the run.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException

from flows import gallery, summary
from flows.display import Snapshot, heartbeat, patch_line, read_snapshot
from flows.parameters import slug
from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["Board", "reported"]

log = logging.getLogger(__name__)

_LOOK_S = 3.0
_MAX_WARNINGS = 50
#: What a server that is away, restarted or does not like a request can raise.
_TROUBLES = (httpx.HTTPError, PrefectException, OSError)


@contextlib.contextmanager
def reported(settings: Settings, run_id: str) -> Iterator[None]:
    """Keep the artifacts of the run ``run_id`` up to date while the block runs, and finish them after it."""
    board, over = Board(settings, run_id), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            board.update()

    context = contextvars.copy_context()  # which server it is may stand there
    thread = threading.Thread(target=context.run, args=(look,), name="artifacts", daemon=True)
    with board.warnings:
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            board.update()


class _Warnings(logging.Handler):
    """Keeps what the project warns of, each text once."""

    _LOGGERS = ("tract7dt", "tasks", "flows")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        if len(self.texts) < _MAX_WARNINGS and record.name != log.name:
            self.texts.setdefault(record.getMessage())

    def __enter__(self) -> _Warnings:
        for name in self._LOGGERS:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._LOGGERS:
            logging.getLogger(name).removeHandler(self)


class Board:
    """The artifacts of one run; each is made once and then changed, and only if it is news.

    Parameters
    ----------
    settings : Settings
    run_id : str
        Flow run that the artifacts belong to. The record in ``work_dir`` is shown if it is of this run.
    """

    def __init__(self, settings: Settings, run_id: str) -> None:
        self._settings, self._run_id = settings, run_id
        self._work = WorkDir.of(settings)
        self._prefix = slug(self._work.name)
        self._shown: dict[str, tuple[UUID, Any, str]] = {}
        self._told = False
        self._published: tuple[Mapping[str, Any], gallery.Links] | None = None
        self.warnings = _Warnings()

    def update(self) -> None:
        """Bring the artifacts up to date with what is in ``work_dir``."""
        try:
            record = json.loads(self._work.run_summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # not there yet
        if record.get("run_id") != self._run_id:
            return
        try:
            with get_client(sync_client=True) as client:
                self._show_all(client, record)
        except _TROUBLES as error:
            level = logging.DEBUG if self._told else logging.WARNING
            log.log(level, "artifacts are not up to date: %s: %s", type(error).__name__, error)
            self._told = True

    def _show_all(self, client: SyncPrefectClient, record: Mapping[str, Any]) -> None:
        snapshot = read_snapshot(self._work.root)
        status = {entry["name"]: entry["status"] for entry in record["stages"]}
        done = {name for name, value in status.items() if value in ("done", "cached")}
        bands, text = _bands(snapshot, record)
        self._show(client, "progress-bands", "progress", bands, text)
        patches, text = _patches(snapshot, record)
        self._show(client, "progress-patches", "progress", patches, text)
        self._table(client, "stages", summary.stage_rows(record), "Stages: time, memory, what was reused")
        measured = summary.read_zero_points(self._work.zp_summary) if "compute_zp" in done else []
        method = self._settings.zp.zp_err_method
        self._table(client, "zero-points", summary.zero_point_rows(measured, method), "Zero points, mag AB")
        self._table(
            client, "reliability", summary.reliability_rows(record), "Sources by reliability and issue"
        )
        page = summary.summary_markdown(
            record, measured, method, _now(snapshot, record), list(self.warnings.texts), self._results(record)
        )
        self._show(client, "summary", "markdown", page, summary.one_line(record))
        if record["status"] in ("done", "partial"):
            self._pictures(client)

    def _pictures(self, client: SyncPrefectClient) -> None:
        """Pictures and links of a run that has ended, once it is known whether it is published."""
        note = self._note()
        if self._published is not None and self._published[0] == note:
            return
        links = gallery.Links(self._settings, note)
        for name, title, page in (
            ("overlay", "Catalogue on the white stack", gallery.overlay_page(self._work, links)),
            ("zero-point-plots", "Zero points against magnitude", gallery.zero_point_page(self._work, links)),
            ("epsf", "ePSFs of all bands", gallery.epsf_page(self._work, links)),
            ("results", "Results: report, catalogue", gallery.results_page(self._settings, note, links)),
        ):
            if page is not None:
                self._show(client, name, "markdown", page, title)
        self._published = (note, links)

    def _note(self) -> Mapping[str, Any]:
        """What became of the publication of this run; empty if nothing has yet."""
        try:
            note = json.loads(self._work.publication.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) and note.get("run_id") == self._run_id else {}

    def _results(self, record: Mapping[str, Any]) -> list[str]:
        if record["status"] not in ("done", "partial"):
            return []
        catalog = self._work.final_catalog
        files = [catalog, catalog.with_suffix(".parquet"), catalog.with_suffix(".fits")]
        return [str(path) for path in files if path.is_file()]

    def _table(self, client: SyncPrefectClient, name: str, rows: Sequence[Any], title: str) -> None:
        if rows:
            self._show(client, name, "table", json.dumps(rows, allow_nan=False), title)

    def _show(self, client: SyncPrefectClient, name: str, kind: str, data: Any, description: str) -> None:
        """Make or change one artifact, unless it says so already."""
        known = self._shown.get(name)
        if known is None:
            made = client.create_artifact(
                ArtifactCreate(
                    key=f"{self._prefix}-{name}",
                    type=kind,
                    description=description,
                    data=data,
                    flow_run_id=UUID(self._run_id),
                )
            )
            self._shown[name] = (made.id, data, description)
        elif known[1:] != (data, description):
            client.update_artifact(known[0], ArtifactUpdate(data=data, description=description))
            self._shown[name] = (known[0], data, description)


def _now(snapshot: Snapshot, record: Mapping[str, Any]) -> list[str]:
    line = heartbeat(snapshot) if record["status"] == "running" else None
    return [line] if line else []


def _entry(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next((entry for entry in record["stages"] if entry["name"] == name), {"status": "waiting"})


def _bands(snapshot: Snapshot, record: Mapping[str, Any]) -> tuple[float, str]:
    """Per cent of the ePSF stage, and what to say of it."""
    entry = _entry(record, "build_epsf")
    if entry["status"] in ("done", "cached"):
        detail = entry["detail"]
        return 100.0, f"ePSF: {detail.get('bands', 'all')} bands, {detail.get('reused', 0)} of them reused"
    if entry["status"] != "running":
        return 0.0, f"ePSF: {entry['status']}"
    plan, reports = snapshot.plans.get("epsf"), snapshot.of("epsf")
    total = len(plan.names) if plan else 0
    worth = sum(1.0 if r.state != "running" else r.done / r.total if r.total else 0.0 for r in reports)
    return _percent(worth, total), heartbeat(snapshot) or "ePSF"


def _patches(snapshot: Snapshot, record: Mapping[str, Any]) -> tuple[float, str]:
    """Per cent of the fits, and what to say of them."""
    entry = _entry(record, "run_patches")
    if entry["status"] in ("done", "cached"):
        detail = entry["detail"]
        left = f", {detail['left_out']} left out" if detail.get("left_out") else ""
        return (
            100.0,
            f"patches: {detail.get('patches', 'all')}, {detail.get('reused', 0)} of them reused{left}",
        )
    if entry["status"] != "running":
        return 0.0, f"patches: {entry['status']}"
    plan = snapshot.plans.get("patches")
    done = sum(report.done for report in snapshot.of("patches"))
    return _percent(done, plan.total if plan else 0), patch_line(snapshot)


def _percent(done: float, total: float) -> float:
    """Below 100 until the stage says that it is done."""
    return round(min(100.0 * done / total, 99.0), 1) if total else 0.0
