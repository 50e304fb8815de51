"""A field's health: its last nights, a row a night, from what runs have left and what the server knows of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.summary import duration
from tract7dt.nights import evening_before
from tract7dt.upkeep.zero_points import jumps

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tract7dt.upkeep import NightRecord

__all__ = ["health_rows", "runs_by_night"]

Row = dict[str, str | int | float | None]


def runs_by_night(runs: Sequence[FlowRun], timezone: str) -> dict[str, list[FlowRun]]:
    """Runs that have begun, or have ended without, by night; the latest first."""
    found: dict[str, list[FlowRun]] = {}
    for run in runs:
        if run.start_time is None and not (run.state and run.state.is_final()):
            continue
        night = str(run.parameters.get("night") or "")
        if not night:
            began = run.expected_start_time or run.start_time
            assert began is not None
            night = evening_before(began, timezone)
        found.setdefault(night, []).append(run)
    return found


def health_rows(
    records: Sequence[NightRecord],
    runs: Mapping[str, Sequence[FlowRun]],
    missed: Sequence[str],
    limit_mag: float | None,
    n_nights: int,
    address: str,
) -> list[Row]:
    """A row a night, the latest first.

    Parameters
    ----------
    records : sequence of NightRecord
        More of them than nights are shown: each is compared with those before it.
    runs : mapping
        :func:`runs_by_night`.
    missed : sequence of str
        Nights on which the field did not run.
    limit_mag : float or None
        ``watch.zp_jump_mag``.
    n_nights : int
        ``watch.nights``.
    address : str
        Of the UI.
    """
    measured = {record.night: record for record in records}
    nights = sorted({*measured, *runs, *missed}, reverse=True)[:n_nights]
    rows = []
    for night in nights:
        record = measured.get(night)
        run = _run_of(record, runs.get(night, ()))
        earlier = [r.zero_points for r in records if r.night < night][:n_nights]
        rows.append(
            {"night": night, "status": _status(record, run, night in missed)}
            | _run(record, run, address)
            | _counts(record)
            | _zero_points(record, earlier, limit_mag)
            | {"results": record.where if record is not None else ""}
        )
    return rows


def _run_of(record: NightRecord | None, runs: Sequence[FlowRun]) -> FlowRun | None:
    """The run that a night's row is of: that of its record, else the last that was not skipped."""
    if record is not None and (same := [run for run in runs if str(run.id) == record.run_id]):
        newer = [run for run in runs[: runs.index(same[0])] if run.state_name != "Skipped"]
        return newer[0] if newer else same[0]
    return next((run for run in runs if run.state_name != "Skipped"), runs[0] if runs else None)


def _status(record: NightRecord | None, run: FlowRun | None, missed: bool) -> str:
    if run is None:
        return "did not run" if missed else record.status if record is not None else "?"
    name = run.state_name or "?"
    if missed:
        return f"{name}, did not run when it was due again"
    partial = record is not None and record.run_id == str(run.id) and record.status == "partial"
    return f"{name} (some patches failed)" if partial else name


def _counts(record: NightRecord | None) -> Row:
    counts: Mapping[str, Any] = record.counts if record is not None else {}
    fitted, reliable = counts.get("fitted"), counts.get("reliable")
    return {
        "sources": counts.get("sources"),
        "fitted": fitted,
        "reliable": reliable,
        "share": f"{reliable / fitted:.1%}" if fitted and reliable is not None else "",
        "patches failed": len(counts["failed_patches"] or ()) if "failed_patches" in counts else None,
    }


def _zero_points(
    record: NightRecord | None, earlier: Sequence[Mapping[str, float]], limit_mag: float | None
) -> Row:
    points = record.zero_points if record is not None else {}
    far = jumps(points, earlier, limit_mag) if limit_mag is not None else []
    told = ", ".join(f"{jump.band} {jump.difference:+.3f}" for jump in far)
    return {
        "jumps (mag)": told,
        "zero points (mag)": ", ".join(f"{band} {value:.3f}" for band, value in points.items()),
    }


def _run(record: NightRecord | None, run: FlowRun | None, address: str) -> Row:
    seconds = record.wall_s if record is not None else 0.0
    if run is not None and (record is None or record.run_id != str(run.id)):
        seconds = (run.total_run_time or datetime.timedelta()).total_seconds()
    short = str(run.id)[:8] if run is not None else record.run_id[:8] if record is not None else ""
    return {
        # The UI makes a link of this in a table, too.
        "run": f"[{short}]({address}/runs/flow-run/{run.id})" if run is not None else short,
        "time": duration(seconds) if seconds else "",
    }
