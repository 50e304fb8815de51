"""What a worker process of the pool does before its first task."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tract7dt.progress import MessageHandler, stop_requested

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["arguments", "prepare", "thread_variables"]

#: Seconds between two looks at whether the run is still there.
_WATCH_S = 0.5

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)

Arguments = tuple[int, str, int, str, bool]


def arguments(settings: Settings, folder: Path) -> Arguments:
    """Arguments of :func:`prepare` for workers of this process."""
    run_log = settings.logging
    threads = settings.patch_run.threads_per_process
    return os.getpid(), str(folder), threads, run_log.level, run_log.ignore_warnings


def thread_variables(threads: int) -> dict[str, str]:
    """Environment that keeps numerical libraries to ``threads`` threads; they read it when first imported."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def prepare(parent: int, folder: str, threads: int, level: str, ignore_warnings: bool) -> None:
    """Set up a worker: end with the run, threads, logs, and the library imported once.

    Parameters
    ----------
    parent : int
        Process whose end is the worker's end.
    folder : str
        Progress folder of the run.
    threads : int
        Threads of the numerical libraries.
    level : str
        Level of the project's loggers.
    ignore_warnings : bool
    """
    threading.Thread(target=_watch, args=(parent, folder), name="watch-parent", daemon=True).start()
    os.environ.update(thread_variables(threads))
    messages = MessageHandler(folder)
    messages.setFormatter(logging.Formatter())  # Prefect leaves handlers alone that have a formatter
    logging.getLogger().handlers = [messages]
    for name in ("tract7dt", "tasks", "flows"):
        logging.getLogger(name).setLevel(level)
    if ignore_warnings:
        warnings.filterwarnings("ignore")
    importlib.import_module("tract7dt.stages")


def _watch(parent: int, folder: str) -> None:
    """End this process when its parent is gone or the run has given up; nothing else would end it."""
    while os.getppid() == parent and not stop_requested(folder):
        time.sleep(_WATCH_S)
    os._exit(1)
