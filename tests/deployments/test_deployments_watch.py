"""Who is told what: automations on a real server, messages at a real webhook. A minute or two."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nightly_site import CONFIG, Site, site_environment

from flows.server import LocalServer

pytestmark = pytest.mark.slow


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[str]]]:
    """Address of a webhook on loopback, and the texts that came."""
    texts: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            text = str(json.loads(body)["text"])
            texts.append(text)
            self.send_response(500 if "is refused" in text else 200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook/tell-nobody", texts
    server.shutdown()
    server.server_close()


def wait_for(texts: list[str], said: str, seconds: float = 90.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := [text for text in texts if said in text]:
            return found[0]
        time.sleep(0.3)
    raise AssertionError(f"no {said!r} in {texts}")


def automations(site: Site) -> dict[str, Any]:
    return {found["name"]: found for found in site.post("/automations/filter", {})}


def fail_a_run(site: Site, name: str) -> str:
    (deployment,) = [d for d in site.post("/deployments/filter", {}) if d["name"] == "UDS"]
    run = site.post(f"/deployments/{deployment['id']}/create_flow_run", {"name": name})
    for state in ({"type": "RUNNING"}, {"type": "FAILED", "message": "no image list"}):
        site.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return str(run["id"])


def wait_for_event(site: Site, event: str, resource: str) -> None:
    """What the page Event Feed shows."""
    end = time.monotonic() + 60
    asked = {"filter": {"event": {"name": [event]}}}
    seen: set[str] = set()
    while resource not in seen and time.monotonic() < end:
        time.sleep(0.5)
        found = site.post("/events/filter", asked)["events"]
        seen = {one["resource"].get("prefect.resource.name", "") for one in found}
    assert resource in seen


class Commands:
    """Commands of an operator of the site."""

    def __init__(self, site: Site, environment: dict[str, str]) -> None:
        self._site, self.environment = site, environment

    def run(self, *command: str) -> str:
        ran = subprocess.run(
            [sys.executable, *command], env=self.environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def deploy(self) -> str:
        return self.run("-m", "flows.cli", "deploy", str(self._site.folder))

    def watched(self, *arguments: str) -> str:
        return self.run(str(Path(__file__).parent / "watched.py"), *arguments)


@pytest.fixture
def commands(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """A server with a field that is due every minute and that no worker takes up."""
    data = site.folder / "data" / "UDS"
    data.mkdir(parents=True)
    (data / "config.yaml").write_text(CONFIG % ("UDS", "list.txt") + "watch: {late_hours: 0.001}\n")
    (site.folder / "fields").mkdir()
    (site.folder / "fields" / "UDS.yaml").write_text("config: ../data/UDS/config.yaml\ncron: '* * * * *'\n")
    monkeypatch.setenv("PREFECT_HOME", site.environment["PREFECT_HOME"])
    tests = str(Path(__file__).parent.parent)
    environment = site_environment(site.folder.parent) | {"PREFECT_API_URL": f"{site.ui}/api"}
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], tests])
    with LocalServer(site.folder / "server.log", site.port).running() as server:
        server.wait_until_ready()
        yield Commands(site, environment)


def test_who_is_told_what(site: Site, commands: Commands, webhook: tuple[str, list[str]]) -> None:
    url, texts = webhook
    # Without a target all is set up, and nothing is sent.
    commands.deploy()
    first = automations(site)
    assert set(first) == {
        f"tract7dt: {name}"
        for name in ("a run failed", "a zero point jumped", "a field did not run", "nobody watches")
    }
    assert {found["actions"][0]["type"] for found in first.values()} == {"do-nothing"}
    fail_a_run(site, "UDS 2026-01-01")
    wait_for_event(site, "prefect.automation.triggered", "tract7dt: a run failed")

    # Again, with one: ours are changed, what is switched off stays so, another's is not touched.
    quiet = first["tract7dt: nobody watches"]["id"]
    theirs = {**first["tract7dt: a run failed"], "name": "theirs", "description": "of an observer"}
    site.post(
        "/automations/", {k: theirs[k] for k in ("name", "description", "enabled", "trigger", "actions")}
    )
    site.request("PATCH", f"/automations/{quiet}", {"enabled": False})
    before = automations(site)["theirs"]
    commands.environment["TRACT7DT_NOTIFY_URL"] = url
    commands.deploy()
    second = automations(site)
    assert {name: found["id"] for name, found in second.items() if name in first} == {
        name: found["id"] for name, found in first.items()
    }
    assert {found["actions"][0]["type"] for name, found in second.items() if name != "theirs"} == {
        "call-webhook"
    }
    assert (second["theirs"], second["tract7dt: nobody watches"]["enabled"]) == (before, False)
    # The third time nothing changes, with the target in the environment and without.
    del commands.environment["TRACT7DT_NOTIFY_URL"]
    commands.deploy()
    assert automations(site) == second
    # The address is nowhere to be read.
    assert "tell-nobody" not in json.dumps([automations(site), site.post("/block_documents/filter", {})])
    site.request("PATCH", f"/automations/{quiet}", {"enabled": True})

    # A run that fails.
    run_id = fail_a_run(site, "UDS 2026-01-02")
    text = wait_for(texts, "UDS 2026-01-02")
    assert text.startswith("tract7dt: a run failed\nUDS 2026-01-02: Failed\nno image list\n")
    assert f"{site.ui}/runs/flow-run/{run_id}" in text
    assert len([text for text in texts if "2026-01-01" in text]) == 0

    # One whose message the other side does not take, with what JSON has to escape.
    fail_a_run(site, 'UDS "is refused" \\ <b>')
    assert wait_for(texts, "is refused").startswith(
        'tract7dt: a run failed\nUDS "is refused" \\ <b>: Failed\n'
    )

    # A zero point that jumps.
    assert commands.watched("jump", str(site.folder / "nights")).splitlines()[0] == "1"
    text = wait_for(texts, "zero point jumped")
    assert "UDS 2026-01-04: m400: 25.310 mag, +0.300 from the median of 3 nights (25.010)" in text

    # A field that did not run: due a minute ago, and there is no worker. It is told once.
    end = time.monotonic() + 150
    while "it did not run" not in "".join(texts):
        commands.watched("watch")
        if time.monotonic() > end:
            raise AssertionError(texts)
        time.sleep(5)
    text = wait_for(texts, "did not run, though it was due at")
    assert text.startswith("tract7dt: a field did not run\nUDS ")
    (health,) = [a for a in site.post("/artifacts/latest/filter", {}) if a["key"] == "uds-health"]
    assert [row for row in json.loads(health["data"]) if "did not run" in row["status"]]

    # A watch that is heard no more.
    commands.watched("silence", "12")
    commands.watched("watch")
    assert wait_for(texts, "Nobody has looked").startswith("tract7dt: nobody watches")
    assert "tell-nobody" not in (site.folder / "server.log").read_text()
