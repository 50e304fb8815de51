"""A worker process of the pool: ``python -m flows.pool_worker``, started by :mod:`flows.pool` only.

It takes one request after the other from its stdin and answers on what was its stdout when it started. Since
then stdout leads to stderr, so that nothing that is printed gets between the messages.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import json
import logging
import os
import queue
import resource
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flows.pool.wire import decode, line, message_of, record_message
from tract7dt.resources import give_back_memory, machine_memory_mb, report_usage

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["main"]

#: The kernel is told to choose a worker, not the run, when memory runs out.
_FIRST_TO_GO = "600"
_PR_SET_PDEATHSIG = 1

Requests = queue.SimpleQueue[dict[str, Any]]


class _Answers:
    """The way back: messages of several threads, each a line of its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        text = line(message)
        with self._lock:
            self._stream.write(text)
            self._stream.flush()


class _ToTheRun(logging.Handler):
    """Sends log records to the process of the run."""

    def __init__(self, answers: _Answers) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._answers.send({"log": record_message(record)})


def main() -> None:
    """Work until the run closes the pipe, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its workers
    requests, answers = _pipes()
    _end_with_the_run()
    hello = requests.get()
    _limit_memory(hello["memory_mb"])
    _log_to_the_run(answers, hello)
    try:
        settings = _settings(hello)
        importlib.import_module("tract7dt.stages")
        if hello["kernels"]:
            _load_kernels()
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        answers.send({"error": message_of(error, "a worker")})
        os._exit(1)
    answers.send({"ready": os.getpid()})
    if hello["epsf"]:
        _load_epsf()
    while True:
        answers.send(_answer(settings, requests.get(), answers))


# --- start ---------------------------------------------------------------------------------------------


def _pipes() -> tuple[Requests, _Answers]:
    """The two ways, on descriptors of their own; stdin is empty from now on, stdout is stderr."""
    inward, outward = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    requests: Requests = queue.SimpleQueue()

    def read() -> None:
        with os.fdopen(inward, "rb") as stream:
            for text in stream:
                requests.put(json.loads(text))
        os._exit(0)  # the run is over, or gone

    threading.Thread(target=read, name="requests", daemon=True).start()
    return requests, _Answers(os.fdopen(outward, "wb"))


def _end_with_the_run() -> None:
    """Ask the kernel to end this process with the thread that started it, and to prefer it when memory ends.

    The end of the pipe says the same, but is not heard while compiled code holds the interpreter.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def _limit_memory(limit_mb: int | None) -> None:
    """Let allocations beyond the limit fail, so that Python raises MemoryError and the run goes on."""
    limit_mb = limit_mb or machine_memory_mb()
    if limit_mb is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit_mb * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _log_to_the_run(answers: _Answers, hello: Mapping[str, Any]) -> None:
    logging.getLogger().handlers = [_ToTheRun(answers)]
    for name in ("tract7dt", "tasks", "flows"):
        logging.getLogger(name).setLevel(hello["level"])
    logging.captureWarnings(True)
    if hello["ignore_warnings"]:
        warnings.filterwarnings("ignore")


def _settings(hello: Mapping[str, Any]) -> Settings:
    from tract7dt.settings import Settings

    return Settings.model_validate(hello["settings"]).with_base_dir(Path(hello["base_dir"]))


def _load_kernels() -> None:
    """Load the compiled kernels; one worker at a time, since on a new machine the first has to compile them."""
    from tract7dt.fit.warm import warm_up

    path = Path(tempfile.gettempdir()) / f"tract7dt-kernels-{os.getuid()}.lock"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else's file, or no room: each worker compiles then
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        warm_up()


def _load_epsf() -> None:
    """Import what the first ePSF would wait for: most of a worker's start, and of no use to one that only fits."""
    with contextlib.suppress(ImportError):  # the stage that misses it says so
        for name in ("photutils.psf", "tract7dt.psf.build", "tract7dt.qa.draw"):
            importlib.import_module(name)


# --- work ----------------------------------------------------------------------------------------------


def _answer(settings: Settings, request: Mapping[str, Any], answers: _Answers) -> dict[str, Any]:
    """Do what is asked for; its value, or its error."""
    name = str(request["stage"]).partition(":")[2]
    try:
        stage = _function(str(request["stage"]))
        arguments = decode(request["arguments"])
        if request["do"] == "fit":
            value = stage(settings, arguments[0], on_patch=lambda tag: answers.send({"patch": tag}))
        else:
            from tract7dt import reuse

            value = reuse.through(stage, settings, *arguments)
            give_back_memory()  # an ePSF leaves more than a fit needs; fits need what the one before them did
        return {"value": value}
    except BaseException as error:  # noqa: BLE001 - sys.exit() included: the run hears of everything
        return {"error": message_of(error, name)}
    finally:
        from tract7dt.progress import progress_folder

        report_usage(progress_folder(settings.outputs.work_dir))


def _function(name: str) -> Callable[..., Any]:
    """The function ``module:name``."""
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert callable(found)
    return found  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
