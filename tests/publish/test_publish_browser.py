"""What an observer's browser makes of published files: presigned links to a private store, in Chromium."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import chromium
from PIL import Image
from published_run import make_run
from s3_server import S3Server

from tract7dt.publish import link, publish
from tract7dt.store import WorkDir

pytestmark = pytest.mark.browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    downloads = {"download.default_directory": str(tmp_path / "downloads")}
    with chromium(tmp_path / "profile", (1200, 900), downloads) as started:
        started.set_page_load_timeout(60)
        yield started


def test_presigned_links_open_in_a_browser(browser: Any, s3: S3Server, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    s3.bucket("seen")
    settings = make_run(tmp_path, "s3://seen/7dt")
    work = WorkDir.of(settings)
    (work.root / "report.html").write_text("<!doctype html><title>UDS</title><h1>Report of UDS: Å</h1>")
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(work.zp / "zp_vs_mag__m400.png")
    url = publish(settings, "run-1", "2026-11-20").url

    browser.get(link(f"{url}/report.html").url)  # a page, not a download, and its letters are right
    assert browser.title == "UDS"
    assert browser.find_element(By.TAG_NAME, "h1").text == "Report of UDS: Å"

    browser.get(link(f"{url}/ZP/zp_vs_mag__m400.png").url)
    picture = browser.find_element(By.TAG_NAME, "img")
    assert (picture.get_property("naturalWidth"), picture.get_property("naturalHeight")) == (40, 30)

    browser.get(link(f"{url}/run.log").url)
    assert "loaded" in browser.find_element(By.TAG_NAME, "body").text

    unsigned = link(f"{url}/report.html").url.split("?")[0]
    browser.get(unsigned)
    assert "Report of UDS" not in browser.page_source

    short = link(f"{url}/report.html", expiry_seconds=1).url
    time.sleep(2.5)
    browser.get(short)
    assert "Report of UDS" not in browser.page_source
