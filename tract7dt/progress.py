"""Progress of workers, wherever they run: small files in ``{work_dir}/.progress``.

A worker (a process of a pool, a thread, a Dask worker, the main process) tells how far it is by replacing
a file of its own; whoever wants to show it reads the folder. Files work the same for every kind of worker,
cost nothing where nobody looks (without the folder nothing is written), and never fail the work that they
describe. The library never draws.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from tract7dt.errors import StageError

__all__ = [
    "MessageHandler",
    "MessageReader",
    "Plan",
    "Progress",
    "ProgressWriter",
    "open_folder",
    "progress_folder",
    "read_plan",
    "read_progress",
    "request_stop",
    "stop_requested",
    "write_plan",
]

log = logging.getLogger(__name__)

#: Seconds between two files of one writer; a reader looks a few times a second at most.
_INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one unit of work (a band, a batch of patches) is.

    Attributes
    ----------
    kind : str
        ``epsf``, ``patches``, ...
    name : str
        Band, or name of the batch.
    worker : str
        Host, process and thread that does the work.
    done, total, failed : int
        Steps (cells, patches); ``failed`` are part of ``done``.
    note : str
    state : str
        ``running``, ``done`` or ``failed``.
    started, updated : float
        Seconds since 1970.
    """

    kind: str
    name: str
    worker: str
    done: int
    total: int
    failed: int
    note: str
    state: str
    started: float
    updated: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage that fans out is about to do.

    Attributes
    ----------
    kind : str
    names : tuple of str
        Units of work, in the order in which they are handed out.
    total : int
        Steps of all units together (0: unknown).
    workers : int
    started : float
        Seconds since 1970.
    """

    kind: str
    names: tuple[str, ...]
    total: int
    workers: int
    started: float


def progress_folder(work_dir: str | os.PathLike[str]) -> Path:
    """Where the workers of a run report."""
    return Path(work_dir) / ".progress"


@contextlib.contextmanager
def open_folder(work_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty progress folder while the block runs; removed after it, whatever happens."""
    folder = progress_folder(work_dir)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ProgressWriter:
    """Reports the progress of one unit of work.

    Writes at most every quarter of a second (the last step always), and only where the folder exists. As
    a context manager it reports the start, and the end with its outcome.

    Parameters
    ----------
    folder : path
        See :func:`progress_folder`.
    kind, name : str
        See :class:`Progress`; ``name`` may hold any character.
    """

    def __init__(self, folder: str | os.PathLike[str], kind: str, name: str) -> None:
        self._folder = Path(folder)
        self._path = self._folder / f"{quote(kind, safe='')}-{quote(name, safe='')}.progress.json"
        self._kind, self._name = kind, name
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
        self._started = time.time()
        self._last = 0.0
        self._steps: dict[str, Any] = {"done": 0, "total": 0, "failed": 0, "note": ""}

    @classmethod
    def of(cls, work_dir: str | os.PathLike[str], kind: str, name: str) -> ProgressWriter:
        """Writer into the progress folder of ``work_dir``."""
        return cls(progress_folder(work_dir), kind, name)

    def __enter__(self) -> ProgressWriter:
        self._write("running")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write("done" if error is None else "failed")

    def update(self, done: int, total: int, failed: int = 0, note: str = "") -> None:
        """Say how far the work is; cheap enough to be called at every step.

        Raises
        ------
        StageError
            If the run has given up: a step is where a thread, which nobody can kill, can end.
        """
        news = total != self._steps["total"]
        self._steps = {"done": int(done), "total": int(total), "failed": int(failed), "note": note}
        if news or done >= total or time.monotonic() - self._last >= _INTERVAL_S:
            if stop_requested(self._folder):
                raise StageError(f"{self._name}: not finished, since the run has given up")
            self._write("running")

    def _write(self, state: str) -> None:
        self._last = time.monotonic()
        now = Progress(
            kind=self._kind,
            name=self._name,
            worker=self._worker,
            state=state,
            started=self._started,
            updated=time.time(),
            **self._steps,
        )
        _replace(self._path, asdict(now))


def _replace(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a small file whole. A report that cannot be written is lost; the work goes on."""
    if not path.parent.is_dir():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        log.debug("progress report %s not written: %s", path.name, error)


def _read(path: Path) -> dict[str, Any] | None:
    """Content of a report; None if it vanished since it was listed."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def read_progress(folder: str | os.PathLike[str]) -> list[Progress]:
    """Last report of every unit of work, in the order in which they were begun."""
    reports = (_read(path) for path in Path(folder).glob("*.progress.json"))
    return sorted((Progress(**r) for r in reports if r), key=lambda p: (p.started, p.name))


def write_plan(
    folder: str | os.PathLike[str], kind: str, names: list[str], total: int = 0, workers: int = 1
) -> None:
    """Announce the units of work of a stage that fans out."""
    plan = Plan(kind, tuple(names), total, workers, time.time())
    _replace(Path(folder) / f"{quote(kind, safe='')}.plan.json", asdict(plan))


def read_plan(folder: str | os.PathLike[str], kind: str) -> Plan | None:
    """The plan of ``kind``; None if none was announced."""
    value = _read(Path(folder) / f"{quote(kind, safe='')}.plan.json")
    return None if value is None else Plan(**(value | {"names": tuple(value["names"])}))


# --- the way back: stop, and what workers log ----------------------------------------------------------


def request_stop(folder: str | os.PathLike[str]) -> None:
    """Ask the workers of a run that has failed or was interrupted to give up at once."""
    with contextlib.suppress(OSError):
        (Path(folder) / "stop").touch()


def stop_requested(folder: str | os.PathLike[str]) -> bool:
    """Whether the run has given up."""
    return (Path(folder) / "stop").exists()


class MessageHandler(logging.Handler):
    """Log handler of a worker: appends records to a file from which the main process takes them up.

    The main process alone writes to terminal and log file, so that lines of several processes neither mix
    nor disturb a live display.
    """

    def __init__(self, folder: str | os.PathLike[str], level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._path = Path(folder) / f"{socket.gethostname()}-{os.getpid()}.messages"

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line; a message that cannot be written is dropped."""
        line = {
            "name": record.name,
            "levelno": record.levelno,
            "created": record.created,
            "process": record.process,
            "msg": logging.Formatter().format(record),
        }
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


class MessageReader:
    """Hands the messages of all workers to the loggers of this process, each once, in their order."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._offsets: dict[Path, int] = {}

    def take_up(self) -> int:
        """Log what is new; the number of messages."""
        lines: list[dict[str, Any]] = []
        for path in sorted(self._folder.glob("*.messages")):
            with contextlib.suppress(OSError):
                lines += self._new_lines(path)
        for line in sorted(lines, key=lambda entry: entry["created"]):
            record = logging.makeLogRecord(
                line
                | {
                    "levelname": logging.getLevelName(line["levelno"]),
                    "msecs": line["created"] % 1 * 1000,
                    "send_to_api": False,  # the worker has sent it
                }
            )
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        return len(lines)

    def _new_lines(self, path: Path) -> list[dict[str, Any]]:
        with path.open("rb") as stream:
            stream.seek(self._offsets.get(path, 0))
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may still be on its way
        self._offsets[path] = self._offsets.get(path, 0) + len(whole)
        return [json.loads(line) for line in whole.splitlines()]
