"""A site on one machine: server with its UI, work pool, the fields' deployments and a worker, in one command."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from flows.deploy import deploy, end_what_was_cut_off
from flows.fields import POOL, field_files
from flows.server import LocalServer, ServerError, quiet_environment

__all__ = ["serve"]

log = logging.getLogger(__name__)

_LOOK_S = 3.0
_GRACE_S = 20.0

Stamps = dict[Path, tuple[int, int]]


def serve(folder: Path, host: str, port: int, runs: int) -> None:
    """Serve the site in ``folder`` until told to stop.

    A file that is added or changed below ``fields/`` is registered within seconds.

    Parameters
    ----------
    folder : Path
        With ``fields/``, one file a field.
    host : str
        Address that the server listens on.
    port : int
    runs : int
        Runs at once on this machine.

    Raises
    ------
    ConfigError
        There are no fields.
    ServerError
        The server cannot be started, or ends; the worker ends.
    """
    before = _stamps(folder)
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(quiet_environment())
    with _stopped_by_signals(), contextlib.suppress(KeyboardInterrupt):
        server = LocalServer(home / "tract7dt-server.log", port, host)
        with server.running():
            server.wait_until_ready()
            os.environ["PREFECT_API_URL"] = server.url
            _tell(f"UI at {server.ui_url}; log of the server: {home / 'tract7dt-server.log'}")
            _register(folder, runs)
            if left := end_what_was_cut_off():
                _tell(
                    f"{left} runs were cut off when the last worker was stopped; they are marked as crashed"
                )
            with _worker() as worker:
                _tell(f"{len(before)} fields, worker started; Ctrl-C stops it all")
                _watch(folder, before, worker)


def _watch(folder: Path, before: Stamps, worker: subprocess.Popen[bytes]) -> None:
    """Register what changes, until the worker ends."""
    while worker.poll() is None:
        time.sleep(_LOOK_S)
        if (now := _stamps(folder)) != before:
            before = now
            try:
                _register(folder, None)
            except ServerError as error:  # the fields that run go on
                _tell(str(error))
    raise ServerError(f"the worker ended (exit status {worker.returncode})")


def _register(folder: Path, runs: int | None) -> None:
    for problem in deploy(folder, runs):
        _tell(f"passed over: {problem}")
    _tell(f"{folder / 'prefect.yaml'} is registered")


def _stamps(folder: Path) -> Stamps:
    found = {}
    for path in field_files(folder):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found[path] = (stat.st_size, stat.st_mtime_ns)
    return found


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "flows.worker_child", POOL, str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(text: str) -> None:
    print(f"tract7dt: {text}", file=sys.stderr, flush=True)
