"""An observer's morning: open the deployment, change a setting, run, watch, read what came out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ui_pages import WAIT_S, artifacts, click, run_and_watch, strangers, text_of, wait_for_text

pytestmark = pytest.mark.browser

PAGES = {
    "uds-summary": (": done", "Zero points", "zp.clip_sigma", "none failed"),
    "uds-zero-points": ("m400", "m875", "zero point (mag)"),
    "uds-stages": ("compute_zp", "done"),
    "uds-reliability": ("reliable", "in the catalogue"),
    "uds-progress-bands": ("Progress: 100%", "2 bands"),
    "uds-progress-patches": ("Progress: 100%",),
}


@pytest.fixture(scope="module")
def first(browser: Any, site: Any, shoot: Callable[[str], Path]) -> str:
    """A full run of the field, asked for in the form with a changed setting; its id."""
    return run_and_watch(
        browser, site, shoot, "first", '{"zp.clip_sigma": 2.5}', field="UDS", deployment=site.deployment
    )


def test_an_observer_runs_a_field_and_reads_what_came_out(
    browser: Any, site: Any, shoot: Callable[[str], Path], first: str
) -> None:
    assert site.get(f"/flow_runs/{first}")["parameters"]["overrides"] == {"zp.clip_sigma": 2.5}
    click(browser, "//li[contains(@class, 'p-tab')][normalize-space()='Artifacts']")
    wait_for_text(browser, *PAGES, "Run done: ", " sources fitted, ")
    shoot("first-5-artifacts")
    keys = artifacts(site, first)
    for key, said in PAGES.items():
        browser.get(f"{site.ui}/artifacts/artifact/{keys[key]}")
        wait_for_text(browser, *said)
        shoot(f"first-6-{key}")
    browser.get(f"{site.ui}/artifacts")
    wait_for_text(browser, *PAGES)
    shoot("first-7-history")

    browser.set_window_size(400, 850)  # a phone
    browser.get(f"{site.ui}/artifacts/artifact/{keys['uds-summary']}")
    wait_for_text(browser, ": done")
    time.sleep(1)
    shoot("first-8-phone")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    browser.set_window_size(1400, 1500)
    assert wide <= 400  # nobody has to scroll to the side
    assert strangers(browser) == set()


@pytest.mark.slow
def test_a_rerun_from_the_form_takes_what_is_there(
    browser: Any, site: Any, shoot: Callable[[str], Path], first: str
) -> None:
    again = run_and_watch(
        browser, site, shoot, "again", '{"zp.clip_sigma": 2.6}', field="UDS", deployment=site.deployment
    )
    keys = artifacts(site, again)
    pages = {
        "uds-summary": (": done", f"reused from {first[:8]}"),
        "uds-stages": ("zp.clip_sigma changed: 2.5", "cached"),
        "uds-progress-bands": ("Progress: 100%", "2 bands, 2 of them reused"),
        "uds-progress-patches": ("Progress: 100%", "of them reused"),
    }
    for key, said in pages.items():
        browser.get(f"{site.ui}/artifacts/artifact/{keys[key]}")
        wait_for_text(browser, *said)
        shoot(f"again-6-{key}")
    summary = json.loads((site.folder / "UDS" / "run" / "run_summary.json").read_text())
    assert [e["name"] for e in summary["stages"] if e["status"] == "done"] == ["compute_zp"]


@pytest.mark.slow
def test_a_wrong_setting_is_refused_with_its_key(
    browser: Any, site: Any, shoot: Callable[[str], Path]
) -> None:
    """The run fails before anything is computed, and its page says which key and what is allowed."""
    run = site.post(
        f"/deployments/{site.deployment}/create_flow_run",
        {"parameters": {"overrides": {"zp.clip_sgma": 2.5}}},
    )
    browser.get(f"{site.ui}/runs/flow-run/{run['id']}")
    wait_for_text(browser, "Failed", seconds=120)
    said = "overrides: zp.clip_sgma: unknown key; the closest known key is zp.clip_sigma"
    end = time.monotonic() + WAIT_S
    while said not in text_of(browser) and time.monotonic() < end:
        # the page of a run that has ended asks for no more log, though its last lines may come after its state
        browser.refresh()
        time.sleep(3)
    wait_for_text(browser, said)
    shoot("wrong-setting")
