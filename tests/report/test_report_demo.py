"""The report of the run that ``make demo`` has made, if it has: a real sky, in a browser."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales
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


def test_residual_maps_bear_a_scale_bar_and_north(browser: Any, work: WorkDir) -> None:
    """The bar is as long as its label says; north is where the WCS of the frame has it."""
    opened(browser, work.report)
    browser.execute_script("document.getElementById('residuals').scrollIntoView({behavior: 'instant'})")
    until(browser, "document.querySelectorAll('.maps figure').length")
    found = browser.execute_script(
        "const wide = (node) => node.getBoundingClientRect().width;"
        "const part = (figure, name) => figure.querySelector(name);"
        "return [...document.querySelectorAll('.maps figure')].map((figure) => ["
        " part(figure, '.length').textContent, wide(part(figure, '.length')) / wide(part(figure, 'canvas')),"
        " part(figure, '.strip svg').textContent,"
        " ['x1', 'y1', 'x2', 'y2'].map((name) => Number(part(figure, 'line').getAttribute(name)))])"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        header = fits.getheader(work.wcs)
        wcs, nx, ny = WCS(header), header["IMAGEW"], header["IMAGEH"]
    scale = proj_plane_pixel_scales(wcs)[0] * 3600
    here = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    x, y = wcs.world_to_pixel(here.directional_offset_by(0, 10 * u.arcsec))
    north = np.array([x - (nx - 1) / 2, y - (ny - 1) / 2]) / np.hypot(x - (nx - 1) / 2, y - (ny - 1) / 2)
    assert len(found) == 11
    for label, share, names, (x1, y1, x2, y2) in found:
        arcsec = float(label[:-1]) * {"″": 1, "′": 60}[label[-1]]
        assert share * nx * scale == pytest.approx(arcsec, rel=0.06)  # the map ends with a whole block
        assert sorted(names) == ["E", "N"]
        drawn = np.array([x2 - x1, y1 - y2]) / np.hypot(x2 - x1, y2 - y1)
        np.testing.assert_allclose(drawn, north, atol=0.02)
