"""The report in a browser: sources, cutouts, spectra; many sources; nothing asked for elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_runs import (
    BANDS,
    SmallRun,
    console_errors,
    large_run,
    opened,
    requests,
    residuals_of,
    until,
)
from test_report_page import made_settings

from tract7dt.qa.report import report_html, write_report
from tract7dt.run_report import make_report
from tract7dt.store import WorkDir

pytestmark = pytest.mark.browser

SECTIONS = [
    "summary", "sky", "zero-points", "epsf", "reliability", "residuals", "counts", "stages", "inputs", "warnings",
]  # fmt: skip


def keep(browser: Any, name: str) -> None:
    """Take a screenshot where TRACT7DT_SCREENSHOTS names a folder, to be looked at."""
    if folder := os.environ.get("TRACT7DT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def click_at(browser: Any, index: int) -> None:
    """Click on the sky where source ``index`` lies."""
    from selenium.webdriver import ActionChains

    browser.execute_script("report.sky.canvas.scrollIntoView({block: 'center', behavior: 'instant'})")
    until(browser, "report.sky.view && report.sky.canvas.width > 0")
    u, v, w, h = browser.execute_script(
        "const s = report.sky, [u, v] = s.at(s.sources.x[arguments[0]], s.sources.y[arguments[0]]),"
        " r = s.canvas.width / s.canvas.clientWidth;"
        " return [u / r, v / r, s.canvas.clientWidth, s.canvas.clientHeight]",
        index,
    )
    canvas = browser.execute_script("return report.sky.canvas")
    ActionChains(browser).move_to_element_with_offset(canvas, u - w / 2, v - h / 2).click().perform()


def fitted_source(run: SmallRun) -> int:
    """A reliable source that is seen in its faintest band, far from the others."""
    table = run.catalog
    x, y = table["x_pix_white"].to_numpy(float), table["y_pix_white"].to_numpy(float)
    best, where = 0.0, -1
    for i in range(len(table)):
        bright = table["FLUX_m400_fit"].iloc[i] > 10 * table["FLUXERR_m400_fit"].iloc[i]
        if bright and table["fit_is_reliable"].iloc[i] and 40 < x[i] < 240 and 40 < y[i] < 200:
            near = sorted(((x - x[i]) ** 2 + (y - y[i]) ** 2).tolist())[1]
            best, where = max((best, where), (near, i))
    return where


def test_a_click_shows_the_source_with_its_cutouts_and_its_spectrum(browser: Any, run: SmallRun) -> None:
    opened(browser, run.work.report)
    index = fitted_source(run)
    click_at(browser, index)
    name = run.catalog["ID"].iloc[index]
    assert until(browser, "document.getElementById('source').dataset.source") == name
    width = until(browser, "document.getElementById('cutout').naturalWidth")
    assert width > 200
    assert browser.execute_script("return document.getElementById('cutout').clientWidth") == width, "legible"
    assert browser.execute_script("return document.querySelector('.cutout a').href") == _cutout(run, index)
    points = browser.execute_script("return document.querySelectorAll('#sed .p-circle, #sed .p-down').length")
    assert points == 3
    titles = browser.execute_script(
        "return [...document.querySelectorAll('#sed title')].map(t => t.textContent)"
    )
    band = titles[0].split(":")[0]
    told = float(titles[0].split(": ")[1].split(" ± ")[0])
    assert told == pytest.approx(run.catalog[f"MAG_{band}_fit"].iloc[index], abs=0.001)
    asked = requests(browser)
    assert asked == {run.work.report.as_uri(), _cutout(run, index)}
    assert console_errors(browser) == []
    keep(browser, "report_source")


def _cutout(run: SmallRun, index: int) -> str:
    row = run.catalog.iloc[index]
    return run.work.cutout(row["patch_tag"], row["ID"]).as_uri()


def test_every_section_is_there_and_shows_something(browser: Any, run: SmallRun) -> None:
    opened(browser, run.work.report)
    for section in SECTIONS:
        browser.execute_script(
            "document.getElementById(arguments[0]).scrollIntoView({behavior: 'instant'})", section
        )
        until(browser, f"document.getElementById('{section}').textContent.length > 40")
    assert (
        browser.execute_script("return [...document.querySelectorAll('section')].map(s => s.id)") == SECTIONS
    )
    assert until(browser, "document.querySelectorAll('#epsf .gallery canvas').length") == 1
    assert until(browser, "document.querySelectorAll('#residuals canvas').length") == 4  # all bands, and each
    fields = browser.execute_script(
        "return [...document.querySelectorAll('#epsf .fields svg')].map(s => [s.clientWidth, s.textContent])"
    )
    assert "FWHM [pix]" in fields[0][1]
    assert "ellipticity" in fields[1][1]
    assert fields[0][0] == fields[1][0] > 200, "the two maps can be compared"
    assert browser.execute_script("return document.querySelectorAll('#zero-points svg .p-circle').length") > 3
    assert browser.execute_script("return document.querySelectorAll('#counts polyline').length") == 3
    assert "input_catalog.csv" in browser.execute_script(
        "return document.getElementById('inputs').textContent"
    )
    assert requests(browser) == {run.work.report.as_uri()}, "no request leaves the file"
    assert console_errors(browser) == []


def test_the_wheel_zooms_about_the_pointer_and_a_drag_moves(browser: Any, run: SmallRun) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    opened(browser, run.work.report)
    browser.execute_script("report.sky.canvas.scrollIntoView({block: 'center', behavior: 'instant'})")
    until(browser, "report.sky.view && report.sky.canvas.width > 0")
    canvas = browser.execute_script("return report.sky.canvas")
    before = browser.execute_script("return [report.sky.view, report.sky.from(400, 300)]")
    dx, dy = browser.execute_script(
        "const c = report.sky.canvas, r = c.width / c.clientWidth;"
        "return [Math.round(400 / r - c.clientWidth / 2), Math.round(300 / r - c.clientHeight / 2)]"
    )
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(canvas, dx, dy), 0, -500).perform()
    zoom = until(browser, f"report.sky.view.zoom > 1.5 * {before[0]['zoom']} && report.sky.view.zoom")
    after = browser.execute_script("return report.sky.from(400, 300)")
    assert after == pytest.approx(before[1], abs=2.0 / before[0]["zoom"])
    middle = browser.execute_script("return report.sky.view.x")
    ActionChains(browser).drag_and_drop_by_offset(canvas, 100, 0).perform()
    moved = middle - browser.execute_script("return report.sky.view.x")
    ratio = browser.execute_script("return window.devicePixelRatio")
    assert moved == pytest.approx(100 * ratio / zoom, rel=0.05)
    assert browser.execute_script("return report.sky.chosen") == -1, "a drag is no click"


def test_a_report_that_was_sent_away_has_its_cutouts_with_it(
    browser: Any, copy: SmallRun, tmp_path: Path
) -> None:
    make_report(copy.settings, copy.record, cutouts_inside=True)
    alone = tmp_path / "sent" / "report.html"
    alone.parent.mkdir()
    shutil.copy(copy.work.report, alone)
    opened(browser, alone)
    index = fitted_source(copy)
    browser.execute_script("report.choose(arguments[0], true)", index)
    assert until(browser, "document.getElementById('cutout').naturalWidth") > 200
    assert requests(browser) == {alone.as_uri()}


def test_a_report_without_its_folder_says_so(browser: Any, run: SmallRun, tmp_path: Path) -> None:
    alone = tmp_path / "report.html"
    shutil.copy(run.work.report, alone)
    opened(browser, alone)
    browser.execute_script("report.choose(arguments[0], true)", fitted_source(run))
    until(browser, "document.querySelector('.cutout').textContent.includes('not beside this file')")
    assert browser.execute_script("return document.querySelectorAll('#sed .p-circle').length") > 0


HOSTILE = [
    '</script><img src=x onerror="window.hurt=1">',
    "a/b c%é",
    "<b>bold</b>",
    '"><svg onload=hurt()>',
    "é" * 300,
]


def test_names_are_text_never_markup_and_lead_to_their_files(browser: Any, tmp_path: Path) -> None:
    big = large_run(8, BANDS, (200, 300))
    big.catalog["ID"] = [*HOSTILE, *big.catalog["ID"].iloc[len(HOSTILE) :]]
    work = WorkDir.of(made_settings(tmp_path))
    write_report(big, work)
    opened(browser, work.report)
    for index, name in enumerate(HOSTILE):
        browser.execute_script("report.choose(arguments[0], true)", index)
        assert browser.execute_script("return document.querySelector('#source h3').textContent").startswith(
            name
        )
        expected = work.cutout("x", name).name
        assert browser.execute_script("return `src_${pathName(arguments[0])}.png`", name) == expected
    assert browser.execute_script("return window.hurt === undefined")
    assert browser.execute_script(
        "return document.querySelectorAll('#source img, #source b, main svg[onload]').length"
    ) in (0, 1)


def test_fifty_thousand_sources_in_twenty_bands(browser: Any, tmp_path: Path) -> None:
    bands = tuple(f"m{400 + 25 * i}" for i in range(20))
    big = large_run(50_000, bands)
    work = WorkDir.of(made_settings(tmp_path))
    big.patches.update(residuals_of(work, big.shape, 20))  # type: ignore[attr-defined]
    text = report_html(big, work)
    assert len(text) < 15_000_000
    work.report.write_text(text, encoding="utf-8")
    opened(browser, work.report)
    assert until(browser, "document.getElementById('shown').textContent") == "50,000 sources"
    until(browser, "report.sky.drawn === 50000")
    find = browser.execute_script("return document.getElementById('find')")
    find.send_keys("s031234\n")
    assert until(browser, "document.getElementById('source').dataset.source") == "s031234"
    assert (
        browser.execute_script("return document.querySelectorAll('#sed .p-circle, #sed .p-down').length")
        == 20
    )
    until(browser, "report.sky.drawn < 2000")  # zoomed in on it
    for section in ("epsf", "residuals"):
        browser.execute_script(
            "document.getElementById(arguments[0]).scrollIntoView({behavior: 'instant'})", section
        )
    assert until(browser, "document.querySelectorAll('#epsf .gallery canvas').length") == 49
    assert until(browser, "document.querySelectorAll('#residuals canvas').length") == 21
    assert console_errors(browser) == [] or all("cutout" in line for line in console_errors(browser))


def test_on_a_phone_nothing_sticks_out(browser: Any, run: SmallRun) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        opened(browser, run.work.report)
        browser.execute_script("report.choose(arguments[0], true)", fitted_source(run))
        until(browser, "document.getElementById('cutout').naturalWidth")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        room, width = browser.execute_script(
            "const c = document.querySelector('.cutout'); return [c.clientWidth, c.scrollWidth]"
        )
        assert width > room > 300, "the cutouts keep their size and are moved sideways"
        keep(browser, "report_phone")
        assert console_errors(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def fingers(browser: Any, kind: str, *places: tuple[float, float]) -> None:
    points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_fingers_zoom_move_and_scroll(browser: Any, run: SmallRun) -> None:
    """Two fingers zoom about their middle; one scrolls the page, and moves the sky once it is zoomed."""
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    try:
        opened(browser, run.work.report)
        browser.execute_script("report.sky.canvas.scrollIntoView({block: 'center', behavior: 'instant'})")
        until(browser, "report.sky.view && report.sky.canvas.width > 0")
        left, top, width, height = browser.execute_script(
            "const b = report.sky.canvas.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
        )
        x, y = left + width / 2, top + height / 2
        zoom, scroll = browser.execute_script("return [report.sky.view.zoom, scrollY]")
        assert browser.execute_script("return report.sky.canvas.style.touchAction") == "pan-y"
        fingers(browser, "touchStart", (x, y))
        for step in range(1, 9):
            fingers(browser, "touchMove", (x, y - 20 * step))
        fingers(browser, "touchEnd")
        until(browser, f"scrollY > {scroll} + 40")
        assert browser.execute_script("return report.sky.view.zoom") == zoom
        browser.execute_script("scrollTo({top: arguments[0], behavior: 'instant'})", scroll)
        fingers(browser, "touchStart", (x - 30, y), (x + 30, y))
        for step in range(1, 7):
            fingers(browser, "touchMove", (x - 30 - 10 * step, y), (x + 30 + 10 * step, y))
        fingers(browser, "touchEnd")
        closer = until(browser, f"report.sky.view.zoom > 2 * {zoom} && report.sky.view.zoom")
        assert closer == pytest.approx(3 * zoom, rel=0.05)
        assert browser.execute_script("return report.sky.canvas.style.touchAction") == "none"
        middle = browser.execute_script("return report.sky.view.x")
        fingers(browser, "touchStart", (x, y))
        for step in range(1, 6):
            fingers(browser, "touchMove", (x + 10 * step, y))
        fingers(browser, "touchEnd")
        until(browser, f"report.sky.view.x < {middle} - 30 * 2 / {closer}")
        assert console_errors(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
