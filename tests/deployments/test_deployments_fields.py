"""Files of fields, what they register, and what check-field says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from nightly_site import CONFIG, ROOT, Site, site_environment
from typer.testing import CliRunner

from flows.check_field import check_field
from flows.cli import app
from flows.fields import prefect_yaml, read_field, read_fields
from tract7dt.errors import ConfigError
from tract7dt.sample import SampleOptions, make_sample

GOOD = "config: ../data/UDS/config.yaml\ncron: '30 8 * * *'\n"


def file_of(folder: Path, text: str, name: str = "UDS") -> Path:
    path = folder / "fields" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_of_a_field(tmp_path: Path) -> None:
    field = read_field(
        file_of(tmp_path, GOOD + "tags: [deep]\nparameters: {overrides: {zp.clip_sigma: 2.5}}\n")
    )
    assert (field.name, field.timezone, field.active) == ("UDS", "America/Santiago", True)
    assert field.config == str(tmp_path / "data" / "UDS" / "config.yaml")
    assert read_field(file_of(tmp_path, "config: s3://site/UDS.yaml\n")).config == "s3://site/UDS.yaml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a mapping"),
        ("- a", "expected a mapping"),
        ("{", "cannot be read"),
        ("cron: '* * * * *'", "config: Field required"),
        (GOOD + "crom: x", "crom: Extra inputs"),
        ("config: a\ncron: '61 * * * *'", "expected five fields of cron"),
        ("config: a\ncron: '* * * * * *'", "expected five fields of cron"),
        ("config: a\ntimezone: Chile/Tololo", "expected a time zone"),
        ("config: a\nname: a/b", "holds a slash"),
        ("config: a\nparameters: {override: {}}", "parameters.override: unknown; allowed: overrides"),
        ("config: a\nparameters: {night: 2026-01-01}", "parameters.night: unknown"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_field(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_one_wrong_file_costs_no_other(tmp_path: Path) -> None:
    for name, text in (("A", GOOD), ("B", "config: [1]\n"), ("C", GOOD), ("D", GOOD + "name: A\n")):
        file_of(tmp_path, text, name)
    fields, problems = read_fields(tmp_path)
    assert [field.name for field in fields] == ["A", "C"]
    assert len(problems) == 2
    assert "B.yaml: config" in problems[0]
    assert "there is a field A already" in problems[1]
    with pytest.raises(ConfigError, match="no such folder"):
        read_fields(tmp_path / "nowhere")


def test_a_wrong_file_is_told_by_the_exit_code_and_stops_no_other(tmp_path: Path) -> None:
    file_of(tmp_path, GOOD)
    command = ["deploy", str(tmp_path), "--write-only"]
    assert CliRunner().invoke(app, command).exit_code == 0
    file_of(tmp_path, "config: [1]\n", "B")
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 2  # not 1, after which the unit of the worker tries again
    assert "passed over" in ran.output
    assert "UDS" in (tmp_path / "prefect.yaml").read_text()


def test_deployments_of_the_fields(tmp_path: Path) -> None:
    file_of(tmp_path, GOOD + "active: false\nparameters: {publish: false}\n")
    file_of(tmp_path, "config: c.yaml\n", "COSMOS")
    made = yaml.safe_load(prefect_yaml(read_fields(tmp_path)[0]))
    cosmos, uds, watch, retention = made["deployments"]
    assert uds["schedules"] == [
        {"cron": "30 8 * * *", "timezone": "America/Santiago", "slug": "nightly", "active": False}
    ]
    assert uds["parameters"] == {
        "config": str(tmp_path / "data/UDS/config.yaml"), "field": "UDS", "publish": False
    }  # fmt: skip
    assert cosmos["schedules"] == []
    for deployment in (cosmos, uds):
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert deployment["work_pool"] == {"name": "tract7dt", "work_queue_name": "default"}
    for deployment, entrypoint in ((watch, "flows.watch.watch"), (retention, "flows.watch.retention")):
        assert deployment["entrypoint"] == entrypoint
        assert deployment["tags"] == ["tract7dt-site"]
        assert deployment["work_pool"]["work_queue_name"] == "site"  # not behind the runs of a night
        assert len(deployment["schedules"]) == 1


def test_the_site_that_comes_with_the_repository_is_as_its_files_say() -> None:
    fields, problems = read_fields(ROOT / "deployments")
    assert problems == []
    assert (ROOT / "deployments" / "prefect.yaml").read_text() == prefect_yaml(fields)


def test_units_and_containers_listen_on_loopback() -> None:
    units = (ROOT / "deployments" / "systemd" / "tract7dt-server.service").read_text()
    assert "--host 127.0.0.1" in units
    compose = yaml.safe_load((ROOT / "deployments" / "compose" / "compose.yaml").read_text())
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


# --- check-field ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    make_sample(folder / "UDS", SampleOptions(width=200, height=200, bands=2, seed=6, stars=10, galaxies=3))
    return folder / "UDS"


@pytest.fixture
def data(sample: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "UDS"
    folder.mkdir(parents=True)
    for path in sample.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").write_text(CONFIG % ("UDS", "image_list.txt"))
    file_of(tmp_path, GOOD)
    return folder


def levels(tmp_path: Path) -> dict[str, tuple[str, str]]:
    return {f.what: (f.level, f.said) for f in check_field(tmp_path / "fields" / "UDS.yaml", "2026-11-20")}


def test_a_field_that_would_run(data: Path, tmp_path: Path) -> None:
    found = levels(tmp_path)
    assert {level for level, _ in found.values()} == {"ok"}
    assert found["images"][1] == "2 bands (m400, m875), 200 x 200 pix"
    assert found["catalogue"][1] == "11 sources"
    assert "guessed from the size" in found["time"][1]
    assert not (data / "runs").exists()
    assert [f.level for f in check_field(data / "config.yaml")] == ["ok"] * 8
    last = data / "runs" / "2026-11-19"
    last.mkdir(parents=True)
    stages = [{"name": "load_inputs", "status": "done"}]
    record = {"status": "done", "wall_s": 600.0, "finished": "2026-11-20T09:00:00", "stages": stages}
    (last / "run_summary.json").write_text(json.dumps(record))
    assert levels(tmp_path)["time"][1] == "about 10 min, as the last complete run"


def test_a_field_that_would_not(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(name: str, text: str) -> None:
        (data / name).unlink()
        (data / name).write_text(text)

    replaced("input_catalog.csv", "ID,RA,DEC\n1,2,3\n1,2,3\n")
    replaced("gaiaxp_synphot.csv", "source_id,ra\n1,2\n")
    found = levels(tmp_path)
    assert found["catalogue"][0] == found["Gaia table"][0] == "fail"
    replaced("image_list.txt", "images/nowhere.fits\n")
    assert "no such file" in levels(tmp_path)["images"][1]
    config = (data / "config.yaml").read_text()
    (data / "config.yaml").write_text(config.replace('"runs/', '"/proc/tract7dt/'))
    level, said = levels(tmp_path)["work_dir"]
    assert level == "fail"
    assert said.startswith("/proc/tract7dt/2026-11-20: /proc cannot be written to")
    (data / "config.yaml").write_text(
        config + "publish: {url: 's3://nowhere/x', endpoint_url: 'http://127.0.0.1:9'}\n"
    )
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (("AWS_ACCESS_KEY_ID", "abcd"), ("AWS_SECRET_ACCESS_KEY", "efgh")):
        monkeypatch.setenv(name, value)
    from tract7dt.store import objects

    monkeypatch.setattr(objects, "_FIRST_PAUSE_S", 0.01)
    level, said = levels(tmp_path)["publication"]
    assert level == "fail"
    assert "no answer" in said


def test_disk_that_is_too_small(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("flows.check_field.shutil.disk_usage", lambda path: usage(10, 9, 1_000_000))
    level, said = levels(tmp_path)["disk"]
    assert (level, said) == ("fail", "about 0.0 GB needed, 0.0 GB free")


def test_images_that_are_not_there_yet_are_no_failure(data: Path, tmp_path: Path) -> None:
    (data / "config.yaml").write_text(CONFIG % ("UDS", "{night}/list.txt"))
    level, said = levels(tmp_path)["images"]
    assert level == "warn"
    assert "would end as skipped" in said
    image = next(iter((data / "images").glob("*.fits")))
    (data / "2026-11-20").mkdir()
    half = data / "2026-11-20" / "half.fits"
    half.write_bytes(image.read_bytes()[:20000])
    os.utime(half, (time.time() - 10,) * 2)
    (data / "2026-11-20" / "list.txt").write_text("2026-11-20/half.fits\n")
    level, said = levels(tmp_path)["images"]
    assert level == "warn"
    assert "would wait" in said


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), ("config: nowhere.yaml\n", 2), ("crom: x\n", 2)])
def test_exit_codes(data: Path, tmp_path: Path, text: str, code: int) -> None:
    file_of(tmp_path, text)
    ran = CliRunner().invoke(app, ["check-field", str(tmp_path / "fields" / "UDS.yaml")])
    assert ran.exit_code == code, ran.output


def test_retention_of_a_field_by_hand(data: Path, tmp_path: Path) -> None:
    for night in ("2026-01-01", "2026-01-02"):
        work = data / "runs" / night
        (work / "patch_payloads").mkdir(parents=True)
        (work / "patch_payloads" / "a.fits.gz").write_text("payload")
        (work / "run_summary.json").write_text(json.dumps({"status": "done", "parameters": {"night": night}}))
    more = "parameters: {overrides: {retention.payloads_days: 1}}\n"
    command = ["retention", str(file_of(tmp_path, GOOD + more))]
    ran = CliRunner().invoke(app, [*command, "--dry-run"])
    assert (ran.exit_code, ran.output.splitlines()[-1]) == (0, "2 runs would lose files"), ran.output
    assert len(list(data.glob("runs/*/patch_payloads/*"))) == 2
    ran = CliRunner().invoke(app, command)
    assert (ran.exit_code, ran.output.splitlines()[-1]) == (0, "2 runs lost files"), ran.output
    assert not list(data.glob("runs/*/patch_payloads/*"))


# --- on a server ------------------------------------------------------------------------------------------


def test_prefect_deploys_what_is_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast core of a site: `tract7dt deploy` on a real server, twice, with a field that comes and goes."""
    from flows.server import LocalServer

    for name in ("A", "B"):
        file_of(site.folder, "config: /data/none.yaml\ncron: '30 8 * * *'\ntags: [trial]\n", name)
    monkeypatch.setenv("PREFECT_HOME", site.environment["PREFECT_HOME"])
    with LocalServer(site.folder / "server.log", site.port).running() as server:
        server.wait_until_ready()
        environment = site_environment(site.folder.parent) | {"PREFECT_API_URL": server.url}
        command = [sys.executable, "-m", "flows.cli", "deploy", str(site.folder), "--runs", "2"]

        def deployed(*options: str) -> dict[str, Any]:
            ran = subprocess.run(
                [*command, *options], env=environment, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
            return {d["name"]: d for d in site.post("/deployments/filter", {})}

        first = deployed()
        assert set(first) == {"A", "B", "hourly", "daily"}
        (schedule,) = first["A"]["schedules"]
        assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == (
            "30 8 * * *",
            "America/Santiago",
        )
        assert first["A"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert first["A"]["global_concurrency_limit"]["limit"] == 1
        assert set(first["A"]["tags"]) == {"tract7dt-field", "trial"}
        (pool,) = site.post("/work_pools/filter", {})
        assert (pool["name"], pool["type"], pool["concurrency_limit"]) == ("tract7dt", "process", None)
        queues = site.post("/work_pools/tract7dt/queues/filter", {})
        assert {q["name"]: q["concurrency_limit"] for q in queues} == {"default": 2, "site": 1}

        (site.folder / "fields" / "B.yaml").unlink()
        file_of(site.folder, "config: /data/none.yaml\ncron: '0 9 * * *'\n", "A")
        cut = site.post(f"/deployments/{first['A']['id']}/create_flow_run", {"state": {"type": "RUNNING"}})
        call = site.post(
            "/task_runs/", {"flow_run_id": cut["id"], "task_key": "build-epsf", "dynamic_key": "0"}
        )
        within = {"flow_id": cut["flow_id"], "parent_task_run_id": call["id"], "state": {"type": "RUNNING"}}
        subflow = site.post("/flow_runs/", within)
        second = deployed("--cut-off")
        for run in (cut, subflow):
            assert site.request("GET", f"/flow_runs/{run['id']}", None)["state"]["type"] == "CRASHED"
        assert [s["schedule"]["cron"] for s in second["A"]["schedules"]] == ["0 9 * * *"]
        assert second["B"]["schedules"] == []
        # Prefect's scheduler makes runs of it: with a SQLAlchemy that it does not get on with, it makes none.
        end = time.monotonic() + 100
        asked = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        while not (runs := site.post("/flow_runs/filter", asked)) and time.monotonic() < end:
            time.sleep(1)
        assert runs, (site.folder / "server.log").read_text()[-2000:]
