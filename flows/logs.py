"""Where the log goes: a file that is appended to, and the terminal, where a live display stays whole."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["FILE_ONLY", "ConsoleHandler", "configure_logging", "log_file", "logged_to_file"]

_PROJECT = ("tract7dt", "tasks", "flows")
#: Prefect's account of every run; it is in the UI and the log file, and says nothing that ours does not.
_CHATTY = ("prefect.flow_runs", "prefect.task_runs", "prefect.task_runner", "prefect.events")
#: ``extra`` of a record that the terminal need not show.
FILE_ONLY = {"file_only": True}
_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "bold red"}


class ConsoleHandler(logging.Handler):
    """Prints records through a rich console, above its live display if it has one.

    Parameters
    ----------
    console : Console
    debug : bool
        Show tracebacks and Prefect's own messages; otherwise they are for the log file.
    """

    def __init__(self, console: Console, debug: bool, level: int) -> None:
        super().__init__(level)
        self._console, self._debug = console, debug

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if getattr(record, "file_only", False):
            return
        if not self._debug:
            if record.name.startswith(_CHATTY):
                return
            record = copy.copy(record)  # other handlers want the traceback
            record.exc_info = record.exc_text = record.stack_info = None
        style = _STYLES.get(record.levelno, "")
        self._console.print(Text(self.format(record), style=style), soft_wrap=True)


def log_file(settings: Settings, command: str) -> Path | None:
    """File of the log of ``command``; None if there is to be none."""
    given = settings.logging.file
    if given is None:
        return None
    return settings.outputs.work_dir / f"{command}.log" if given == "auto" else Path(given)


def configure_logging(settings: Settings, command: str, console: Console, debug: bool = False) -> None:
    """Set up the log of this process.

    On a terminal only warnings and errors are printed, since the live display shows the rest; elsewhere
    everything of ``logging.level`` and above. The file takes all of it. Prefect leaves the root logger
    alone if it has handlers when Prefect is imported: call this before.
    """
    level = logging.DEBUG if debug else logging.getLevelNamesMapping()[settings.logging.level]
    shown = max(level, logging.WARNING) if console.is_terminal and not debug else level
    form = logging.Formatter(settings.logging.format)
    handlers: list[logging.Handler] = [ConsoleHandler(console, debug, shown)]
    if path := log_file(settings, command):
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="a", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(form)
    root = logging.getLogger()
    for old in root.handlers:
        old.close()
    root.handlers = handlers
    for name in _PROJECT:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    if settings.logging.ignore_warnings:
        warnings.filterwarnings("ignore")


@contextlib.contextmanager
def logged_to_file(settings: Settings, command: str) -> Iterator[None]:
    """Write the log file while the block runs, unless the command that runs it does so already.

    A run that a deployment starts has no command of ours around it; Prefect sends its log to the UI.
    """
    path = log_file(settings, command)
    root = logging.getLogger()
    if path is None or any(isinstance(h, logging.FileHandler) for h in root.handlers):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter(settings.logging.format))
    root.addHandler(handler)
    for name in _PROJECT:
        logging.getLogger(name).setLevel(settings.logging.level)
    if settings.logging.ignore_warnings:
        warnings.filterwarnings("ignore")
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
