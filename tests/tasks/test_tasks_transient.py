"""What is tried again, and after how long."""

from __future__ import annotations

import errno
import gzip
import http.client
import logging
import socket
import ssl
import urllib.error
from email.message import Message
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import transient
from tract7dt.errors import ConfigError, InputError, PatchError, ProductError, StageError, WorkerLostError


def foreign(module: str, name: str, *bases: type[Exception], **attributes: Any) -> Exception:
    """An error of a library that need not be installed."""
    error = type(name, bases or (Exception,), {"__module__": module})("said")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def client_error(code: str, status: int) -> Exception:
    """As botocore has it."""
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return foreign("botocore.exceptions", "ClientError", response=response)


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def http_error(status: int) -> Exception:
    return urllib.error.HTTPError("http://x", status, "said", Message(), None)


CONNECTOR = type("ClientConnectorError", (OSError,), {"__module__": "aiohttp.client_exceptions"})
CLIENT = type("ClientConnectionError", (Exception,), {"__module__": "aiohttp.client_exceptions"})

PASSING = [
    ConnectionResetError("by peer"),
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    BrokenPipeError(errno.EPIPE, "broken"),
    TimeoutError("slow"),
    InterruptedError(errno.EINTR, "interrupted"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ESTALE, "stale file handle"),
    OSError(errno.EBUSY, "busy"),
    OSError(errno.ENETUNREACH, "network is unreachable"),
    OSError(errno.EMFILE, "too many open files"),
    socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
    http.client.RemoteDisconnected("closed"),
    http.client.IncompleteRead(b""),
    urllib.error.URLError(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
    http_error(503),
    http_error(429),
    client_error("SlowDown", 503),
    client_error("InternalError", 500),
    client_error("RequestTimeout", 400),
    foreign("botocore.exceptions", "EndpointConnectionError"),
    foreign("botocore.httpchecksum", "X", type("HTTPClientError", (Exception,), {"__module__": "botocore"})),
    foreign("aiohttp.client_exceptions", "ServerDisconnectedError", CLIENT),
    foreign("aiohttp.client_exceptions", "ClientResponseError", status=502),
    foreign("urllib3.exceptions", "ProtocolError"),
    foreign("requests.exceptions", "ConnectTimeout", type("Timeout", (OSError,), {"__module__": "requests"})),
    foreign("httpx", "ReadTimeout", type("TransportError", (Exception,), {"__module__": "httpx"})),
    foreign("distributed.scheduler", "KilledWorker"),
    foreign("ray.exceptions", "WorkerCrashedError"),
    WorkerLostError("SIGKILL"),
    caused(InputError("cannot be read"), OSError(errno.EIO, "input/output error")),
    caused(StageError("in a stage"), caused(StageError("deeper"), ConnectionResetError("by peer"))),
]

LASTING = [
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "denied"),
    IsADirectoryError(errno.EISDIR, "a folder"),
    OSError(errno.ENOSPC, "disk full"),
    OSError(errno.EDQUOT, "quota"),
    OSError(errno.EROFS, "read only"),
    OSError(errno.ENAMETOOLONG, "long"),
    OSError("Empty or corrupt FITS file"),
    gzip.BadGzipFile("not a gzipped file"),
    socket.gaierror(socket.EAI_NONAME, "name or service not known"),
    ssl.SSLCertVerificationError(1, "certificate has expired"),
    urllib.error.URLError("unknown url type: x"),
    urllib.error.URLError(ssl.SSLCertVerificationError(1, "certificate has expired")),
    http_error(404),
    http_error(403),
    client_error("NoSuchBucket", 404),
    client_error("AccessDenied", 403),
    client_error("InvalidAccessKeyId", 403),
    foreign("botocore.exceptions", "NoCredentialsError"),
    foreign(
        "botocore.exceptions", "SSLError", type("HTTPClientError", (Exception,), {"__module__": "botocore"})
    ),
    foreign("aiohttp.client_exceptions", "ClientConnectorCertificateError", CLIENT),
    foreign("mine", "EndpointConnectionError"),
    InputError("bad header"),
    ConfigError("unknown key"),
    ProductError("damaged"),
    PatchError("no good pixel"),
    StageError("its worker was killed twice: SIGKILL"),
    caused(ConfigError("unreadable"), OSError(errno.EIO, "input/output error")),
    caused(InputError("no such file"), FileNotFoundError(errno.ENOENT, "no such file")),
    caused(InputError("not a number"), ValueError("x")),
    ValueError("a bug"),
    MemoryError(),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_passing(error: BaseException) -> None:
    assert transient.is_passing(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_lasting(error: BaseException) -> None:
    assert not transient.is_passing(error)


def test_circle_of_causes_ends() -> None:
    one, two = StageError("one"), StageError("two")
    one.__cause__, two.__cause__ = two, one
    assert not transient.is_passing(one)
    assert not transient.is_passing(None)


def test_prefect_is_told_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    run: Any = SimpleNamespace(name="load_inputs-0")
    with caplog.at_level(logging.WARNING):
        assert not transient.is_transient(None, run, SimpleNamespace(data=InputError("x")))  # type: ignore[arg-type]
        assert not transient.is_transient(None, run, SimpleNamespace(data=None))  # type: ignore[arg-type]
        assert not caplog.records
        assert transient.is_transient(None, run, SimpleNamespace(data=TimeoutError("slow")))  # type: ignore[arg-type]
    assert "load_inputs-0 met a trouble that may pass" in caplog.text
    assert "TimeoutError: slow" in caplog.text


def test_pauses_grow() -> None:
    def delays(retries: int, first: float) -> list[float]:
        runtime = SimpleNamespace(retries=retries, retry_delay_seconds=first)
        return transient.retry_delays(SimpleNamespace(runtime=runtime))  # type: ignore[arg-type]

    assert delays(4, 10.0) == [10, 20, 40, 80]
    assert delays(0, 10.0) == []
    assert delays(3, 0.0) == [0, 0, 0]
    assert max(delays(50, 10.0)) == 600
    assert delays(2, 900.0) == [900, 900]
