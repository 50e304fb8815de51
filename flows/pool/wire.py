"""What passes between this process and its workers: lines of JSON, references by value, errors by name."""

from __future__ import annotations

import builtins
import inspect
import json
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.transient import is_passing
from tract7dt import errors
from tract7dt.errors import StageError
from tract7dt.types import Ref

__all__ = [
    "InWorkerError",
    "PassingInWorkerError",
    "decode",
    "error_of",
    "line",
    "message_of",
    "name_of",
    "record_message",
    "record_of",
]

_REF = "$ref"


class InWorkerError(Exception):
    """Cause of an error that came from a worker: the traceback there, as text."""

    def __str__(self) -> str:
        return f"in a worker:\n{super().__str__()}"


class PassingInWorkerError(InWorkerError, ConnectionError):
    """The same, where what happened there may pass by itself."""


def _plain(value: Any) -> Any:
    """``value`` as JSON knows it."""
    if isinstance(value, Ref):
        return {_REF: [value.path, value.sha256, value.kind]}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"only references and plain values pass between processes, not {type(value).__name__}")


def decode(value: Any) -> Any:
    """What :func:`line` made plain, with its references again."""
    if isinstance(value, dict):
        if set(value) == {_REF}:
            return Ref(*value[_REF])
        return {name: decode(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [decode(entry) for entry in value]
    return value


def line(message: Mapping[str, Any]) -> bytes:
    """One message as a line.

    Raises
    ------
    TypeError
        If it holds anything but references, numbers, text, None, lists and mappings.
    """
    return json.dumps(_plain(message)).encode() + b"\n"


def name_of(stage: Callable[..., Any]) -> str:
    """``module:name`` of a stage, by which a worker finds it."""
    stage = inspect.unwrap(stage)
    return f"{stage.__module__}:{stage.__qualname__}"


# --- errors --------------------------------------------------------------------------------------------


def message_of(error: BaseException, stage: str) -> dict[str, Any]:
    """An error as a message; :func:`error_of` makes it an error again.

    The project's own errors, I/O errors and MemoryError keep their class. What is of another library, and
    what ``sys.exit`` raises, becomes a StageError, or a ConnectionError where it may pass by itself.
    """
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, SystemExit):
        return {"kind": "StageError", "text": f"{stage} called sys.exit({error.code!r})", "trace": trace}
    name, text = type(error).__name__, str(error)
    if isinstance(error, errors.Tract7dtError) and hasattr(errors, name):
        return {"kind": name, "text": text, "trace": trace, "passing": is_passing(error)}
    if isinstance(error, MemoryError):
        return {"kind": "MemoryError", "text": text or f"{stage} needs more memory", "trace": trace}
    if isinstance(error, OSError) and isinstance(error.errno, int):
        parts = [error.errno, error.strerror or text, error.filename and str(error.filename)]
        return {"kind": "OSError", "text": text, "os": parts, "trace": trace}
    if is_passing(error):
        built_in = isinstance(error, OSError) and hasattr(builtins, name)
        return {
            "kind": name if built_in else "ConnectionError",
            "text": text if built_in else f"{name}: {text}",
            "trace": trace,
        }
    return {"kind": "StageError", "text": f"{stage}: {name}: {text}", "trace": trace}


def error_of(message: Mapping[str, Any]) -> Exception:
    """The error of a message, caused by an :class:`InWorkerError` that holds the traceback."""
    kind, text = str(message["kind"]), str(message["text"])
    error: Exception
    if kind == "OSError":
        number, said, name = message["os"]
        error = OSError(number, said, name) if name else OSError(number, said)
    else:
        known = getattr(errors, kind, None) or getattr(builtins, kind, None)
        named = isinstance(known, type) and issubclass(known, (errors.Tract7dtError, OSError, MemoryError))
        error = known(text) if named and known is not None else StageError(text)
    cause = PassingInWorkerError if message.get("passing") else InWorkerError
    error.__cause__ = cause(str(message["trace"]))
    return error


# --- log records ---------------------------------------------------------------------------------------


def record_message(record: logging.LogRecord) -> dict[str, Any]:
    """A log record as a message, its text and traceback put together."""
    return {
        "name": record.name,
        "levelno": record.levelno,
        "created": record.created,
        "process": record.process,
        "msg": logging.Formatter().format(record),
    }


def record_of(message: Mapping[str, Any]) -> logging.LogRecord:
    """The log record of a message."""
    level, created = int(message["levelno"]), float(message["created"])
    more = {"levelname": logging.getLevelName(level), "msecs": created % 1 * 1000}
    return logging.makeLogRecord(dict(message) | more)
