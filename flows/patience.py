"""Waiting for a server that is away, and for nothing else.

A server is away for a restart, a moment without network, an upgrade. Prefect's client asks again, after pauses
that double, but only one that has been connected before; and each subflow brings a new one. A server that was
away when a subflow began would end a run of hours at once.

A flow that ends waits for the thread of its heartbeat, which sleeps for a second at a time: half a second a flow
on average, a second at most. Where no heartbeat is listened to there is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

__all__ = ["be_patient", "no_heartbeat"]


def be_patient() -> None:
    """Let all of Prefect's clients in this process take a refused connection for one that passes.

    To be called when a run has begun, so that the server has answered: a wrong address is told at once.
    """
    for client in (PrefectHttpxAsyncClient, PrefectHttpxSyncClient):
        client._has_connected = property(lambda self: True, lambda self, value: None)  # type: ignore[assignment]


@contextlib.contextmanager
def no_heartbeat() -> Iterator[None]:
    """Flows that begin within the block send no heartbeat: subflows, and a run on a server of its own."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
