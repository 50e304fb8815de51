"""An observer's morning: open the deployment, change a setting, run, watch, read what came out."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

WAIT_S = 60.0


def _text(browser: Any) -> str:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.common.by import By

    try:
        return str(browser.find_element(By.TAG_NAME, "body").text)
    except (StaleElementReferenceException, NoSuchElementException):
        return ""


def _wait(browser: Any, *said: str, seconds: float = WAIT_S) -> str:
    """Text of the page, once it says all that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = _text(browser)
        if all(part in text for part in said):
            return text
        time.sleep(0.2)
    raise AssertionError(f"{said} not on {browser.current_url}:\n{_text(browser)}")


def _wait_for_state(browser: Any, state: str, seconds: float) -> None:
    """Wait until the head of a run's page shows ``state``; its log may name the states of tasks."""
    end = time.monotonic() + seconds
    while not re.search(rf"\bUDS( [0-9-]{{10}})?\s+{state}\b", _text(browser)):
        assert time.monotonic() < end, f"not {state}: {_text(browser)}"
        time.sleep(0.2)


def _click(browser: Any, xpath: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions as expected
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT_S).until(expected.element_to_be_clickable((By.XPATH, xpath))).click()


def _fill_overrides(browser: Any, text: str) -> None:
    """Type into the editor of the parameter ``overrides`` as a user does."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    editor = browser.find_element(By.CSS_SELECTOR, "textarea.p-code-input__textarea")
    editor.click()
    editor.send_keys(Keys.CONTROL, "a")
    editor.send_keys(Keys.DELETE)
    editor.send_keys(text)
    typed = editor.get_attribute("value")
    assert json.loads(typed) == json.loads(text), typed


def _strangers(browser: Any) -> set[str]:
    """Addresses off this machine that pages asked for."""
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            asked.add(message["params"].get("url") or message["params"]["request"]["url"])
    assert any(url.startswith("http://127.0.0.1") for url in asked)
    return {url for url in asked if url.startswith(("http", "ws")) and "//127.0.0.1:" not in url}


def _artifacts(site: Any, run_id: str) -> dict[str, str]:
    found = site.post("/artifacts/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    return {artifact["key"]: artifact["id"] for artifact in found if artifact["key"]}


def _run_and_watch(
    browser: Any, site: Any, shoot: Callable[[str], Path], name: str, overrides: str | None
) -> str:
    """Fill the form, run, and watch the run's page until it says that it is done; the run's id."""
    browser.get(f"{site.ui}/deployments/deployment/{site.deployment}")
    _wait(browser, "photometry", "UDS", "Run")
    shoot(f"{name}-1-deployment")
    _click(browser, "//button[normalize-space()='Run']")
    _click(browser, "//button[normalize-space()='Custom run']")
    _wait(browser, "Configuration of the field", "refresh (Optional)", "ra_min ra_max")
    offered = [option.text for option in browser.find_elements("css selector", "option")]
    assert offered[:2] == ["load_inputs", "augment_gaia"]
    if overrides:
        _fill_overrides(browser, overrides)
    shoot(f"{name}-2-form")
    known = {run["id"] for run in site.post("/flow_runs/filter", {})}
    _click(browser, "//button[normalize-space()='Submit']")
    end = time.monotonic() + WAIT_S
    new: list[str] = []
    while not new and time.monotonic() < end:
        runs = site.post("/flow_runs/filter", {"deployments": {"id": {"any_": [site.deployment]}}})
        new = [run["id"] for run in runs if run["id"] not in known]
        time.sleep(0.3)
    assert new, "the form was submitted and no run came of it"
    browser.get(f"{site.ui}/runs/flow-run/{new[0]}")
    _wait_for_state(browser, "Running", seconds=120)
    time.sleep(3)
    shoot(f"{name}-3-running")
    _wait_for_state(browser, "Completed", seconds=400)
    time.sleep(1)
    shoot(f"{name}-4-done")
    return new[0]


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
    return _run_and_watch(browser, site, shoot, "first", '{"zp.clip_sigma": 2.5}')


def test_an_observer_runs_a_field_and_reads_what_came_out(
    browser: Any, site: Any, shoot: Callable[[str], Path], first: str
) -> None:
    assert site.get(f"/flow_runs/{first}")["parameters"]["overrides"] == {"zp.clip_sigma": 2.5}
    _click(browser, "//li[contains(@class, 'p-tab')][normalize-space()='Artifacts']")
    _wait(browser, *PAGES, "Run done: ", " sources fitted, ")
    shoot("first-5-artifacts")
    keys = _artifacts(site, first)
    for key, said in PAGES.items():
        browser.get(f"{site.ui}/artifacts/artifact/{keys[key]}")
        _wait(browser, *said)
        shoot(f"first-6-{key}")
    browser.get(f"{site.ui}/artifacts")
    _wait(browser, *PAGES)
    shoot("first-7-history")

    browser.set_window_size(400, 850)  # a phone
    browser.get(f"{site.ui}/artifacts/artifact/{keys['uds-summary']}")
    _wait(browser, ": done")
    time.sleep(1)
    shoot("first-8-phone")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    browser.set_window_size(1400, 1500)
    assert wide <= 400  # nobody has to scroll to the side
    assert _strangers(browser) == set()


@pytest.mark.slow
def test_a_rerun_from_the_form_takes_what_is_there(
    browser: Any, site: Any, shoot: Callable[[str], Path], first: str
) -> None:
    again = _run_and_watch(browser, site, shoot, "again", '{"zp.clip_sigma": 2.6}')
    keys = _artifacts(site, again)
    pages = {
        "uds-summary": (": done", f"reused from {first[:8]}"),
        "uds-stages": ("zp.clip_sigma changed: 2.5", "cached"),
        "uds-progress-bands": ("Progress: 100%", "2 bands, 2 of them reused"),
        "uds-progress-patches": ("Progress: 100%", "of them reused"),
    }
    for key, said in pages.items():
        browser.get(f"{site.ui}/artifacts/artifact/{keys[key]}")
        _wait(browser, *said)
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
    _wait(browser, "Failed", seconds=120)
    said = "overrides: zp.clip_sgma: unknown key; the closest known key is zp.clip_sigma"
    end = time.monotonic() + WAIT_S
    while said not in _text(browser) and time.monotonic() < end:
        # the page of a run that has ended asks for no more log, though its last lines may come after its state
        browser.refresh()
        time.sleep(3)
    _wait(browser, said)
    shoot("wrong-setting")
