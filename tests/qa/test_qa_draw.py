"""The pictures of a run: what the switches say, where they go."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from qa_inputs import make_wcs, read_png

from tract7dt import qa
from tract7dt.qa.draw import overview_table
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir
from tract7dt.types import Box, Epsf, EpsfGrid, Field, Frame, PatchPayload, ZeroPoint


def make_settings(tmp_path: Path, **sections) -> Settings:
    given = {
        "inputs": {"input_catalog": "c.csv", "image_list_file": "i.txt", "tile_name": "T1"},
        "outputs": {"work_dir": str(tmp_path / "work")},
        "plotting": {"dpi": 50},
        "overlay": {"zoom_box": [10, 60, 10, 60]},
    }
    loaded = settings_from_dict(given | sections, tmp_path)
    return getattr(loaded, "settings", loaded)


@pytest.fixture
def field(white) -> Field:
    frame = Frame("m400", white, 1.0, 2.0, 1.0, 25.0, None, 4.0, "m400.fits")
    sigma = np.ones_like(white)
    return Field({"m400": frame}, white, sigma, make_wcs(), Box(10, 130, 10, 90), 0.5, None, 25.0)


def pictures(work: WorkDir) -> set[str]:
    return {str(p.relative_to(work.root)) for p in work.root.rglob("*.png")}


def write_preview(work: WorkDir) -> None:
    work.frames.mkdir(parents=True)
    np.save(
        work.frames / "white_full_preview.npy", np.random.default_rng(0).normal(size=(50, 70)).astype("f4")
    )
    work.field_manifest.write_text(json.dumps({"preview": {"step": 2}}))


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        ({"enabled": True}, {"white_before_crop.png", "white_after_crop.png"}),
        ({"enabled": True, "plot_pre_crop": False}, {"white_after_crop.png"}),
        ({"enabled": True, "plot_post_crop": False}, {"white_before_crop.png"}),
        ({"enabled": False}, set()),
    ],
)
def test_crop_switches(tmp_path, field, crop, expected):
    settings = make_settings(tmp_path, crop=crop)
    work = WorkDir.of(settings)
    write_preview(work)
    qa.draw_crop(settings, work, field)
    assert pictures(work) == {f"cropped_images/{name}" for name in expected}


def test_without_a_preview_the_rest_is_drawn(tmp_path, field):
    settings = make_settings(tmp_path)
    work = WorkDir.of(settings)
    qa.draw_crop(settings, work, field)
    assert pictures(work) == {"cropped_images/white_after_crop.png"}


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({}, {"overlay/white_overlay.png", "overlay/white_overlay_zoom.png"}),
        ({"zoom_enabled": False}, {"overlay/white_overlay.png"}),
        ({"enabled": False}, set()),
    ],
)
def test_overlay_switches(tmp_path, field, sources, overlay, expected):
    settings = make_settings(tmp_path, overlay=overlay)
    work = WorkDir.of(settings)
    qa.draw_overlays(settings, work, field, sources)
    assert pictures(work) == expected


def test_bright_mask_goes_where_the_layout_says(tmp_path, field, sources):
    settings = make_settings(tmp_path)
    work = WorkDir.of(settings)
    detections = pd.DataFrame({"x": [5.0], "y": [6.0], "matched": [False], "source_index": [-1]})
    qa.draw_bright_mask(settings, work, field, np.zeros(field.shape, np.uint8), detections, sources)
    assert pictures(work) == {"bright_mask/white_bright_mask_overlay.png"}
    assert read_png(work.bright_mask_overlay).dpi == pytest.approx(50, abs=0.1)


def test_epsf_pictures_of_every_cell(tmp_path, field):
    settings = make_settings(tmp_path, epsf={"save_growth_curve": False})
    work = WorkDir.of(settings)
    star = SimpleNamespace(x=20.0, y=30.0, origin="gaia", used=True, reason="")
    cells = {
        "r00_c00": SimpleNamespace(box=Box(0, 60, 0, 80), candidates=(star,), diagnosis=None),
        "r00_c01": SimpleNamespace(box=Box(60, 120, 0, 80), candidates=(), diagnosis=None),
    }
    stamp = np.ones((5, 5), np.float32) / 25
    built = SimpleNamespace(grid=EpsfGrid("m400", {"r00_c00": Epsf(stamp, 3, "epsf")}), meta=cells)
    stale = work.epsf_cell("m400", "r00_c01") / "epsf.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier run")
    qa.draw_epsf_band(settings, work, field, built)
    assert pictures(work) == {
        "EPSFs/m400/r00_c00/epsf.png",
        "EPSFs/m400/r00_c00/psfstars.png",
        "EPSFs/m400/r00_c01/psfstars.png",
    }


def payload(p) -> PatchPayload:
    table = p.table[["x_pix_patch", "y_pix_patch", "_is_halo_source"]].assign(
        source_index=[7, 3, 11, 5], TYPE=["STAR", "EXP", "GAL", "STAR"]
    )
    n = len(p.bands)
    bad, ones = np.zeros(p.data.shape, np.uint8), np.ones(n)
    return PatchPayload(p.patch, p.bands, p.data, bad, ones, ones, ones, ones, (None,) * n, table)


def test_patch_overview_from_a_payload(tmp_path, patch_input):
    p = patch_input
    settings = make_settings(tmp_path)
    work = WorkDir.of(settings)
    work.root.mkdir(parents=True)
    make_wcs().to_fits()[0].writeto(work.wcs)
    fitted = pd.DataFrame(
        {
            "source_index": [3, 7],
            "x_pix_patch_fit": [40.5, 15.5],
            "y_pix_patch_fit": [1, 2],
            "stype_fit": "exp",
        }
    )
    qa.draw_patch(settings, work, payload(p), p.weight, p.model, fitted)
    assert pictures(work) == {f"outputs/{p.patch.tag}/patch_overview.png"}


def test_overview_table_joins_by_source(patch_input):
    p = patch_input
    made = payload(p)
    fitted = pd.DataFrame(
        {
            "source_index": [3, 7],
            "x_pix_patch_fit": [40.5, np.nan],
            "y_pix_patch_fit": [1.0, 2.0],
            "stype_fit": ["exp", "star"],
        }
    )
    joined = overview_table(made.table, fitted, p.bands)
    np.testing.assert_array_equal(joined["x_pix_patch_fit"], [np.nan, 40.5, np.nan, np.nan])
    np.testing.assert_array_equal(joined["y_pix_patch_fit"], [2.0, 1.0, np.nan, np.nan])
    assert joined["stype"].tolist() == ["star", "exp", "GAL", "STAR"]
    single = pd.DataFrame({"source_index": [11], "stype_fit": ["exp"]})
    for i, band in enumerate(p.bands):
        single[f"x_pix_patch_{band}_fit"] = [float(i)]
        single[f"y_pix_patch_{band}_fit"] = [np.nan if i else 4.0]
    joined = overview_table(made.table, single, p.bands)
    assert joined.loc[2, ["x_pix_patch_fit", "y_pix_patch_fit"]].tolist() == [1.0, 4.0]


def test_zero_point_pictures(tmp_path):
    settings = make_settings(tmp_path)
    work = WorkDir.of(settings)
    stars = pd.DataFrame(
        {
            "band": ["u", "g"],
            "gaiaxp_mag": 15.0,
            "zp": 25.0,
            "zp_err": 0.1,
            "is_kept": True,
            "is_clipped": False,
        }
    )
    zps = [ZeroPoint(b, 1, 1, 0, 0, 3.0, 25.0, 0.0, 0.0, 0.1, 1, np.nan, 0.1) for b in ("u", "g")]
    qa.draw_zero_points(settings, work, zps, stars)
    assert pictures(work) == {f"ZP/zp_vs_mag__{b}{s}.png" for b in "ug" for s in ("", "_fullrange")}
