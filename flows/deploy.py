"""Registering the fields of a site with its Prefect server: work pool, deployments, those that are gone."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.fields import FIELDS_QUEUE, POOL, SITE_QUEUE, TAG, read_fields, write_prefect_yaml
from flows.server import ServerError, quiet_environment

if TYPE_CHECKING:
    from prefect import State
    from prefect.client.orchestration import SyncPrefectClient

    from flows.fields import FieldFile

__all__ = ["deploy", "end_what_was_cut_off", "write_site"]

log = logging.getLogger(__name__)


def write_site(folder: Path) -> tuple[list[FieldFile], list[str]]:
    """Write ``prefect.yaml``; the fields that it holds, and what is wrong with the other files."""
    fields, problems = read_fields(folder)
    write_prefect_yaml(folder, fields)
    return fields, problems


def deploy(folder: Path, runs: int | None) -> list[str]:
    """Bring the server that PREFECT_API_URL names in line with the files of the fields.

    Parameters
    ----------
    folder : Path
        Of the site, with ``fields/``.
    runs : int or None
        Runs that the machine takes at once; None leaves the work pool as it is.

    Returns
    -------
    list of str
        What is wrong with files that were passed over.

    Raises
    ------
    ServerError
        Prefect refuses.
    """
    fields, problems = write_site(folder)
    _make_pool(runs)
    _register(folder)
    _unschedule_those_without_a_file({field.name for field in fields})
    from flows.automations import set_up

    set_up()
    return problems


def _register(folder: Path) -> None:
    """What an operator would type."""
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        "prefect.yaml",
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | quiet_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"prefect deploy failed ({done.returncode}): {done.stdout.strip()[-2000:]}")


def _make_pool(runs: int | None) -> None:
    """The work pool: a queue for the fields with the machine's limit, one for the site's own short runs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        if runs is not None:
            client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))
        _make_queue(client, FIELDS_QUEUE, runs)
        _make_queue(client, SITE_QUEUE, 1)


def _make_queue(client: SyncPrefectClient, name: str, runs: int | None) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        queue = client.read_work_queue_by_name(name, work_pool_name=POOL)
    except ObjectNotFound:
        queue = client.create_work_queue(name, work_pool_name=POOL)
    if runs is not None and queue.concurrency_limit != runs:
        client.update_work_queue(queue.id, concurrency_limit=runs)


def _unschedule_those_without_a_file(names: set[str]) -> None:
    """A field whose file is gone starts no more by itself; its runs and artifacts stay to be looked at."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    wanted = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    with get_client(sync_client=True) as client:
        for found in client.read_deployments(deployment_filter=wanted):
            if found.name not in names and found.schedules:
                for schedule in found.schedules:
                    client.delete_deployment_schedule(found.id, schedule.id)
                log.info("field %s has no file any more: its schedule is removed", found.name)


def end_what_was_cut_off() -> int:
    """Say of runs that a worker of this machine left behind that they crashed; returns how many.

    To be called while no worker runs. A worker that is told to stop, or a machine that goes down, ends the
    processes of its runs; the server, which nobody told, would show them as running for ever.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterParentFlowRunId,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    kinds = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    state_filter = FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))
    with get_client(sync_client=True) as client:
        left = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=state_filter),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        )
        # subflows are of no pool
        parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in left])
        inner = (
            client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=state_filter, parent_flow_run_id=parents)
            )
            if left
            else []
        )
        for run in [*inner, *left]:
            state: State[Any] = Crashed(message="The worker was stopped while the run went on.")
            client.set_flow_run_state(run.id, state, force=True)
    return len(left)
