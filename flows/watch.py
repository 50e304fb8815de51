"""What a site does about its fields besides running them: a look at each every hour, tidying up once a day."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import flows.environment  # noqa: F401  -- before anything that imports NumPy or Prefect

# isort: split
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, VariableCreate, VariableUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from pydantic import Field

from flows.health import health_rows, runs_by_night
from flows.notices import DID_NOT_RUN, tell, tell_that_it_watches
from flows.parameters import read_template, slug
from flows.publication import store_address
from flows.retention import tidy
from flows.site import SiteField, last_time, runs_since, site_fields
from tasks.policy import forward_logs
from tract7dt.errors import ConfigError, StageError, Tract7dtError
from tract7dt.nights import evening_before
from tract7dt.upkeep import history

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tract7dt.settings import Settings
    from tract7dt.upkeep import Removal

__all__ = ["retention", "watch"]

log = logging.getLogger(__name__)

#: Variable of the server: for which time of its schedule a field was last told not to have run.
_TOLD = "tract7dt_told"

Names = Annotated[list[str], Field(description="Fields; none named: all of the site.")]
DryRun = Annotated[bool, Field(description="Only say what would go.")]


@flow(name="watch", flow_run_name="look at the fields", persist_result=False)
def watch(fields: Names = []) -> None:  # noqa: B006 -- the form shows it; nobody changes it
    """Bring the fields' tables of health up to date, and tell of fields that did not run.

    Raises
    ------
    StageError
        A field cannot be looked at; the others have been.
    """
    forward_logs()
    troubles: list[str] = []
    with get_client(sync_client=True) as client:
        found = site_fields(client, fields)
        for field in found:
            with _noted(field, troubles):
                look_at(client, field, datetime.datetime.now(datetime.UTC))
    tell_that_it_watches([field.name for field in found])
    _end(found, troubles)


@flow(name="retention", flow_run_name="old nights", persist_result=False)
def retention(fields: Names = [], dry_run: DryRun = False) -> None:  # noqa: B006
    """Remove what ``retention`` of each field's configuration says, here and where it is published.

    Raises
    ------
    StageError
        A field cannot be tidied up; the others have been.
    """
    forward_logs()
    troubles: list[str] = []
    rows: list[dict[str, Any]] = []
    with get_client(sync_client=True) as client:
        found = site_fields(client, fields)
        for field in found:
            with _noted(field, troubles):
                rows += [
                    _row(field.name, removal, dry_run)
                    for removal in tidy(read_template(field.given), dry_run)
                ]
        if rows:
            title = "What would go" if dry_run else "What went"
            _put(client, "site-retention", "table", json.dumps(rows), title)
    _end(found, troubles)


@contextlib.contextmanager
def _noted(field: SiteField, troubles: list[str]) -> Iterator[None]:
    """Let the trouble of one field cost no other."""
    try:
        yield
    except (Tract7dtError, OSError) as error:
        if isinstance(error, ConfigError) and not field.schedules:
            log.info(
                "%s is passed over: %s", field.name, error
            )  # its file may be gone, its configuration, too
        else:
            troubles.append(f"{field.name}: {error}")


def _end(fields: Sequence[SiteField], troubles: Sequence[str]) -> None:
    log.info("%d fields, %d with troubles", len(fields), len(troubles))
    if troubles:
        raise StageError("\n".join(troubles))


# --- retention -----------------------------------------------------------------------------------------------
def _row(field: str, removal: Removal, dry_run: bool) -> dict[str, Any]:
    return {
        "field": field,
        "night": removal.night,
        "what": ", ".join(removal.what),
        "files": removal.n_files,
        "MB": round(removal.n_bytes / 1e6, 3),
        "where": removal.where,
        "done": "would go" if dry_run else "gone",
    }


# --- watch ---------------------------------------------------------------------------------------------------
def look_at(client: SyncPrefectClient, field: SiteField, now: datetime.datetime) -> None:
    """Write the table of a field's health, and tell if it did not run when it was to."""
    template = read_template(field.given)
    nights = template.watch.nights
    since = now - datetime.timedelta(days=nights + 1)
    runs = [run for run in runs_since(client, field, since) if run.expected_start_time is not None]
    missed = _missed(client, field, template, runs, now)
    with store_address(template):
        records = history(
            template, 2 * nights
        )  # the first of those that are shown have nights before them, too
    by_night = runs_by_night(runs, template.night.timezone)
    rows = health_rows(records, by_night, missed, template.watch.zp_jump_mag, nights, _ui())
    if rows:
        _put(
            client, f"{slug(field.name)}-health", "table", json.dumps(rows), f"{field.name}: its last nights"
        )


def _missed(
    client: SyncPrefectClient,
    field: SiteField,
    template: Settings,
    runs: Sequence[FlowRun],
    now: datetime.datetime,
) -> list[str]:
    """The night on which the field did not run when it was to, told once; empty if it did."""
    until = now - datetime.timedelta(hours=template.watch.late_hours)
    times = [due for schedule in field.schedules if (due := last_time(schedule, until)) is not None]
    if not times or any(_is_run_of(run, max(times)) for run in runs):
        return []
    due = max(times)
    night = evening_before(due, template.night.timezone)
    if _told(client, field.name) != due.isoformat():
        waiting = [run for run in runs if run.start_time is None and run.expected_start_time == due]
        state = f"; its run is {waiting[0].state_name}" if waiting else "; the server has no run of that time"
        text = f"{field.name} {night}: it did not run, though it was due at {due:%Y-%m-%d %H:%M} UTC{state}"
        log.warning("%s", text)
        tell(DID_NOT_RUN, field.name, text, night=night, due=due.isoformat())
        _note_told(client, field.name, due.isoformat())
    return [night]


def _is_run_of(run: FlowRun, due: datetime.datetime) -> bool:
    """Whether a run began since the field was due, or has ended (been cancelled) without having begun."""
    if run.start_time is not None:
        return run.start_time >= due
    ended = run.state is not None and run.state.is_final()
    return ended and run.expected_start_time is not None and run.expected_start_time >= due


def _told(client: SyncPrefectClient, field: str) -> str | None:
    variable = client.read_variable_by_name(_TOLD)
    value = variable.value if variable is not None else None
    return str(value[field]) if isinstance(value, dict) and field in value else None


def _note_told(client: SyncPrefectClient, field: str, due: str) -> None:
    variable = client.read_variable_by_name(_TOLD)
    if variable is None:
        client.create_variable(VariableCreate(name=_TOLD, value={field: due}))
        return
    before = variable.value if isinstance(variable.value, dict) else {}
    client.update_variable(VariableUpdate(name=_TOLD, value={**before, field: due}))


def _ui() -> str:
    settings = get_current_settings()
    return str(settings.ui_url or str(settings.api.url or "").removesuffix("/api"))


def _put(client: SyncPrefectClient, key: str, kind: str, data: str, title: str) -> None:
    """Make an artifact, unless the last of its key says just that."""
    last = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
        sort=ArtifactSort.CREATED_DESC,
        limit=1,
    )
    if last and last[0].data == data:
        return
    client.create_artifact(
        ArtifactCreate(key=key, type=kind, description=title, data=data, flow_run_id=flow_run.id or None)
    )
