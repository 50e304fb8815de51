"""Which troubles may pass by themselves, so that trying again is worth the time, and how long to wait.

Passing: a connection that broke or timed out, a mount that is away, a busy object store, a worker that was
killed. Lasting: wrong input, a missing or damaged product, a full disk, no permission, a bug; trying these again
would hide the message for minutes. Classes of botocore, aiohttp, requests and their like are recognised by name,
since none of them is needed to run.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING, Any

from tract7dt.errors import ConfigError, Tract7dtError, WorkerLostError

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

    from tract7dt.settings import Settings

__all__ = ["JITTER", "is_passing", "is_transient", "retry_delays"]

log = logging.getLogger(__name__)

#: Part by which a pause is drawn out at random, so that workers that failed together do not come back together.
JITTER = 0.2

#: Longest pause between two tries, s.
_LONGEST_S = 600.0

_PASSING_CODES = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "EINTR",
        "EIO", "EMFILE", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENFILE", "ENOBUFS", "ENOLCK", "ENOMEM",
        "ENOTCONN", "EPIPE", "EPROTO", "EREMOTEIO", "ESHUTDOWN", "ESTALE", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

_PASSING_ANSWERS = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)

#: Package -> classes (with all that inherit from them) of troubles that may pass.
_PASSING_CLASSES = {
    "aiohttp": {"ClientConnectionError", "ClientPayloadError", "ServerTimeoutError"},
    "botocore": {
        "ConnectionClosedError",
        "ConnectionError",
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseStreamingError",
    },
    "concurrent": {"BrokenProcessPool"},
    "distributed": {"CommClosedError", "KilledWorker"},
    "http": {"IncompleteRead"},
    "httpcore": {"NetworkError", "ProtocolError", "TimeoutException"},
    "httpx": {"TransportError"},
    "ray": {"NodeDiedError", "ObjectLostError", "OutOfMemoryError", "WorkerCrashedError"},
    "requests": {"ChunkedEncodingError", "ConnectionError", "Timeout"},
    "urllib3": {"IncompleteRead", "NewConnectionError", "ProtocolError", "ReadTimeoutError"},
}

#: Of these, what lasts all the same: certificates, addresses.
_LASTING_CLASSES = {
    "ClientConnectorCertificateError",
    "ClientSSLError",
    "InvalidProxyURL",
    "ProxySchemeUnknown",
    "SSLCertVerificationError",
    "SSLError",
    "UnsupportedProtocol",
}


def is_passing(error: BaseException | None) -> bool:
    """Whether ``error`` may be gone at the next try.

    An error of ours is judged by its cause, if it names one: an image that cannot be read since the mount is
    away is no wrong input.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, WorkerLostError):
            return True
        if isinstance(error, ConfigError):
            return False
        if not isinstance(error, Tract7dtError):
            return _passing_status(error) or _passing_class(error) or _passing_os_error(error)
        error = error.__cause__
    return False


def _names(error: BaseException) -> set[tuple[str, str]]:
    return {(kind.__module__.split(".")[0], kind.__name__) for kind in type(error).__mro__}


def _passing_class(error: BaseException) -> bool:
    names = _names(error)
    if any(name in _LASTING_CLASSES for _, name in names):
        return False
    return any(name in _PASSING_CLASSES.get(package, ()) for package, name in names)


def _passing_status(error: BaseException) -> bool:
    """Whether a server said that it was busy: botocore's ClientError, the HTTP errors of several libraries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        if str(response.get("Error", {}).get("Code", "")) in _PASSING_ANSWERS:
            return True
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _PASSING_STATUS
    for holder, name in ((error, "status"), (error, "code"), (response, "status_code")):
        status = getattr(holder, name, None)
        if isinstance(status, int) and status in _PASSING_STATUS:
            return True
    return False


def _passing_os_error(error: BaseException) -> bool:
    if not isinstance(error, OSError) or any(name in _LASTING_CLASSES for _, name in _names(error)):
        return False
    if isinstance(error, (ConnectionError, TimeoutError, InterruptedError, BlockingIOError)):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    reason = getattr(error, "reason", None)  # urllib.error.URLError
    if isinstance(reason, BaseException):
        return is_passing(reason)
    # A library's own OSError without a number ("not a gzipped file") is about content, not about the way to it.
    return error.errno in _PASSING_CODES


def is_transient(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task is worth another try (Prefect's ``retry_condition_fn``); says so in its log."""
    error = state.data
    if not isinstance(error, BaseException) or not is_passing(error):
        return False
    log.warning(
        "%s met a trouble that may pass, and is tried again if tries are left: %s: %s",
        task_run.name,
        type(error).__name__,
        error,
    )
    return True


def retry_delays(settings: Settings) -> list[float]:
    """Pauses before the tries that ``runtime.retries`` allows, s: each twice the one before, ten minutes at most.

    Prefect draws each out by up to :data:`JITTER` of it.
    """
    first = settings.runtime.retry_delay_seconds
    return [min(first * 2**i, max(first, _LONGEST_S)) for i in range(settings.runtime.retries)]
