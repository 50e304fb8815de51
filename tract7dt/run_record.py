"""The record of a run, ``run_summary.json``: rewritten at every step, so that a kill leaves it honest."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import logging
import platform
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tract7dt import resources
from tract7dt.progress import progress_folder
from tract7dt.run_counts import field_inputs, patch_costs, product_counts
from tract7dt.store import WorkDir, sha256_bytes, write_json

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["STAGES", "RunRecord", "StageEntry", "failed_stage"]

log = logging.getLogger(__name__)

#: Stages of a run, in order.
STAGES = (
    "load_inputs",
    "augment_gaia",
    "bright_mask",
    "build_epsf",
    "build_patches",
    "compose_final_masks",
    "build_patch_inputs",
    "run_patches",
    "merge",
    "compute_zp",
)

_PACKAGES = ("numpy", "scipy", "astropy", "pandas", "photutils", "sep", "numba", "prefect")
_NOTE = "in stage "


@dataclass(slots=True)
class StageEntry:
    """What the record says of one stage; the stage may fill in ``status`` and ``detail`` while it runs.

    Attributes
    ----------
    name : str
    command : str
        The command that ran it.
    started : str
        Local time, ISO 8601.
    status : str
        ``running``, ``done``, ``cached``, ``skipped`` or ``failed``.
    wall_s, cpu_s : float
        CPU seconds include children and workers elsewhere.
    peak_rss_mb : float
        Largest resident memory of any one process of the stage, MiB.
    detail : dict
        What else is worth knowing: why it was skipped, how many workers, ...
    """

    name: str
    command: str
    started: str
    status: str = "running"
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on, without importing any of it."""
    from tract7dt import __version__

    found = {"python": platform.python_version(), "tract7dt": __version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def failed_stage(error: BaseException) -> str | None:
    """The stage in which ``error`` ended a run; None if it was in none."""
    for note in getattr(error, "__notes__", ()):
        if note.startswith(_NOTE):
            return str(note).removeprefix(_NOTE)
    return None


class RunRecord:
    """Status, times, counts, inputs and versions of a run.

    As a context manager it ends the record: ``done``, or ``failed`` with the error.

    Parameters
    ----------
    settings : Settings
    command : str
        ``run`` starts a new record; a step command renews the entries of its own stages and keeps the
        others of the record that is there.
    run_id : str, optional
        Name of the run, Prefect's where it runs the flow; otherwise a new one.
    parameters : mapping, optional
        What the run was given.
    """

    def __init__(
        self,
        settings: Settings,
        command: str,
        run_id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.run_id = run_id or str(uuid.uuid4())
        self._parameters = dict(parameters or {})
        self._work = WorkDir.of(settings)
        self._settings = settings
        self._command = command
        self._started, self._clock = _now(), time.perf_counter()
        self._status = "running"
        self._error: dict[str, str | None] | None = None
        self._entries: dict[str, StageEntry] = {} if command == "run" else self._earlier()
        self._counts: dict[str, Any] = {}
        self._patch_costs: dict[str, dict[str, float | None]] = {}
        self._inputs: list[dict[str, str]] = []
        self._versions = _versions()
        self._digest = sha256_bytes(settings.model_dump_json().encode())
        self.write()

    def _earlier(self) -> dict[str, StageEntry]:
        """Entries of the record that is there; none if it is missing or not one of ours."""
        try:
            stored = json.loads(self._work.run_summary.read_text(encoding="utf-8"))
            return {entry["name"]: StageEntry(**entry) for entry in stored["stages"]}
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    # --- while the run goes on ---------------------------------------------------------------------
    @property
    def work(self) -> WorkDir:
        """Where the run works."""
        return self._work

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageEntry]:
        """Time the stage ``name``; an exception marks it as failed and goes on its way."""
        entry = StageEntry(name, self._command, _now())
        self._entries[name] = entry
        self.write()
        meter = _Meter(self._work)
        try:
            yield entry
        except BaseException as error:
            entry.status = "failed"
            entry.detail["error"] = _said(error)
            error.add_note(_NOTE + name)
            raise
        else:
            if entry.status == "running":
                entry.status = "done"
            if name == "run_patches":
                self._patch_costs = patch_costs(self._work)
        finally:
            meter.read_into(entry)
            self.write()
            log.info(
                "stage %s: %s, %.1f s wall, %.1f s CPU, %.0f MB",
                name,
                entry.status,
                entry.wall_s,
                entry.cpu_s,
                entry.peak_rss_mb,
            )

    def skip(self, name: str, reason: str) -> None:
        """Record that the configuration leaves the stage ``name`` out."""
        self._entries[name] = StageEntry(name, self._command, _now(), "skipped", detail={"reason": reason})
        log.info("stage %s: skipped, %s", name, reason)
        self.write()

    def count(self, **counts: Any) -> None:
        """Add counts (plain numbers, or mappings of them)."""
        self._counts.update(counts)
        self.write()

    # --- its end -----------------------------------------------------------------------------------
    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.fail(error)

    def finish(self) -> None:
        """End the record: all that the command was to do is done, ``partial`` if patches have no fit."""
        counts = self.counts
        without = counts.get("failed_patches") or counts.get("patches_not_fitted")
        self._status = "partial" if without else "done"
        self.write()

    def fail(self, error: BaseException) -> None:
        """End the record with the error that ended the run."""
        self._status = "failed"
        self._error = {"stage": failed_stage(error), "message": _said(error)}
        self.write()

    # --- reading and writing -----------------------------------------------------------------------
    @property
    def counts(self) -> dict[str, Any]:
        """Counts of the products whose stage is done, with those of :meth:`count`."""
        done = {e.name for e in self._entries.values() if e.status in ("done", "cached")}
        return product_counts(self._work, done) | self._counts

    def as_finished(self) -> dict[str, Any]:
        """The record as it will be if nothing more is done and nothing fails."""
        without = self.counts.get("failed_patches") or self.counts.get("patches_not_fitted")
        status = "partial" if without else "done"
        return self.as_dict() | {"status": status, "finished": _now(), "counts": self.counts}

    def as_dict(self) -> dict[str, Any]:
        """The record as it is written."""
        return {
            "status": self._status,
            "run_id": self.run_id,
            "parameters": self._parameters,
            "command": self._command,
            "field": self._work.name,
            "started": self._started,
            "finished": None if self._status == "running" else _now(),
            "wall_s": round(time.perf_counter() - self._clock, 3),
            "error": self._error,
            "stages": [asdict(self._entries[name]) for name in STAGES if name in self._entries],
            "counts": {} if self._status == "running" else self.counts,
            "patch_costs": self._patch_costs,
            "inputs": self._inputs,
            "versions": self._versions,
            "configuration_sha256": self._digest,
        }

    def write(self) -> None:
        """Write ``run_summary.json`` as things stand."""
        if not self._inputs and self._is_done("load_inputs"):
            self._inputs = field_inputs(self._work, self._settings)
        write_json(self._work.run_summary, self.as_dict())

    def _is_done(self, name: str) -> bool:
        return name in self._entries and self._entries[name].status in ("done", "cached")


def _said(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if not isinstance(error, Exception):  # Prefect's way to end a run that was cancelled
        return f"interrupted ({type(error).__name__})"
    return f"{type(error).__name__}: {error}"


class _Meter:
    """Wall time, CPU time and memory from its creation on."""

    def __init__(self, work: WorkDir) -> None:
        self._folder = progress_folder(work.root)
        self._clock = time.perf_counter()
        self._cpu, self._children = resources.cpu_seconds()
        self._workers = resources.read_usage(self._folder)
        resources.give_back_memory()
        resources.reset_peak_rss()

    def read_into(self, entry: StageEntry) -> None:
        """Fill in times and memory.

        Local workers appear among the ended children and in their own reports, workers elsewhere in
        their reports alone: the larger of the two sums counts.
        """
        own, children = resources.cpu_seconds()
        reports = resources.read_usage(self._folder)
        none = resources.Usage(0.0, 0.0)
        spent = {name: use.cpu_s - self._workers.get(name, none).cpu_s for name, use in reports.items()}
        busy = {name: reports[name] for name, seconds in spent.items() if seconds > 0}
        entry.wall_s = round(time.perf_counter() - self._clock, 3)
        entry.cpu_s = round(own - self._cpu + max(children - self._children, sum(spent.values())), 3)
        entry.peak_rss_mb = round(max([resources.peak_rss_mb(), *(u.peak_rss_mb for u in busy.values())]), 1)
        if busy:
            entry.detail["workers"] = len(busy)
            entry.detail["workers_peak_rss_mb"] = round(sum(u.peak_rss_mb for u in busy.values()), 1)
