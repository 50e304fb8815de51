"""From nothing to a site at night: fields by the schedule, one that is broken, one that comes late. Minutes."""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium
from nightly_site import Site
from ui_pages import artifacts, run_and_watch, wait_for_text

from tract7dt.nights import evening_before, nights_before

pytestmark = pytest.mark.slow

MINUTE = "* * * * *"


def _state(run: dict[str, Any]) -> tuple[str, str]:
    return run["state"]["type"], run["state"]["name"]


def test_two_fields_by_the_schedule_and_one_that_is_broken(site: Site, tmp_path: Path) -> None:
    good = site.add("SIM6", 6, MINUTE)
    broken = site.add("SIM7", 7, MINUTE)
    (broken / "image_list.txt").write_text("images/not_there.fits\n")
    site.serve()

    done = site.wait_for_run("SIM6", lambda run: _state(run) == ("COMPLETED", "Completed"))
    assert done["auto_scheduled"]
    night = done["name"].split()[-1]
    record = json.loads((good / "runs" / night / "run_summary.json").read_text())
    assert (record["status"], record["run_id"], record["parameters"]["night"]) == ("done", done["id"], night)

    failed = site.wait_for_run("SIM7", lambda run: run["state"]["type"] == "FAILED")
    assert "not_there.fits: no such file" in failed["state"]["message"]
    skipped = site.wait_for_run("SIM6", lambda run: _state(run) == ("COMPLETED", "Skipped"))
    assert f"no new images since run {done['id'][:8]}" in skipped["state"]["message"]
    assert {run["state"]["type"] for run in site.runs("SIM6")} <= {"COMPLETED", "RUNNING", "PENDING"}

    _rerun_from_the_ui(site, tmp_path)

    # A field is one file: added, changed to nonsense, gone.
    late = site.add("SIM8", 8, None)
    site.wait("registered\n", 60)
    end = time.monotonic() + 60
    while not (found := site.post("/deployments/filter", {"deployments": {"name": {"any_": ["SIM8"]}}})):
        assert time.monotonic() < end, site.log
        time.sleep(1)
    file = site.folder / "fields" / "SIM7.yaml"
    file.write_text("config: [1]\n")
    site.wait("passed over: ", 60)
    assert "config" in site.log.split("passed over: ")[1].splitlines()[0]
    end = time.monotonic() + 60
    while site.post("/deployments/filter", {"deployments": {"name": {"any_": ["SIM7"]}}})[0]["schedules"]:
        assert time.monotonic() < end, "a field without a file has a schedule still"
        time.sleep(1)

    # Its images are still being copied when it is started: it waits, and then goes on by itself.
    image = next((late / "images").glob("*.fits"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    site.post(f"/deployments/{found[0]['id']}/create_flow_run", {})
    waiting = site.wait_for_run("SIM8", lambda run: run["state"]["name"] == "AwaitingRetry")
    assert f"{image}: expected" in waiting["state"]["message"]
    image.write_bytes(whole)
    site.wait_for_run("SIM8", lambda run: _state(run) == ("COMPLETED", "Completed"))
    assert waiting["id"] in {run["id"] for run in site.runs("SIM8") if _state(run)[0] == "COMPLETED"}

    assert site.stop() == 0
    assert "Traceback" not in site.log.split("worker started")[0]


def _rerun_from_the_ui(site: Site, folder: Path) -> None:
    """An observer's morning on this site: a rerun with another clipping, asked for in the form, and a failure."""
    pictures = Path(os.environ.get("TRACT7DT_SCREENSHOTS") or folder / "screenshots")
    pictures.mkdir(parents=True, exist_ok=True)
    with chromium(folder / "profile", (1400, 1500)) as browser:

        def shoot(name: str) -> None:
            assert browser.save_screenshot(str(pictures / f"{name}.png"))

        before = site.latest("SIM6")
        deployment = site.post("/deployments/filter", {"deployments": {"name": {"any_": ["SIM6"]}}})[0]["id"]
        overrides = '{"zp.clip_sigma": 2.6}'
        again = run_and_watch(
            browser, site, shoot, "night-rerun", overrides, field="SIM6", deployment=deployment
        )
        after = site.latest("SIM6")
        assert (after["run_id"], after["parameters"]["night"]) == (again, before["parameters"]["night"])
        assert [entry["name"] for entry in after["stages"] if entry["status"] == "done"] == ["compute_zp"]
        assert before["run_id"] != again
        keys = artifacts(site, again)
        browser.get(f"{site.ui}/artifacts/artifact/{keys['sim6-summary']}")
        wait_for_text(browser, ": done", f"reused from {before['run_id'][:8]}", "zp.clip_sigma")
        shoot("night-rerun-summary")

        failed = next(run for run in site.runs("SIM7") if run["state"]["type"] == "FAILED")
        browser.get(f"{site.ui}/runs/flow-run/{failed['id']}")
        wait_for_text(browser, "Failed", "not_there.fits: no such file")
        shoot("night-broken")
        pages = {"runs": "/runs", "deployments": "/deployments"}
        for name in ("overlay", "zero-point-plots", "epsf", "results"):
            pages[name] = f"/artifacts/artifact/{keys[f'sim6-{name}']}"
        for name, page in pages.items():
            browser.get(site.ui + page)
            time.sleep(4)
            shoot(f"night-{name}")


def test_a_night_that_was_missed_is_caught_up_once(site: Site) -> None:
    """Images of two nights lie there, nobody ran the first: the run of the second starts one for it."""
    data = site.add("SIM6", 6, MINUTE, listed="{night}.txt")
    tonight = evening_before(datetime.datetime.now(datetime.UTC), "America/Santiago")
    (before,) = nights_before(tonight, 1)
    for night in (before, tonight):
        (data / f"{night}.txt").write_text((data / "image_list.txt").read_text())
    site.serve()
    made_up = site.wait_for_run(
        "SIM6", lambda run: run["name"].startswith(f"SIM6 {before}") and run["state"]["type"] == "COMPLETED"
    )
    assert "catch-up" in made_up["tags"]
    assert made_up["state"]["name"] == "Completed"
    site.wait_for_run("SIM6", lambda run: _state(run) == ("COMPLETED", "Skipped"))
    for night in (before, tonight):
        record = json.loads((data / "runs" / night / "run_summary.json").read_text())
        assert (record["status"], record["parameters"]["night"]) == ("done", night)
    assert len([run for run in site.runs("SIM6") if "catch-up" in run["tags"]]) == 1
    assert site.stop() == 0
