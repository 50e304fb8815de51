"""The Prefect server of a run: the configured one, or one of our own for as long as the run lasts.

Without PREFECT_API_URL every worker of a pool would start a temporary server of its own. So the command
starts one, on a free port of this machine with the database in the Prefect home, hands its address on
through the environment, and stops it at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tract7dt.errors import Tract7dtError

__all__ = [
    "ConfiguredUrl",
    "LocalServer",
    "ServerError",
    "check_reachable",
    "drain",
    "quiet_environment",
]

_START_TIMEOUT_S = 120.0
_STOP_GRACE_S = 10.0
_REACH_TIMEOUT_S = 5.0
_DRAIN_S = 10.0
_HOST = "127.0.0.1"
#: Times that Prefect's client asks a server that is away again: 2 + 4 + ... + 128 s, some 4 minutes.
_CLIENT_RETRIES = "7"


class ServerError(Tract7dtError):
    """The Prefect server cannot be started or reached."""


def quiet_environment() -> dict[str, str]:
    """Environment under which Prefect reports to nobody, local addresses bypass proxies, and clients wait."""
    bypass = [host for host in os.environ.get("NO_PROXY", "").split(",") if host]
    bypass += [host for host in (_HOST, "localhost") if host not in bypass]
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLIENT_MAX_RETRIES": os.environ.get("PREFECT_CLIENT_MAX_RETRIES", _CLIENT_RETRIES),
        # Semaphores of a worker that was killed are cleared away by Python, which need not tell the user.
        "PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker",
        "NO_PROXY": ",".join(bypass),
        "no_proxy": ",".join(bypass),
    }


class ConfiguredUrl:
    """PREFECT_API_URL from the environment or any other source of Prefect's settings.

    Prefect reads its settings once, when it is imported, and this process must not import it before the
    address is known: where there is anything to read, another process looks, from the making of this object on.
    """

    def __init__(self) -> None:
        self._known = os.environ.get("PREFECT_API_URL")
        #: Known at once: none is configured.
        self.is_nowhere = not self._known and _says_nothing()
        code = "from prefect.settings import get_current_settings as s; print(s().api.url or '')"
        self._process = (
            None
            if self._known or self.is_nowhere
            else subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )

    def url(self) -> str | None:
        """The address; None if none is configured.

        Raises
        ------
        ServerError
            If Prefect's settings cannot be read.
        """
        if self._process is not None:
            said, complained = self._process.communicate()
            if self._process.returncode:
                why = (complained.strip() or "no reason given").splitlines()[-1]
                raise ServerError(f"Prefect's settings cannot be read: {why}")
            lines = said.strip().splitlines()
            self._known, self._process = (lines[-1] if lines else None), None
        return self._known

    def close(self) -> None:
        """Look no longer."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def _says_nothing() -> bool:
    """Whether none of the places is there in which Prefect looks for its settings.

    They are variables of the environment, ``.env``, ``prefect.toml`` and ``pyproject.toml`` of the working
    directory, and profiles. To read them all takes as long as the import of Prefect.
    """
    names = {name.upper() for name in os.environ}
    if names & {"PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"}:
        return False
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    here = (Path(".env"), Path("prefect.toml"), Path("pyproject.toml"))
    return not any(path.exists() for path in (*here, home / "profiles.toml"))


def check_reachable(url: str, timeout_s: float = _REACH_TIMEOUT_S) -> None:
    """Raise :class:`ServerError` unless something answers at ``url``."""
    if trouble := _health(url, timeout_s):
        raise ServerError(
            f"no Prefect server answers at {url} ({trouble}); start it, correct PREFECT_API_URL, unset it "
            "for a server of the run's own, or run with --direct"
        )


def _health(url: str, timeout_s: float) -> str | None:
    """What is wrong with the server at ``url``; None if it answers."""
    local = f"//{_HOST}:" in url
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=timeout_s):
            return None
    except urllib.error.HTTPError as error:
        # It answers; whether it lets this user in is Prefect's to say, with the credentials that it holds.
        return None if error.code in (401, 403) else f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def drain(timeout_s: float = _DRAIN_S) -> None:
    """Send the logs and events that Prefect still holds, while there is a server to take them.

    At the end of the process Prefect would try for a minute to reach a server that is gone.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=timeout_s)
    APILogWorker.drain_all(timeout=timeout_s)


class LocalServer:
    """A Prefect server that lives as long as its parent: a run, or a site.

    Parameters
    ----------
    log_file : Path
        Takes what the server prints.
    port : int, optional
        A free one by default.
    host : str
        Address that it listens on; "0.0.0.0" lets other machines in. There is no password on it.
    """

    def __init__(self, log_file: Path, port: int | None = None, host: str = _HOST) -> None:
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._held = False
        self._port, self._given_port, self._bind = 0, port, host

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"http://{_HOST}:{self._port}/api"

    @property
    def ui_url(self) -> str:
        """Address of the UI."""
        return f"http://{_HOST}:{self._port}"

    def start(self, held: bool = False) -> None:
        """Start the server without waiting for it.

        Parameters
        ----------
        held : bool
            It only loads what it needs, which takes seconds, until :meth:`release`. If it is stopped before
            that it has opened no port and touched no database.
        """
        self._held = held
        self._port = self._given_port or _free_port()
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("wb") as log:
            home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
            home.mkdir(
                parents=True, exist_ok=True
            )  # SQLite makes no folders: a new user may lack even a home
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.server_child", str(self._port), str(os.getpid()), self._bind]
                + (["held"] if held else []),
                env=_server_environment(os.environ, self._port, self._bind),
                stdin=subprocess.PIPE if held else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the run; the server ends after it
            )

    def release(self) -> None:
        """Let a server serve that was started held."""
        if self._held and self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended: wait_until_ready says so
                self._process.stdin.write(b"serve\n")
                self._process.stdin.close()
        self._held = False

    def wait_until_ready(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Wait until the server answers.

        Raises
        ------
        ServerError
            If it ends or does not answer in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while _health(self.url, 2.0):
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                what = (
                    f"ended (exit status {code})"
                    if code is not None
                    else f"gave no answer in {timeout_s:g} s"
                )
                raise ServerError(f"the Prefect server of this run {what}: {self._last_words()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server: politely, then not."""
        if self._process is None:
            return
        if self._held:
            self._process.kill()
            self._process.communicate()
            self._log_file.unlink(missing_ok=True)
        for sent, grace in ((signal.SIGTERM, _STOP_GRACE_S), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
                break
        self._process = None

    def _last_words(self) -> str:
        text = self._log_file.read_text(encoding="utf-8", errors="replace").strip()
        return f"{text.splitlines()[-1]} (all of it in {self._log_file})" if text else "it said nothing"

    @contextlib.contextmanager
    def running(self, held: bool = False) -> Iterator[LocalServer]:
        """The server, started; stopped after the block, whatever happens."""
        self.start(held)
        try:
            yield self
        finally:
            self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _server_environment(given: Mapping[str, str], port: int, bind: str = _HOST) -> dict[str, str]:
    environment = {name: value for name, value in given.items() if name != "PREFECT_API_URL"}
    return (
        environment
        | quiet_environment()
        | {
            "PREFECT_SERVER_API_HOST": bind,
            "PREFECT_SERVER_API_PORT": str(port),  # the UI calls the port that it finds here
            "PREFECT_UI_URL": given.get("PREFECT_UI_URL")
            or f"http://{_HOST}:{port}",  # for links in messages
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_CLI_PROMPT": "false",
        }
        # A browser elsewhere asks the machine that it has the page from.
        | (
            {}
            if bind == _HOST
            else {"PREFECT_SERVER_UI_API_URL": given.get("PREFECT_SERVER_UI_API_URL", "/api")}
        )
    )
