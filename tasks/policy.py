"""The one place that says how a stage becomes a Prefect task: name, retries, errors, logs, results.

Tags
    None. Prefect asks the server for a concurrency slot of each tag before each task: a round trip, and
    seconds where SQLite is busy. Runs are told apart by their names and by the tags of deployments.
Retries
    Only causes that may pass by themselves are tried again (:mod:`tasks.transient`), after pauses that grow.
    How often and after how long comes from ``runtime.retries`` and ``runtime.retry_delay_seconds``, and how
    long a task may take from ``runtime.task_timeout_seconds`` (:func:`under`).
Errors
    What leaves a task must survive the way between processes: ``sys.exit()`` would hang a pooled flow for
    ever, and an exception with a constructor of its own would arrive as an unrelated ``TypeError``. Both
    become a :class:`~tract7dt.errors.StageError` that says what happened.
Logs
    What the library logs inside a task goes to the run's log in the UI, whatever process it runs in.
Results
    Tasks return :class:`~tract7dt.types.Ref`, never arrays, and run their stage through
    :func:`tract7dt.reuse.through`. Under a plan that says that nothing has to be done they end as Cached; the
    results that this needs lie in the work_dir (:mod:`tasks.results`), so that they outlive the server and
    serve all deployments of a field. No locks of Prefect's: a work_dir has one of its own.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import prefect
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

from tasks.results import ContentKey, RefSerializer, drop_damaged
from tasks.transient import JITTER, is_transient, retry_delays
from tract7dt import reuse
from tract7dt.errors import StageError
from tract7dt.progress import progress_folder
from tract7dt.resources import report_usage
from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["forward_logs", "task", "under"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_OF_PATCHES = ("fit_patch_batch", "fit_staged_batch")
_LOGGERS = ("tract7dt", "tasks", "flows")


def task(
    stage: Callable[Concatenate[Settings, P], R],
    *,
    name: str | None = None,
    run_name: str | None = None,
    timeout_seconds: float | None = None,
    shares_disk: bool = True,
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
    shares_disk : bool
        Its worker sees the work_dir, and tells there what it has used.
    """

    @functools.wraps(stage)
    def guarded(settings: Settings, *args: P.args, **kwargs: P.kwargs) -> R:
        forward_logs()
        named: dict[str, Any] = dict(kwargs)
        try:
            with _SoundErrors(stage.__name__):
                return reuse.through(stage, settings, *args, **named)
        finally:
            if shares_disk:
                report_usage(progress_folder(settings.outputs.work_dir))

    return prefect.Task(
        guarded,
        name=name or stage.__name__,
        task_run_name=run_name,
        timeout_seconds=timeout_seconds,
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def under(
    settings: Settings,
    wrapped: prefect.Task[P, R],
    plan: reuse.Plan | None = None,
    refresh: bool = False,
) -> prefect.Task[P, R]:
    """The task with the retries that the configuration asks for, and with the result that a plan found.

    Parameters
    ----------
    settings : Settings
    wrapped : Task
    plan : Plan, optional
        Of the stage and the arguments that the task is about to be called with. Without it nothing is
        kept of the result.
    refresh : bool
        Run in any case (the plan was made with it, too).
    """
    options: dict[str, Any] = {}
    if plan is not None:
        work = WorkDir.of(settings)
        key = reuse.task_key(plan.key, work)
        reused = plan.hit and not refresh
        if reused:
            drop_damaged(work, key)
        options = {
            "cache_policy": ContentKey(key=key),
            "persist_result": True,
            "result_storage": work.task_results,
            "result_serializer": RefSerializer(),
            "refresh_cache": None if reused else True,  # False would overrule Prefect's own setting
        }
    return wrapped.with_options(
        retries=settings.runtime.retries,
        retry_delay_seconds=retry_delays(settings),
        retry_jitter_factor=JITTER,
        # A batch takes as long as its patches do, each of which has a limit of its own.
        timeout_seconds=None if wrapped.name in _OF_PATCHES else settings.runtime.task_timeout_seconds,
        **options,
    )


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
