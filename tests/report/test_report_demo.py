"""The report of the run that ``make demo`` has made, if it has: a real sky, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_runs import console_errors, opened, requests, until
from test_report_browser import click_at, keep

from tract7dt.settings import load_settings
from tract7dt.store import WorkDir

pytestmark = pytest.mark.browser

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture(scope="module")
def work() -> WorkDir:
    if not (DEMO / "config.yaml").is_file():
        pytest.skip("make demo has not been run here")
    return WorkDir.of(load_settings(DEMO / "config.yaml").settings)


def lonely_source(table: pd.DataFrame) -> int:
    """The reliable source that is farthest from any other."""
    x, y = table["x_pix_white"].to_numpy(float), table["y_pix_white"].to_numpy(float)
    reliable = np.flatnonzero(table["fit_is_reliable"].to_numpy(bool))
    distance = np.hypot(x[reliable, None] - x, y[reliable, None] - y)
    distance[np.arange(len(reliable)), reliable] = np.inf
    return int(reliable[np.nanmin(distance, axis=1).argmax()])


def test_zoom_click_cutout_and_spectrum(browser: Any, work: WorkDir) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    table = pd.read_csv(work.final_catalog, dtype={"ID": str}, low_memory=False)
    index = lonely_source(table)
    opened(browser, work.report)
    browser.execute_script("report.sky.canvas.scrollIntoView({block: 'center', behavior: 'instant'})")
    until(browser, "report.sky.view && report.sky.canvas.width > 0")
    canvas, before = browser.execute_script("return [report.sky.canvas, report.sky.view.zoom]")
    dx, dy = browser.execute_script(
        "const s = report.sky, [u, v] = s.at(s.sources.x[arguments[0]], s.sources.y[arguments[0]]),"
        " r = s.canvas.width / s.canvas.clientWidth;"
        " return [Math.round(u / r - s.canvas.clientWidth / 2), Math.round(v / r - s.canvas.clientHeight / 2)]",
        index,
    )
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(canvas, dx, dy), 0, -400).perform()
    until(browser, f"report.sky.view.zoom > 1.5 * {before}")
    click_at(browser, index)
    row = table.iloc[index]
    assert until(browser, "document.getElementById('source').dataset.source") == row["ID"]
    assert until(browser, "document.getElementById('cutout').naturalWidth") > 200
    bands = [name[5:-4] for name in table.columns if name.startswith("FLUX_") and name.endswith("_fit")]
    with_magnitude = sum(bool(np.isfinite(row[f"MAG_{band}_fit"])) for band in bands)
    points = browser.execute_script("return document.querySelectorAll('#sed .p-circle, #sed .p-down').length")
    assert points >= with_magnitude > 0
    assert requests(browser) == {work.report.as_uri(), work.cutout(row["patch_tag"], row["ID"]).as_uri()}
    assert console_errors(browser) == []
    keep(browser, "report_demo")
