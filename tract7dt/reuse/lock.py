"""One run at a time in a work_dir.

The lock is the operating system's (``flock``): it ends with the process that holds it, however that ends, so
that a run that was killed blocks nobody. What the file says is only for people.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import getpass
import json
import logging
import os
import socket
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from tract7dt.errors import RunLocked
from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["locked"]

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def locked(settings: Settings, run_id: str) -> Iterator[str | None]:
    """Hold the lock of the work_dir while the block runs.

    Parameters
    ----------
    settings : Settings
    run_id : str

    Yields
    ------
    str or None
        The run that had it before and did not give it back, if one did.

    Raises
    ------
    RunLocked
        If another run has it; the message names it.
    """
    path = WorkDir.of(settings).lock
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        if _taken(stream):
            raise RunLocked(
                f"{path.parent} is in use by {_owner(stream)}; wait until it ends, or end it: "
                "two runs in one work_dir would overwrite each other's products"
            )
        dead = _run_id(stream)
        if (left := _owner(stream)) != _NOBODY:
            log.warning("%s: the lock of %s is stale: it ended without a word (killed?)", path, left)
        _say(stream, json.dumps(_description(run_id)) + "\n")
        try:
            yield dead
        finally:
            _say(stream, "")  # released by closing; the file stays, or two runs could lock two files


_NOBODY = "nobody"


def _taken(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning("%s: this file system has no locks; nothing keeps a second run away", stream.name)
    return False


def _description(run_id: str) -> dict[str, str | int]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = str(os.getuid())
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"user": user, "host": socket.gethostname(), "pid": os.getpid(), "run": run_id, "started": started}


def _owner(stream: IO[str]) -> str:
    """Who the file says has the lock."""
    stream.seek(0)
    text = stream.read()
    if not text.strip():
        return _NOBODY
    try:
        who = json.loads(text)
        return "run {run} of {user} on {host}, process {pid}, since {started}".format(**who)
    except (ValueError, KeyError, TypeError):
        return "another run"


def _run_id(stream: IO[str]) -> str | None:
    """Run that the file names; None if it names none."""
    stream.seek(0)
    try:
        return str(json.loads(stream.read())["run"])
    except (ValueError, KeyError, TypeError):
        return None


def _say(stream: IO[str], text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()
