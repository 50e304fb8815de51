"""Pictures and links in the UI: small enough for a page, with the end of the links said."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from s3_server import SECRET, S3Server

from flows import gallery
from tract7dt.qa.thumbnails import data_url, tiles
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir

BANDS = [f"m{n}" for n in range(400, 900, 25)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    values = {
        "inputs": {"tile_name": "UDS_1", "input_catalog": "c.csv", "image_list_file": "l.txt"},
        "outputs": {"work_dir": "out"},
        "publish": {"url": "s3://nightly/7dt"},
    }
    return settings_from_dict(values, tmp_path).settings


def noise(path: Path, width: int = 900, height: int = 700) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(values).save(path)


def shown(page: str) -> list[Image.Image]:
    found = re.findall(r"!\[[^\]]*\]\(data:image/jpeg;base64,([^)]+)\)", page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def links(settings: Settings, **note: Any) -> gallery.Links:
    return gallery.Links(settings, note)


@pytest.mark.parametrize("n_bands", [1, 20])
def test_pages_hold_all_their_pictures_and_stay_small(settings: Settings, n_bands: int) -> None:
    work = WorkDir.of(settings)
    for band in BANDS[:n_bands]:
        noise(work.zp / f"zp_vs_mag__{band}.png")
        noise(work.zp / f"zp_vs_mag__{band}_fullrange.png")
    page = gallery.zero_point_page(work, links(settings)) or ""
    assert len(page.encode()) < 100_000
    assert len(shown(page)) == n_bands
    assert all(f"**{band}**" in page for band in BANDS[:n_bands])
    assert "fullrange" not in page


def test_no_pictures_no_page(settings: Settings) -> None:
    work = WorkDir.of(settings)
    assert gallery.overlay_page(work, links(settings)) is None
    assert gallery.zero_point_page(work, links(settings)) is None
    assert gallery.epsf_page(work, links(settings)) is None
    noise(work.overlay / "white_overlay.png")
    assert len(shown(gallery.overlay_page(work, links(settings)) or "")) == 1


def test_a_damaged_picture_costs_only_itself(settings: Settings) -> None:
    work = WorkDir.of(settings)
    noise(work.overlay / "a.png")
    (work.overlay / "b.png").write_bytes(b"no picture")
    page = gallery.overlay_page(work, links(settings)) or ""
    assert len(shown(page)) == 1
    assert "**b**" in page


def test_epsf_sheets_show_cells_where_they_lie(settings: Settings) -> None:
    work = WorkDir.of(settings)
    bands = []
    y, x = np.mgrid[-27:28, -27:28]
    for band in BANDS[:3]:
        cells: dict[str, Any] = {}
        for tag in ("r00_c00", "r00_c01", "r01_c00", "r01_c01"):
            built = tag != "r01_c01"
            cells[tag] = {"status": "built" if built else "empty", "n_stars": 9 if built else 0}
            if built:
                cells[tag]["epsf"] = f"{tag}/epsf.npy"
                path = work.epsf / band / tag / "epsf.npy"
                path.parent.mkdir(parents=True)
                np.save(path, np.exp(-(x**2 + y**2) / 18.0).astype("f4"))
        bands.append({"band": band, "cells": cells})
    (work.epsf / "epsf_summary.json").write_text(json.dumps({"bands": bands}))
    page = gallery.epsf_page(work, links(settings)) or ""
    assert page.count("27 stars, **1 of 4 cells without**") == 3
    sheets = shown(page)
    assert len(sheets) == 3
    sheet = np.asarray(sheets[0].convert("L"), float)
    assert sheet.shape == (128, 128)
    # Row 0 is at the bottom: the cell without an ePSF is the grey one, top right.
    assert np.ptp(sheet[8:56, 72:120]) < 20
    for part in (sheet[8:56, 8:56], sheet[72:120, 8:56], sheet[72:120, 72:120]):
        assert part.max() > 200
        assert np.unravel_index(part.argmax(), part.shape)[0] == pytest.approx(24, abs=4)


def test_stretch_shows_the_wings_and_takes_what_is_not_finite() -> None:
    stamp = np.full((55, 55), np.nan)
    stamp[27, 27], stamp[27, 40] = 1.0, 0.01
    pixels = np.asarray(tiles([[stamp]], side=57), float)
    assert pixels.max() == 255
    assert pixels[28, 41] > 60
    assert data_url(tiles([[np.zeros((5, 5))]]), 64, 5000)


def test_links_are_presigned_and_say_when_they_end(settings: Settings, s3: S3Server) -> None:
    work = WorkDir.of(settings)
    work.root.mkdir()
    for name in ("output_catalog.csv", "output_catalog.fits", "report.html"):
        (work.root / name).write_text("x")
    note = {"status": "published", "url": "s3://nightly/7dt/UDS_1/2026-11-20/run-1", "run_id": "run-1"}
    held = links(settings, **note)
    page = gallery.results_page(settings, note, held) or ""
    signed = re.findall(r"\]\((\S+)\)", page)
    assert len(signed) == 4  # report, two catalogues, manifest
    assert all(url.startswith(f"{s3.endpoint}/nightly/7dt/UDS_1/2026-11-20/run-1/") for url in signed)
    assert all("X-Amz-Signature=" in url and "X-Amz-Expires=604800" in url for url in signed)
    assert re.search(r"Links work until \d{4}-\d\d-\d\d \d\d:\d\d UTC\.", page)
    assert "s3://nightly/7dt/UDS_1/2026-11-20/run-1`" in page
    assert SECRET not in page
    assert "tract7dt results get --url s3://nightly/7dt --field UDS_1 --run run-1" in page


def test_without_a_store_the_page_names_the_files(settings: Settings, tmp_path: Path) -> None:
    work = WorkDir.of(settings)
    work.root.mkdir()
    work.final_catalog.write_text("x")
    page = (
        gallery.results_page(settings, {"status": "failed", "error": "StoreError: no"}, links(settings)) or ""
    )
    assert f"- `{work.final_catalog}`" in page
    assert "**Not published**: StoreError: no" in page
    local = {"status": "published", "url": f"file://{tmp_path}/public/UDS_1", "run_id": "run-1"}
    page = gallery.results_page(settings, local, links(settings, **local)) or ""
    assert "](" not in page
    assert f"`file://{tmp_path}/public/UDS_1/output_catalog.csv`" in page


def test_no_credentials_no_link_and_no_failure(
    settings: Settings, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3_server import forget_connections

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_connections()
    held = links(settings, status="published", url="s3://nightly/7dt/UDS_1/n/r")
    assert held.text("report.html", "Report") == "Report: `s3://nightly/7dt/UDS_1/n/r/report.html`"
