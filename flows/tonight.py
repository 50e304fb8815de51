"""Runs of deployments, night by night: which night they are of, whether there is anything to do, what was missed.

A run from the command line is of what it was given; nothing here concerns it.
"""

from __future__ import annotations

import datetime
import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import AwaitingRetry, Completed

from flows.parameters import Given, read_template
from tract7dt.errors import ConfigError, InputError
from tract7dt.nights import evening_before, nights_before
from tract7dt.settings import Settings, fill_placeholders
from tract7dt.store import WorkDir, write_json

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

    from tract7dt.arrival import Arrival

__all__ = ["is_nightly", "nothing_to_do", "of_its_night"]

log = logging.getLogger(__name__)

_PLACEHOLDER = "{night}"


def of_its_night(given: Given) -> Given:
    """What a run was given, with its night: that of the evening before it was to begin.

    A run that waits, or is late, stays of the night that it was scheduled for.
    """
    run = _deployed()
    if run is None or given.night is not None:
        return given
    try:
        zone = read_template(given).night.timezone
    except ConfigError:  # whoever reads the configuration next says what is wrong with it
        return given
    return replace(given, night=evening_before(_begins(run), zone))


def nothing_to_do(settings: Settings, given: Given) -> State[Any] | None:
    """The state in which a run of a deployment ends at once; None if there is something to do.

    Raises
    ------
    Pause
        Images are still being written: the run leaves its place to others and comes back.
    InputError
        They were for too long.
    """
    run = _deployed()
    if run is None or given.night is None:
        return None
    from tract7dt.arrival import look, same_as_last_run  # astropy, which a run need not wait for

    template = read_template(given)
    if run.auto_scheduled:
        today = evening_before(datetime.datetime.now(datetime.UTC), settings.night.timezone)
        late = (datetime.date.fromisoformat(today) - datetime.date.fromisoformat(given.night)).days
        if late > settings.night.catch_up:
            return _skipped(
                f"{given.night} is {late} nights ago; night.catch_up is {settings.night.catch_up}"
            )
        _catch_up(run, given, template)
    of_night = _is_nightly(template)
    note = WorkDir.of(settings).arrival
    seen = _noted(note, str(run.id))
    arrival = look(settings, of_night, seen.get("sizes"))
    if arrival.state == "none":
        return _skipped(f"no images of {given.night}: {arrival.why[0]}")
    if arrival.state == "arriving":
        _come_back(run, settings, arrival, seen)
    if run.auto_scheduled and not given.refresh and (same := same_as_last_run(settings)):
        return _skipped(same)
    return None


def _deployed() -> FlowRun | None:
    """The flow run, if a deployment started it."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run if run is not None and run.deployment_id is not None else None


def _begins(run: FlowRun) -> datetime.datetime:
    return run.expected_start_time or datetime.datetime.now(datetime.UTC)


def is_nightly(given: Given) -> bool:
    """Whether the images of each night are others, so that missing ones may be on their way."""
    return _is_nightly(read_template(given))


def _is_nightly(template: Settings) -> bool:
    """Whether the images of each night are others: the list, or a line of it, names the night."""
    listed = template.inputs.image_list_file
    if _PLACEHOLDER in listed:
        return True
    from tract7dt.frames import read_image_list

    try:
        named = fill_placeholders(template, "0001-01-01").inputs.image_list_file
        return any(_PLACEHOLDER in entry for entry in read_image_list(named, template.base_dir))
    except (ConfigError, InputError):
        return False


def _skipped(why: str) -> State[Any]:
    log.info("skipped: %s", why)
    return Completed(name="Skipped", message=f"Skipped: {why}")


# --- waiting -----------------------------------------------------------------------------------------------
def _noted(path: Any, run_id: str) -> dict[str, Any]:
    """What this run saw when it looked before."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) and stored.get("run_id") == run_id else {}


def _come_back(run: FlowRun, settings: Settings, arrival: Arrival, seen: dict[str, Any]) -> None:
    """Reschedule the run; its place and its slot are free for others meanwhile."""
    night, now = settings.night, time.time()
    first = float(seen.get("first", now))
    told = "; ".join(arrival.why[:3]) + (f" and {len(arrival.why) - 3} more" if len(arrival.why) > 3 else "")
    if now - first >= night.wait_minutes * 60.0:
        raise InputError(f"waited {night.wait_minutes:g} min for images that are still not complete: {told}")
    write_json(WorkDir.of(settings).arrival, {"run_id": str(run.id), "first": first, "sizes": arrival.sizes})
    again = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=night.retry_minutes)
    log.info("images are still arriving, the run comes back at %s UTC: %s", f"{again:%H:%M:%S}", told)
    state: State[Any] = AwaitingRetry(scheduled_time=again, message=f"Images are still arriving: {told}")
    with get_client(sync_client=True) as client:
        answer = client.set_flow_run_state(run.id, state, force=True)
    raise Pause(state=answer.state)


# --- catching up -------------------------------------------------------------------------------------------
def _catch_up(run: FlowRun, given: Given, template: Settings) -> None:
    """Start a run for each earlier night that has images and of which nothing has been made."""
    assert given.night is not None
    if not (_PLACEHOLDER in str(template.outputs.work_dir) and _is_nightly(template)):
        return  # one folder for all nights: there is no telling which have been done
    missed = [
        night for night in nights_before(given.night, template.night.catch_up) if _is_missed(template, night)
    ]
    if not missed:
        return
    with get_client(sync_client=True) as client:
        for night in missed:
            _start(client, run, replace(given, night=night), template.inputs.tile_name)


def _is_missed(template: Settings, night: str) -> bool:
    """Whether a night has images, and no run of it has come to an end, good or bad.

    One that was cut off is missed, too: while this run goes on, no other of the field does.
    """
    from tract7dt.arrival import look

    settings = fill_placeholders(template, night)
    try:
        record = json.loads(WorkDir.of(settings).run_summary.read_text(encoding="utf-8"))
        error = record.get("error") or {}
        cut_off = record["status"] == "running" or str(error.get("message", "")).startswith("interrupted")
    except FileNotFoundError:
        cut_off = True
    except (OSError, ValueError, KeyError, AttributeError):
        cut_off = False
    return cut_off and look(settings, of_night=True).state != "none"


def _start(client: SyncPrefectClient, run: FlowRun, given: Given, field: str) -> None:
    assert run.deployment_id is not None
    made = client.create_flow_run_from_deployment(
        run.deployment_id,
        parameters=dict(run.parameters) | {"night": given.night},
        name=f"{field} {given.night} (caught up)",
        tags=["catch-up"],
        idempotency_key=f"catch-up {field} {given.night}",  # however many runs of later nights miss it
    )
    log.info("night %s was missed: run %s makes up for it", given.night, made.id)
