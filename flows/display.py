"""What a user sees while a run goes on: a live display on a terminal, a line now and then elsewhere.

Everything shown is read from files that the run writes anyway (``run_summary.json``, the progress folder),
so the display is the same for processes, threads, Dask and a run without Prefect.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tract7dt.progress import Plan, Progress, progress_folder, read_plan, read_progress

__all__ = ["Display", "Snapshot", "band_lines", "heartbeat", "patch_line", "read_snapshot"]

log = logging.getLogger(__name__)

_LOOK_S = 0.25
_HEARTBEAT_S = 10.0
_MARKS = {
    "running": ("●", "cyan"),
    "done": ("✓", "green"),
    "cached": ("✓", "blue"),
    "skipped": ("–", "dim"),
    "failed": ("✗", "red"),
}


class Snapshot:
    """How far the run is at one moment.

    Parameters
    ----------
    stages : sequence of mapping
        Stage entries of ``run_summary.json``.
    progress : sequence of Progress
    plans : mapping of str to (Plan or None)
        By kind.
    now : float
        Seconds since 1970.
    """

    def __init__(
        self,
        stages: Sequence[Mapping[str, Any]],
        progress: Sequence[Progress],
        plans: Mapping[str, Plan | None],
        now: float,
    ) -> None:
        self.stages = stages
        self.progress = progress
        self.plans = plans
        self.now = now

    def of(self, kind: str) -> list[Progress]:
        """Reports of one kind of work."""
        return [report for report in self.progress if report.kind == kind]

    @property
    def stage(self) -> str | None:
        """The stage that runs."""
        return next((str(s["name"]) for s in self.stages if s["status"] == "running"), None)


def read_snapshot(work_dir: Path, since: float = 0.0) -> Snapshot:
    """Read where the run in ``work_dir`` is; a record older than ``since`` is another run's."""
    summary = work_dir / "run_summary.json"
    stages: list[Mapping[str, Any]] = []
    try:
        if summary.stat().st_mtime >= since:
            stages = json.loads(summary.read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError):
        stages = []
    folder = progress_folder(work_dir)
    plans = {kind: read_plan(folder, kind) for kind in ("epsf", "patches")}
    return Snapshot(stages, read_progress(folder), plans, time.time())


def _duration(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate_and_eta(done: int, total: int, seconds: float) -> str:
    if done <= 0 or seconds <= 0:
        return "-/s, ETA -"
    rate = done / seconds
    shown = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
    return f"{shown}, ETA {_duration(max(total - done, 0) / rate)}"


# --- ePSF: one line a worker -------------------------------------------------------------------------


def _latest_by_worker(reports: Sequence[Progress]) -> list[tuple[Progress, Progress | None]]:
    """What each worker does now, and what it did before; workers in the order in which they appeared."""
    history: dict[str, list[Progress]] = {}
    for report in reports:
        history.setdefault(report.worker, []).append(report)
    return [(done[-1], done[-2] if len(done) > 1 else None) for done in history.values()]


def _hand_over(current: Progress, before: Progress | None) -> str:
    """Transition of a worker from one band to the next, told in words."""
    if current.state == "failed":
        return f"failed {current.name}"
    if before is None:
        return f"start {current.name}"
    return f"{before.state} {before.name} -> start {current.name}"


def band_lines(snapshot: Snapshot, width: int = 24) -> Table:
    """One line a worker: band, bar, per cent, cells, rate, time left, what it did before."""
    table = Table.grid(padding=(0, 1))
    for number, (now, before) in enumerate(_latest_by_worker(snapshot.of("epsf")), 1):
        share = now.done / now.total if now.total else 0.0
        bar = ProgressBar(total=max(now.total, 1), completed=now.done, width=width)
        end = snapshot.now if now.state == "running" else now.updated
        table.add_row(
            Text(f"  worker {number}", style="dim"),
            Text(now.name, style="bold"),
            bar,
            f"{share:4.0%}",
            f"{now.done}/{now.total} cells",
            _rate_and_eta(now.done, now.total, end - now.started),
            Text(_hand_over(now, before), style="red" if now.state == "failed" else "dim"),
        )
    return table


def _band_summary(snapshot: Snapshot) -> str:
    reports = snapshot.of("epsf")
    plan = snapshot.plans.get("epsf")
    total = len(plan.names) if plan else len(reports)
    done = sum(report.state == "done" for report in reports)
    failed = sum(report.state == "failed" for report in reports)
    running = [r for r in reports if r.state == "running"]
    parts = [f"ePSF: {done}/{total} bands"]
    if failed:
        parts.append(f"{failed} failed")
    parts += [f"{r.name} {r.done / r.total:.0%}" if r.total else r.name for r in running]
    if reports and total:
        worth = done + failed + sum(r.done / r.total for r in running if r.total)
        begun = plan.started if plan else reports[0].started
        eta = _duration((total - worth) * (snapshot.now - begun) / worth) if worth > 0 else "-"
        parts.append(f"ETA {eta}")
    return ", ".join(parts)


# --- patches: one line ---------------------------------------------------------------------------------


def patch_line(snapshot: Snapshot) -> str:
    """Patches in one line: done of all, running, failures, rate, time left."""
    reports = snapshot.of("patches")
    plan = snapshot.plans.get("patches")
    done = sum(report.done for report in reports)
    failed = sum(report.failed for report in reports)
    total = plan.total if plan else sum(report.total for report in reports)
    running = sum(report.state == "running" and report.done < report.total for report in reports)
    begun = plan.started if plan else (reports[0].started if reports else snapshot.now)
    pace = _rate_and_eta(done, total, snapshot.now - begun)
    return f"patches: {done}/{total} done, {running} running, {failed} failed, {pace}"


def heartbeat(snapshot: Snapshot) -> str | None:
    """One line for a log; None while there is nothing to say."""
    if snapshot.stage is None:
        return None
    if snapshot.stage == "build_epsf":
        return _band_summary(snapshot)
    if snapshot.stage == "run_patches":
        return patch_line(snapshot)
    return f"{snapshot.stage} is running"


# --- the whole -----------------------------------------------------------------------------------------


def _stage_lines(snapshot: Snapshot, since: float) -> Table:
    table = Table.grid(padding=(0, 1))
    for entry in snapshot.stages:
        mark, style = _MARKS.get(entry["status"], ("?", ""))
        if entry["status"] == "running":
            spent = _duration(snapshot.now - since)
        elif entry["status"] == "skipped":
            spent = str(entry["detail"].get("reason", "skipped"))
        else:
            spent = f"{entry['wall_s']:.1f} s"
        table.add_row(
            Text(mark, style=style), Text(str(entry["name"]), style=style), Text(spent, style="dim")
        )
    return table


class Display:
    """Shows a run in ``work_dir`` from another thread while the block runs.

    Parameters
    ----------
    work_dir : Path
    console : Console
        Live display if it is a terminal, log lines every ten seconds otherwise.
    title : str
    """

    def __init__(self, work_dir: Path, console: Console, title: str) -> None:
        self._work_dir, self._console, self._title = work_dir, console, title
        self._over = threading.Event()
        self._begun = time.time()
        self._stage: str | None = None
        self._stage_since = self._begun
        self._live: Live | None = None
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._live:
            self._live.update(self.render(read_snapshot(self._work_dir, self._begun - 1)), refresh=True)
            self._live.stop()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_LOOK_S):
            if self._live:
                snapshot = read_snapshot(self._work_dir, self._begun - 1)
                self._live.update(self.render(snapshot), refresh=True)
            elif time.monotonic() - last >= _HEARTBEAT_S:
                last = time.monotonic()
                if line := heartbeat(read_snapshot(self._work_dir, self._begun - 1)):
                    log.info(line)

    def render(self, snapshot: Snapshot) -> RenderableType:
        """The display at one moment."""
        if snapshot.stage != self._stage:
            self._stage, self._stage_since = snapshot.stage, snapshot.now
        parts: list[RenderableType] = [
            Text.assemble((self._title, "bold"), (f"  {_duration(snapshot.now - self._begun)}", "dim")),
            _stage_lines(snapshot, self._stage_since),
        ]
        if self._stage == "build_epsf":
            parts.append(band_lines(snapshot))
        elif self._stage == "run_patches":
            parts.append(Text("  " + patch_line(snapshot)))
        return Group(*parts)
