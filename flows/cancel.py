"""A run that is cancelled on the server while no worker of Prefect's looks after it.

A worker ends the runs that it has started when they are cancelled. A run that a command has started has nobody
who would: the server says Cancelling, and the run goes on. It asks the server itself, now and then.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Crashed

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

__all__ = ["obeyed", "say_so", "say_that_it_crashed"]

log = logging.getLogger(__name__)

_LOOK_S = 3.0
#: What a server that is away or being restarted can raise.
_TROUBLES = (httpx.HTTPError, PrefectException, OSError)

_cancelled: set[str] = set()


@contextlib.contextmanager
def obeyed(run_id: str) -> Iterator[None]:
    """Interrupt the run ``run_id``, as Ctrl-C would, if it is cancelled on the server while the block runs."""
    if os.environ.get("PREFECT__FLOW_RUN_ID"):  # a worker has started it
        yield
        return
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            if _is_cancelled(run_id):
                _cancelled.add(run_id)
                log.warning("the run was cancelled on the server")
                # To the main thread itself: it may be waiting for a lock, which nothing else would end.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    context = contextvars.copy_context()  # which server it is may stand there
    thread = threading.Thread(target=context.run, args=(look,), name="cancel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _is_cancelled(run_id: str) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run_id)).state
    except _TROUBLES:
        return False  # to be asked again
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def say_that_it_crashed(run_id: str | None) -> None:
    """Tell the server that a run whose process is gone is Crashed: nobody else would, and it would run for ever.

    Parameters
    ----------
    run_id : str or None
        As its lock names it; of a run that this server does not know nothing is said.
    """
    if run_id is None:
        return
    with contextlib.suppress(*_TROUBLES, ValueError), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(run_id)).state
        if state is None or not state.is_final():
            message = "Its process ended without a word (killed?); the run after it in its work_dir says so."
            client.set_flow_run_state(UUID(run_id), Crashed(message=message), force=True)


def say_so(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell the server that the run is Cancelled, not Crashed, if that is why it ended (a hook of the flow)."""
    if str(flow_run.id) in _cancelled:
        with contextlib.suppress(*_TROUBLES), get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Cancelled(message="Cancelled on the server."), force=True)
