"""The one place that says how a stage becomes a Prefect task: name, retries, errors, logs, results.

Tags
    None. Prefect asks the server for a concurrency slot of each tag before each task: a round trip, and
    seconds where SQLite is busy. Runs are told apart by their names and by the tags of deployments.
Retries
    Only causes that may pass by themselves are tried again: connections, time-outs, I/O errors. Wrong
    input, a missing product or a bug fails at once; trying again would hide the message for minutes.
    How often and after how long comes from ``runtime.retries`` and ``runtime.retry_delay_seconds``
    (:func:`under`).
Errors
    What leaves a task must survive the way between processes: ``sys.exit()`` would hang a pooled flow for
    ever, and an exception with a constructor of its own would arrive as an unrelated ``TypeError``. Both
    become a :class:`~tract7dt.errors.StageError` that says what happened.
Logs
    What the library logs inside a task goes to the run's log in the UI, whatever process it runs in.
Results
    Tasks return :class:`~tract7dt.types.Ref`, never arrays. ``_RESULTS`` says where they are kept; today
    nowhere (every run computes everything), and this is the place for a content-based cache policy.
"""

from __future__ import annotations

import copy
import errno
import functools
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import prefect
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from tract7dt.errors import StageError
from tract7dt.progress import progress_folder
from tract7dt.resources import report_usage

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["forward_logs", "is_transient", "task", "under"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_RESULTS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}

# I/O errors that do not pass by themselves.
_LASTING = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
_LASTING_CODES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG})

_LOGGERS = ("tract7dt", "tasks", "flows")
_RETRY_JITTER = 0.2


def task(
    stage: Callable[Concatenate[Settings, P], R],
    *,
    name: str | None = None,
    run_name: str | None = None,
    timeout_seconds: float | None = None,
) -> prefect.Task[Concatenate[Settings, P], R]:
    """Wrap one stage function as a task.

    Parameters
    ----------
    stage : callable
        ``(settings, ...) -> refs``.
    name, run_name : str, optional
        Name of the task; template for the name of its runs (``"{band}"``).
    timeout_seconds : float, optional
        Python code is interrupted after it, compiled code when it returns.
    """

    @functools.wraps(stage)
    def guarded(settings: Settings, *args: P.args, **kwargs: P.kwargs) -> R:
        forward_logs()
        try:
            with _SoundErrors(stage.__name__):
                return stage(settings, *args, **kwargs)
        finally:
            report_usage(progress_folder(settings.outputs.work_dir))

    return prefect.Task(
        guarded,
        name=name or stage.__name__,
        task_run_name=run_name,
        timeout_seconds=timeout_seconds,
        retry_condition_fn=is_transient,
        **_RESULTS,
    )


def under(settings: Settings, wrapped: prefect.Task[P, R]) -> prefect.Task[P, R]:
    """The task with the retries that the configuration asks for."""
    return wrapped.with_options(
        retries=settings.runtime.retries,
        retry_delay_seconds=settings.runtime.retry_delay_seconds,
        retry_jitter_factor=_RETRY_JITTER,
    )


def is_transient(task: prefect.Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task is worth another try (Prefect's ``retry_condition_fn``)."""
    error = state.data
    if not isinstance(error, OSError) or isinstance(error, _LASTING) or error.errno in _LASTING_CODES:
        return False
    log.warning("%s met a passing trouble: %s: %s", task_run.name, type(error).__name__, error)
    return True


class _SoundErrors:
    """Replaces what would not survive the way to another process by a :class:`StageError`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, SystemExit):
            raise StageError(f"{self._name} called sys.exit({error.code!r})") from error
        if isinstance(error, Exception) and not _travels(error):
            raise StageError(f"{self._name}: {type(error).__name__}: {error}") from error


def _travels(error: Exception) -> bool:
    """Whether ``error`` can be taken apart and put together again, as on its way between processes."""
    kind = type(error)
    if "<locals>" in kind.__qualname__ or kind.__module__ in ("__main__", "__mp_main__"):
        return False
    if not all(isinstance(arg, (str, bytes, int, float, tuple, type(None))) for arg in error.args):
        return False
    try:
        twin = copy.copy(error)
    except TypeError:
        return False
    return str(twin) == str(error)


class _RunLogHandler(APILogHandler):
    """Sends records to the run they belong to; those logged outside of any run are not its business."""

    def emit(self, record: logging.LogRecord) -> None:
        if FlowRunContext.get() or TaskRunContext.get():
            super().emit(record)


def forward_logs() -> None:
    """Send what the project logs inside a run to the run's log in the UI; once per process is enough."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _RunLogHandler) for handler in logger.handlers):
            logger.addHandler(_RunLogHandler())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
