"""What the errors of fsspec, aiohttp and botocore mean: nothing there, no entry, may pass by itself.

By name and code, since none of the packages need be installed.
"""

from __future__ import annotations

import errno
import sys

from tract7dt.store.urls import redacted

__all__ = ["NO_CREDENTIALS", "code_of", "failures", "is_missing", "is_passing", "is_refusal", "with_code"]

_PASSING_CODES = frozenset(
    ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException")
    + ("RequestLimitExceeded", "OperationAborted", "408", "429", "500", "502", "503", "504")
)
_PASSING_ERRNO = frozenset(
    {errno.EBUSY, errno.EAGAIN, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE, errno.ETIMEDOUT}
    | {errno.EHOSTUNREACH, errno.ENETUNREACH, getattr(errno, "EREMOTEIO", errno.EIO)}
)
#: Classes of aiohttp and botocore, which need not be installed.
_PASSING_NAMES = frozenset(
    (
        "ClientConnectionError",
        "ClientPayloadError",
        "ServerTimeoutError",
        "HTTPClientError",
        "ConnectionError",
    )
    + ("EndpointConnectionError", "IncompleteReadError", "IncompleteRead", "ResponseParserError")
)
NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"})


def failures() -> tuple[type[BaseException], ...]:
    """What a store can raise; the classes of a package that nobody has imported cannot be."""
    kinds: list[type[BaseException]] = [OSError, ValueError, NotImplementedError]
    if web := sys.modules.get("aiohttp"):
        kinds.append(web.ClientError)
    if aws := sys.modules.get("botocore.exceptions"):
        kinds += [aws.BotoCoreError, aws.ClientError]
    return tuple(kinds)


def code_of(error: BaseException | None) -> str:
    """S3's error code or the HTTP status, of the error or of what caused it; "" if there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        if isinstance(status := getattr(error, "status", None), int):
            return str(status)
        error = error.__cause__
    return ""


def is_missing(error: BaseException) -> bool:
    """Whether a FileNotFoundError means that; fsspec raises it for every failure of a web server, too."""
    cause = error.__cause__
    if cause is None or isinstance(cause, FileNotFoundError):
        return True
    return code_of(error) in ("404", "410", "NoSuchKey", "NotFound")


def is_refusal(error: BaseException, code: str) -> bool:
    """Whether the store knows us and says no, or does not know us."""
    return isinstance(error, PermissionError) or code in ("401", "403", "AccessDenied", "InvalidToken")


def is_passing(error: BaseException, code: str, names: set[str]) -> bool:
    """Whether the trouble may pass by itself: no connection, no answer, a server that is busy or ill.

    Parameters
    ----------
    error : BaseException
    code : str
        As :func:`code_of` found it.
    names : set of str
        Names of the error's classes.
    """
    if code:
        return code in _PASSING_CODES
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None:
        return is_passing(cause, code_of(cause), {kind.__name__ for kind in type(cause).__mro__})
    if isinstance(error, (ConnectionError, TimeoutError)) or names & _PASSING_NAMES:
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNO


def with_code(error: BaseException, code: str) -> str:
    """What the error says, on one line, with its code and without secrets."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(redacted(str(said)).split()) or type(error).__name__
    return f"{code}: {text}" if code and code not in text else text
