"""Waiting for a server that is away: a restart, a moment without network, an upgrade.

Prefect's client asks again, after pauses that double, but only one that has been connected before; and each
subflow brings a new one. A server that was away when a subflow began would end a run of hours at once.
"""

from __future__ import annotations

from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

__all__ = ["be_patient"]


def be_patient() -> None:
    """Let all of Prefect's clients in this process take a refused connection for one that passes.

    To be called when a run has begun, so that the server has answered: a wrong address is told at once.
    """
    for client in (PrefectHttpxAsyncClient, PrefectHttpxSyncClient):
        client._has_connected = property(lambda self: True, lambda self, value: None)  # type: ignore[assignment]
