"""Pages of the Prefect UI as an observer uses them: read, click, fill the form of a run, watch it."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

WAIT_S = 60.0


class Served(Protocol):
    """A server with its UI."""

    @property
    def ui(self) -> str:
        """Address of the UI."""

    def post(self, path: str, body: Any) -> Any:
        """Answer of its API."""


def text_of(browser: Any) -> str:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.common.by import By

    try:
        return str(browser.find_element(By.TAG_NAME, "body").text)
    except (StaleElementReferenceException, NoSuchElementException):
        return ""


def wait_for_text(browser: Any, *said: str, seconds: float = WAIT_S) -> str:
    """Text of the page, once it says all that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = text_of(browser)
        if all(part in text for part in said):
            return text
        time.sleep(0.2)
    raise AssertionError(f"{said} not on {browser.current_url}:\n{text_of(browser)}")


def wait_for_state(browser: Any, field: str, state: str, seconds: float) -> None:
    """Wait until the head of a run's page shows ``state``; its log may name the states of tasks, and its
    tags stand between name and state."""
    end = time.monotonic() + seconds
    while not re.search(rf"\b{field}( [0-9-]{{10}})?\n([\w-]+\n)*?{state}\b", text_of(browser)):
        assert time.monotonic() < end, f"not {state}: {text_of(browser)}"
        time.sleep(0.2)


def click(browser: Any, xpath: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions as expected
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT_S).until(expected.element_to_be_clickable((By.XPATH, xpath))).click()


def fill_overrides(browser: Any, text: str) -> None:
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


def strangers(browser: Any) -> set[str]:
    """Addresses off this machine that pages asked for."""
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            asked.add(message["params"].get("url") or message["params"]["request"]["url"])
    assert any(url.startswith("http://127.0.0.1") for url in asked)
    return {url for url in asked if url.startswith(("http", "ws")) and "//127.0.0.1:" not in url}


def artifacts(site: Served, run_id: str) -> dict[str, str]:
    found = site.post("/artifacts/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    return {artifact["key"]: artifact["id"] for artifact in found if artifact["key"]}


def _asked_for(site: Served, deployment: str) -> set[str]:
    """Runs of a deployment that somebody asked for; a schedule makes its own, a hundred ahead."""
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20)).isoformat()
    asked = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"expected_start_time": {"before_": soon}},
        "sort": "EXPECTED_START_TIME_DESC",
    }
    return {run["id"] for run in site.post("/flow_runs/filter", asked) if not run["auto_scheduled"]}


def _submit(browser: Any, site: Served, deployment: str) -> str:
    """Submit the form, as often as a server on SQLite that is busy has it; the run's id."""
    known = _asked_for(site, deployment)
    for _ in range(3):
        click(browser, "//button[normalize-space()='Submit']")
        end = time.monotonic() + WAIT_S / 2
        while time.monotonic() < end:
            if new := sorted(_asked_for(site, deployment) - known):
                return new[0]
            time.sleep(0.3)
    raise AssertionError(f"the form was submitted and no run came of it:\n{text_of(browser)}")


def run_and_watch(
    browser: Any,
    site: Served,
    shoot: Callable[[str], Any],
    name: str,
    overrides: str | None,
    *,
    field: str,
    deployment: str,
) -> str:
    """Fill the form, run, and watch the run's page until it says that it is done; the run's id."""
    browser.get(f"{site.ui}/deployments/deployment/{deployment}")
    wait_for_text(browser, "photometry", field, "Run")
    shoot(f"{name}-1-deployment")
    click(browser, "//button[normalize-space()='Run']")
    click(browser, "//button[normalize-space()='Custom run']")
    wait_for_text(browser, "Configuration of the field", "refresh (Optional)", "ra_min ra_max")
    offered = [option.text for option in browser.find_elements("css selector", "option")]
    assert offered[:2] == ["load_inputs", "augment_gaia"]
    if overrides:
        fill_overrides(browser, overrides)
    shoot(f"{name}-2-form")
    run = _submit(browser, site, deployment)
    browser.get(f"{site.ui}/runs/flow-run/{run}")
    wait_for_state(browser, field, "(Running|Completed)", seconds=120)
    time.sleep(3)
    shoot(f"{name}-3-running")
    wait_for_state(browser, field, "Completed", seconds=400)
    time.sleep(1)
    shoot(f"{name}-4-done")
    return run
