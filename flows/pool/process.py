"""One worker process, seen from the run that started it."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from flows.pool.wire import decode, error_of, line, record_of
from flows.worker import thread_variables
from tract7dt.errors import StageError, WorkerLostError

__all__ = ["DEATHS", "Overdue", "WorkerProcess", "times", "value_of"]

log = logging.getLogger(__name__)

#: How often work may take its worker with it before it is given up.
DEATHS = 2
#: Lines of a worker's stderr that are kept for the message when it dies.
_LAST_WORDS = 20
_CHUNK = 65536
#: Seconds that a worker may take to import the library and to compile the kernels, on a machine with a load.
_START_S = 600.0
#: Seconds that a killed process may take to be gone.
_GONE_S = 5.0


class Overdue(StageError):  # noqa: N818 - a fact about a worker, which the pool turns into an error
    """A worker has not answered in time."""


def times(count: int) -> str:
    """A number of times in words."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def value_of(answer: Mapping[str, Any]) -> Any:
    """The value of an answer; the error that it holds is raised."""
    if "error" in answer:
        raise error_of(answer["error"])
    return decode(answer["value"])


class WorkerProcess:
    """A subprocess ``python -m flows.pool_worker`` and the pipes to it.

    It is used by one thread at a time, which reads what it logs while it waits for it: the records go to the
    loggers of this process in that thread, and hence to the log of the task run that waits.

    Parameters
    ----------
    hello : mapping
        First message: the settings of the run and the worker's own.
    threads : int
        Threads of its numerical libraries.
    """

    def __init__(self, hello: Mapping[str, Any], threads: int) -> None:
        paths = [path for path in sys.path if path]  # a flow's code may have come from anywhere
        environment = os.environ | thread_variables(threads) | {"PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            # -P: the folder that the command was called in is no place to import from
            [sys.executable, "-P", "-m", "flows.pool_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._selector = selectors.DefaultSelector()
        for pipe in (self._out, self._err):
            os.set_blocking(pipe, False)
            self._selector.register(pipe, selectors.EVENT_READ)
        self._text = {self._out: b"", self._err: b""}
        self._messages: collections.deque[dict[str, Any]] = collections.deque()
        self._said: collections.deque[str] = collections.deque(maxlen=_LAST_WORDS)
        self._ready = False
        with contextlib.suppress(WorkerLostError):  # told when it is asked to do something
            self.send(hello)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait_until_ready(self) -> None:
        """Wait until the library is imported; does nothing later on.

        Raises
        ------
        StageError
            If it cannot start: the message holds its last words.
        """
        if self._ready:
            return
        try:
            message = self.receive(time.monotonic() + _START_S)
        except Overdue as error:
            raise StageError(f"a worker was not ready after {_START_S:g} s") from error
        if "error" in message:
            raise StageError(f"a worker cannot start: {message['error']['text']}")
        self._ready = True

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand a message over.

        Raises
        ------
        WorkerLostError
            If nobody is there to take it.
        """
        assert self._process.stdin is not None
        rest = memoryview(line(message))
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def receive(self, deadline: float | None = None) -> dict[str, Any]:
        """The next message that is no log record; records are logged on the way.

        Parameters
        ----------
        deadline : float, optional
            On the clock of :func:`time.monotonic`.

        Raises
        ------
        WorkerLostError
            The worker has ended; everything that it sent before has been received.
        Overdue
            The deadline has passed.
        """
        while True:
            while self._messages:
                message = self._messages.popleft()
                if "log" not in message:
                    return message
                _log_here(message["log"])
            if self._out not in self._text:
                raise self._lost()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise Overdue("no answer in time")
            for key, _ in self._selector.select(left):
                self._read(key.fd)

    def _read(self, pipe: int) -> None:
        """Take up what has come through ``pipe``; a pipe that has ended is forgotten."""
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(pipe)
            del self._text[pipe]
            return
        *whole, self._text[pipe] = (self._text[pipe] + data).split(b"\n")
        if pipe == self._out:
            self._messages.extend(json.loads(text) for text in whole)
            return
        for text in whole:
            self._said.append(text.decode(errors="replace"))
            log.debug("worker %d: %s", self.pid, self._said[-1])

    def _lost(self) -> WorkerLostError:
        """How it ended, in words."""
        try:
            code: int | None = self._process.wait(_GONE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        if self._err in self._text:
            self._read(self._err)
        if code is None:
            how = "closed its pipe"
        elif code >= 0:
            how = f"exit status {code}"
        else:
            how = signal.Signals(-code).name
            how += ", as when memory runs out" if how == "SIGKILL" else ""
        words = "; ".join(text.strip() for text in list(self._said)[-3:] if text.strip())
        return WorkerLostError(f"{how}{f' ({words})' if words else ''}")

    def kill(self) -> None:
        """End it at once and wait until it is gone; what it was at is lost."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GONE_S)

    def close(self) -> None:
        """Kill it and give its pipes back; only where no thread waits for it any more."""
        self.kill()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _log_here(message: Mapping[str, Any]) -> None:
    record = record_of(message)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
