"""What a run that ended well does for others: its results in a store, and no copy of an input for ever."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from s3_server import SECRET, S3Server

from flows.parameters import Given
from flows.publication import clear_cache, publish_run, store_address
from tract7dt.errors import PublishError, StoreError
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir

WRONG = "a-secret-that-nobody-may-read"


def _state(server_url: str, run_id: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server_url}/flow_runs/{run_id}", timeout=20) as answer:
        return dict(json.load(answer)["state"])


def _artifact(server_url: str, run_id: str, key: str) -> str:
    body = json.dumps(
        {"flow_runs": {"id": {"any_": [run_id]}}, "artifacts": {"key": {"any_": [key]}}}
    ).encode()
    request = urllib.request.Request(
        f"{server_url}/artifacts/filter", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        (found,) = json.load(answer)
    return str(found["data"])


def test_run_publishes_and_a_store_that_refuses_costs_no_catalogue(
    served: Any, s3: S3Server, server_url: str
) -> None:
    bucket = s3.bucket("nightly")
    env = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")} | {
        "AWS_ENDPOINT_URL": ""
    }
    config = served.config(more=f"publish: {{url: s3://nightly/7dt, endpoint_url: '{s3.endpoint}'}}")
    ran = served("run", "--config", str(config), "--night", "2026-11-20", env=env)
    assert ran.code == 0, ran.err
    latest = json.loads((bucket / "7dt" / "T1" / "latest.json").read_text())
    assert (latest["night"], latest["run_id"]) == ("2026-11-20", ran.summary["run_id"])
    folder = bucket / "7dt" / "T1" / "2026-11-20" / latest["run_id"]
    assert (folder / "output_catalog.csv").read_bytes() == ran.catalog
    assert json.loads((folder / "run_summary.json").read_text())["status"] == "done"
    listed = served("results", "list", "--url", "s3://nightly/7dt", "--endpoint-url", s3.endpoint, env=env)
    assert latest["run_id"][:8] in listed.out.replace("\n", "")

    page = _artifact(server_url, latest["run_id"], "t1-results")
    (link,) = re.findall(r"\[Catalogue, CSV\]\((\S+)\)", page)
    with urllib.request.urlopen(link, timeout=20) as answer:
        assert answer.read() == ran.catalog
    assert "Links work until 20" in page

    refused = served("run", "--config", str(config), env=env | {"AWS_SECRET_ACCESS_KEY": WRONG})
    assert refused.code == 1
    assert "the catalogue is complete" in refused.err
    assert "access refused" in refused.err
    assert refused.summary["status"] == "done"
    assert refused.catalog == (folder / "output_catalog.csv").read_bytes()
    state = _state(server_url, refused.summary["run_id"])
    assert state["type"] == "FAILED"
    assert "not published" in state["message"]
    assert json.loads((served.folder / "out" / "publication.json").read_text())["status"] == "failed"
    assert json.loads((bucket / "7dt" / "T1" / "latest.json").read_text()) == latest
    assert "**Not published**: StoreError" in _artifact(server_url, refused.summary["run_id"], "t1-results")
    told = (
        ran.out
        + ran.err
        + refused.out
        + refused.err
        + (refused.work / "run.log").read_text()
        + json.dumps(state)
    )
    assert "X-Amz-Signature" not in told
    assert WRONG not in told
    assert SECRET not in told


def test_direct_run_publishes_unless_told_not_to(command: Any) -> None:
    config = str(command.config(more=f"publish: {{url: 'file://{command.folder}/public'}}"))
    quiet = command("run", "--config", config, "--direct", "--no-publish")
    assert quiet.code == 0, quiet.err
    assert not (command.folder / "public").exists()
    ran = command("run", "--config", config, "--direct", "--night", "2026-11-20")
    assert ran.code == 0, ran.err
    latest = json.loads((command.folder / "public" / "T1" / "latest.json").read_text())
    assert latest["run_id"] == ran.summary["run_id"]
    assert "publication.json" in {path.name for path in ran.work.iterdir()}


# --- without a run ----------------------------------------------------------------------------------------


def _settings(tmp_path: Path, **publish: Any) -> Settings:
    values: dict[str, Any] = {
        "inputs": {"tile_name": "T1", "input_catalog": "c.csv", "image_list_file": "l.txt"},
        "outputs": {"work_dir": "run"},
        "publish": publish,
    }
    (tmp_path / "run").mkdir(exist_ok=True)
    return settings_from_dict(values, tmp_path).settings


def _never(*_: Any) -> Any:
    raise AssertionError("nothing is to be published")


@pytest.mark.parametrize(
    ("url", "given"),
    [
        (None, Given("c.yaml")),
        ("file:///x", Given("c.yaml", publish=False)),
        ("file:///x", Given("c.yaml", only=("r00_c00",))),
    ],
)
def test_what_is_not_published(tmp_path: Path, url: str | None, given: Given) -> None:
    settings = _settings(tmp_path, url=url)
    assert publish_run(settings, given, "run-1", _never) is None
    assert not WorkDir.of(settings).publication.exists()


def test_what_a_store_said_is_kept_without_its_secrets(tmp_path: Path) -> None:
    def refuse(*_: Any) -> Any:
        raise StoreError("https://me:geheim99@store.example.org: no")

    settings = _settings(tmp_path, url="file:///x")
    with pytest.raises(PublishError) as caught:
        publish_run(settings, Given("c.yaml", night="2026-11-20"), "run-1", refuse)
    noted = WorkDir.of(settings).publication.read_text()
    assert json.loads(noted) == {
        "run_id": "run-1",
        "field": "T1",
        "night": "2026-11-20",
        "status": "failed",
        "url": "file:///x",
        "error": "StoreError: https://***@store.example.org: no",
    }
    assert "geheim99" not in noted + str(caught.value)


@pytest.mark.parametrize(
    ("environment", "during"),
    [
        ({}, "http://127.0.0.1:9"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:8"}, None),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:7"}, "http://127.0.0.1:7"),
    ],
)
def test_inputs_come_from_the_store_that_results_go_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], during: str | None
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = os.environ.get("AWS_ENDPOINT_URL_S3")
    with store_address(_settings(tmp_path, endpoint_url="http://127.0.0.1:9")):
        assert os.environ.get("AWS_ENDPOINT_URL_S3") == during
    assert os.environ.get("AWS_ENDPOINT_URL_S3") == before


def test_copies_of_inputs_that_nobody_uses_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACT7DT_CACHE_DIR", str(tmp_path / "cache"))
    for name, days in (("old", 31), ("new", 29)):
        file = tmp_path / "cache" / "inputs" / name / "x.fits"
        file.parent.mkdir(parents=True)
        file.write_text("pixels")
        os.utime(file, (time.time() - 86400 * days,) * 2)
    clear_cache(_settings(tmp_path))
    assert [path.name for path in (tmp_path / "cache" / "inputs").iterdir()] == ["new"]
