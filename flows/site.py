"""What the server knows of a site: its fields, with their schedules and their runs."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort

from flows.fields import TAG
from flows.parameters import Given

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["Schedule", "SiteField", "last_time", "runs_since", "site_fields"]

_PAGE = 200
#: From the nearest time back, as Prefect looks at a thousand times at most: of a busy schedule the last ones.
_WINDOWS = tuple(datetime.timedelta(minutes=minutes) for minutes in (10, 16 * 60, 8 * 1440, 367 * 1440))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a field runs: cron, its time zone, and since when that holds."""

    cron: str
    timezone: str
    since: datetime.datetime


@dataclass(frozen=True, slots=True)
class SiteField:
    """A field as it is registered.

    Attributes
    ----------
    name : str
    deployment_id : UUID
    given : Given
        What its runs are given, without a night.
    schedules : tuple of Schedule
        Those that are on.
    """

    name: str
    deployment_id: UUID
    given: Given
    schedules: tuple[Schedule, ...]


def site_fields(client: SyncPrefectClient, names: Sequence[str] = ()) -> list[SiteField]:
    """The fields of the site, by name; only ``names`` if any are given."""
    wanted = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found: list[SiteField] = []
    while page := client.read_deployments(deployment_filter=wanted, limit=_PAGE, offset=len(found)):
        found += [_field(deployment) for deployment in page]
    return sorted((f for f in found if not names or f.name in names), key=lambda field: field.name)


def _field(deployment: DeploymentResponse) -> SiteField:
    parameters: dict[str, Any] = deployment.parameters or {}
    given = Given(
        str(parameters.get("config", "")),
        deployment.name,
        overrides=parameters.get("overrides") or {},
        publish=bool(parameters.get("publish", True)),
    )
    schedules = []
    for entry in deployment.schedules if not deployment.paused else ():
        if entry.active and isinstance(entry.schedule, CronSchedule):
            since = max(moment for moment in (deployment.created, entry.created) if moment is not None)
            schedules.append(Schedule(entry.schedule.cron, entry.schedule.timezone or "UTC", since))
    return SiteField(deployment.name, deployment.id, given, tuple(schedules))


def runs_since(client: SyncPrefectClient, field: SiteField, since: datetime.datetime) -> list[FlowRun]:
    """Runs of a field that were to begin after ``since``, the latest first; those to come, too."""
    found: list[FlowRun] = []
    expected = FlowRunFilterExpectedStartTime(after_=since)
    while page := client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[field.deployment_id])),
        flow_run_filter=FlowRunFilter(expected_start_time=expected),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_PAGE,
        offset=len(found),
    ):
        found += page
    return found


def last_time(schedule: Schedule, until: datetime.datetime) -> datetime.datetime | None:
    """When a schedule was last due before ``until`` and since it holds, UTC; None if it was not."""
    from prefect.server.schemas import schedules  # seconds of import, which only this needs

    cron = schedules.CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    for window in _WINDOWS:
        start = max(until - window, schedule.since)
        if start < until and (dates := asyncio.run(cron.get_dates(start=start, end=until))):
            return dates[-1].astimezone(datetime.UTC)
    return None
